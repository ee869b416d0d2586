"""These test low-rank kernels in the filters, as SciPy operators, and what memory they take."""

from __future__ import annotations

import re
import sys
import tracemalloc
import types

import numpy as np
import pytest
import scipy.linalg
from scipy.sparse.linalg import LinearOperator, aslinearoperator, eigsh
from threadpoolctl import threadpool_info, threadpool_limits

import ntkfast as nf
from images import IMAGES
from lowrank_cases import EXACT, NETS, SHAPE, D, dense, each_dtype, each_method, entry_error, problem
from ntkfast import _core
from ntkfast.engine import cuda, memory


@each_method
@each_dtype
@pytest.mark.parametrize("net", NETS)
def test_filters_are_functions_of_the_dense_matrix(net, dtype, method):
    K, _ = problem(net, dtype=dtype)
    low = method(K, 30)
    y = IMAGES["natural"](*SHAPE, 3, 1)
    values, vectors = np.linalg.eigh(dense(low))
    values = np.maximum(values, 0)
    top, tolerance = values[-1], {"float32": 2e-6, "float64": 1e-12}[dtype]

    def check(z, f):
        wanted = vectors @ (f(values)[:, None] * (vectors.T @ y.reshape(D, 3)))
        assert z.shape == y.shape
        assert z.dtype == K.dtype
        assert np.abs(z.reshape(D, 3) - wanted).max() <= tolerance * np.abs(y).max()

    path, info = nf.gradient_descent(low, y, [0, 7, 500], return_info=True)
    assert info.learning_rate == pytest.approx(1 / top, rel=1e-6)
    assert (info.products, info.error, info.lambda_max) == (0, 0.0, low.lambda_max)
    for z, t in zip(path, (0, 7, 500), strict=True):
        check(z, lambda x, t=t: 1 - (1 - info.learning_rate * x) ** t)
    check(nf.gradient_descent(low, y, 20, 1.5 / top), lambda x: 1 - (1 - 1.5 / top * x) ** 20)
    z, info = nf.gradient_flow(low, y, 30 / top, return_info=True)
    check(z, lambda x: 1 - np.exp(-30 / top * x))
    assert (info.products, info.error) == (0, 0.0)
    z, info = nf.ridge(low, y, 0.01 * top, return_info=True)
    check(z, lambda x: x / (x + 0.01 * top))
    assert (info.products, info.error) == (0, 0.0)


def test_filters_of_the_whole_rank_are_the_exact_ones():
    K, _ = problem("unet circular")
    y = IMAGES["natural"](*SHAPE, 3, 1)
    low = nf.nystrom(K, D)
    rate = 1 / low.lambda_max
    assert entry_error(nf.gradient_descent(low, y, 50, rate), nf.gradient_descent(K, y, 50, rate)) <= 1e-8


def test_plain_iteration_and_eigenpairs_agree():
    K, _ = problem()
    low, y = nf.nystrom(K, 30), IMAGES["natural"](*SHAPE, 1, 1)[..., 0]
    fast = nf.gradient_descent(low, y, [0, 1, 60])
    slow, info = nf.gradient_descent(low, y, [0, 1, 60], method="iteration", return_info=True)
    assert np.abs(fast - slow).max() <= 1e-11
    assert info.lambda_max == low.lambda_max


def test_diverging_rate_names_the_bound():
    low = nf.nystrom(problem()[0], 20)
    for method in ("lanczos", "iteration"):
        with pytest.raises(ValueError, match=r"learning_rate must be below 2/lambda_max = [0-9.e-]+") as error:
            nf.gradient_descent(low, np.ones(D), 10, 2.02 / low.lambda_max, method=method)
        assert float(str(error.value).split("= ")[1].split(",")[0]) == pytest.approx(2 / low.lambda_max, rel=1e-5)


def test_filters_check_their_arguments_here_too():
    low = nf.nystrom(problem()[0], 20)
    with pytest.raises(ValueError, match=r"y must have shape .* got \(119,\)"):
        nf.gradient_flow(low, np.ones(D - 1), 1.0)
    with pytest.raises(ValueError, match="tolerance must be positive"):
        nf.ridge(low, np.ones(D), 1.0, tolerance=-1.0)


def test_functions_that_are_not_zero_at_zero():
    low = nf.nystrom(problem()[0], 20)
    y = np.random.default_rng(0).standard_normal((D, 2))
    resolvent = low.spectral_filter([lambda x: 1 / (x + 0.5)], y)[0]
    np.testing.assert_allclose(resolvent, np.linalg.solve(dense(low) + 0.5 * np.eye(D), y), rtol=0, atol=1e-11)


@each_dtype
def test_is_a_linear_operator(dtype):
    K, _ = problem(dtype=dtype)
    low = nf.randomized_low_rank(K, 30)
    matrix, tolerance = dense(low), EXACT[dtype]
    assert isinstance(low, LinearOperator)
    assert aslinearoperator(low) is low
    assert low.T is low
    assert low.H is low
    assert (low.shape, low.dtype, low.image_shape) == ((D, D), K.dtype, SHAPE)
    assert repr(low) == f"<12x10 low-rank kernel of rank 30, dtype={dtype}>"
    rng = np.random.default_rng(0)
    v, V = rng.standard_normal(D), rng.integers(0, 9, (D, 4))
    for result in (low @ v, low.dot(v), low.matvec(v), low.rmatvec(v), low.T @ v, v @ low):
        assert result.dtype == dtype
        assert entry_error(result, matrix @ v) <= tolerance
    for result in (low @ V, low.matmat(V), low.rmatmat(V), low @ np.asfortranarray(V)):
        assert result.dtype == dtype
        assert entry_error(result, matrix @ V) <= tolerance
    assert entry_error((2 * low + aslinearoperator(np.eye(D))) @ v, 2 * matrix @ v + v) <= tolerance
    assert (low @ np.empty((D, 0))).shape == (D, 0)
    assert entry_error(np.sort(eigsh(low, k=3, return_eigenvectors=False))[::-1], low.eigenvalues[:3]) <= tolerance


@each_dtype
def test_methods_of_the_exact_kernel(dtype):
    low = nf.nystrom(problem(dtype=dtype)[0], 30)
    matrix, tolerance = dense(low), EXACT[dtype]
    for shape in (SHAPE, (*SHAPE, 1), (*SHAPE, 5), (D,), (D, 2)):
        y = np.random.default_rng(1).standard_normal(shape)
        assert entry_error(low.apply(y), (matrix @ y.reshape(D, -1)).reshape(shape)) <= tolerance
    assert entry_error(low.diagonal(), np.diagonal(matrix)) <= tolerance
    assert entry_error(low.columns([5, 0, 5, 119]), matrix[:, [5, 0, 5, 119]]) <= tolerance
    assert low.columns([]).shape == (D, 0)
    assert entry_error(low.affinity(11, 9), matrix[119].reshape(SHAPE)) <= tolerance
    assert {low.diagonal().dtype, low.columns([1]).dtype, low.apply(y).dtype} == {np.dtype(dtype)}


def test_bad_right_hand_sides():
    low = nf.nystrom(problem()[0], 30)
    with pytest.raises(ValueError, match="dimension mismatch"):
        low @ np.ones(D - 1)
    with pytest.raises(ValueError, match=r"image must have shape .* or \(12, 10\)"):
        low.apply(np.ones((10, 12)))
    with pytest.raises(ValueError, match="indices must lie between 0 and 119, got 120 to 120"):
        low.columns([120])
    with pytest.raises(ValueError, match="row must lie between 0 and 11, got 12"):
        low.affinity(12, 0)


def test_arrays_on_a_gpu_are_refused(monkeypatch):
    class Tensor:
        __module__ = "torch"
        device = "cuda:0"
        ndim = 1
        shape = (D,)

        def __dlpack_device__(self):
            return (2, 0)

    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    monkeypatch.setattr(cuda, "emulated", lambda: False)
    low = nf.nystrom(problem()[0], 9)
    message = "is on cuda:0, but the operator is on the CPU: give a NumPy array"
    for call in (low.matvec, low.matmat, low.dot, low.apply, lambda y: nf.ridge(low, y, 1.0)):
        with pytest.raises(ValueError, match=message):
            call(Tensor())


@pytest.mark.skipif(not _core.cuda_devices(), reason=f"no card: {_core.cuda_why_unavailable()}")
def test_a_kernel_on_a_card_gives_the_same():
    x = IMAGES["centred"](*SHAPE, 3, 0)
    here, there = (nf.NTK(NETS["vanilla"], x, device=device, channel_axis=-1) for device in ("cpu", "cuda"))
    y = np.ones(SHAPE)
    for make in (
        lambda K: nf.nystrom(K, 30),
        lambda K: nf.randomized_low_rank(K, 30),
        lambda K: nf.randomized_low_rank(K, 30, sweeps=2),
    ):
        low = make(there)
        assert entry_error(dense(low), dense(make(here))) <= 1e-5
        assert isinstance(nf.ridge(low, y, 1.0), np.ndarray)
        assert low.estimate_error(there).frobenius == pytest.approx(low.estimate_error(here).frobenius, rel=1e-2)


def test_eigenpairs_must_fit_together():
    U = np.eye(6)[:, :2]
    low = nf.LowRank([2, 1], U, image_shape=(2, 3), trace=4.0)
    assert low.trace_error == 0.25
    np.testing.assert_array_equal(low @ np.ones(6), [2, 1, 0, 0, 0, 0])
    for values, vectors, message in (
        ([2.0], U, r"eigenvectors must have shape \(6, r\) .* got shapes \(6, 2\) and \(1,\)"),
        ([2.0, 1.0], U.T, "eigenvectors must have shape"),
        ([1.0, 2.0], U, "eigenvalues must be positive and descending"),
        ([1.0, 0.0], U, "eigenvalues must be positive"),
        ([np.nan, 1.0], U, "eigenvalues must be positive"),
        ([2.0, 1.0], U.astype(int), "eigenvectors must be float32 or float64, got int64"),
    ):
        with pytest.raises(ValueError, match=message):
            nf.LowRank(values, vectors, image_shape=(2, 3), trace=4.0)


CALLS = {
    "m": lambda K, k: nf.nystrom(K, k, landmarks="random"),
    "rank + oversampling": lambda K, k: nf.randomized_low_rank(K, k - 3, oversampling=3),
    "samples": lambda K, k: LOW.estimate_error(K, samples=k),
}
LOW = nf.LowRank([1.0], np.eye(D)[:, :1], image_shape=SHAPE, trace=2.0)


@pytest.mark.parametrize("what", CALLS)
@each_dtype
def test_refuses_what_does_not_fit_and_names_what_would(what, dtype, monkeypatch):
    def kernel():  # with columns and stored products a later call takes less
        return nf.NTK(
            NETS["vanilla"], IMAGES["centred"](*SHAPE, 3, 0), dtype=dtype, storage="stream", threads=1, channel_axis=-1
        )

    K, call = kernel(), CALLS[what]
    monkeypatch.setattr(memory, "available_memory", lambda: 100)
    with pytest.raises(MemoryError, match=rf"^{re.escape(what)} = 110 needs .*use a smaller image") as error:
        call(K, 110)
    needed = int(re.search(r"\((\d+) bytes", str(error.value))[1])
    monkeypatch.setattr(memory, "available_memory", lambda: int(0.9 * needed))
    with pytest.raises(MemoryError, match=rf"^{re.escape(what)} = 110 needs .* bytes\), but only .*would fit") as error:
        call(K, 110)
    fits = int(re.search(r"= (\d+) would fit", str(error.value))[1])
    assert 80 <= fits < 110
    call(K, fits)
    K = kernel()
    monkeypatch.setattr(K, "columns", lambda pixels: pytest.fail("work was begun"))
    monkeypatch.setattr(K, "matmat", lambda V: pytest.fail("work was begun"))
    with pytest.raises(MemoryError, match=rf"{fits} would fit"):
        call(K, fits + 1)


def test_results_of_a_low_rank_kernel_that_do_not_fit(monkeypatch):
    monkeypatch.setattr(LOW, "spectral_filter", lambda functions, y: pytest.fail("work was begun"))
    needed = 8 * D * 2 * (50 + 2)
    monkeypatch.setattr(memory, "available_memory", lambda: needed - 1)
    with pytest.raises(MemoryError, match=rf"50 results with 2 columns needs .*\({needed} bytes\).*: .*fewer steps"):
        nf.gradient_descent(LOW, np.ones((D, 2)), list(range(50)))
    needed = 16 * D * 90
    monkeypatch.setattr(memory, "available_memory", lambda: needed - 1)
    with pytest.raises(MemoryError, match=rf"90 columns needs .*\({needed} bytes\).*: ask for fewer columns"):
        LOW.columns(range(90))


@pytest.mark.parametrize("what", CALLS)
@each_dtype
def test_memory_is_what_it_takes(what, dtype, monkeypatch):
    """The bytes asked for before work must cover NumPy's and LAPACK's arrays."""
    K, _ = problem(dtype=dtype, shape=(40, 40), channels=1)
    low = nf.LowRank([1.0], np.eye(1600, dtype=dtype)[:, :1], image_shape=(40, 40), trace=2.0)
    call = CALLS[what] if what != "samples" else lambda K, k: low.estimate_error(K, samples=k)
    asked = []

    def require(budget, what, hint, more=0):
        asked.append(budget.free - budget.left + more)

    monkeypatch.setattr(memory.Budget, "require", require)
    call(K, 100)  # imports, caches and what the engine keeps
    asked.clear()
    tracemalloc.start()
    call(K, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.5 * asked[0] <= peak <= asked[0]


def test_factorisations_take_one_blas_thread(monkeypatch):
    def counted(function):
        def call(*args, **options):
            seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
            return function(*args, **options)

        return call

    seen = []
    for module, name in ((np.linalg, "eigh"), (np.linalg, "svd"), (scipy.linalg, "qr")):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    K, _ = problem()
    with threadpool_limits(2, user_api="blas"):
        nf.nystrom(K, 9)
        nf.randomized_low_rank(K, 9, sweeps=2)
    assert set(seen) == {1}
