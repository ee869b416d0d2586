"""The filters have a quality, a place in space, and a gain at some frequencies."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.architectures import ARCHITECTURES
from experiments.experiment import Record, Summary

LOW = 0.1  # cycles a pixel: frequencies above 0 and up to here are low
QUARTER = 0.25  # cycles a pixel, where the gains of the pixels are compared

Pair = tuple[str, Record, Record]  # network, with the noisy image and with noise as input


def summarize(records: list[Record]) -> Summary:
    """The picture, and the filter by network and input."""
    filters: dict[str, dict[str, Any]] = {}
    for record in records:
        filters.setdefault(record.settings["network"], {})[record.settings["input"]] = _filter(record.values)
    settings = records[0].settings
    return {"side": settings["side"], "reduction": settings["reduction"], "filters": filters}


def _filter(values: dict[str, Any]) -> dict[str, Any]:
    measures = ("psnr", "noisy_psnr", "steps", "beyond", "not_stationary", "degrees_of_freedom")
    gain, frequency = (np.array(values[key]) for key in ("gain", "frequencies"))
    return {
        **{name: values[name] for name in measures},
        "gain": {
            "zero": gain[0],
            "low": gain[(frequency > 0) & (frequency <= LOW)].mean(),
            "half": gain[-1],
            "most_rise": np.diff(gain).max(),
        },
        "spread_at_quarter": _spread(values),
    }


def _spread(values: dict[str, Any]) -> list[float]:
    """10th and 90th percentile of the pixels' gains at the frequency 1/4."""
    ring = int(np.argmin(np.abs(np.array(values["frequencies"]) - QUARTER)))
    percentiles = values["gain_percentiles"]
    return [percentiles[0][ring], percentiles[-1][ring]]


def pairs(records: list[Record]) -> list[Pair]:
    """The networks that have both inputs."""
    cases = {(record.settings["network"], record.settings["input"]): record for record in records}
    return [
        (name, cases[name, "image"], cases[name, "noise"])
        for name in ARCHITECTURES
        if {(name, "image"), (name, "noise")} <= cases.keys()
    ]
