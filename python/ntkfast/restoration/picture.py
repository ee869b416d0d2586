"""A picture as the denoiser takes it: its noise level, its channels and sides, its crops for the stopping rules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.fft import dct
from scipy.ndimage import uniform_filter

from ..images import LARGEST, next_multiple
from .image_filter import ImageFilter, Method, array_bytes
from .noise_model import NoiseModel
from .stabilize import PoissonGaussian
from .stopping import MOST_TIMES, Crops
from .tiles import Tiling

__all__ = ["Picture", "WhiteNoise", "mixing", "white_noise"]

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

    def transposed(self, last: ImageFilter, steps: int, gradient: np.ndarray) -> np.ndarray:
        """L^T g for the linear map L that made the image from the pixels in the last pass, Theta held fixed.

        L mixes the channels, pads, filters, crops and mixes back; each is transposed, in the opposite order.
        """
        height, width = self._shape
        padded = np.zeros_like(self.pixels)
        padded[:, :height, :width] = gradient @ self._mixing.T
        filtered = last.transposed(padded, steps)
        for axis, side in ((1, height), (2, width)):
            filtered = _folded(filtered, axis, side)
        return np.asarray(filtered @ self._mixing)

    def rule_tiling(self) -> Tiling:
        """Tiles of what the rules but "calibrated" filter: two versions of each crop."""
        crops, height, width, _ = self._cut(self.pixels).shape
        return self._method.tiling((2 * crops, height, width))

    def crops(self, seed: list[int]) -> Crops:
        """Return what the stopping rule looks at."""
        pixels = self._cut(self.pixels)
        level_map = np.full((*self.pixels.shape[:3], 1), self._level) if self._levels is None else self._levels
        levels = self._cut(level_map)

        def make(guide: np.ndarray, target: np.ndarray) -> ImageFilter:
            count, height, width, _ = target.shape
            tiling = self._method.tiling((count, height, width))
            repeated = None if self._levels is None else np.concatenate([levels] * (count // len(levels)))
            return self._filter(tiling, guide, target, repeated)

        variances = self.pixels.var(axis=(1, 2))[0] - (level_map**2).mean()  # those of the clean picture, by channel
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


def _folded(padded: np.ndarray, axis: int, side: int) -> np.ndarray:
    """The transpose of mirroring an axis of ``side`` pixels beyond its end: each copy is added to its original."""
    originals = np.pad(np.arange(side), (0, padded.shape[axis] - side), mode="symmetric")
    lines = np.moveaxis(padded, axis, 0)
    folded = np.zeros((side, *lines.shape[1:]))
    np.add.at(folded, originals, lines)
    return np.moveaxis(folded, 0, axis)


@dataclass(frozen=True)
class WhiteNoise:
    """A picture made such that its noise has one level in all channels, or a known one at each pixel.

    Attributes
    ----------
    pixels : ndarray, shape (1, H, W, C)
    level : float
        That of a typical pixel: the level whose inverse square is the mean of the inverse squares.
    levels : ndarray, shape (1, H, W, 1), or None
        That of each pixel, if they differ.
    scale : ndarray, shape (C,), or float
        By which the channels were multiplied.
    stabilizer : PoissonGaussian, optional
        By which the variance was made one.
    """

    pixels: np.ndarray
    level: float
    levels: np.ndarray | None = None
    scale: Any = 1.0
    stabilizer: PoissonGaussian | None = None

    def times(self, strength: float) -> WhiteNoise:
        """As if the levels were ``strength`` times what they are."""
        levels = None if self.levels is None else strength * self.levels
        return replace(self, level=strength * self.level, levels=levels)

    def back(self, result: np.ndarray) -> np.ndarray:
        """From denoised pixels to those of the picture that was given."""
        result = result / self.scale
        return result if self.stabilizer is None else self.stabilizer.invert(result)


def white_noise(noise: NoiseModel, pixels: np.ndarray, dtype: np.dtype[Any]) -> WhiteNoise:
    """A picture (1, H, W, C) with noise of this model."""
    if isinstance(noise, PoissonGaussian):
        return WhiteNoise(noise.stabilize(pixels), 1.0, stabilizer=noise)
    sigma, (_, height, width, channels) = noise.sigma, pixels.shape
    if np.shape(sigma) not in ((), (channels,), (height, width)):
        raise ValueError(
            f"sigma must be a number, one for each channel of shape ({channels},), or of shape {(height, width)}, "
            f"got shape {np.shape(sigma)}"
        )
    largest = float(np.max(sigma))
    if largest > LARGEST[dtype.name]:  # its noise, which the rules add, would leave the range of the type
        raise ValueError(f"sigma must be at most {LARGEST[dtype.name]:g} for dtype {dtype.name}, got {largest:g}")
    if np.ndim(sigma) == 0:
        return WhiteNoise(pixels, sigma)
    if np.ndim(sigma) == 1:
        scale = sigma.min() / sigma  # at most 1, so that nothing leaves the range of the type
        return WhiteNoise(pixels * scale, float(sigma.min()), scale=scale)
    middle = float(np.median(sigma))
    levels = np.clip(sigma, LEAST_LEVEL * middle, MOST_LEVEL * middle)
    # Weights (level/sigma)^2 have the mean 1.  The powers of a tiny level would overflow.
    level = middle * float(np.mean((levels / middle) ** -2.0) ** -0.5)
    return WhiteNoise(pixels, level, levels[None, :, :, None])
