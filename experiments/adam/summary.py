"""The trainings and their kernels are summed up over the width, and case by case at the main widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.adam.measure import FAST, OPTIMIZERS, TRAINED
from experiments.analysis import crossing
from experiments.experiment import Record, Summary
from experiments.fits import power_law, slope_of

KERNELS = {"start": "at the start", "gd": "after gradient descent", "adam": "after Adam"}
ALL = (*OPTIMIZERS, FAST)

Case = tuple[str, str]  # network and input


def summarize(records: list[Record]) -> Summary:
    """Settings; changes over the width; quality and kernels by case; where the best step was the last one."""
    settings = records[0].settings
    over_width = {name: _over_width(records, name) for name in TRAINED}
    found: dict[str, dict[str, Any]] = {}
    for (name, source), group in by_case(records).items():
        found.setdefault(name, {})[source] = _case(group)
    return {
        **{key: settings[key] for key in ("side", "most_steps", "eigenvectors")},
        "over_width": {name: entry for name, entry in over_width.items() if entry},
        "cases": found,
        "last_allowed": {optimizer: _last_allowed(records, optimizer) for optimizer in ALL},
    }


def _over_width(records: list[Record], name: str) -> dict[str, Any]:
    """The largest width; by optimizer what there is at it, and the exponent of the change until the same loss.

    Empty with fewer than two widths; an optimizer is left out where its trainings have other widths.
    """
    found: dict[str, Any] = {}
    widths = changes(records, name, "gd")[0]
    for optimizer in ALL:
        others, change = changes(records, name, optimizer)
        law = power_law(widths.tolist(), change.tolist()) if np.array_equal(widths, others) else None
        if law is None:
            continue
        widest = [r for r in on_the_image(records, name) if r.settings["width"] == widths.max()]
        found.setdefault("width", int(widths.max()))
        found[optimizer] = {
            "exponent": slope_of(law),
            "change": change[widths == widths.max()].mean(),
            "distance": mean(widest, f"{optimizer}_distance"),
            "psnr": mean(widest, f"{optimizer}_psnr"),
        }
    return found


def _case(group: Sequence[Record]) -> dict[str, Any]:
    """Means over the seeds of what was found at a main width."""
    names = ("exact_filter", "refined_filter", "start_filter", "gd", "gd_filter", "adam", "adam_filter")
    known = [name for name in names if all(f"{name}_psnr" in record.values for record in group)]
    return {
        "width": group[0].settings["width"],
        "seeds": len(group),
        "psnr": {name: mean(group, f"{name}_psnr") for name in known},
        "alignment": _alignment(group, "alignment"),
        "kernel_alignment": _alignment(group, "kernel_alignment"),
        "change": {optimizer: mean(group, f"{optimizer}_change") for optimizer in OPTIMIZERS},
        "distance_from_adam": {name: mean(group, f"adam_distance_to_{name}") for name in ("filter", "start_filter")},
    }


def _alignment(group: Sequence[Record], key: str) -> dict[str, float]:
    """Means by kernel, and the least that Adam's is above the others', seed by seed."""
    values = {kernel: np.array([r.values[f"{kernel}_{key}"] for r in group]) for kernel in KERNELS}
    means = {kernel: float(of_seeds.mean()) for kernel, of_seeds in values.items()}
    return means | {f"least_above_{other}": float((values["adam"] - values[other]).min()) for other in ("start", "gd")}


def _last_allowed(records: list[Record], optimizer: str) -> dict[str, Any]:
    """[trainings whose best step was the last one, trainings] by network, input and width."""
    found: dict[str, Any] = {}
    for record in records:
        if f"{optimizer}_steps" in record.values:
            settings = record.settings
            of_case = found.setdefault(settings["network"], {}).setdefault(settings["input"], {})
            count = of_case.setdefault(settings["width"], [0, 0])
            count[0] += record.values[f"{optimizer}_steps"] == settings["most_steps"]
            count[1] += 1
    return found


def by_case(records: list[Record]) -> dict[Case, list[Record]]:
    """The records at the main width by network and input, seeds together."""
    found: dict[Case, list[Record]] = {}
    for record in records:
        if record.settings["main"]:
            found.setdefault((record.settings["network"], record.settings["input"]), []).append(record)
    return found


def on_the_image(records: list[Record], name: str) -> list[Record]:
    """The records of a network on the noisy image, all widths and seeds."""
    return [r for r in records if r.settings["network"] == name and r.settings["input"] == "image"]


def level(records: list[Record], name: str) -> float:
    """Loss at which the networks of an architecture are compared: the noise's energy, or the lowest that all reach."""
    chosen = on_the_image(records, name)
    lowest = [min(r.values[f"{optimizer}_losses"]["loss"]) for r in chosen for optimizer in ALL]
    return float(max(*(r.values["noise_energy"] for r in chosen), *lowest))


def changes(records: list[Record], name: str, optimizer: str) -> tuple[np.ndarray, np.ndarray]:
    """Widths, and the kernel's relative change until the loss is that of :func:`level`, linear between recorded steps.

    Without those where nothing was learnt.
    """
    widths, found = [], []
    for record in on_the_image(records, name):
        losses, changes = (record.values[f"{optimizer}_{key}"] for key in ("losses", "changes"))
        place = crossing(losses["loss"], level(records, name))
        assert place is not None  # the level is one that all networks reach
        step = np.interp(place, np.arange(len(losses["steps"])), losses["steps"])
        change = float(np.interp(step, changes["steps"], changes["change"]))
        if change > 0:
            widths.append(record.settings["width"])
            found.append(change)
    return np.array(widths, float), np.array(found)


def mean(records: Sequence[Record], key: str) -> float:
    """Over records."""
    return float(np.mean([record.values[key] for record in records]))
