"""The NTK filters of all tiles of an image, and of a whole image: one pass of the denoiser.

With weights w(p), one over the noise's variance up to a factor, gradient descent on sum_p w(p) (z(p) - y(p))^2/2 gives

    z_{t+1} = z_t + eta Theta W (y - z_t)   =>   z_t = W^-1/2 f_t(W^1/2 Theta W^1/2) W^1/2 y,
    f_t(x) = 1 - (1 - eta x)^t,  W = diag(w)

so that weights only surround the product with Theta.  Channels come as their mean and their differences (an orthonormal
transform, docs/math.md), and the differences are trained for a share of the time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from scipy.sparse.linalg import LinearOperator

from ..engine.arrays import NUMPY
from ..engine.backend import Backend, TileEngine
from ..engine.cpu import CPU
from ..engine.memory import peaks
from ..engine.program import Problem
from ..images import without_mean
from ..kernel import NTK
from ..network import Network
from ..spectral.filters import USUAL_PRODUCTS, Settings, descend
from ..spectral.lanczos import RESULT_COPIES, BlockLanczos, gradient_descent_filter, lanczos_bytes
from ..spectral.lowrank import LowRank, from_landmarks, landmark_bytes, lattice
from .tiles import Tiling

__all__ = ["ImageFilter", "Setting", "TileFilter", "WholeFilter", "array_bytes", "batch_bytes", "whole_bytes"]

# Lanczos: this error is far below the noise that is left (one gray level of 256 is 4e-3 of the range).
TOLERANCE = 1e-3
MAX_PRODUCTS = 40
LANCZOS = Settings(TOLERANCE, 200, hint="use method='tiles', or method='nystrom'")  # of whole images
MAX_STEPS = 10**9  # eigenvalues below 1e-9 of the trace are rounding errors: more steps fit nothing but these
BATCHES_AHEAD = 2  # of each worker, begun or done before the oldest is blended
# Channels a pixel of a tile from which all of its eigenvectors cost less than Lanczos, whose basis comes near all of
# its pixels: 24 channels for tiles of 16 (python -m tools.tuning.channels).
EIGENVECTORS_FROM = 1 / 11
EIGEN_MATRICES = 3  # a tile: Theta in double, its eigenvectors, and a copy on the way
IMAGE_COPIES = 6  # of the images of a pass: the guide, the target, both less their means, and what becomes of them
TILES_CHECKED = 8  # of a batch, for convergence; the eigenvalue problems of all would take longer than the products


@dataclass(frozen=True)
class Setting:
    """What all passes of one denoising share.

    Attributes
    ----------
    network : Network
    size, overlap : int
        Of the tiles, in pixels.
    dtype : numpy dtype
        Of the engine's arithmetic.
    backend : Backend
        The device.
    workers, threads : int
        Batches of tiles in work at a time, and the threads of each.
    tiles_at_once : int
        Of a batch.
    chroma_time : float
        Training time of the differences between the channels, relative to that of their mean.
    landmarks : int or None
        For whole images: those of the Nystrom approximation; None for the exact kernel.
    """

    network: Network
    size: int
    overlap: int
    dtype: np.dtype[Any]
    backend: Backend
    workers: int
    threads: int
    tiles_at_once: int
    chroma_time: float
    landmarks: int | None = None

    def problem(self, shape: tuple[int, ...]) -> Problem:
        """The kernels of images or tiles (n, H, W, C)."""
        count, height, width, channels = shape
        return Problem(self.network, (count, height, width, channels), self.dtype, self.threads)


def array_bytes(shape: tuple[int, ...], times: int) -> int:
    """Bytes of the images (n, H, W, C) of a pass that keeps ``times`` of them: sums of tiles and their quotients."""
    pixels, channels = int(np.prod(shape[:3])), shape[3]
    return 8 * pixels * ((2 * channels + 1) * times + IMAGE_COPIES * channels)


def batch_bytes(setting: Setting, shape: tuple[int, int, int], count: int, times: int) -> int:
    """Bytes that ``count`` tiles (h, w, C) take at their most, ``times`` results of them included."""
    height, width, channels = shape
    engine = CPU.peaks(replace(setting.problem((count, *shape)), threads=1), channels)["dense"]
    d = height * width
    if _by_eigenvectors(setting, shape):
        # Theta as the engine gives it and in double, eigenvectors and LAPACK's work; coordinates, filtered.
        basis = (setting.dtype.itemsize + 8 * EIGEN_MATRICES) * d**2 + 8 * (1 + RESULT_COPIES * times) * channels * d
    else:
        basis = lanczos_bytes(d, channels, min(MAX_PRODUCTS, d), times * channels, setting.dtype.itemsize)
    waiting = 8 * (1 + BATCHES_AHEAD) * times * channels * d
    return engine + count * (basis + waiting)


def _by_eigenvectors(setting: Setting, shape: tuple[int, int, int]) -> bool:
    """Whether tiles (h, w, C) are filtered by all of their eigenvectors."""
    height, width, channels = shape
    return setting.backend.tiles.has_dense and channels >= EIGENVECTORS_FROM * height * width


def whole_bytes(setting: Setting, shape: tuple[int, ...], times: int) -> int:
    """Bytes that the filter of whole images (n, H, W, C) takes in the host's memory beside the images."""
    count, height, width, channels = shape
    d, n, item = height * width, channels + 1, setting.dtype.itemsize  # with the direction that finds lambda_max
    results = channels * times * (2 if channels > 1 else 1)
    parts = setting.backend.estimate(setting.problem((1, height, width, channels)), n)
    work = setting.backend.host_bytes((count - 1) * parts["fields"] + peaks(parts)["stream"])
    if setting.landmarks is None:
        return work + lanczos_bytes(d, n, min(USUAL_PRODUCTS, d + 1), results, item)
    return work + landmark_bytes(d, min(setting.landmarks, d), item) + item * d * (results + 2)


Result = TypeVar("Result")
Advance = Callable[[int], None]  # told how many tiles are done
Path = Callable[[Sequence[int]], np.ndarray]  # numbers of steps -> what a batch is after each, (times, count, d, C)


class ImageFilter(ABC):
    """One pass: Theta from ``guide``, applied to ``target``; both (n, H, W, C), with weights (n, H, W, 1) or None.

    Attributes
    ----------
    learning_rate : float
        eta, one for all tiles: 1/trace, which bounds 1/lambda_max from below and costs O(d).
    """

    learning_rate: float

    def __init__(
        self, setting: Setting, tiling: Tiling, guide: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
    ) -> None:
        self._setting, self._tiling = setting, tiling
        self._guide, self._target, self._weights = guide, target, weights
        largest = self._largest_trace()
        self.learning_rate = 1.0 / largest if largest > np.finfo(float).tiny else 1.0

    def steps(self, time: float) -> int:
        """Steps that take about this training time, no more than do anything."""
        return max(1, round(min(time / self.learning_rate, MAX_STEPS)))

    @abstractmethod
    def path(self, steps: Sequence[int], advance: Advance) -> list[np.ndarray]:
        """Blended images (n, H, W, C) after each number of steps."""

    @abstractmethod
    def _largest_trace(self) -> float: ...

    def _steps_of_differences(self, steps: Sequence[int]) -> list[int]:
        return [max(min(1, t), round(self._setting.chroma_time * t)) for t in steps]


def _centred(values: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Tiles or images (n, h, w, C) less their (weighted) means, and these."""
    if weights is None:
        means = values.mean(axis=(1, 2), keepdims=True)
    else:
        means = (weights * values).sum(axis=(1, 2), keepdims=True) / weights.sum(axis=(1, 2), keepdims=True)
    return values - means, means


class TileFilter(ImageFilter):
    """The filter of all tiles, batch by batch: O(tile) memory beyond the images.

    Batches are dealt to Python threads, each with a single-threaded engine: much of the time goes into NumPy's small
    matrices, which release the GIL but take one core, while the others would wait for them otherwise.  Results are
    blended in the order of the batches, and do not depend on the number of threads.

    Each tile loses its mean, channel by channel, on both sides; one step size serves all tiles, since a flat tile,
    whose kernel is small, would with one of its own follow its noise.
    """

    def _largest_trace(self) -> float:
        return max(trace for _, trace in self._over_batches(self._traces))

    def _traces(self, which: slice) -> float:
        diagonal = self._engine(which).diagonal()  # (d, count)
        weights = self._weights_of(which)
        if weights is not None:
            diagonal = diagonal * weights.reshape(len(weights), -1).T
        return float(diagonal.sum(axis=0).max())

    def _over_batches(self, work: Callable[[slice], Result]) -> Iterator[tuple[slice, Result]]:
        """Batches of tiles in order, each with what ``work`` makes of it."""
        batches, workers = self._batches(), self._setting.workers
        if workers == 1:
            yield from ((which, work(which)) for which in batches)
            return
        pool = ThreadPoolExecutor(workers)
        running: deque[tuple[slice, Future[Result]]] = deque()
        try:
            for which in batches:
                running.append((which, pool.submit(work, which)))
                if len(running) > BATCHES_AHEAD * workers:  # results that wait for their turn take memory
                    done, future = running.popleft()
                    yield done, future.result()
            while running:
                done, future = running.popleft()
                yield done, future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _batches(self) -> list[slice]:
        step, count = self._setting.tiles_at_once, self._tiling.count
        return [slice(n, min(n + step, count)) for n in range(0, count, step)]

    def _weights_of(self, which: slice) -> np.ndarray | None:
        return None if self._weights is None else self._tiling.extract(self._weights, which)

    def _engine(self, which: slice) -> TileEngine:
        tiles, _ = _centred(self._tiling.extract(self._guide, which), None)
        return self._setting.backend.tiles.engine(self._setting.problem(tiles.shape), tiles)

    def path(self, steps: Sequence[int], advance: Advance) -> list[np.ndarray]:
        """Blended images (n, H, W, C) after each number of steps."""
        sums = [self._tiling.accumulator(self._target.shape[3]) for _ in steps]

        def work(which: slice) -> np.ndarray:
            weights = self._weights_of(which)
            tiles, means = _centred(self._tiling.extract(self._target, which), weights)
            return np.asarray(self._descend(which, tiles, weights, steps) + means)

        for which, filtered in self._over_batches(work):
            for total, part in zip(sums, filtered, strict=True):
                self._tiling.add(total, part, which)
            advance(which.stop - which.start)
        return [Tiling.blend(total) for total in sums]

    def _descend(self, which: slice, tiles: np.ndarray, weights: np.ndarray | None, steps: Sequence[int]) -> np.ndarray:
        """z_t of a batch of tiles (count, h, w, C) for each t: (times, count, h, w, C)."""
        count, h, w, channels = tiles.shape
        root = None if weights is None else np.sqrt(weights).reshape(count, h * w, 1).astype(self._setting.dtype)
        start = tiles.reshape(count, h * w, channels)
        if root is not None:
            start = root * start
        of_differences = self._steps_of_differences(steps)
        engine = self._engine(which)
        if _by_eigenvectors(self._setting, (h, w, channels)):
            after = self._by_eigenvectors(engine, start, root)
        else:
            after = self._by_lanczos(engine, start, root, max(*steps, *of_differences))
        z = after(steps)
        if channels > 1:
            z[..., 1:] = after(of_differences)[..., 1:]
        return (z if root is None else z / root).reshape(len(steps), count, h, w, channels)

    def _by_eigenvectors(self, engine: TileEngine, start: np.ndarray, root: np.ndarray | None) -> Path:
        """f_t(W^1/2 Theta W^1/2) of the columns of ``start`` (count, d, C) from all eigenvectors of each tile."""
        theta = engine.dense().astype(np.float64)  # (count, d, d)
        if root is not None:
            theta *= root * np.swapaxes(root, 1, 2)
        values, vectors = np.linalg.eigh(theta)
        coordinates = np.swapaxes(vectors, 1, 2) @ start

        def after(times: Sequence[int]) -> np.ndarray:
            gains = [gradient_descent_filter(t, self.learning_rate).value(np.maximum(values, 0.0)) for t in times]
            return np.stack([vectors @ (gain[..., None] * coordinates) for gain in gains])

        return after

    def _by_lanczos(self, engine: TileEngine, start: np.ndarray, root: np.ndarray | None, most: int) -> Path:
        """The same by block Lanczos, for up to ``most`` steps."""
        engine.store()
        arrays = self._setting.backend.arrays(NUMPY)
        weight = None if root is None else arrays.asarray(root, self._setting.dtype)

        def product(v: Any) -> Any:
            return engine.product(arrays, v) if weight is None else weight * engine.product(arrays, weight * v)

        lanczos = BlockLanczos(product, arrays.asarray(start, self._setting.dtype), arrays)
        if lanczos.exhausted:
            return lambda times: np.zeros((len(times), *start.shape))
        hardest = [gradient_descent_filter(most, self.learning_rate)]  # the bound grows with the steps
        while not lanczos.exhausted and lanczos.products < MAX_PRODUCTS:
            lanczos.step()
            some = slice(0, None, max(1, len(start) // TILES_CHECKED))  # spread: neighbours converge alike
            if lanczos.products % 4 == 0 and lanczos.solve(some).error(hardest) <= TOLERANCE:
                break
        solution = lanczos.solve()

        def after(times: Sequence[int]) -> np.ndarray:
            filters = [gradient_descent_filter(t, self.learning_rate) for t in times]
            return np.asarray(arrays.to_host(lanczos.assemble(solution, filters)))

        return after


class WholeFilter(ImageFilter):
    """The filter of whole images, one after the other: exact, or with landmarks in place of all pixels."""

    @cached_property
    def _operators(self) -> list[Any]:
        s = self._setting
        images = [without_mean(image) for image in self._guide]
        return [NTK(s.network, image, device=s.backend.name, dtype=s.dtype, threads=s.threads) for image in images]

    def _largest_trace(self) -> float:
        weights = 1.0 if self._weights is None else self._weights.reshape(len(self._guide), -1)
        diagonals = np.stack([K.diagonal() for K in self._operators])
        return float((weights * diagonals).sum(axis=1).max())

    def path(self, steps: Sequence[int], advance: Advance) -> list[np.ndarray]:
        """Images (n, H, W, C) after each number of steps."""
        target, means = _centred(self._target, self._weights)
        out = np.empty((len(steps), *target.shape))
        for n, K in enumerate(self._operators):
            operator = K if self._setting.landmarks is None else self._low_rank(K, self._setting.landmarks)
            out[:, n] = self._descend(operator, target[n], None if self._weights is None else self._weights[n], steps)
            advance(1)
        return list(out + means)

    def _low_rank(self, K: NTK, landmarks: int) -> LowRank:
        return from_landmarks(K, lattice(K.image_shape, min(landmarks, K.shape[0])), "landmarks")

    def _descend(self, operator: Any, y: np.ndarray, weights: np.ndarray | None, steps: Sequence[int]) -> np.ndarray:
        """z_t of one image (H, W, C): (times, H, W, C)."""
        columns = y.reshape(-1, y.shape[2])
        root = None if weights is None else np.sqrt(weights).reshape(-1, 1)
        if root is not None:
            operator, columns = _weighted(operator, root), root * columns

        # Both parts of the columns share the run: times for the differences beside those for the mean.
        wanted = sorted({*steps, *self._steps_of_differences(steps)})
        path, _ = descend(operator, columns, wanted, self.learning_rate, LANCZOS)
        z = np.stack([path[wanted.index(t)] for t in steps])
        if y.shape[2] > 1:
            z[..., 1:] = np.stack([path[wanted.index(t)] for t in self._steps_of_differences(steps)])[..., 1:]
        return np.asarray((z if root is None else z / root).reshape(len(steps), *y.shape))


def _weighted(operator: Any, root: np.ndarray) -> LinearOperator:
    """W^1/2 Theta W^1/2 for W^1/2 = diag(root), root of shape (d, 1)."""
    scale = root.astype(operator.dtype)

    def matmat(v: np.ndarray) -> np.ndarray:
        return np.asarray(scale * operator.matmat(scale * v.reshape(len(scale), -1)))

    return LinearOperator(operator.shape, matvec=matmat, matmat=matmat, dtype=operator.dtype)
