"""These must be shown: the slope, the distance, the mean over seeds, the PSNR."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from experiments.architectures import LABELS
from experiments.experiment import OURS, PAPER, Check, Claim, Summary
from experiments.fits import PowerLaw

SLOPES = (-0.6, -0.4)  # bounds on the slope of the distance; -1/2 in theory
DISTANCE = 0.05  # bound on the relative distance at WIDTH, or the largest width if that was not run
WIDTH = 1024
PSNR_GAP = 0.25  # dB; bound on the difference of the PSNRs there
# How far above 1/sqrt(n) the distance of the mean of n networks may be, over that of single ones.  Of two independent
# errors of some ten degrees of freedom it scatters by 0.1; four errors that are the same by half have 0.79, not 0.5.
MEAN_EXCESS = 0.15


def slopes(summary: Summary) -> list[Check]:
    """The fitted laws."""
    found = []
    for label, own in _architectures(summary):
        if own["law"] is None:
            continue
        fitted = PowerLaw.of(own["law"])
        ends = fitted.interval()
        between = "" if ends is None else f", 95 % interval {ends[0]:.2f} to {ends[1]:.2f}"
        found.append(Check(f"{label}: slope {fitted}{between}", SLOPES[0] <= fitted.slope <= SLOPES[1]))
    return found


def near(summary: Summary) -> list[Check]:
    """The distance at the width that is judged."""
    found = []
    for label, own in _architectures(summary):
        width, group = judged_width(own)
        count = f"{group['networks']} network{'s' if group['networks'] > 1 else ''}"
        measured = f"{label}: {100 * group['distance']:.1f} % at width {width} ({count})"
        found.append(Check(measured, group["distance"] <= DISTANCE))
    return found


def expected(summary: Summary, checks: Sequence[Check]) -> str:
    """Say what the laws give at :data:`WIDTH` where that was not run."""
    found = [
        f"{label} {100 * PowerLaw.of(own['law']).at(WIDTH):.1f} %"
        for label, own in _architectures(summary)
        if judged_width(own)[0] != WIDTH and own["law"] is not None
    ]
    return f"By the fitted laws, the distance at width {WIDTH} would be: {', '.join(found)}." if found else ""


def means(summary: Summary) -> list[Check]:
    """The mean of the outputs against independent errors, at all widths of an architecture that have several."""
    return [_mean_check(label, own["widths"]) for label, own in _architectures(summary) if _several(own["widths"])]


def gaps(summary: Summary) -> list[Check]:
    """The PSNR of the networks less that of the closed form."""
    found = []
    for label, own in _architectures(summary):
        width, group = judged_width(own)
        gap = group["psnr_gap"]
        found.append(Check(f"{label}: {gap:+.2f} dB at width {width}", abs(gap) <= PSNR_GAP))
    return found


CLAIMS = (
    Claim(
        statement="Gradient descent follows the filter: the relative distance of the trained network to the closed "
        "form at the best step falls with the width, here tested as one over its square root "
        f"(fitted slope between {SLOPES[0]} and {SLOPES[1]}).",
        source=PAPER,
        checks=slopes,
        figure="follow_distance",
    ),
    Claim(
        statement=f"At width {WIDTH}, or the largest that was run, the distance is at most {100 * DISTANCE:.0f} %.",
        source=OURS,
        checks=near,
        figure="follow_distance",
        remark=expected,
    ),
    Claim(
        statement="What is left is random: the distance of the mean of the outputs of n networks is 1/sqrt(n) of that "
        f"of single ones, as for independent errors, or at most {MEAN_EXCESS:g} above that, at every width that has "
        "several networks.",
        source=OURS,
        checks=means,
        figure="follow_distance",
    ),
    Claim(
        statement=f"At that width the PSNR at the best step is within {PSNR_GAP} dB of the closed form's.",
        source=OURS,
        checks=gaps,
        figure="follow_psnr",
    ),
)


def judged_width(own: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """1024 if that was run, else the largest; with what was found there."""
    widths = {int(width): group for width, group in own["widths"].items()}
    width = WIDTH if WIDTH in widths else max(widths)
    return width, widths[width]


def _architectures(summary: Summary) -> list[tuple[str, dict[str, Any]]]:
    return [(LABELS[name], own) for name, own in summary.get("architectures", {}).items()]


def _several(widths: dict[str, Any]) -> dict[str, Any]:
    return {width: group for width, group in widths.items() if group["networks"] > 1}


def _mean_check(label: str, widths: dict[str, Any]) -> Check:
    several = _several(widths)
    found, passed = [], True
    for width, group in several.items():
        ratio, independent = group["of_mean"] / group["distance"], group["networks"] ** -0.5
        passed &= ratio <= independent + MEAN_EXCESS
        found.append(f"{ratio:.2f} at width {width} ({group['networks']} networks, expected {independent:.2f})")
    share = math.fsum(group["common"] for group in several.values()) / len(several)
    single = ", ".join(width for width, group in widths.items() if group["networks"] == 1)
    return Check(
        f"{label}: of the distance of single networks {', '.join(found)}"
        + (f"; one network only at width {single}" if single else "")
        + f"; common to all networks of a width, estimated without bias: {100 * share:.0f} % of the squared distance, "
        "mean over the widths",
        passed,
    )
