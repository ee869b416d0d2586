"""The settings of the experiment in words, and all slopes."""

from __future__ import annotations

from typing import Any

from experiments.architectures import LABELS, adam_steps
from experiments.experiment import Summary
from experiments.fits import Slope, slope_text
from experiments.report import table
from experiments.weights.claims import EXPONENTS, SAME, WORDS, cases, slope
from experiments.weights.measure import EARLIER, NORMS, OPTIMIZERS, RATE_ADAM, RATE_GD, STEPS_ADAM
from experiments.weights.summary import CONVENTIONS, KINDS, LOSS


def text(summary: Summary) -> str:
    """Settings, trainings that missed the loss, slopes of kinds of layers, slopes of single ones."""
    words = (
        "The picture and the networks are those of part 1; z is the output less that at the start. The networks are "
        f"trained by gradient descent with {RATE_GD:g}/lambda_max of the exact kernel, the same for all widths c, and "
        f"by Adam (0.9, 0.999) with steps of {adam_steps(RATE_ADAM)}. Effective weights are those of the standard "
        "parametrisation, `sqrt(w/(c k^2)) W`. Their change is taken after the same number of steps (with "
        f"gradient descent that at which the closed form reaches the loss, with Adam {STEPS_ADAM}, and "
        f"{EARLIER[-1]}, about when wide networks reach it), and at the same loss, the energy of the noise: "
        "1/2 sum (z - y)^2 = 1/2 d sigma^2, linearly between two steps. Slopes are fitted to all networks, "
        "with the standard error of the regression."
    )
    if not summary:
        return words
    conventions = SAME | {str(EARLIER[-1]): f"after {EARLIER[-1]} steps of Adam"}
    tables = [f"Slopes, {when}:\n\n{_by_kind(summary, convention)}" for convention, when in conventions.items()]
    return "\n\n".join([words + _missed(summary), *tables, by_layer(summary)])


def _missed(summary: Summary) -> str:
    """A paragraph on the trainings that did not reach the loss."""
    missed = summary["missed"]
    if not missed["networks"]:
        return ""
    names = sorted(f"{LABELS[name]} by {OPTIMIZERS[optimizer]}" for name, optimizer in missed["cases"])
    return (
        f"\n\n{missed['networks']} of {summary['networks']} trainings did not reach the loss in the steps allowed and "
        f"count only for the same number of steps: {', '.join(names)}."
    )


def _by_kind(summary: Summary, convention: str) -> str:
    """Table of the slopes of first, hidden and last layers, where the changes are taken."""
    rows = []
    for optimizer, by in OPTIMIZERS.items():
        if convention not in CONVENTIONS[optimizer]:
            continue
        for name, case in cases(summary, optimizer).items():
            if convention in case:
                cells = [_cell(slope(case, convention, norm, kind)) for norm in NORMS for kind in KINDS]
                rows.append([f"{by}, {LABELS[name]}", _range(*case[convention]["taken"]), *cells])
        exponents = [f"{EXPONENTS[optimizer, norm]:g}" for norm in NORMS]
        rows.append([f"*the paper, {by}*", "", "", exponents[0], "", "", exponents[1], ""])
    return table(["", "steps", *(f"{word}, {kind}" for word in WORDS.values() for kind in KINDS)], rows)


def by_layer(summary: Summary) -> str:
    """Table of the slopes of every convolution, at the same loss."""
    rows = []
    for name, label in LABELS.items():
        found = {by: cases(summary, by).get(name, {}).get("layers") for by in OPTIMIZERS}
        known: list[Any] = next((layers for layers in found.values() if layers), [])
        for n, (kind, *_) in enumerate(known):
            cells = [_cell(slope) for layers in found.values() for slope in (layers[n][1:] if layers else ("", ""))]
            rows.append([f"{label}, {n + 1} of {len(known)} ({kind})", *cells])
    exponents = [f"{EXPONENTS[optimizer, norm]:g}" for optimizer in OPTIMIZERS for norm in NORMS]
    rows.append(["*the paper, hidden*", *exponents])
    header = ["convolution", *(f"{by}, {word}" for by in OPTIMIZERS.values() for word in WORDS.values())]
    return f"Slopes of single convolutions, in the order of the network, {SAME[LOSS]}:\n\n{table(header, rows)}"


def _cell(slope: Slope | None) -> str:
    return slope_text(slope) if slope else ""


def _range(least: float, most: float) -> str:
    return f"{least:.0f}" if least == most else f"{least:.1f} to {most:.1f}"
