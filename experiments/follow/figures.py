"""Distance over width, and PSNR over steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.architectures import COLOURS, LABELS, MARKERS
from experiments.drawing import logarithmic
from experiments.experiment import Picture, Record
from experiments.follow.claims import DISTANCE
from experiments.follow.summary import by_width, law, mean_distance, of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(records: list[Record]) -> list[Picture]:
    """Distance over width, and PSNR over steps."""
    if not records:
        return []
    side, n = records[0].settings["side"], max(len(g) for name in LABELS for g in by_width(of(records, name)).values())
    return [
        Picture(
            "follow_distance",
            distance_figure(records),
            "Relative distance between the output of the network trained by gradient descent and the closed form, at "
            f"the step where the closed form has its best PSNR, over the width; {side} x {side} pixels, up to {n} "
            "networks of each width. Filled: single networks, with the fitted law; open: the mean of their outputs.",
        ),
        Picture(
            "follow_psnr",
            psnr_figure(records),
            "PSNR over the steps of gradient descent: the closed form (black) and the trained networks, the mean over "
            "the networks of a width. The vertical line is the closed form's best step.",
        ),
    ]


def distance_figure(records: Sequence[Record]) -> Figure:
    """Log-log plot of the distance over the width."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 4.4), layout="constrained")
    axes = figure.subplots()
    seen: set[int] = set()
    for name, label in LABELS.items():
        groups = by_width(of(records, name))
        style: dict[str, Any] = {"color": COLOURS[name], "marker": MARKERS[name], "linestyle": "none"}
        points = [(width, r.values["distance"]) for width, group in groups.items() for r in group]
        fitted = law(of(records, name))
        if not points:
            continue
        seen.update(groups)
        axes.plot(*zip(*points, strict=True), markersize=5, alpha=0.55, **style)
        if fitted is not None:
            ends = [min(groups), max(groups)]
            axes.plot(ends, [fitted.at(w) for w in ends], color=COLOURS[name], label=f"{label}: slope {fitted}")
        means = [(width, mean_distance(group)) for width, group in groups.items() if len(group) > 1]
        if means:
            axes.plot(*zip(*means, strict=True), markersize=7, markerfacecolor="white", **style)
    low, high = min(seen), max(seen)
    reference = max(r.values["distance"] for r in records) * 1.25
    axes.plot(
        [low, high], [reference, reference * (high / low) ** -0.5], color="0.5", linestyle=":", label="slope -1/2"
    )
    axes.axhline(DISTANCE, color="0.5", linewidth=0.8, linestyle="--")
    axes.annotate("5 %", (low, DISTANCE), color="0.35", va="bottom")
    for marker, face, text in (("o", "0.4", "single networks"), ("o", "white", "mean of their outputs")):
        axes.plot([], [], marker=marker, color="0.4", markerfacecolor=face, linestyle="none", label=text)
    logarithmic(axes, sorted(seen))
    axes.set_ylabel(r"relative distance $\|z_{network}-z_{NTK}\|\,/\,\|z_{NTK}\|$")
    axes.set_title("Trained network against its closed form, best step")
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    return figure


def psnr_figure(records: Sequence[Record]) -> Figure:
    """A panel for each architecture."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    names = [name for name in LABELS if of(records, name)]
    widths = sorted({record.settings["width"] for record in records if record.settings["curve"]})
    shown = widths[:: max(1, math.ceil(len(widths) / 4))]
    if widths:
        shown = sorted({*shown[: 3 if len(shown) > 3 else None], widths[-1]})
    shades = dict(zip(shown, colormaps["viridis_r"](np.linspace(0.15, 0.85, max(len(shown), 2))), strict=False))
    figure = Figure(figsize=(3.6 * len(names) + 0.6, 3.6), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names), sharey=True)), names, strict=True):
        groups = by_width([r for r in of(records, name) if r.settings["curve"]])
        for width in shown:
            if width in groups:
                curve = np.mean([r.values["psnr"] for r in groups[width]], axis=0)
                axes.plot(groups[width][0].values["times"][1:], curve[1:], color=shades[width], label=f"width {width}")
        longest = max(of(records, name), key=lambda r: r.values["times"][-1]).values
        axes.plot(longest["times"][1:], longest["exact_psnr"][1:], "k--", linewidth=1.8, label="closed form (NTK)")
        axes.axvline(longest["best_step"], color="0.6", linewidth=0.8)
        axes.axhline(longest["noisy_psnr"], color="0.6", linewidth=0.8, linestyle=":")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("step of gradient descent")
        axes.set_title(LABELS[name])
        axes.grid(alpha=0.25)
        end = (longest["times"][-1], longest["noisy_psnr"])
        axes.annotate("noisy picture", end, color="0.35", fontsize="small", va="bottom", ha="right")
        if name == names[0]:
            axes.set_ylabel("PSNR (dB)")
            axes.legend(frameon=False, fontsize="small")
    return figure
