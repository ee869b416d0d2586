"""A picture as the denoiser takes it: its noise level, its channels and sides, its crops for the stopping rules."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.fft import dct
from scipy.ndimage import uniform_filter

from .. import _check
from ..images import LARGEST, as_values, next_multiple
from .image_filter import ImageFilter, Method, array_bytes
from .noise_level import noise_level
from .stopping import MOST_TIMES, Crops
from .tiles import Tiling

__all__ = ["Picture", "mixing", "noise_levels"]

# The stopping rule looks at up to this many crops of this size, or of a tile's if that is larger.
RULE_CROPS, RULE_CROP_SIZE = 9, 48

# A pixel's noise level counts as no less than this share of the median: weights, one over variances, bound the step.
# And as no more than so many times it: `sure` adds a tenth of the level, which must not hide the picture from Theta.
LEAST_LEVEL, MOST_LEVEL = 0.1, 10.0

# Pixels of more than so many times the level of their neighbourhood tell Theta nothing: for the first pass the mean of
# the neighbourhood, by weights, stands for them.
BAD_PIXEL = 2.0
NEIGHBOURHOOD = 5  # side


class Picture:
    """A picture as the passes see it: channels mixed, sides padded, weights from the noise map.

    Parameters
    ----------
    pixels : ndarray, shape (1, H, W, C)
    level : float
        Of the noise.
    levels : ndarray, shape (1, H, W, 1), or None
        That of each pixel.
    method : Method

    Attributes
    ----------
    pixels : ndarray, shape (1, H', W', C)
    tiling : Tiling
    """

    def __init__(self, pixels: np.ndarray, level: float, levels: np.ndarray | None, method: Method) -> None:
        self._method, self._level = method, level
        self._shape = pixels.shape[1:3]
        self._mixing = mixing(pixels.shape[3])
        self.pixels = _pad(pixels @ self._mixing.T, method)
        self._levels = None if levels is None else _pad(levels, method)
        self.tiling = method.tiling(self.pixels.shape[:3])

    def fit_memory(self, trials: Tiling | None) -> None:
        """Refuse what does not fit; where memory is short, less at a time.

        ``trials``: tiles of what a rule filters, if it does.
        """
        phases = [(self.tiling, 1)] if trials is None else [(self.tiling, 1), (trials, MOST_TIMES)]
        channels = self.pixels.shape[3]
        arrays = max(array_bytes((*tiling.shape, channels), times) for tiling, times in phases)
        self._method = self._method.fitted(phases, channels, arrays + array_bytes(self.pixels.shape, 0))

    def filter(self, guide: np.ndarray) -> ImageFilter:
        """The filter of the whole picture with Theta from ``guide``."""
        return self._filter(self.tiling, guide, self.pixels, self._levels)

    def _filter(self, tiling: Tiling, guide: np.ndarray, target: np.ndarray, levels: np.ndarray | None) -> ImageFilter:
        weights = None if levels is None else (self._level / levels) ** 2
        if weights is not None and guide is target:  # the first pass
            guide = _without_bad_pixels(guide, weights)
        return self._method.filter(tiling, guide, target, weights)

    def image(self, mixed: np.ndarray) -> np.ndarray:
        """A picture (1, H, W, C) from what the passes make."""
        return np.asarray(mixed[:, : self._shape[0], : self._shape[1]] @ self._mixing)

    def rule_tiling(self) -> Tiling:
        """Tiles of what the rules but "calibrated" filter: two versions of each crop."""
        crops, height, width, _ = self._cut(self.pixels).shape
        return self._method.tiling((2 * crops, height, width))

    def crops(self, seed: list[int]) -> Crops:
        """What the stopping rule looks at."""
        pixels = self._cut(self.pixels)
        level_map = np.full((*self.pixels.shape[:3], 1), self._level) if self._levels is None else self._levels
        levels = self._cut(level_map)

        def make(guide: np.ndarray, target: np.ndarray) -> ImageFilter:
            count, height, width, _ = target.shape
            tiling = self._method.tiling((count, height, width))
            repeated = None if self._levels is None else np.concatenate([levels] * (count // len(levels)))
            return self._filter(tiling, guide, target, repeated)

        variances = self.pixels.var(axis=(1, 2))[0] - (level_map**2).mean()  # of the clean picture, by channel
        channels, variance = len(variances), max(float(variances.mean()), 0.0)
        share = float(variances[0]) / variance if variance > 0 else float(channels)
        share = min(max(share, 1.0), float(channels))
        return Crops(pixels, levels, make, seed, self._level, variance**0.5, share)

    def _cut(self, images: np.ndarray) -> np.ndarray:
        """Crops of the only image: all of it if it is small or one tile, else an even spread."""
        _, height, width, _ = images.shape
        size = max(RULE_CROP_SIZE, self._method.size)  # a crop holds a tile
        small = height * width <= RULE_CROPS * size**2 or min(height, width) < size
        if small or not self._method.local:
            return images
        side = round(RULE_CROPS**0.5)
        rows = np.linspace(0, height - size, side).astype(int)
        cols = np.linspace(0, width - size, side).astype(int)
        return np.concatenate([images[:, y : y + size, x : x + size] for y in rows for x in cols])


def _without_bad_pixels(guide: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The guide (n, H, W, C) with the weighted mean of its neighbourhood in place of each pixel far noisier than that.

    ``weights`` (n, H, W, 1) are one over the variances up to a factor.
    """
    size = (1, NEIGHBOURHOOD, NEIGHBOURHOOD, 1)
    total = uniform_filter(weights, size)
    levels = weights**-0.5
    bad = levels > BAD_PIXEL * uniform_filter(weights * levels, size) / total
    return np.where(bad, uniform_filter(weights * guide, size) / total, guide) if bad.any() else guide


def mixing(channels: int) -> np.ndarray:
    """Orthonormal matrix (C, C) whose first row takes the mean of the channels; the others are differences.

    The discrete cosine transform; of three colours the opponent colours (R + G + B)/sqrt(3), (R - B)/sqrt(2) and
    (R - 2G + B)/sqrt(6).  White noise stays white, and Theta, which reads only inner products of pixels, as it is.
    """
    return np.asarray(dct(np.eye(channels), axis=0, norm="ortho"))


def _pad(pixels: np.ndarray, method: Method) -> np.ndarray:
    """Mirrors the sides that are shorter than a tile up to lengths that the network can halve."""
    m = method.network.multiple
    missing = [next_multiple(n, m) - n if n < method.size else 0 for n in pixels.shape[1:3]]
    return np.pad(pixels, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")


def noise_levels(sigma: Any, pixels: np.ndarray, dtype: np.dtype[Any]) -> tuple[float, np.ndarray | None, bool]:
    """Noise level, its map (1, H, W, 1) if one is given, and whether it was estimated."""
    if isinstance(sigma, np.ndarray) and sigma.ndim == 0:
        sigma = sigma.item()
    if sigma is not None and np.ndim(sigma) > 0:
        shape = pixels.shape[1:3]
        levels = as_values("sigma", sigma, shape, f"sigma must be a number or of shape {shape}, got shape")
        if not levels.min() > 0:
            raise ValueError(f"sigma must be positive at every pixel, got {float(levels.min())!r}")
        _require_level(float(levels.max()), dtype)
        middle = float(np.median(levels))
        levels = np.clip(levels, LEAST_LEVEL * middle, MOST_LEVEL * middle)
        # Weights (level/sigma)^2 have the mean 1.  The powers of a tiny level would overflow.
        level = middle * float(np.mean((levels / middle) ** -2.0) ** -0.5)
        return level, levels[None, :, :, None], False
    if sigma is not None:
        level = _check.not_negative("sigma", sigma)
        _require_level(level, dtype)
        return level, None, False
    return noise_level(pixels[0]), None, True


def _require_level(level: float, dtype: np.dtype[Any]) -> None:
    """Refuse a noise level whose noise, which the rules add, would leave the range of the type."""
    if level > LARGEST[dtype.name]:
        raise ValueError(f"sigma must be at most {LARGEST[dtype.name]:g} for dtype {dtype.name}, got {level:g}")
