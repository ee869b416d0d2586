"""The settings of the experiment in words, and the table of measures."""

from __future__ import annotations

from experiments.analysis import RADIUS
from experiments.architectures import DESCRIPTION, INPUT_LABELS, LABELS
from experiments.experiment import Summary
from experiments.inputs.measure import PICTURE
from experiments.report import table


def text(summary: Summary) -> str:
    """Settings and measures."""
    paragraph = (
        f"Exact kernels of infinitely wide networks for a colour picture (*{PICTURE}*, averaged down), sigma 25 of "
        "255. Padding is circular: with iid noise as input (of infinitely many channels) the kernel is then a "
        "convolution, with several resolutions up to the grid of the coarsest. *Beyond* and *no convolution* are "
        "shares of the sum of squares of the filter matrix at the best time, which is told by the clean picture.\n\n"
        f"{DESCRIPTION}"
    )
    if not summary:
        return paragraph
    rows = [
        [
            f"{LABELS[name]}, {INPUT_LABELS[source]}",
            f"{found['psnr']:.2f}",
            f"{found['steps']}",
            f"{found['beyond']:.2%}",
            f"{found['not_stationary']:.2%}",
            f"{found['degrees_of_freedom']:.0f}",
        ]
        for name, filters in summary["filters"].items()
        for source, found in filters.items()
    ]
    side = summary["side"]
    header = ["network, input", "PSNR (dB)", "best t", f"beyond {2 * RADIUS + 1} x {2 * RADIUS + 1}"]
    header += ["no convolution", f"trace (of {side * side})"]
    size = f"{side} x {side} pixels, means of {summary['reduction']}^2 of the photograph's:"
    return f"{paragraph}\n\n{size}\n\n{table(header, rows)}"
