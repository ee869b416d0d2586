"""This makes tables, means and targets out of the results of single runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from bench.networks import table
from bench.quality.pictures import SIZE

Result = dict[str, Any]

ABOVE_NLM = 0.5  # dB, target of the mean of each sigma
SECONDS = 15.0  # target for each picture of SIZE x SIZE
REFERENCES = ("nlm", "bm3d")  # ours less these


@dataclass(frozen=True)
class Grid:
    """A Grid holds results of one sigma by picture and method.

    Attributes
    ----------
    methods : sequence of str
    rows : dict
        Picture -> method -> result; what has not been run is missing.
    """

    methods: Sequence[str]
    rows: dict[str, dict[str, Result]]

    def complete(self) -> list[dict[str, Result]]:
        """Return the rows with all methods: only these enter the means, so that all are over the same pictures."""
        return [row for row in self.rows.values() if all(method in row for method in self.methods)]

    def mean(self, method: str, key: str) -> float:
        """Return the mean over the complete rows; nan without any, or where the method has no such figure."""
        values = [row[method][key] for row in self.complete()]
        return fmean(values) if values and None not in values else math.nan


def grids(results: Sequence[Result], pictures: Sequence[str], methods: Sequence[str]) -> dict[float, Grid]:
    """Return sigma -> grid, sigmas ascending, pictures in the order given."""
    found: dict[float, Grid] = {}
    for sigma in sorted({r["sigma"] for r in results}):
        rows: dict[str, dict[str, Result]] = {name: {} for name in pictures}
        for r in results:
            if r["sigma"] == sigma and r["picture"] in rows and r["method"] in methods:
                rows[r["picture"]][r["method"]] = r
        found[sigma] = Grid(methods, {name: row for name, row in rows.items() if row})
    return found


def difference(row: dict[str, Result], reference: str) -> float:
    """Return the PSNR of ours less that of the reference, dB; nan if one is missing."""
    return row["ours"]["psnr"] - row[reference]["psnr"] if {"ours", reference} <= row.keys() else math.nan


def _columns(grid: Grid, parts: Sequence[tuple[str, str, Callable[[float], str]]]) -> list[list[str]]:
    """Return rows of cells: for each part (head, key, format) a column a method that has the figure, and the means."""
    present = [
        (f"{method} {head}", method, key, show)
        for head, key, show in parts
        for method in grid.methods
        if any(row[method][key] is not None for row in grid.rows.values() if method in row)
    ]
    head = ["", *(name for name, *_ in present)]
    lines = [
        [name, *(show(row[method][key]) if method in row else "" for _, method, key, show in present)]
        for name, row in grid.rows.items()
    ]
    means = (grid.mean(method, key) for _, method, key, _ in present)
    lines.append(["mean", *("" if math.isnan(m) else show(m) for m, (*_, show) in zip(means, present, strict=True))])
    return [head, *lines]


def _differences(grid: Grid) -> list[list[str]]:
    """Return the columns of ours less each reference, beside those of _columns."""
    references = [name for name in REFERENCES if {"ours", name} <= set(grid.methods)]
    lines = [[f"ours - {name}" for name in references]]
    for row in [*grid.rows.values(), None]:
        values = [
            grid.mean("ours", "psnr") - grid.mean(name, "psnr") if row is None else difference(row, name)
            for name in references
        ]
        lines.append(["" if math.isnan(value) else f"{value:+.2f}" for value in values])
    return lines


def lines(sigma: float, grid: Grid) -> list[str]:
    """Return the table of one sigma: quality, then cost."""
    psnr = _columns(grid, [("dB", "psnr", "{:.2f}".format)])
    ssim = _columns(grid, [("SSIM", "ssim", "{:.3f}".format)])
    quality = [a + b + c[1:] for a, b, c in zip(psnr, _differences(grid), ssim, strict=True)]
    cost = _columns(
        grid,
        [
            ("s", "seconds", "{:.2f}".format),
            ("MB", "peak_bytes_above_import", lambda count: f"{count / 1e6:.0f}"),
        ],
    )
    out = [f"sigma {sigma:g}", *table(quality[0], quality[1:])]
    if len(cost[0]) > 1:
        out += ["", *table(cost[0], cost[1:])]
    missing = len(grid.rows) - len(grid.complete())
    if missing:
        out.append(f"{missing} without all methods, left out of the means")
    return [*out, ""]


def targets(grids_by_sigma: dict[float, Grid]) -> list[str]:
    """Return one line a target: met, not met, or not measured."""
    found = [
        _target(f"sigma {sigma:g}: mean at least that of non-local means + {ABOVE_NLM} dB", *_gain(grid))
        for sigma, grid in grids_by_sigma.items()
    ]
    every = [row for grid in grids_by_sigma.values() for row in grid.rows.values()]
    square = [row["ours"]["seconds"] for row in every if "ours" in row and row["ours"]["shape"][:2] == [SIZE, SIZE]]
    slowest = max(square, default=math.nan)
    found.append(
        _target(f"at most {SECONDS:g} s for {SIZE} x {SIZE}", slowest <= SECONDS, slowest, f"slowest {slowest:.1f} s")
    )
    both = [(row["ours"]["seconds"], row["bm3d"]["seconds"]) for row in every if {"ours", "bm3d"} <= row.keys()]
    ratio = sum(theirs for _, theirs in both) / sum(mine for mine, _ in both) if both else math.nan
    found.append(_target("faster than CBM3D", ratio > 1, ratio, f"{ratio:.2f} times as fast over all pictures"))
    return found


def _gain(grid: Grid) -> tuple[bool, float, str]:
    if not {"ours", "nlm"} <= set(grid.methods):
        return False, math.nan, ""
    gain = grid.mean("ours", "psnr") - grid.mean("nlm", "psnr")
    return gain >= ABOVE_NLM, gain, f"{gain:+.2f} dB"


def _target(name: str, met: bool, value: float, figure: str) -> str:
    if math.isnan(value):
        return f"{name}: not measured"
    return f"{name}: {'met' if met else 'not met'} ({figure})"
