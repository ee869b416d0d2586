"""Non-local with the noisy image, a low-pass with noise, and the better quality of the former."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from experiments.analysis import RADIUS
from experiments.architectures import ARCHITECTURES, INPUTS, LABELS
from experiments.experiment import OURS, PAPER, Check, Claim, Summary
from experiments.inputs.summary import LOW

# Bounds of the claims.
NON_LOCAL = 0.1  # share of the filter's energy beyond the neighbourhood
NOT_STATIONARY = 0.1  # share of the filter's energy that no convolution has
STATIONARY = 0.01
RISE = 0.02  # a gain that should fall with the frequency may rise by it
FALL = 0.1  # the gain falls by it from the low frequencies to 1/2

BOTTLENECK = (
    "An autoencoder without skips makes everything of coarse features: its kernel joins neighbours whatever the input "
    "is, and where the best time comes late, its filter is closer to a low-pass."
)
FULL_RESOLUTION = (
    "Patches of noise around different pixels are orthogonal on average, and so are, but for their means, the features "
    "of all layers at full resolution: Theta is nearly a I + b 1 1^T, and the vanilla CNN's filter keeps the mean and "
    "shrinks all else by one factor, whatever its frequency."
)
GRID = (
    "The coarse grid of the autoencoder does not repeat itself from pixel to pixel: its filter is a convolution for "
    "shifts by two pixels only, and that is what is left of it."
)


def both(summary: Summary) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Label, filter of the noisy image, filter of noise: networks that have both."""
    for name in ARCHITECTURES:
        filters = summary.get("filters", {}).get(name, {})
        if set(INPUTS) <= set(filters):
            yield LABELS[name], filters["image"], filters["noise"]


def non_local(summary: Summary) -> list[Check]:
    """Energy beyond the neighbourhood."""
    return [
        Check(
            f"{label}: {image['beyond']:.1%} with the noisy image, {noise['beyond']:.2%} with noise",
            image["beyond"] >= NON_LOCAL and image["beyond"] >= 2 * noise["beyond"],
        )
        for label, image, noise in both(summary)
    ]


def low_pass(summary: Summary) -> list[Check]:
    """Energy in no convolution, and the gain over the frequency, with noise."""
    found = []
    for label, _, noise in both(summary):
        gain, stationary = noise["gain"], noise["not_stationary"]
        falls = gain["most_rise"] <= RISE and gain["low"] - gain["half"] >= FALL
        measured = f"{label}: {stationary:.2%} of the filter is no convolution; the gain is {gain['zero']:.2f} at "
        measured += f"frequency 0, {gain['low']:.2f} up to {LOW:g}, {gain['half']:.2f} at 1/2"
        found.append(Check(measured, stationary <= STATIONARY and falls))
    return found


def adaptive(summary: Summary) -> list[Check]:
    """Energy in no convolution, with the noisy image."""
    found = []
    for label, image, _ in both(summary):
        low, high = image["spread_at_quarter"]
        measured = (
            f"{label}: {image['not_stationary']:.1%} of the filter is no convolution; at a quarter cycle a pixel "
        )
        measured += f"the gains of the pixels lie between {low:.2f} and {high:.2f} (10th and 90th percentile)"
        found.append(Check(measured, image["not_stationary"] >= NOT_STATIONARY))
    return found


def better(summary: Summary) -> list[Check]:
    """The PSNR of both inputs."""
    return [
        Check(
            f"{label}: {image['psnr']:.2f} dB with the noisy image, {noise['psnr']:.2f} dB with noise (noisy: "
            f"{noise['noisy_psnr']:.2f} dB)",
            image["psnr"] > noise["psnr"],
        )
        for label, image, noise in both(summary)
    ]


def bottleneck(summary: Summary, checks: Sequence[Check]) -> str:
    """Why the autoencoder does not agree, if it does not."""
    return BOTTLENECK if failed(checks, "autoencoder") else ""


def not_low_pass(summary: Summary, checks: Sequence[Check]) -> str:
    """Why the vanilla CNN and the autoencoder do not agree, if they do not."""
    remarks = (("vanilla", FULL_RESOLUTION), ("autoencoder", GRID))
    return " ".join(remark for name, remark in remarks if failed(checks, name))


def failed(checks: Sequence[Check], name: str) -> bool:
    """Tell whether a network's check does not agree."""
    return any(check.measured.startswith(LABELS[name]) and not check.passed for check in checks)


CLAIMS = (
    Claim(
        statement=f"With the noisy image as input the filter is non-local: at the best time at least {NON_LOCAL:.0%} "
        "of its energy (sum of squared weights) lies beyond the neighbourhood of "
        f"{2 * RADIUS + 1} x {2 * RADIUS + 1} pixels, and at least twice as much as with noise.",
        source=PAPER,
        checks=non_local,
        figure="inputs_affinity",
        remark=bottleneck,
    ),
    Claim(
        statement=f"With iid noise as input the filter is a plain low-pass: a convolution up to {STATIONARY:.0%} of "
        f"its energy, whose gain falls with the frequency, from the low ones (above 0, up to {LOW:g} cycles a pixel) "
        f"to the highest by at least {FALL:g}.",
        source=PAPER,
        checks=low_pass,
        figure="inputs_transfer",
        remark=not_low_pass,
    ),
    Claim(
        statement="With the noisy image as input the gain is no function of the frequency alone: at least "
        f"{NOT_STATIONARY:.0%} of the filter's energy is in no convolution.",
        source=OURS,
        checks=adaptive,
        figure="inputs_transfer",
        remark=bottleneck,
    ),
    Claim(
        statement="The noisy image as input gives the higher PSNR, each at its best time.",
        source=OURS,
        checks=better,
        figure="inputs_psnr",
    ),
)
