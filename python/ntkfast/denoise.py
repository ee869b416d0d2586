"""The denoiser: exact NTK filters of small overlapping tiles, stopped by a rule that needs no clean image."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from . import _cuda, _engine
from ._arrays import NUMPY, cupy_arrays
from .kernel import LARGEST, _dtype, real_array
from .network import Network, _at_least, _integer, _real, vanilla_cnn
from .spectral import BlockLanczos, gradient_descent_filter
from .tiles import Tiling

__all__ = ["DenoiseInfo", "denoise_ntk"]

# Tiles that go through the engine together, interleaved: long rows, and few calls from Python.
TILES_PER_BATCH = 64

# Lanczos on tiles: this error is far below the noise that is left (one gray level of 256 is 4e-3 of the range).
TILE_TOLERANCE = 1e-3
TILE_MAX_PRODUCTS = 40
TILES_CHECKED = 8  # of a batch, for convergence; the eigenvalue problems of all would take longer than the products

# Stopping rule (recorrupted pairs): strength a of the added noise; the grid of steps; up to this many crops of this
# size.
RECORRUPTION = 0.3
RULE_STEPS = sorted({round(1.4**n) for n in range(31)})  # 1 to 24000
RULE_CROPS, RULE_CROP_SIZE = 9, 64
RULE_STREAM = 0x6E746B  # keeps the rule's noise apart from a picture's that was made with the same small seed


@dataclass(frozen=True)
class DenoiseInfo:
    """What the denoiser did.

    Attributes
    ----------
    sigma : float
        Noise level, in the image's units.
    sigma_estimated : bool
        Whether it was estimated.
    network : Network
    tiles, tile_size, tile_overlap : int
        Number of tiles, their side and the overlap of neighbours in pixels.
    steps : tuple of int
        Steps of gradient descent of each pass.
    learning_rate : tuple of float
        Step size of each pass, one over the squared units of the image.
    refine : int
        Passes after the first.
    seconds : float
    """

    sigma: float
    sigma_estimated: bool
    network: Network
    tiles: int
    tile_size: int
    tile_overlap: int
    steps: tuple[int, ...]
    learning_rate: tuple[float, ...]
    refine: int
    seconds: float


def denoise_ntk(
    image: Any,
    sigma: float | None = None,
    *,
    channel_axis: int | None = None,
    network: Network | None = None,
    steps: int | Sequence[int] | None = None,
    tile_size: int = 16,
    tile_overlap: int = 8,
    refine: int = 1,
    seed: int = 0,
    device: str = "auto",
    dtype: Any = "float32",
    threads: int | None = None,
    progress: _engine.Progress | None = None,
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
        Not rescaled: the result is in its units, and so is sigma.
    sigma : float, optional
        Standard deviation of the noise, >= 0; by default estimated from the finest wavelets
        (``skimage.restoration.estimate_sigma``).
    channel_axis : int, optional
        Axis of the channels; None for a gray image.  All channels share the kernel.
    network : Network, optional
        Default ``vanilla_cnn(1, 5)``.
    steps : int or sequence of int, optional
        Steps of gradient descent, for every pass or for each of the 1 + refine passes.  By default chosen by
        recorrupted pairs (Notes), for which sigma is needed; otherwise sigma does not matter.
    tile_size, tile_overlap : int
        Side of the tiles and overlap of neighbours, in pixels.  For a network of several resolutions the side is
        rounded up to a multiple of ``network.multiple``, and an image smaller than a tile is mirrored up to one.
    refine : int
        Passes after the first, each with the kernel of the result so far.
    seed : int
        Seed of the noise that the stopping rule adds.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where the kernels of the tiles are computed.  The CPU takes many tiles at a time, a card one after the other:
        it gains with large tiles, and "auto" judges by the size of one.
    dtype : {"float32", "float64"}
        Type of the engine's arithmetic.
    threads : int, optional
        Threads of the engine; by default all cores.
    progress : callable, optional
        Called with the fraction done, 0 to 1.
    full_output : bool
        Also return a :class:`DenoiseInfo`.

    Returns
    -------
    ndarray
        The denoised image: shape of the input, float32 if the input is, else float64; and the DenoiseInfo if asked for.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.
    RuntimeError
        If device is "cuda" and there is no card, or no CUDA in this build: with what is missing.
    MemoryError
        If a tile does not fit on the card.

    Notes
    -----
    Stopping rule: with fresh noise n of level sigma, y + a n and y - n/a have independent noise, so that the time which
    minimises |f_t(Theta(y + a n)) (y + a n) - (y - n/a)|^2 is, up to a constant, the one that minimises the true error
    of the whole pipeline at a noise level larger by sqrt(1 + a^2) (Pang et al., "Recorrupted-to-Recorrupted", CVPR
    2021). The usual unbiased risk estimate with Theta held fixed fails here, since Theta is built from the same noise.

    Examples
    --------
    >>> denoised = denoise_ntk(noisy, channel_axis=-1)                      # doctest: +SKIP
    """
    started = time.perf_counter()
    real = _dtype(dtype)
    pixels, restore = _as_stack(image, channel_axis, real)
    passes = 1 + _at_least("refine", refine, 0)
    net = vanilla_cnn(1, 5) if network is None else _network(network)
    size = _next_multiple(_at_least("tile_size", tile_size, 1), net.multiple)
    card, at_once = _place(device, net, size, pixels.shape, real)
    setting = _Setting(
        network=net,
        size=size,
        overlap=_at_least("tile_overlap", tile_overlap, 0),
        dtype=real,
        threads=_engine.threads(threads),
        card=card,
        tiles_at_once=at_once,
    )
    if setting.overlap >= setting.size:
        raise ValueError(f"tile_overlap must be below tile_size = {setting.size}, got {setting.overlap}")
    given = None if steps is None else _steps(steps, passes)
    level, estimated = _noise_level(sigma, pixels)
    height, width = pixels.shape[1:3]
    pixels = _pad(pixels, setting)
    rng = np.random.default_rng([RULE_STREAM, _at_least("seed", seed, 0)])
    tiling = Tiling(pixels.shape[:3], setting.size, setting.overlap)

    by_rule = given is None and level > 0
    report = _Report(progress, tiling, _rule_tiling(pixels, setting) if by_rule else None, passes)
    result, taken, rates = pixels, [], []
    # The eigenproblems of tiles are small, 36 x 36 or so: on a busy machine BLAS threads make them many times slower.
    with threadpool_limits(1, user_api="blas"):
        durations = _recorrupted_times(pixels, level, passes, setting, rng, report) if by_rule else []
        for n in range(passes if given or by_rule else 0):  # without noise there is nothing to do
            run = _Pass(setting, tiling, guide=result, target=pixels)
            count = given[n] if given else max(1, round(durations[n] / run.learning_rate))
            result = run.path([count], report)[0]
            taken.append(count)
            rates.append(run.learning_rate)
    report.finish()
    out = restore(result[:, :height, :width])
    if not full_output:
        return out
    return out, DenoiseInfo(
        sigma=level,
        sigma_estimated=estimated,
        network=setting.network,
        tiles=tiling.count,
        tile_size=setting.size,
        tile_overlap=setting.overlap,
        steps=tuple(taken),
        learning_rate=tuple(rates),
        refine=passes - 1,
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True)
class _Setting:
    network: Network
    size: int
    overlap: int
    dtype: np.dtype[Any]
    threads: int
    card: int | None  # None for the CPU
    tiles_at_once: int


def _place(
    device: Any, network: Network, size: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[int | None, int]:
    """The card for tiles of an image of ``shape`` (1, H, W, C), None for the CPU, and how many tiles at a time."""
    m, channels = network.multiple, shape[3]
    height, width = (min(size, _next_multiple(side, m)) for side in shape[1:3])
    card = _cuda.choose(device, network, (1, height, width, channels), kernel="ntk", dtype=dtype, image_device=None)
    if card is None:
        return None, TILES_PER_BATCH
    tile = (height, width, channels)
    return card, _cuda.TileEngines.at_once(
        network, tile, columns=channels, dtype=dtype, device=card, most=TILES_PER_BATCH
    )


def _next_multiple(length: int, m: int) -> int:
    return -(-length // m) * m


def _pad(pixels: np.ndarray, setting: _Setting) -> np.ndarray:
    """Mirrors the sides that are shorter than a tile up to lengths that the network can halve."""
    m = setting.network.multiple
    missing = [_next_multiple(n, m) - n if n < setting.size else 0 for n in pixels.shape[1:3]]
    return np.pad(pixels, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")


class _Report:
    """Fraction of the tiles done, over the stopping rule and the passes."""

    def __init__(self, progress: _engine.Progress | None, tiling: Tiling, rule: Tiling | None, passes: int) -> None:
        if progress is not None and not callable(progress):
            raise TypeError(f"progress must be callable, got {progress!r}")
        self._progress = progress
        self._total = passes * (tiling.count + (rule.count if rule else 0))
        self._done = 0

    def add(self, tiles: int) -> None:
        self._done += tiles
        if self._progress is not None:
            self._progress(min(1.0, self._done / self._total))

    def finish(self) -> None:
        if self._progress is not None and self._done != self._total:
            self._progress(1.0)


class _Pass:
    """One filter of all tiles: Theta from ``guide``, applied to ``target``, both (n, H, W, C).

    Each tile loses its mean, channel by channel, on both sides.  Measured on a 128 x 128 crop of one photograph (sigma
    25, tiles of 16 with 8 overlapping, one hidden layer 5 x 5), the tile's mean gives 0.8 dB more than the image's in
    the first pass and 0.5 dB in the second; and one step size for all tiles 1 dB more than one each, since a flat tile,
    whose kernel is small, then follows its noise slowly.
    """

    def __init__(self, setting: _Setting, tiling: Tiling, guide: np.ndarray, target: np.ndarray) -> None:
        self._setting, self._tiling = setting, tiling
        self._guide, self._target = guide, target
        traces = [self._engine(which).diagonal().sum(axis=0).max() for which in self._batches()]
        # The trace bounds the largest eigenvalue, so that no tile diverges; unlike the eigenvalue it costs O(d).
        largest = float(max(traces))
        self.learning_rate = 1.0 / largest if largest > 0 else 1.0

    def _batches(self) -> list[slice]:
        step = self._setting.tiles_at_once
        return [slice(n, n + step) for n in range(0, self._tiling.count, step)]

    def _engine(self, which: slice) -> Any:
        tiles = self._tiling.extract(self._guide, which)
        tiles = tiles - tiles.mean(axis=(1, 2), keepdims=True)
        s = self._setting
        if s.card is not None:
            return _cuda.TileEngines(s.network, tiles, dtype=s.dtype, threads=s.threads, device=s.card)
        return _engine.make(s.network, tiles, kernel="ntk", dtype=s.dtype, threads=s.threads)

    def path(self, steps: Sequence[int], report: _Report) -> list[np.ndarray]:
        """Blended images after each number of steps."""
        sums = [self._tiling.accumulator(self._target.shape[3]) for _ in steps]
        for which in self._batches():
            tiles = self._tiling.extract(self._target, which)
            means = tiles.mean(axis=(1, 2), keepdims=True)
            filtered = self._descend(which, tiles - means, steps)
            for total, part in zip(sums, filtered, strict=True):
                self._tiling.add(total, part + means, which)
            report.add(len(tiles))
        return [Tiling.blend(total) for total in sums]

    def _descend(self, which: slice, tiles: np.ndarray, steps: Sequence[int]) -> np.ndarray:
        """z_t of a batch of tiles (count, h, w, C) for each t: (times, count, h, w, C)."""
        count, h, w, channels = tiles.shape
        engine, card = self._engine(which), self._setting.card
        engine.store()
        arrays = NUMPY if card is None else cupy_arrays(card)

        def product(v: Any) -> Any:
            if card is not None:
                return engine.product(arrays, v)
            interleaved = np.ascontiguousarray(v.transpose(1, 2, 0))
            return np.asarray(engine.product(interleaved).transpose(2, 0, 1))

        filters = [gradient_descent_filter(t, self.learning_rate) for t in steps]
        hardest = [gradient_descent_filter(max(steps), self.learning_rate)]  # the bound grows with the steps
        start = arrays.asarray(tiles.reshape(count, h * w, channels), self._setting.dtype)
        lanczos = BlockLanczos(product, start, arrays)
        if lanczos.exhausted:
            return np.zeros((len(steps), *tiles.shape))
        while not lanczos.exhausted and lanczos.products < TILE_MAX_PRODUCTS:
            lanczos.step()
            some = slice(0, TILES_CHECKED)
            if lanczos.products % 4 == 0 and lanczos.solve(some).error(hardest) <= TILE_TOLERANCE:
                break
        z = arrays.to_host(lanczos.assemble(lanczos.solve(), filters))
        return z.reshape(len(steps), count, h, w, channels)


def _rule_crops(pixels: np.ndarray) -> list[tuple[slice, slice]]:
    """Crops on which the stopping rule judges: the whole image if it is small, else an even spread."""
    _, height, width, _ = pixels.shape
    if height * width <= RULE_CROPS * RULE_CROP_SIZE**2 or min(height, width) < RULE_CROP_SIZE:
        return [(slice(0, height), slice(0, width))]
    side = round(RULE_CROPS**0.5)
    rows = np.linspace(0, height - RULE_CROP_SIZE, side).astype(int)
    cols = np.linspace(0, width - RULE_CROP_SIZE, side).astype(int)
    return [(slice(y, y + RULE_CROP_SIZE), slice(x, x + RULE_CROP_SIZE)) for y in rows for x in cols]


def _rule_stack(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels[:, rows, cols] for rows, cols in _rule_crops(pixels)])


def _rule_tiling(pixels: np.ndarray, setting: _Setting) -> Tiling:
    crops, height, width, _ = _rule_stack(pixels).shape
    return Tiling((2 * crops, height, width), setting.size, setting.overlap)


def _recorrupted_times(
    pixels: np.ndarray, sigma: float, passes: int, setting: _Setting, rng: np.random.Generator, report: _Report
) -> list[float]:
    """Training time (steps times step size) of each pass, by recorrupted pairs.

    The pair is taken with +n and with -n: what is linear in n, nearly all of the criterion's spread, then cancels.
    """
    crops = _rule_stack(pixels)
    noise = sigma * rng.standard_normal(crops.shape)
    noise = np.concatenate([noise, -noise])
    both = np.concatenate([crops, crops])
    seen, unseen = both + RECORRUPTION * noise, both - noise / RECORRUPTION
    tiling = _rule_tiling(pixels, setting)
    times, guide = [], seen
    for _ in range(passes):
        run = _Pass(setting, tiling, guide, target=seen)
        results = run.path(RULE_STEPS, report)
        risk = np.array([np.mean((z - unseen) ** 2) for z in results])
        times.append(_lowest(np.log(RULE_STEPS), risk) * run.learning_rate)
        guide = results[int(np.argmin(risk))]
    return times


def _lowest(log_steps: np.ndarray, risk: np.ndarray) -> float:
    """Steps at the vertex of the parabola through the lowest point and its neighbours."""
    n = int(np.argmin(risk))
    if n in (0, len(risk) - 1):
        return float(np.exp(log_steps[n]))
    curve = np.polynomial.Polynomial.fit(log_steps[n - 1 : n + 2], risk[n - 1 : n + 2], 2)
    vertex = curve.deriv().roots()
    return float(np.exp(vertex[0].real if len(vertex) else log_steps[n]))


def _noise_level(sigma: float | None, pixels: np.ndarray) -> tuple[float, bool]:
    """Noise level and whether it was estimated."""
    if sigma is not None:
        level = _real("sigma", sigma)
        if level < 0:
            raise ValueError(f"sigma must be >= 0, got {level!r}")
        return level, False
    from skimage.restoration import estimate_sigma  # 0.5 s to import: only when it is needed

    with warnings.catch_warnings():
        # Images smaller than the wavelet's support: the estimate is poor but there is no better one.
        warnings.simplefilter("ignore")
        planes = np.moveaxis(pixels[0], -1, 0)
        level = float(np.mean([estimate_sigma(plane) for plane in planes]))  # type: ignore[no-untyped-call]
    return (level if np.isfinite(level) else 0.0), True


def _as_stack(image: Any, channel_axis: int | None, dtype: np.dtype[Any]) -> tuple[np.ndarray, Any]:
    """The image as float64 (1, H, W, C), and the function that gives such a stack the shape and type of the image."""
    array = real_array("image", image)
    kept = array.dtype if np.asarray(image).dtype == np.float32 else np.dtype(np.float64)
    largest, limit = float(np.abs(array).max()), LARGEST[dtype.name]
    if largest > limit:
        raise ValueError(f"image must have magnitudes up to {limit:g} for dtype {dtype.name}, got {largest:g}")
    if channel_axis is None:
        if array.ndim != 2:
            raise ValueError(f"image must have 2 dimensions when channel_axis is None, got shape {array.shape}")
        return array[None, :, :, None].astype(np.float64), lambda z: z[0, :, :, 0].astype(kept)
    axis = _integer("channel_axis", channel_axis)
    if array.ndim != 3:
        raise ValueError(f"image must have 3 dimensions when channel_axis is given, got shape {array.shape}")
    if not -3 <= axis < 3:
        raise ValueError(f"channel_axis must lie between -3 and 2, got {axis}")
    stack = np.moveaxis(array, axis, -1)[None].astype(np.float64)
    return stack, lambda z: np.ascontiguousarray(np.moveaxis(z[0], -1, axis), dtype=kept)


def _network(network: Any) -> Network:
    if not isinstance(network, Network):
        raise TypeError(f"network must be an ntkfast.Network, got {network!r}")
    if not network.trainable:
        raise ValueError("network must have a trainable Conv, got all of them frozen")
    return network


def _steps(steps: Any, passes: int) -> list[int]:
    """Steps of each pass."""
    if isinstance(steps, (str, bytes)):
        raise TypeError(f"steps must be an integer or a sequence of them, got {steps!r}")
    numbers = [steps] * passes if np.ndim(steps) == 0 else list(steps)
    if len(numbers) != passes:
        raise ValueError(f"steps must be one integer or {passes}, one for each pass, got {len(numbers)}")
    return [_at_least("steps", number, 0) for number in numbers]
