"""Changes over the width: of the hidden layers, and of the first and last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from experiments.architectures import COLOURS, LABELS, MARKERS
from experiments.drawing import logarithmic
from experiments.experiment import Picture, Record
from experiments.weights.claims import EXPONENTS, SAME
from experiments.weights.measure import OPTIMIZERS
from experiments.weights.summary import KINDS, changes_of, chosen, law

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NORMS = {"l2": r"$\ell_2$", "linf": r"$\ell_\infty$"}


def figures(records: list[Record]) -> list[Picture]:
    """Changes over width: of the hidden layers, and of the first and last."""
    if not records:
        return []
    return [
        Picture(
            "weights_hidden",
            grid(records, [(convention, "hidden") for convention in SAME]),
            "Change of the hidden layers' effective weights over the width, with fitted laws, after the same number of "
            "steps (above) and when the loss has fallen to the noise's energy (below). Gray: the paper's slopes.",
        ),
        Picture(
            "weights_ends",
            grid(records, [("steps", "first"), ("steps", "last")]),
            "The same for the first and the last layer after the same number of steps. The first has a fixed number of "
            "input channels and the last one output channel: their orders are others.",
        ),
    ]


def grid(records: Sequence[Record], rows: Sequence[tuple[str, str]]) -> Figure:
    """Panels: a row for each (convention, kind of layer), a column for each norm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.0, 4.0 * len(rows)), layout="constrained")
    for panels, (convention, kind) in zip(figure.subplots(len(rows), 2), rows, strict=True):
        for axes, norm in zip(panels, NORMS, strict=True):
            draw(axes, records, convention, norm, kind)
            axes.set_ylabel(f"{NORMS[norm]} norm of the change")
            axes.set_title(f"{KINDS[kind]}, {NORMS[norm]}, {SAME[convention]}", fontsize="medium")
            axes.legend(frameon=False, fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def draw(axes: Any, records: Sequence[Record], convention: str, norm: str, kind: str) -> None:
    """Points and fitted laws of all architectures: gradient descent filled, with solid lines, Adam open and dashed."""
    for optimizer, by in OPTIMIZERS.items():
        highest: dict[int, float] = {}
        for name, label in LABELS.items():
            own = chosen(records, name, optimizer, convention)
            if not own:
                continue
            widths, values = changes_of(own, convention, norm, kind)
            for width, value in zip(widths, values, strict=True):
                highest[width] = max(value, highest.get(width, 0.0))
            style = {
                "color": COLOURS[name],
                "marker": MARKERS[name],
                "markersize": 5,
                "markerfacecolor": "white" if optimizer == "adam" else COLOURS[name],
            }
            axes.plot(widths, values, **style, linestyle="none")
            line = "--" if optimizer == "adam" else "-"
            fitted = law(own, convention, norm, kind)
            if fitted is not None:
                ends = [min(widths), max(widths)]
                axes.plot(ends, [fitted.at(width) for width in ends], color=COLOURS[name], linestyle=line)
            slope = "" if fitted is None else f":\nslope {fitted}"
            axes.plot([], [], **style, linestyle=line, label=f"{by}, {label}{slope}")
        if kind == "hidden" and len(highest) > 1:
            exponent, low, high = EXPONENTS[optimizer, norm], min(highest), max(highest)
            # Above all points.
            start = 1.4 * max(value * (low / width) ** exponent for width, value in highest.items())
            line = "-." if optimizer == "adam" else ":"
            axes.plot([low, high], [start, start * (high / low) ** exponent], color="0.3", linestyle=line)
            axes.plot([], [], color="0.3", linestyle=line, label=f"{by}, the paper:\nslope {exponent:g}")
    logarithmic(axes, sorted({r.settings["width"] for r in records}))
