"""The units come to ten cases with the paper's values and ours, and with what the budget did not reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.experiment import Record, Summary
from experiments.layout import kept
from experiments.picture.reading import MEANS
from experiments.table.claims import ON_HOUSE

Found = dict[str, Any]


def summarize(settings: Found, records: Sequence[Record], origin: Found) -> Summary:
    """Put all results of a picture together.

    Parameters
    ----------
    settings : dict
        What was asked: title, shape, sigma, minutes and sizes.
    records : sequence of Record
        Of all units that have a result.
    origin : dict
        As :meth:`experiments.store.Store.origin` has it.
    """
    kernels = {
        (record.settings["network"], record.settings["input"], mean): record.values
        for record in records
        if "means" in record.settings
        for mean in record.settings["means"]
    }
    trainings = {
        tuple(record.settings[name] for name in ("optimizer", "network", "input", "mean")): record
        for record in records
        if "optimizer" in record.settings
    }
    cases: Found = {}
    for method, network, source in ON_HOUSE:
        cases[f"{method}/{network}/{source}"] = {
            "paper": ON_HOUSE[method, network, source],
            **{
                mean: {
                    "closed": _closed(kernels.get((network, source, mean)), method, mean),
                    "trained": _trained(trainings.get((method, network, source, mean))),
                }
                for mean in MEANS
            },
        }
    noisy = next((values["noisy"] for values in kernels.values()), None)
    summary: Summary = kept({"picture": settings, "noisy": noisy, **origin, "cases": cases})
    return summary


def _closed(values: Found | None, method: str, mean: str) -> Found | None:
    """The closed form of gradient descent, or by Nystrom; Adam has none."""
    name = {"gd": "exact", "nystrom": "nystrom"}.get(method)
    found: Found | None = None if values is None or name is None else values[name][mean]
    return found


def _trained(record: Record | None) -> Found | None:
    """The training of a finite network, with its width; None where the budget allowed no step."""
    if record is None or "psnr" not in record.values:
        return None
    return {**record.values, "width": record.settings["width"]}
