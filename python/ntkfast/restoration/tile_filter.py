"""The NTK filters of all tiles of an image."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from .._choices import OVERLAP
from ..engine.arrays import NUMPY
from ..engine.backend import TileEngine
from ..engine.memory import Budget
from ..images import next_multiple
from ..spectral.lanczos import RESULT_COPIES, BlockLanczos, gradient_descent_filter, lanczos_bytes
from .image_filter import TOLERANCE, Advance, ImageFilter, Method, Phases, centred, tile_of, transposed_centring
from .options import Compute, Tiles
from .tiles import Tiling

__all__ = ["TileFilter", "TileMethod", "batch_bytes"]

# Tiles that go through the engine together, interleaved: long rows, and few calls from Python.
TILES_PER_BATCH = 64

MAX_PRODUCTS = 40  # Lanczos makes no more
BATCHES_AHEAD = 2  # batches of each worker, begun or done before the oldest is blended
# Channels a pixel of a tile from which all of its eigenvectors cost less than Lanczos, whose basis comes near all of
# its pixels: 24 channels for tiles of 16 (python -m tools.tuning.channels).
EIGENVECTORS_FROM = 1 / 11
EIGEN_MATRICES = 3  # a tile: Theta in double, its eigenvectors, and a copy on the way
TILES_CHECKED = 8  # in a batch, for convergence; the eigenvalue problems of all would take longer than the products


@dataclass(frozen=True)
class TileMethod(Method):
    """Small overlapping tiles, batch by batch.

    Attributes
    ----------
    workers : int
        Batches in work at a time.
    tiles_at_once : int
        Of a batch.
    """

    workers: int = 1
    tiles_at_once: int = TILES_PER_BATCH

    local = True

    @classmethod
    def of(cls, asked: Tiles, compute: Compute, shape: tuple[int, ...]) -> TileMethod:
        """For a picture (1, H, W, C)."""
        size = next_multiple(asked.size, asked.trained_network.multiple)
        overlap = min(OVERLAP, size - 1) if asked.overlap is None else asked.overlap
        method = cls.placed(size, overlap, asked, compute, shape)
        tiles, tile = method.backend.tiles, method.problem(tile_of(method.network, size, shape))
        workers, threads = tiles.shares(method.threads)
        at_once = tiles.at_once(tile, shape[3], TILES_PER_BATCH)
        return replace(method, workers=workers, threads=threads, tiles_at_once=at_once)

    def used(self, asked: Tiles) -> Tiles:
        return replace(asked, network=self.network, size=self.size, overlap=self.overlap)

    def filter(
        self, tiling: Tiling, guide: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
    ) -> TileFilter:
        return TileFilter(self, tiling, guide, target, weights)

    def fitted(self, phases: Phases, channels: int, arrays: int) -> TileMethod:
        """With fewer tiles at a time and fewer threads.

        The number of tiles at a time, on which the last digits of the result depend, does not depend on the number of
        threads.
        """

        def needed(count: int) -> int:
            return max(
                batch_bytes(self, (*tiling.tile_shape, channels), min(count, tiling.count), times)
                for tiling, times in phases
            )

        most, budget = self.backend.tiles.on_host(self.tiles_at_once), Budget().state(arrays)
        fit = budget.most(most, needed)
        if not fit:
            hint = "use Tiles of a smaller size" if needed(1) > arrays else "use a smaller image"
            what = f"a tile of {' x '.join(map(str, phases[0][0].tile_shape))} pixels, with the image,"
            budget.require(what, hint, needed(1))
        at_once = fit if fit < most else self.tiles_at_once
        return replace(self, tiles_at_once=at_once, workers=min(self.workers, max(1, budget.left // needed(fit))))


def batch_bytes(method: TileMethod, shape: tuple[int, int, int], count: int, times: int) -> int:
    """Bytes that ``count`` tiles (h, w, C) take at their most, ``times`` results of them included."""
    height, width, channels = shape
    engine = method.backend.tiles.host_bytes(replace(method.problem((count, *shape)), threads=1), channels)
    d = height * width
    if _by_eigenvectors(method, shape):
        # Theta as the engine gives it and in double, eigenvectors and LAPACK's work; coordinates, filtered.
        basis = (method.dtype.itemsize + 8 * EIGEN_MATRICES) * d**2 + 8 * (1 + RESULT_COPIES * times) * channels * d
    else:
        basis = lanczos_bytes(d, channels, min(MAX_PRODUCTS, d), times * channels, method.dtype.itemsize)
    waiting = 8 * (1 + BATCHES_AHEAD) * times * channels * d
    return engine + count * (basis + waiting)


def _by_eigenvectors(method: TileMethod, shape: tuple[int, int, int]) -> bool:
    """Tell whether tiles (h, w, C) are filtered by all of their eigenvectors."""
    height, width, channels = shape
    return method.backend.tiles.has_dense and channels >= EIGENVECTORS_FROM * height * width


Result = TypeVar("Result")
Path = Callable[[Sequence[int]], np.ndarray]  # numbers of steps -> what a batch is after each, (times, count, d, C)


class TileFilter(ImageFilter):
    """The filter of all tiles, batch by batch: O(tile) memory beyond the images.

    Batches are dealt to Python threads, each with a single-threaded engine: much of the time goes into NumPy's small
    matrices, which release the GIL but take one core, while the others would wait for them otherwise.  Results are
    blended in the order of the batches, and do not depend on the number of threads.

    Each tile loses its mean, channel by channel, on both sides; one step size serves all tiles, since a flat tile,
    whose kernel is small, would with one of its own follow its noise.
    """

    _method: TileMethod

    def _largest_trace(self) -> float:
        return max(trace for _, trace in self._over_batches(self._traces))

    def _traces(self, which: slice) -> float:
        engine = self._engine(which)
        diagonal = engine.scale * engine.diagonal()  # (d, count)
        weights = self._weights_of(which)
        if weights is not None:
            diagonal = diagonal * weights.reshape(len(weights), -1).T
        return float(diagonal.sum(axis=0).max())

    def _over_batches(self, work: Callable[[slice], Result]) -> Iterator[tuple[slice, Result]]:
        """Batches of tiles in order, each with what ``work`` makes of it."""
        batches, workers = self._batches(), self._method.workers
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
        step, count = self._method.tiles_at_once, self._tiling.count
        return [slice(n, min(n + step, count)) for n in range(0, count, step)]

    def _weights_of(self, which: slice) -> np.ndarray | None:
        return None if self._weights is None else self._tiling.extract(self._weights, which)

    def _engine(self, which: slice) -> TileEngine:
        tiles, _ = centred(self._tiling.extract(self._guide, which), None)
        return self._method.backend.tiles.engine(self._method.problem(tiles.shape), tiles)

    def path(self, steps: Sequence[int], advance: Advance) -> list[np.ndarray]:
        """Blended images (n, H, W, C) after each number of steps."""
        sums = [self._tiling.accumulator(self._target.shape[3]) for _ in steps]

        def work(which: slice) -> np.ndarray:
            weights = self._weights_of(which)
            tiles, means = centred(self._tiling.extract(self._target, which), weights)
            return np.asarray(self._descend(which, tiles, weights, steps) + means)

        for which, filtered in self._over_batches(work):
            for total, part in zip(sums, filtered, strict=True):
                self._tiling.add(total, part, which)
            advance(which.stop - which.start)
        return [Tiling.blend(total) for total in sums]

    def transposed(self, gradient: np.ndarray, steps: int) -> np.ndarray:
        tiling, total = self._tiling, np.zeros_like(gradient)
        shares = gradient / tiling.coverage()

        def work(which: slice) -> np.ndarray:
            weights = self._weights_of(which)

            def descend(tiles: np.ndarray) -> np.ndarray:
                return np.asarray(self._descend(which, tiles, weights, [steps])[0])

            return transposed_centring(tiling.windowed(tiling.extract(shares, which)), weights, descend)

        for which, part in self._over_batches(work):
            tiling.scatter(total, part, which)
        return total

    def _descend(self, which: slice, tiles: np.ndarray, weights: np.ndarray | None, steps: Sequence[int]) -> np.ndarray:
        """z_t of a batch of tiles (count, h, w, C) for each t: (times, count, h, w, C)."""
        count, h, w, channels = tiles.shape
        root = None if weights is None else np.sqrt(weights).reshape(count, h * w, 1).astype(self._method.dtype)
        start = tiles.reshape(count, h * w, channels)
        if root is not None:
            start = root * start
        of_differences = self._steps_of_differences(steps)
        engine = self._engine(which)
        if _by_eigenvectors(self._method, (h, w, channels)):
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
        rate = self.learning_rate * engine.scale
        if root is not None:
            theta *= root * np.swapaxes(root, 1, 2)
        values, vectors = np.linalg.eigh(theta)
        coordinates = np.swapaxes(vectors, 1, 2) @ start

        def after(times: Sequence[int]) -> np.ndarray:
            gains = [gradient_descent_filter(t, rate).value(np.maximum(values, 0.0)) for t in times]
            return np.stack([vectors @ (gain[..., None] * coordinates) for gain in gains])

        return after

    def _by_lanczos(self, engine: TileEngine, start: np.ndarray, root: np.ndarray | None, most: int) -> Path:
        """The same by block Lanczos, for up to ``most`` steps."""
        engine.store()
        arrays = self._method.backend.arrays(NUMPY)
        weight = None if root is None else arrays.asarray(root, self._method.dtype)

        def product(v: Any) -> Any:
            return engine.product(arrays, v) if weight is None else weight * engine.product(arrays, weight * v)

        lanczos = BlockLanczos(product, arrays.asarray(start, self._method.dtype), arrays)
        if lanczos.exhausted:
            return lambda times: np.zeros((len(times), *start.shape))
        rate = self.learning_rate * engine.scale
        hardest = [gradient_descent_filter(most, rate)]  # the bound grows with the steps
        while not lanczos.exhausted and lanczos.products < MAX_PRODUCTS:
            lanczos.step()
            some = slice(0, None, max(1, len(start) // TILES_CHECKED))  # spread: neighbours converge alike
            if lanczos.products % 4 == 0 and lanczos.solve(some).error(hardest) <= TOLERANCE:
                break
        solution = lanczos.solve()

        def after(times: Sequence[int]) -> np.ndarray:
            filters = [gradient_descent_filter(t, rate) for t in times]
            return np.asarray(arrays.to_host(lanczos.assemble(solution, filters)))

        return after
