"""The paper's orders of the hidden weights, and the comparison of the optimizers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from experiments.architectures import LABELS
from experiments.experiment import PAPER, Check, Claim, Summary, no_remark
from experiments.fits import Slope, slope_text
from experiments.weights.measure import EARLIER, OPTIMIZERS, STEPS_ADAM
from experiments.weights.summary import LOSS, STEPS

WORDS = {"l2": "l2", "linf": "l_inf"}
SAME = {STEPS: "same number of steps", LOSS: "same loss"}

# The paper's exponents for hidden weights, and how far a fitted one may be from it.
EXPONENTS = {("gd", "l2"): -0.5, ("gd", "linf"): -1.5, ("adam", "l2"): 0.0, ("adam", "linf"): -1.0}
TOLERANCE = 0.15

# Where each optimizer's changes are compared, and how the statement says it beside the same loss.
COMPARED = {
    "gd": SAME,
    "adam": {
        str(EARLIER[-1]): f"after {EARLIER[-1]} steps",
        STEPS: f"after {STEPS_ADAM} steps",
        LOSS: SAME[LOSS],
    },
}
AFTER = {
    "gd": "after the same number of steps",
    "adam": f"after {EARLIER[-1]} and after {STEPS_ADAM} steps",
}


def cases(summary: Summary, optimizer: str) -> dict[str, dict[str, Any]]:
    """Return what was found of an optimizer, by architecture."""
    found: dict[str, dict[str, Any]] = summary.get("slopes", {}).get(optimizer, {})
    return found


def slope(case: dict[str, Any], convention: str, norm: str, kind: str = "hidden") -> Slope | None:
    """Exponent and error; None where there is none."""
    found: Slope | None = case[convention][norm][kind] if convention in case else None
    return found


def orders(summary: Summary, optimizer: str, norm: str) -> list[Check]:
    """The fitted slopes beside the paper's."""
    expected, found = EXPONENTS[optimizer, norm], []
    for convention, when in COMPARED[optimizer].items():
        for name, case in cases(summary, optimizer).items():
            fitted = slope(case, convention, norm)
            if fitted is not None:
                agrees = abs(fitted[0] - expected) <= TOLERANCE
                found.append(Check(f"{LABELS[name]}, {when}: slope {slope_text(fitted)}", agrees))
    return found


def farther(summary: Summary) -> list[Check]:
    """The change under Adam over that under gradient descent."""
    found = []
    for name, label in LABELS.items():
        moved = [cases(summary, by).get(name, {}).get("hidden_l2_at_loss", {}) for by in OPTIMIZERS]
        common = sorted(set(moved[0]) & set(moved[1]), key=int)
        if common:
            widest = common[-1]
            ratio = moved[1][widest] / moved[0][widest]
            found.append(Check(f"{label}: {ratio:.1f} times as far at width {widest}", ratio > 1))
    return found


def largest_of_many(summary: Summary, checks: Sequence[Check]) -> str:
    """Why the largest change falls less than the typical one."""
    typical, corrected = {}, {}
    for name, case in cases(summary, "gd").items():
        whole = slope(case, LOSS, "l2")
        if whole is not None:
            # c^2 weights: root mean square = l2 norm / c, times a constant
            typical[LABELS[name]] = f"{whole[0] - 1:.2f}"
            corrected[LABELS[name]] = slope_text(case["linf_over_log"])
    if not typical:
        return ""
    return (
        "The root mean square of the changes has the slope of l2 less 1, at the same loss: "
        f"{listed(typical)}. The largest of c^2 numbers moves away from it as c grows: a change is made of "
        "products of what comes forward and what comes back, and the largest product of two sets of c normal "
        "variables is of the order log c times the typical one. This makes a slope flatter by 1/log c, which is "
        f"0.24 at c = 64. The slopes of l_inf divided by log c: {listed(corrected)}."
    )


def fewer_steps(summary: Summary, checks: Sequence[Check]) -> str:
    """Why wide networks have moved less under Adam by the time that they reach the loss."""
    found = cases(summary, "adam")
    steps = listed(_slopes((name, case.get("to_loss")) for name, case in found.items()))
    if not steps:
        return ""
    early = [
        f"after {step} steps: {listed(_slopes((name, slope(case, str(step), 'l2')) for name, case in found.items()))}"
        for step in EARLIER
    ]
    return (
        f"The change is constant while all networks are far from the target ({'; '.join(early)}), since each step "
        "moves each weight by the step size. But the wider the network, the fewer steps it needs to the loss "
        f"(slopes of their number: {steps}): all weights into a hidden unit move with the sign of its output "
        "weight, of size c^-1/2, and the c units together move the output by c^3/2 times the step size, which with "
        "steps of the order 1/c is c^1/2. By then its weights have moved less."
    )


def as_for_l2(summary: Summary, checks: Sequence[Check]) -> str:
    """The same in short."""
    return "As for l2: the wider the network, the fewer steps it needs to the loss."


def listed(words: dict[str, str]) -> str:
    """By architecture, in a sentence."""
    return ", ".join(f"{label} {word}" for label, word in words.items())


def _slopes(found: Iterable[tuple[str, Slope | None]]) -> dict[str, str]:
    return {LABELS[name]: slope_text(fitted) for name, fitted in found if fitted is not None}


def _order(optimizer: str, norm: str, remark: Callable[[Summary, Sequence[Check]], str] = no_remark) -> Claim:
    expected = EXPONENTS[optimizer, norm]
    order = "constant" if expected == 0 else f"of the order c^{expected:g}"
    return Claim(
        statement=f"Under {OPTIMIZERS[optimizer]} the change of the hidden weights in {WORDS[norm]} is {order} (fitted "
        f"slope within {TOLERANCE} of {expected:g}; {AFTER[optimizer]}, and at the same loss).",
        source=PAPER,
        checks=partial(orders, optimizer=optimizer, norm=norm),
        figure="weights_hidden",
        remark=remark,
    )


CLAIMS = (
    _order("gd", "l2"),
    _order("gd", "linf", largest_of_many),
    _order("adam", "l2", fewer_steps),
    _order("adam", "linf", as_for_l2),
    Claim(
        statement="To the same loss, Adam moves the hidden weights farther than gradient descent does (l2, at the "
        "largest width).",
        source=PAPER,
        checks=farther,
        figure="weights_hidden",
    ),
)
