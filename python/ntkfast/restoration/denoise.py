"""The denoiser: exact NTK filters of small overlapping tiles, stopped by a rule that needs no clean image."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.fft import dct
from scipy.ndimage import uniform_filter
from threadpoolctl import threadpool_limits

from .. import _check
from .._choices import METHODS, REFINE, TILE_OVERLAP, TILE_SIZE
from ..engine.backend import choose
from ..engine.cpu import CPU, threads_of
from ..engine.memory import Budget
from ..engine.program import Progress
from ..images import LARGEST, as_stack
from ..network import Network, as_network, vanilla_cnn
from .noise_level import noise_level
from .stabilize import PoissonGaussian
from .stopping import MOST_TIMES, RULES, Crops
from .tile_filter import (
    Advance,
    ImageFilter,
    Setting,
    TileFilter,
    WholeFilter,
    array_bytes,
    batch_bytes,
    whole_bytes,
)
from .tiles import Tiling

__all__ = ["DenoiseInfo", "denoise_ntk"]

LANDMARKS = 256
# From this share of the pixels on, their factorisation takes longer than the products of the exact kernel.
EXACT_FROM = 1 / 4
CHROMA_TIME = 1 / 3
NETWORK = vanilla_cnn(1, 5)

# Tiles that go through the engine together, interleaved: long rows, and few calls from Python.
TILES_PER_BATCH = 64

# The stopping rule looks at up to this many crops of this size, or of a tile's if that is larger.
RULE_CROPS, RULE_CROP_SIZE = 9, 48
RULE_STREAM = 0x6E746B  # keeps the rule's noise apart from a picture's that was made with the same small seed

# A pixel's noise level counts as no less than this share of the median: weights, one over variances, bound the step.
# And as no more than so many times it: `sure` adds a tenth of the level, which must not hide the picture from Theta.
LEAST_LEVEL, MOST_LEVEL = 0.1, 10.0

# Pixels of more than so many times the level of their neighbourhood tell Theta nothing: for the first pass the mean of
# the neighbourhood, by weights, stands for them.
BAD_PIXEL = 2.0
NEIGHBOURHOOD = 5  # side


@dataclass(frozen=True)
class DenoiseInfo:
    """What the denoiser did.

    Attributes
    ----------
    method : str
        "exact" too where "nystrom" was asked for with landmarks from a quarter of the pixels on.
    sigma : float
        Noise level, in the image's units; of a map the level that has the mean of 1/sigma^2, and 1 with ``gain``, where
        the image is denoised after its variance is stabilised.
    sigma_estimated : bool
        Whether it was estimated.
    network : Network
    tiles, tile_size, tile_overlap : int
        Number of tiles, their side and the overlap of neighbours in pixels.
    steps : tuple of int
        Steps of gradient descent of each pass, for the mean of the channels.
    learning_rate : tuple of float
        Step size of each pass, one over the squared units of the image.
    stopping : str
        The rule that chose the steps, "given", or "none" for a picture without noise, where steps is empty.
    refine : int
        Passes after the first.
    seconds : float
    """

    method: str
    sigma: float
    sigma_estimated: bool
    network: Network
    tiles: int
    tile_size: int
    tile_overlap: int
    steps: tuple[int, ...]
    learning_rate: tuple[float, ...]
    stopping: str
    refine: int
    seconds: float


def denoise_ntk(
    image: Any,
    sigma: Any = None,
    *,
    channel_axis: int | None = None,
    network: Network | None = None,
    method: str = "tiles",
    steps: int | Sequence[int] | None = None,
    stopping: str = "sure",
    tile_size: int = TILE_SIZE,
    tile_overlap: int | None = None,
    refine: int = REFINE,
    landmarks: int = LANDMARKS,
    chroma_time: float = CHROMA_TIME,
    gain: float | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: Any = "float32",
    threads: int | None = None,
    progress: Progress | None = None,
    full_output: bool = False,
) -> Any:
    """Denoise an image by what an infinitely wide CNN learns from it in a limited number of steps.

    The image is cut into overlapping tiles.  On each, less its mean, the network of infinite width is trained by
    gradient descent to reproduce the noisy tile from the noisy tile, in closed form, z_t = (I - (I - eta Theta)^t) y,
    with one step size eta for all tiles.  Then, ``refine`` times, Theta is built anew from the result and y is filtered
    again.

    Parameters
    ----------
    image : array_like, shape (H, W) or with a channel axis, real
        Not rescaled, not even if it is of an integer type: the result is in its units, and so is sigma.
    sigma : float or array_like of shape (H, W), optional
        Standard deviation of the noise, >= 0, or that of each pixel, > 0; by default estimated, from the covariance of
        patches (:mod:`ntkfast.restoration.noise_level`; fine texture in gray counts as noise, so give sigma if it is
        known).  A map weights the training: see Notes.
    channel_axis : int, optional
        Axis of the channels; None for a gray image.  All channels share the kernel.
    network : Network, optional
        Default ``vanilla_cnn(1, 5)``.
    method : {"tiles", "exact", "nystrom"}
        "exact" takes the whole image for one tile, with the exact kernel: many minutes on a large image, and without
        the locality of tiles.  "nystrom" does so with the low-rank kernel of :func:`ntkfast.nystrom`, which pays where
        the landmarks are a few percent of the pixels or fewer.
    steps : int or sequence of int, optional
        Steps of gradient descent, for every pass or for each of the 1 + refine passes.  By default chosen by
        ``stopping``, for which sigma is needed; otherwise only a map of sigma matters.
    stopping : {"sure", "recorrupted", "held_out", "calibrated"}
        Rule that chooses the steps: Notes.  "calibrated" takes no time, but is right only for photographs, with the
        default network and tiles.
    tile_size, tile_overlap : int
        Side of the tiles and overlap of neighbours, in pixels; the overlap is min(10, tile_size - 1) by default.  For
        a network of several resolutions the side is rounded up to a multiple of ``network.multiple``, and an image
        smaller than a tile is mirrored up to one.
    refine : int
        Passes after the first, each with the kernel of the result so far.
    landmarks : int
        Of "nystrom".  Time grows with their square; from a quarter of the image's pixels on the exact kernel, which is
        faster then, takes their place.
    chroma_time : float
        Training time of the differences between the channels, relative to that of their mean, > 0: colours are smoother
        than brightness, and are trained for less time.
    gain : float, optional
        For noise that depends on the signal, of variance ``gain * mean + sigma**2`` (Poisson and Gaussian; sigma is 0
        by default then): the image's variance is stabilised before, and the unbiased inverse applied after.
    seed : int
        Seed of the noise that the stopping rules add.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where the kernels of the tiles are computed.  The CPU takes many tiles at a time, a card one after the other:
        it gains with large tiles, and "auto" judges by the size of one.
    dtype : {"float32", "float64"}
        Type of the engine's arithmetic.
    threads : int, optional
        Threads, 1024 at most; by default all cores, or OMP_NUM_THREADS.
    progress : callable, optional
        Called with the fraction done, 0 to 1.
    full_output : bool
        Also return a :class:`DenoiseInfo`.

    Returns
    -------
    ndarray
        The denoised image: shape of the input, float32 if the input is or is of half precision, else float64; and the
        DenoiseInfo if asked for.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.
    RuntimeError
        If device is "cuda" and there is no card, or no CUDA in this build: with what is missing.
    MemoryError
        Before any work, if a tile, or the filter of the whole image, does not fit: with the bytes needed and the option
        that would fit.  Where memory is short, fewer tiles go through the engine at a time, and fewer threads work.

    Notes
    -----
    Rules: "sure" estimates the risk by Stein's formula with the divergence of the whole pipeline, Theta included: with
    Theta held fixed it fails, since Theta is built from the same noise.  "recorrupted": with fresh noise n of level
    sigma, y + a n and y - n/a have independent noise, so that the time which minimises
    |f_t(Theta(y + a n)) (y + a n) - (y - n/a)|^2 is, up to a constant, the one that minimises the true error of the
    whole pipeline at a noise level larger by sqrt(1 + a^2) (Pang et al., "Recorrupted-to-Recorrupted", CVPR 2021).
    "held_out" predicts pixels that were replaced by their neighbours.  "calibrated" takes times known beforehand,
    kappa/sigma^2 with a power of sigma over the image's contrast.  tools/tuning/README.md has what each loses.

    Noise map: gradient descent on the squared residuals over their variances, sum_p (z(p) - y(p))^2/sigma(p)^2.  Levels
    count as a tenth to ten times their median: dead pixels get any large one.  Pixels of more than twice the level of
    their neighbourhood are replaced by its weighted mean in what Theta of the first pass is built from.

    Examples
    --------
    >>> denoised = denoise_ntk(noisy, channel_axis=-1)                      # doctest: +SKIP
    """
    started = time.perf_counter()
    real = _check.float_dtype(dtype)
    pixels, layout = as_stack("image", image, channel_axis, real)
    passes = 1 + _check.at_least("refine", refine, 0)
    net = as_network(NETWORK if network is None else network, trainable=True)
    _check.choice("method", method, METHODS)
    _check.at_least("tile_size", tile_size, 1)
    landmarks = _check.at_least("landmarks", landmarks, 1)
    if method == "nystrom" and landmarks >= EXACT_FROM * pixels[0, :, :, 0].size:
        method = "exact"
    size = _next_multiple(tile_size if method == "tiles" else max(pixels.shape[1:3]), net.multiple)
    overlap = min(TILE_OVERLAP, size - 1) if tile_overlap is None else _check.at_least("tile_overlap", tile_overlap, 0)
    setting = Setting(
        network=net,
        size=size,
        overlap=overlap if method == "tiles" else 0,
        dtype=real,
        backend=CPU,
        workers=1,
        threads=threads_of(threads),
        tiles_at_once=TILES_PER_BATCH,
        chroma_time=_check.positive("chroma_time", chroma_time),
        landmarks=landmarks if method == "nystrom" else None,
    )
    if setting.overlap >= setting.size:
        raise ValueError(f"tile_overlap must be below tile_size = {setting.size}, got {setting.overlap}")
    setting = _placed(setting, method, device, pixels.shape)
    given = None if steps is None else _steps(steps, passes)
    rule = _check.choice("stopping", stopping, tuple(RULES))
    random = [RULE_STREAM, _check.at_least("seed", seed, 0)]

    stabilizer = None if gain is None else _stabilizer(gain, sigma)
    if stabilizer is not None:
        pixels, sigma = stabilizer.stabilize(pixels), 1.0
    level, levels, estimated = _noise_level(sigma, pixels, real)
    problem = _Problem(pixels, level, levels, setting, method)
    by_rule = given is None and level > 0
    trials = problem.rule_tiling() if by_rule and rule != "calibrated" else None
    problem.fit_memory(trials)
    report = _Report(progress, problem.tiling, trials, passes)
    # The eigenproblems of tiles are small, 36 x 36 or so: on a busy machine BLAS threads make them many times slower.
    with threadpool_limits(1, user_api="blas"):
        times = RULES[rule](problem.crops(random), passes, report.add) if by_rule else []
        mixed, taken, rates = _filter(problem, given, times, report.add)
    report.finish()
    result = problem.image(mixed) if taken else pixels  # to the bit, if nothing was done
    out = layout.restored(result if stabilizer is None else stabilizer.invert(result))[0]
    if not full_output:
        return out
    return out, DenoiseInfo(
        method=method,
        sigma=level,
        sigma_estimated=estimated,
        network=setting.network,
        tiles=problem.tiling.count,
        tile_size=setting.size,
        tile_overlap=setting.overlap,
        steps=tuple(taken),
        learning_rate=tuple(rates),
        stopping="given" if given else rule if by_rule else "none",
        refine=passes - 1,
        seconds=time.perf_counter() - started,
    )


def _filter(
    problem: _Problem, given: list[int] | None, times: list[float], advance: Advance
) -> tuple[np.ndarray, list[int], list[float]]:
    """All passes, each for the given number of steps or to the rule's time: the last image, steps, learning rates.

    Without either, as for an image without noise, there is nothing to do.
    """
    image, taken, rates = problem.pixels, [], []
    for n in range(len(given or times)):
        run = problem.filter(image)
        count = given[n] if given else run.steps(times[n])
        image = run.path([count], advance)[0]
        taken.append(count)
        rates.append(run.learning_rate)
    return image, taken, rates


def _placed(setting: Setting, method: str, device: Any, shape: tuple[int, ...]) -> Setting:
    """The setting with the device for tiles of an image of ``shape`` (1, H, W, C), and how many are there at a time."""
    m, channels = setting.network.multiple, shape[3]
    height, width = (min(setting.size, _next_multiple(side, m)) for side in shape[1:3])
    tile = setting.problem((1, height, width, channels))
    backend = choose(device, tile)
    if method != "tiles":
        return replace(setting, backend=backend)
    workers, threads = backend.tiles.shares(setting.threads)
    at_once = backend.tiles.at_once(tile, channels, TILES_PER_BATCH)
    return replace(setting, backend=backend, workers=workers, threads=threads, tiles_at_once=at_once)


def _stabilizer(gain: Any, sigma: Any) -> PoissonGaussian:
    if sigma is not None and np.ndim(sigma) > 0:
        raise ValueError(f"sigma must be one number if gain is given, got shape {np.shape(sigma)}")
    return PoissonGaussian(gain, 0.0 if sigma is None else _check.real("sigma", sigma))


class _Problem:
    """The picture as the passes see it: channels mixed, sides padded, weights from the noise map."""

    def __init__(
        self, pixels: np.ndarray, level: float, levels: np.ndarray | None, setting: Setting, method: str
    ) -> None:
        self._setting, self._method, self._level = setting, method, level
        self._shape = pixels.shape[1:3]
        self._mixing = mixing(pixels.shape[3])
        self.pixels = _pad(pixels @ self._mixing.T, setting)
        self._levels = None if levels is None else _pad(levels, setting)
        self.tiling = Tiling(self.pixels.shape[:3], setting.size, setting.overlap)

    def fit_memory(self, trials: Tiling | None) -> None:
        """Refuse what does not fit; where memory is short, fewer tiles at a time and fewer threads.

        ``trials``: tiles of what a rule filters, if it does.  The number of tiles at a time, on which the last digits
        of the result depend, does not depend on the number of threads.
        """
        setting, channels = self._setting, self.pixels.shape[3]
        phases = [(self.tiling, 1)] if trials is None else [(self.tiling, 1), (trials, MOST_TIMES)]
        arrays = max(array_bytes((*tiling.shape, channels), times) for tiling, times in phases)
        arrays += array_bytes(self.pixels.shape, 0)
        if self._method != "tiles":
            self._require_whole(phases, arrays)
            return

        def needed(count: int) -> int:
            return max(
                batch_bytes(setting, (*tiling.tile_shape, channels), min(count, tiling.count), times)
                for tiling, times in phases
            )

        most, budget = setting.backend.tiles.on_host(setting.tiles_at_once), Budget().state(arrays)
        fit = budget.most(most, needed)
        if not fit:
            hint = "use a smaller tile_size" if needed(1) > arrays else "use a smaller image"
            what = f"a tile of {' x '.join(map(str, self.tiling.tile_shape))} pixels, with the image,"
            budget.require(what, hint, needed(1))
        if fit < most:
            setting = replace(setting, tiles_at_once=fit)
        self._setting = replace(setting, workers=min(setting.workers, max(1, budget.left // needed(fit))))

    def _require_whole(self, phases: list[tuple[Tiling, int]], arrays: int) -> None:
        """Refuse a filter of the whole image that does not fit beside ``arrays``."""
        channels = self.pixels.shape[3]

        def needed(landmarks: int | None) -> int:
            setting = replace(self._setting, landmarks=landmarks)
            return max(whole_bytes(setting, (*tiling.shape, channels), times) for tiling, times in phases)

        landmarks, budget = self._setting.landmarks, Budget().state(arrays)
        fewer = math.ceil(EXACT_FROM * self.pixels[0, :, :, 0].size)
        hint = f"use method='tiles', or method='nystrom' with landmarks below {fewer}"
        if landmarks is not None:
            fit = budget.most(landmarks, needed)
            hint = f"landmarks = {fit} would fit" if fit else "use method='tiles'"
        what = f"method={self._method!r} on {' x '.join(map(str, self.pixels.shape[1:3]))} pixels"
        budget.require(what, hint, needed(landmarks))

    def filter(self, guide: np.ndarray) -> ImageFilter:
        """The filter of the whole picture with Theta from ``guide``."""
        return self._filter(self.tiling, guide, self.pixels, self._levels)

    def _filter(self, tiling: Tiling, guide: np.ndarray, target: np.ndarray, levels: np.ndarray | None) -> ImageFilter:
        kind = TileFilter if self._method == "tiles" else WholeFilter
        weights = None if levels is None else (self._level / levels) ** 2
        if weights is not None and guide is target:  # the first pass
            guide = _without_bad_pixels(guide, weights)
        return kind(self._setting, tiling, guide, target, weights)

    def image(self, mixed: np.ndarray) -> np.ndarray:
        """A picture (1, H, W, C) from what the passes make."""
        return np.asarray(mixed[:, : self._shape[0], : self._shape[1]] @ self._mixing)

    def rule_tiling(self) -> Tiling:
        """Tiles of what the rules but "calibrated" filter: two versions of each crop."""
        crops, height, width, _ = self._cut(self.pixels).shape
        return Tiling((2 * crops, height, width), self._setting.size, self._setting.overlap)

    def crops(self, seed: list[int]) -> Crops:
        """What the stopping rule looks at."""
        pixels = self._cut(self.pixels)
        level_map = np.full((*self.pixels.shape[:3], 1), self._level) if self._levels is None else self._levels
        levels = self._cut(level_map)

        def make(guide: np.ndarray, target: np.ndarray) -> ImageFilter:
            count, height, width, _ = target.shape
            tiling = Tiling((count, height, width), self._setting.size, self._setting.overlap)
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
        size = max(RULE_CROP_SIZE, self._setting.size)  # a crop holds a tile
        small = height * width <= RULE_CROPS * size**2 or min(height, width) < size
        if small or self._method != "tiles":
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


def _next_multiple(length: int, m: int) -> int:
    return -(-length // m) * m


def _pad(pixels: np.ndarray, setting: Setting) -> np.ndarray:
    """Mirrors the sides that are shorter than a tile up to lengths that the network can halve."""
    m = setting.network.multiple
    missing = [_next_multiple(n, m) - n if n < setting.size else 0 for n in pixels.shape[1:3]]
    return np.pad(pixels, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")


class _Report:
    """Fraction of the tiles done, over the stopping rule and the passes."""

    def __init__(self, progress: Progress | None, tiling: Tiling, trials: Tiling | None, passes: int) -> None:
        self._progress = _check.callback("progress", progress)
        self._total = passes * (tiling.count + (trials.count if trials is not None else 0))
        self._done = 0

    def add(self, tiles: int) -> None:
        self._done += tiles
        if self._progress is not None:
            self._progress(min(1.0, self._done / self._total))

    def finish(self) -> None:
        if self._progress is not None and self._done != self._total:
            self._progress(1.0)


def _noise_level(sigma: Any, pixels: np.ndarray, dtype: np.dtype[Any]) -> tuple[float, np.ndarray | None, bool]:
    """Noise level, its map (1, H, W, 1) if one is given, and whether it was estimated."""
    if isinstance(sigma, np.ndarray) and sigma.ndim == 0:
        sigma = sigma.item()
    if sigma is not None and np.ndim(sigma) > 0:
        levels = _check.real_array("sigma", sigma).astype(np.float64)
        if levels.shape != pixels.shape[1:3]:
            raise ValueError(f"sigma must be a number or of shape {pixels.shape[1:3]}, got shape {levels.shape}")
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


def _steps(steps: Any, passes: int) -> list[int]:
    """Steps of each pass."""
    if isinstance(steps, (str, bytes)):
        raise TypeError(f"steps must be an integer or a sequence of them, got {steps!r}")
    numbers = [steps] * passes if np.ndim(steps) == 0 else list(steps)
    if len(numbers) != passes:
        raise ValueError(f"steps must be one integer or {passes}, one for each pass, got {len(numbers)}")
    return [_check.steps("steps", number) for number in numbers]
