"""The settings of the experiment in words, and a table of the distances."""

from __future__ import annotations

from experiments.architectures import DESCRIPTION, LABELS
from experiments.data import SIGMA
from experiments.experiment import Summary
from experiments.follow.measure import PICTURE, STABLE
from experiments.report import table


def text(summary: Summary) -> str:
    """Settings, smaller steps, distances."""
    words = (
        f"The picture is a part of *{PICTURE}*, averaged down by 4 and in gray, with noise of standard deviation "
        f"{SIGMA:g} of 255; its mean is subtracted. The noisy picture is input and target. Networks, in the NTK "
        f"parametrisation, He variances, without biases, float32:\n\n{DESCRIPTION}\n\n"
        "They are trained by gradient descent with the step size 1/lambda_max of the exact kernel, and their output "
        "counts less that at the start. The closed form is `gradient_descent(NTK(...), y, steps=t)` with the same step "
        "size, in float64; the best step is that of its best PSNR, an oracle."
    )
    if not summary:
        return words
    noisy = summary["noisy_psnr"]
    return (
        f"{words}{_halved(summary)}\n\nRelative distance at the best step in per cent, root mean square over the "
        "networks, and that of the mean of their outputs; PSNR of the closed form, where the noisy picture has "
        f"{noisy:.2f} dB:\n\n{_distances(summary)}"
    )


def _halved(summary: Summary) -> str:
    """A paragraph on the networks that took smaller steps."""
    count, widths = summary["halved"]["networks"], summary["halved"]["widths"]
    if not count:
        return ""
    return (
        f"\n\nIn {count} of {summary['networks']} networks (widths {', '.join(map(str, widths))}) the kernel's largest "
        f"eigenvalue at the start was more than {STABLE} times lambda_max; there the step size was halved until it "
        "was not, for the closed form too, with as many more steps."
    )


def _distances(summary: Summary) -> str:
    architectures = summary["architectures"]
    widths = sorted({int(width) for own in architectures.values() for width in own["widths"]})
    rows = []
    for name, own in architectures.items():
        groups = [own["widths"].get(str(width), {}) for width in widths]
        cells = [
            ["" if group.get(key) is None else f"{100 * group[key]:.1f}" for group in groups]
            for key in ("distance", "of_mean")
        ]
        step = f"{own['best_step']}{' (the last allowed)' if own['last_allowed'] else ''}"
        rows.append([LABELS[name], step, f"{own['exact_psnr']:.2f}", *cells[0]])
        rows.append(["mean of the outputs", "", "", *cells[1]])
    return table(["network", "best step", "PSNR (dB)", *(f"c = {width}" for width in widths)], rows)
