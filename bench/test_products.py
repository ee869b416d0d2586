"""These run products, matrices and columns over networks and sizes: each result is asserted, then put beside its floor.

Run ``pytest bench/test_products.py``; bench/README.md says how to read the figures.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from bench.conftest import Rows
from bench.networks import FASTER_THAN_PROTOTYPE, NETWORKS, PROTOTYPE_SECONDS, ROOFLINE_SHARE, pairs, picture
from ntkfast import NTK, roofline
from ntkfast.reference import kernel_matrix

TOLERANCE = 1e-5
COLUMNS = 3
REFERENCE_UP_TO = 32  # sides for which the whole matrix is checked against the NumPy reference
ROUNDS = {32: 20, 64: 20, 128: 7, 256: 3}


def columns_of_picture(size: int) -> np.ndarray:
    """Return three right-hand sides: the colours of the picture, float32 (d, 3)."""
    return picture(size).reshape(-1, COLUMNS).astype(np.float32)


def some_pixels(size: int) -> np.ndarray:
    """Return two corners, an edge, the centre, and four pixels anywhere."""
    d = size**2
    fixed = [0, d - 1, size // 2, d // 2 + size // 2]
    return np.array([*fixed, *np.random.default_rng(size).integers(0, d, 4)])


@cache
def reference(name: str, size: int) -> np.ndarray:
    return kernel_matrix(NETWORKS[name], picture(size), channel_axis=-1)


@cache
def exact_columns(name: str, size: int) -> np.ndarray:
    """Return columns of Theta at ``some_pixels``, float64 (d, 8): from the reference or their windows, without a sweep.

    They come one at a time: for all of them a sweep may be the faster way, and then ``columns`` takes it.
    """
    if size <= REFERENCE_UP_TO:
        return reference(name, size)[:, some_pixels(size)]
    operator = NTK(NETWORKS[name], picture(size), dtype="float64", storage="stream", channel_axis=-1)
    return np.concatenate([operator.columns([pixel]) for pixel in some_pixels(size)], axis=1)


def deviation(got: np.ndarray, want: np.ndarray) -> float:
    """Return the largest error over the largest entry, asserted to be small."""
    assert got.shape == want.shape
    error = float(np.abs(got - want).max() / np.abs(want).max())
    assert error <= TOLERANCE
    return error


def product_deviation(name: str, size: int, v: np.ndarray, out: np.ndarray) -> float:
    """Compare with (Theta v)_i = column_i . v, in float64; at small sizes for all pixels."""
    v = v.astype(np.float64)
    if size <= REFERENCE_UP_TO:
        return deviation(out, reference(name, size) @ v)
    return deviation(out[some_pixels(size)], exact_columns(name, size).T @ v)


class Timing:
    """Rounds of a call are timed with a yardstick between any two of them, since the clock of the machine drifts."""

    def __init__(self, benchmark: Any, rounds: int, call: Callable[[], Any], yardstick: Callable[[], float]) -> None:
        self.rounds: list[float] = []
        self.cpu: list[float] = []  # processor seconds of all threads
        self.yardsticks: list[float] = []

        def setup() -> None:
            self.yardsticks.append(yardstick())

        def timed() -> Any:
            start, cpu_start = time.perf_counter(), time.process_time()
            result = call()
            self.rounds.append(time.perf_counter() - start)
            self.cpu.append(time.process_time() - cpu_start)
            return result

        self.result = benchmark.pedantic(timed, setup=setup, rounds=rounds)
        self.yardsticks.append(yardstick())

    @property
    def seconds(self) -> float:
        return statistics.median(self.rounds)

    @property
    def cores(self) -> float:
        """Return the cores that the rounds had: below the number of threads, others took the rest."""
        return sum(self.cpu) / sum(self.rounds)

    @property
    def yardstick(self) -> float:
        return statistics.median(self.yardsticks)

    @property
    def ratio(self) -> float:
        """Return the median of yardstick / round, the yardstick being the mean of the one before and the one after."""
        around = zip(self.yardsticks, self.yardsticks[1:], strict=False)
        means = [(before + after) / 2 for before, after in around]
        return statistics.median(mean / seconds for mean, seconds in zip(means, self.rounds, strict=True))


def engine_figures(timing: Timing, name: str, size: int, threads: int) -> dict[str, float]:
    """Return the speed of a sweep over all pairs, and the share of the roofline that it reaches."""
    return {
        "median_seconds": timing.seconds,
        "pair_layers_per_s": pairs(size) * NETWORKS[name].depth / timing.seconds,
        "roofline_seconds_per_pair": timing.yardstick,
        "roofline_share": timing.ratio * pairs(size) / threads,
        "threads": threads,
        "cores_had": timing.cores,
    }


def engine_cells(label: str, figures: dict[str, float], target: float | None) -> list[str]:
    share = figures["roofline_share"]
    missed = "*" if target is not None and share < target else " "
    return [
        label,
        f"{figures['median_seconds']:.4f}",
        f"{figures['cores_had']:.2f}",
        f"{figures['pair_layers_per_s']:.2e}",
        f"{1e9 * figures['roofline_seconds_per_pair']:.2f}",
        f"{share:.2f}{missed}",
    ]


@pytest.mark.parametrize("size", [32, 64, 128, 256])
@pytest.mark.parametrize("name", NETWORKS)
def test_streaming_product(benchmark: Any, report: Rows, name: str, size: int) -> None:
    benchmark.group = f"streaming product, {size}x{size}"
    operator = NTK(NETWORKS[name], picture(size), storage="stream", channel_axis=-1)
    v = columns_of_picture(size)

    timing = Timing(benchmark, ROUNDS[size], lambda: operator @ v, lambda: roofline(operator.network))
    error = product_deviation(name, size, v, timing.result)

    figures = engine_figures(timing, name, size, operator.threads)
    cells = engine_cells(f"{name} {size}", figures, ROOFLINE_SHARE if size == 256 else None)
    prototype = PROTOTYPE_SECONDS.get((name, size))
    if prototype is None:
        cells += ["", ""]
    else:
        faster = prototype / timing.seconds
        figures |= {"prototype_seconds": prototype, "times_faster_than_prototype": faster}
        cells += [f"{prototype:.2f}", f"{faster:.2f}{'*' if faster < FASTER_THAN_PROTOTYPE else ' '}"]
    benchmark.extra_info.update(figures, relative_error=error)
    report["products"].append([*cells, f"{error:.1e}"])


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("name", NETWORKS)
def test_dense(benchmark: Any, report: Rows, name: str, size: int) -> None:
    benchmark.group = f"dense matrix, {size}x{size}"
    operator = NTK(NETWORKS[name], picture(size), storage="stream", channel_axis=-1)

    # Nothing is multiplied here, but entries are written: a floor with no columns.
    timing = Timing(benchmark, ROUNDS[size], operator.dense, lambda: roofline(operator.network, columns=0))
    matrix = timing.result
    if size <= REFERENCE_UP_TO:
        error = deviation(matrix, reference(name, size))
    else:
        error = deviation(matrix[:, some_pixels(size)], exact_columns(name, size))
        assert np.array_equal(matrix, matrix.T)

    figures = engine_figures(timing, name, size, operator.threads)
    benchmark.extra_info.update(figures, relative_error=error)
    report["dense"].append([*engine_cells(f"{name} {size}", figures, None), f"{error:.1e}"])


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("name", NETWORKS)
def test_stored_product(benchmark: Any, report: Rows, name: str, size: int) -> None:
    benchmark.group = f"stored product, {size}x{size}"
    stored = NTK(NETWORKS[name], picture(size), storage="dense", channel_axis=-1)
    stream = NTK(NETWORKS[name], picture(size), storage="stream", channel_axis=-1)
    v = columns_of_picture(size)

    def seconds(call: Callable[[], Any]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    to_store = seconds(lambda: stored @ v)  # the first product computes and keeps the kernel
    timing = Timing(benchmark, ROUNDS[size], lambda: stored @ v, lambda: seconds(lambda: stream @ v))
    error = product_deviation(name, size, v, timing.result)

    estimate = stored.memory_estimate(COLUMNS)
    gb = (estimate["dense"] - estimate["stream"]) / 1e9
    benchmark.extra_info.update(
        median_seconds=timing.seconds,
        first_product_seconds=to_store,
        stored_gb=gb,
        gb_per_s=gb / timing.seconds,
        streaming_seconds=timing.yardstick,
        times_faster_than_streaming=timing.ratio,
        threads=stored.threads,
        cores_had=timing.cores,
        relative_error=error,
    )
    times = [
        f"{timing.seconds:.4f}",
        f"{timing.cores:.2f}",
        f"{gb / timing.seconds:.1f}",
        f"{to_store:.3f}",
        f"{timing.yardstick:.4f}",
    ]
    report["stored"].append([f"{name} {size}", *times, f"{timing.ratio:.1f}", f"{error:.1e}"])


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("name", NETWORKS)
def test_columns(benchmark: Any, report: Rows, name: str, size: int) -> None:
    benchmark.group = f"columns, {size}x{size}"
    operator = NTK(NETWORKS[name], picture(size), storage="stream", channel_axis=-1)
    pixels = some_pixels(size)

    timing = Timing(benchmark, ROUNDS[size], lambda: operator.columns(pixels), lambda: 0.0)
    # Columns come from their windows or, where it is faster, from a sweep, which shares no line of its loops with them:
    # one of the two here is always the other way.
    units = np.zeros((size**2, len(pixels)), dtype=np.float32)
    units[pixels, np.arange(len(pixels))] = 1
    error = max(deviation(timing.result, want) for want in (operator @ units, exact_columns(name, size)))

    each = timing.seconds / len(pixels)
    benchmark.extra_info.update(
        median_seconds=timing.seconds,
        seconds_per_column=each,
        threads=operator.threads,
        cores_had=timing.cores,
        relative_error=error,
    )
    times = [f"{timing.seconds:.4f}", f"{timing.cores:.2f}", f"{1e3 * each:.2f}"]
    report["columns"].append([f"{name} {size}", *times, f"{error:.1e}"])
