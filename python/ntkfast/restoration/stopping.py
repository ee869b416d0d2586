"""When to stop, without the clean image: rules that choose the training time of each pass.

Each works on crops y of the noisy picture of noise level sigma, and on the pipeline z = F_t(guide, target).  They are
judged against the best time by ``python -m tools.tuning.stopping``.

    calibrated    t_n = kappa_n share/sigma^2 (sigma/contrast)^power_n in pass n: no trial at all
    recorrupted   min |F_t(y + a n) - (y - n/a)|^2 (Pang et al., "Recorrupted-to-Recorrupted", CVPR 2021)
    sure          min |F_t(y) - y|^2 + 2 sigma^2 div F_t(y), div through Theta as well (Ramani, Blu, Unser, TIP 2008)
    held_out      min over pixels that were replaced by their neighbours (Batson, Royer, "Noise2Self", ICML 2019)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from .. import _choices
from .image_filter import Advance, ImageFilter

__all__ = ["MOST_TIMES", "RISKS", "RULES", "Crops", "Risk", "calibrated_time"]

# Grid of steps that the rules try.
STEPS = sorted({round(1.5**n) for n in range(26)})  # 1 to 25000

# And on from its end, where the least risk lies there: hardly any noise, or one tile so bright that the step size,
# which is one for all, is small for the others.
LATER_STEPS = [round(1.5**n) for n in range(25, 52)]  # 25000 to 10^9

MOST_TIMES = max(len(STEPS), len(LATER_STEPS))  # tried at once

RECORRUPTION = 0.3  # strength a of the added noise
PROBE = 0.1  # strength of what `sure` adds, in noise levels
HELD_OUT_STRIDE = 4  # one pixel in so many, along both axes, is held out
HELD_OUT_PHASES = ((0, 0), (2, 2))

# kappa_n and power_n of each pass, for the default network, tiles and chroma_time: fitted to the best times of the
# tuning pictures at noise levels 10, 25 and 50 by ``python -m tools.tuning.stopping --fit --size 80``, rounded.  Were
# Theta the covariance of the clean tiles up to a fixed factor, the power would be 0: gradient flow to the time t does
# much as ridge regression with the noise variance 1/t.  In pass 1 Theta is made of the noisy tiles, and the shorter
# time the more the noise hides their contrast.
KAPPA, POWER = (0.0085, 0.072), (-0.6, 0.6)

# Filter of (guide, target), crops of the weights included.
MakeFilter = Callable[[np.ndarray, np.ndarray], ImageFilter]


@dataclass(frozen=True)
class Crops:
    """A rule is given these.

    Attributes
    ----------
    pixels : ndarray, shape (n, h, w, C)
        Crops of the noisy picture.
    sigma : ndarray, shape (n, h, w, 1)
        Noise level of each pixel.
    make : callable
        Makes the filter of a pass from the guide and the target, both of one or several times the n crops.
    seed : list of int
        Of the random numbers.
    level, contrast : float
        Noise level (that of a typical pixel) and standard deviation of the clean picture, estimated.
    share : float
        Variance of the channels' mean, as it is after mixing, over that of a channel: 1 for a gray picture, nearly the
        number of channels where they are alike.
    """

    pixels: np.ndarray
    sigma: np.ndarray
    make: MakeFilter
    seed: list[int]
    level: float
    contrast: float
    share: float


@dataclass(frozen=True)
class Risk:
    """A risk without the clean image, as the mean over pixels of the filtered crops.

    Attributes
    ----------
    seen : ndarray, shape (k n, h, w, C)
        What is filtered: k pictures of each of the n crops.
    parts : tuple of ndarray, shape (k n or n, h, w, C or 1)
        What ``value`` reads beside the results, cut into the same parts as they are, for the risk of a part.
    value : callable
        (results, *parts) -> risk of each pixel and channel.
    """

    seen: np.ndarray
    parts: tuple[np.ndarray, ...]
    value: Callable[..., np.ndarray]

    def of(self, images: np.ndarray) -> float:
        """The mean over all of ``images``, like ``seen``."""
        return float(np.mean(self.value(images, *self.parts)))


def calibrated_time(crops: Crops, kappa: Any, power: float) -> np.ndarray:
    """t = kappa share/sigma^2 (sigma/contrast)^power; kappa may be an array.

    As many channels that are alike as there are add up in their mean, whose variance then is ``share`` times that which
    Theta sees, a mean over the channels.
    """
    ratio = crops.level / max(crops.contrast, 0.1 * crops.level)  # flat pictures: contrast is not known better
    with np.errstate(over="ignore"):  # hardly any noise: any number of steps
        return np.asarray(np.asarray(kappa) * (ratio**power * crops.share) / crops.level / crops.level)


def calibrated(crops: Crops, passes: int, advance: Advance) -> list[float]:
    """Times known beforehand; passes beyond the calibrated ones take the time of the last."""
    known = [float(calibrated_time(crops, kappa, power)) for kappa, power in zip(KAPPA, POWER, strict=True)]
    return (known + [known[-1]] * passes)[:passes]


def recorrupted(crops: Crops) -> Risk:
    """Recorrupted pairs: y + a n and y - n/a have independent noise.

    The pair is taken with +n and with -n: what is linear in n, nearly all of the criterion's spread, then cancels.
    """
    noise = crops.sigma * np.random.default_rng(crops.seed).standard_normal(crops.pixels.shape)
    noise = np.concatenate([noise, -noise])
    both = np.concatenate([crops.pixels, crops.pixels])
    weights = np.concatenate([crops.level / crops.sigma] * 2) ** 2

    def value(images: np.ndarray, unseen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.asarray(weights * (images - unseen) ** 2)

    return Risk(both + RECORRUPTION * noise, (both - noise / RECORRUPTION, weights), value)


def held_out(crops: Crops) -> Risk:
    """Held-out pixels: on a grid they are replaced by the mean of their neighbours, and predicted."""
    masks = np.zeros((len(HELD_OUT_PHASES), *crops.pixels.shape[1:3]), dtype=bool)
    for mask, (y, x) in zip(masks, HELD_OUT_PHASES, strict=True):
        mask[y::HELD_OUT_STRIDE, x::HELD_OUT_STRIDE] = True
    around = np.array([[0.5, 1, 0.5], [1, 0, 1], [0.5, 1, 0.5]]) / 6
    neighbours = ndimage.convolve(crops.pixels, around[None, :, :, None], mode="mirror")
    shape = (len(masks), *crops.pixels.shape)
    place = np.broadcast_to(masks[:, None, :, :, None], shape)
    seen = np.where(place, neighbours, crops.pixels).reshape(-1, *crops.pixels.shape[1:])
    weights = np.broadcast_to(place * (crops.level / crops.sigma) ** 2, shape).reshape(seen.shape)
    truth = np.broadcast_to(crops.pixels, shape).reshape(seen.shape)

    def value(images: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.asarray(weights * (images - truth) ** 2)

    return Risk(seen, (truth, weights), value)


def sure(crops: Crops) -> Risk:
    """Stein's unbiased risk estimate of the whole pipeline, its divergence by one random direction b:

    div F(y) ~ b . (F(y + e b) - F(y - e b)) / (2 e).
    """
    direction = np.random.default_rng(crops.seed).choice([-1.0, 1.0], size=crops.pixels.shape)
    shift = PROBE * crops.sigma * direction

    def value(images: np.ndarray, pixels: np.ndarray, sigma: np.ndarray, direction: np.ndarray) -> np.ndarray:
        plus, minus = np.split(images, 2)
        misfit = ((plus + minus) / 2 - pixels) * (crops.level / sigma)
        divergence = direction * (plus - minus) / (2 * PROBE * sigma)
        return np.asarray(misfit**2 + 2 * crops.level**2 * divergence)

    seen = np.concatenate([crops.pixels + shift, crops.pixels - shift])
    return Risk(seen, (crops.pixels, crops.sigma, direction), value)


Rule = Callable[[Crops, int, Advance], list[float]]


def _by_risk(make_risk: Callable[[Crops], Risk]) -> Rule:
    """Times of least risk, pass by pass; each pass is guided by the best image of the one before."""

    def rule(crops: Crops, passes: int, advance: Advance) -> list[float]:
        risk = make_risk(crops)
        times, guide = [], risk.seen
        for n in range(passes):
            image_filter = crops.make(guide, risk.seen)
            steps, guide, beyond = _least_risk(image_filter, risk.of, advance)
            time = steps * image_filter.learning_rate
            if beyond:
                time = max(time, calibrated(crops, passes, advance)[n])
            times.append(time)
        return times

    return rule


def _least_risk(
    image_filter: ImageFilter, risk: Callable[[np.ndarray], float], advance: Advance
) -> tuple[float, np.ndarray, bool]:
    """Steps of least risk, the images nearest to them, and whether the risk still falls at the end of all grids."""
    for grid in (STEPS, LATER_STEPS):
        results = image_filter.path(grid, advance)
        lowest, steps = _lowest(np.log(grid), np.array([risk(z) for z in results]))
        if lowest < len(grid) - 1:
            break
        advance = _silent  # the tiles have been counted
    return steps, results[lowest], lowest == len(grid) - 1


def _silent(_: int) -> None:
    """Progress of what comes on top."""


def _lowest(log_steps: np.ndarray, risk: np.ndarray) -> tuple[int, float]:
    """Index of the lowest point, and the steps at the vertex of the parabola through it and its neighbours."""
    n = int(np.argmin(risk))
    if n in (0, len(risk) - 1):
        return n, float(np.exp(log_steps[n]))
    curve = np.polynomial.Polynomial.fit(log_steps[n - 1 : n + 2], risk[n - 1 : n + 2], 2)
    vertex = curve.deriv().roots()
    return n, float(np.exp(vertex[0].real if len(vertex) else log_steps[n]))


RISKS: dict[str, Callable[[Crops], Risk]] = {risk.__name__: risk for risk in (recorrupted, sure, held_out)}
RULES: dict[str, Rule] = {name: _by_risk(RISKS[name]) if name in RISKS else calibrated for name in _choices.RULES}
