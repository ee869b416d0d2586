"""The distances of the networks have a law over the width, and a mean over networks of a width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.architectures import LABELS
from experiments.experiment import Record, Summary
from experiments.fits import PowerLaw, power_law


def summarize(records: list[Record]) -> Summary:
    """The picture, how many networks took smaller steps, and the distances by architecture."""
    halved = [record for record in records if record.values["halvings"]]
    found = {name: of(records, name) for name in LABELS}
    return {
        "side": records[0].settings["side"],
        "noisy_psnr": records[0].values["noisy_psnr"],
        "networks": len(records),
        "halved": {"networks": len(halved), "widths": sorted({record.settings["width"] for record in halved})},
        "architectures": {name: _architecture(own) for name, own in found.items() if own},
    }


def _architecture(records: Sequence[Record]) -> dict[str, Any]:
    """Closed form, law and distances of one architecture."""
    fitted, closed = law(records), records[0]
    return {
        "best_step": closed.values["best_step"],
        "last_allowed": closed.values["cut"],
        "exact_psnr": at_best(closed, "exact_psnr"),
        "law": None if fitted is None else fitted.kept(),
        "widths": {width: _width(group) for width, group in by_width(records).items()},
    }


def _width(group: Sequence[Record]) -> dict[str, Any]:
    """Distances of the networks of a width, those of the mean of several, and their PSNR less the closed form's."""
    several = len(group) > 1
    return {
        "networks": len(group),
        "distance": root_mean_square([record.values["distance"] for record in group]),
        "of_mean": mean_distance(group) if several else None,
        "common": common_share(group) if several else None,
        "psnr_gap": float(np.mean([at_best(r, "psnr") - at_best(r, "exact_psnr") for r in group])),
    }


def errors(records: Sequence[Record]) -> np.ndarray:
    """(output - exact) / |exact| of networks, shape (n, d), from their distances and directions."""
    directions = np.array([np.array(record.values["direction"].split(), dtype=float) for record in records])
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    distances = np.array([[record.values["distance"]] for record in records])
    return np.asarray(distances * directions / np.where(lengths == 0, 1.0, lengths))


def by_width(records: Sequence[Record]) -> dict[int, list[Record]]:
    """Records of one architecture, by ascending width."""
    widths = sorted({record.settings["width"] for record in records})
    return {width: [r for r in records if r.settings["width"] == width] for width in widths}


def of(records: Sequence[Record], architecture: str) -> list[Record]:
    """Those of one architecture."""
    return [record for record in records if record.settings["architecture"] == architecture]


def law(records: Sequence[Record]) -> PowerLaw | None:
    """The distance over the width, for the records of one architecture."""
    return power_law([r.settings["width"] for r in records], [r.values["distance"] for r in records])


def mean_distance(records: Sequence[Record]) -> float:
    """Length of the mean of the errors of several networks of one width.

    With one step size this is the distance of the mean of their outputs; with different ones the closed forms differ by
    little.
    """
    return float(np.linalg.norm(errors(records).mean(axis=0)))


def common_share(records: Sequence[Record]) -> float:
    """Estimate without bias the part of the squared distance that n networks of one width have in common.

    With errors e_i = b + r_i, r_i independent and of mean zero, E |mean e|^2 = |b|^2 + E |r|^2 / n, so that
    (n |mean e|^2 - mean |e|^2) / (n - 1) has the expectation |b|^2.  By chance it may be below zero.
    """
    n = len(records)
    squared = float(np.mean([record.values["distance"] ** 2 for record in records]))
    return (n * mean_distance(records) ** 2 - squared) / (n - 1) / squared


def root_mean_square(numbers: Sequence[float]) -> float:
    """sqrt(mean of squares)."""
    return float(np.sqrt(np.mean(np.square(numbers))))


def at_best(record: Record, curve: str) -> float:
    """A curve's value at the best step."""
    return float(record.values[curve][record.values["times"].index(record.values["best_step"])])
