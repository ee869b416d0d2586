"""Low-rank approximations are compared with dense float64 linear algebra on small images."""

from __future__ import annotations

import re
import sys
import tracemalloc
import types

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, aslinearoperator, eigsh
from threadpoolctl import threadpool_info, threadpool_limits

import ntkfast as nf
from images import IMAGES
from ntkfast import _core
from ntkfast.engine import cuda, memory
from ntkfast.reference import kernel_matrix
from ntkfast.spectral import lowrank

NETS = {
    "vanilla": nf.vanilla_cnn(1, 5),
    "deep circular": nf.vanilla_cnn(2, 3, padding="circular"),
    "autoencoder": nf.autoencoder(1),
    "unet circular": nf.unet(1, padding="circular"),
}
SHAPE = (12, 10)
D = 120

# This bounds the largest error of an entry over the largest entry, of approximations that are exact but for rounding.
EXACT = {"float32": 2e-6, "float64": 1e-11}

METHODS = {
    "lattice": lambda K, k: nf.nystrom(K, k),
    "random": lambda K, k: nf.nystrom(K, k, landmarks="random", rng=3),
    "one sweep": lambda K, k: nf.randomized_low_rank(K, k),
    "two sweeps": lambda K, k: nf.randomized_low_rank(K, k, sweeps=2),
}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def problem(net="vanilla", channels=3, dtype="float64", image="centred", shape=SHAPE):
    """Return a kernel, and its dense float64 matrix."""
    x = IMAGES[image](*shape, channels, 0)
    return nf.NTK(NETS[net], x, dtype=dtype, channel_axis=-1), kernel_matrix(NETS[net], x, channel_axis=-1)


@pytest.fixture(scope="module", params=[("vanilla", 3), ("deep circular", 1), ("autoencoder", 1), ("unet circular", 3)])
def kernel(request):
    return problem(*request.param)


def dense(low):
    """Return the approximation in double precision, from its eigenpairs."""
    U = low.eigenvectors.astype(np.float64)
    return U * low.eigenvalues @ U.T


def entry_error(actual, expected):
    assert np.shape(actual) == np.shape(expected)
    return np.abs(actual - expected).max() / np.abs(expected).max()


# --- What is approximated -----------------------------------------------------------------------------------------


@each_method
@each_dtype
@pytest.mark.parametrize("net", NETS)
def test_all_pixels_give_the_kernel(net, dtype, method):
    K, theta = problem(net, dtype=dtype)
    assert entry_error(dense(method(K, D)), theta) <= EXACT[dtype]


def test_nystrom_is_its_formula(kernel):
    K, theta = kernel
    for low in (nf.nystrom(K, 20), nf.nystrom(K, 30, landmarks="random"), nf.nystrom(K, landmarks=[7, 119, 0])):
        C = theta[:, low.landmarks]
        assert entry_error(dense(low), C @ np.linalg.solve(C[low.landmarks], C.T)) <= 1e-9
        assert low.rank == len(low.landmarks)


@each_dtype
def test_rows_and_columns_of_landmarks_are_exact(dtype):
    for net in NETS:
        K, theta = problem(net, dtype=dtype)
        for low in (nf.nystrom(K, 40), nf.nystrom(K, 17, landmarks="random")):
            assert np.abs(low.columns(low.landmarks) - theta[:, low.landmarks]).max() <= EXACT[dtype] * theta.max()
            assert np.abs(dense(low)[low.landmarks] - theta[low.landmarks]).max() <= EXACT[dtype] * theta.max()


@pytest.mark.parametrize("sweeps", [1, 2])
def test_randomized_is_nystrom_from_its_basis(sweeps, kernel):
    """Without oversampling nothing is truncated: Theta~ = (Theta Q)(Q^T Theta Q)^-1 (Theta Q)^T, and reproduces Theta Q
    for the random Q that ``seed`` stands for, or for a basis of Theta Q."""
    K, theta = kernel
    low = nf.randomized_low_rank(K, 15, sweeps=sweeps, oversampling=0, rng=5)
    Q = np.random.default_rng(5).standard_normal((15, D)).T
    for _ in range(sweeps - 1):
        Q = np.linalg.qr(theta @ Q)[0]
    assert entry_error(dense(low) @ Q, theta @ Q) <= 1e-9
    assert low.rank == 15
    assert low.landmarks is None


@each_method
@each_dtype
def test_eigenpairs(method, dtype):
    K, _ = problem("autoencoder", dtype=dtype)
    low = method(K, 24)
    assert low.rank == len(low.eigenvalues) <= 24
    assert low.eigenvectors.shape == (D, low.rank)
    assert low.eigenvectors.dtype == K.dtype
    assert low.eigenvalues.dtype == np.float64
    tolerance = {"float32": 2e-6, "float64": 1e-12}[dtype]
    gram = low.eigenvectors.T @ low.eigenvectors
    assert np.abs(gram - np.eye(low.rank)).max() <= tolerance
    assert (np.diff(low.eigenvalues) <= 0).all()
    assert low.lambda_max == low.eigenvalues[0]
    assert not low.eigenvalues.flags.writeable
    assert not low.eigenvectors.flags.writeable


@each_method
@pytest.mark.parametrize("k", [1, 13, 60])
def test_never_more_than_the_kernel(method, k, kernel):
    """The residual is positive semi-definite, and each eigenvalue is at most the exact one of the same place."""
    K, theta = kernel
    low = method(K, k)
    exact = np.linalg.eigvalsh(theta)[::-1]
    assert (low.eigenvalues <= exact[: low.rank] * (1 + 1e-12)).all()
    assert np.linalg.eigvalsh(theta - dense(low))[0] >= -1e-12 * exact[0]


@pytest.mark.parametrize("rank", [5, 20, 60])
def test_two_sweeps_are_better_than_one_and_nearly_the_best(rank, kernel):
    K, theta = kernel
    best = np.sqrt((np.linalg.eigvalsh(theta)[:-rank] ** 2).sum())  # Eckart, Young
    one, two = (np.linalg.norm(theta - dense(nf.randomized_low_rank(K, rank, sweeps=sweeps))) for sweeps in (1, 2))
    assert best * (1 - 1e-9) <= two <= one
    assert two <= 1.2 * best
    assert one <= 5 * best


def test_a_random_sketch_of_low_rank_is_exact():
    """A checkerboard on the torus has two kinds of pixels, and a kernel of rank 2."""
    net = nf.vanilla_cnn(1, 3, padding="circular")
    x = IMAGES["periodic"](*SHAPE, 1, 0)
    theta = nf.NTK(
        net, x, dtype="float64", channel_axis=-1
    ).dense()  # the reference takes the angles of parallel patches as 1e-8
    for dtype in EXACT:
        K = nf.NTK(net, x, dtype=dtype, channel_axis=-1)
        for low in (nf.nystrom(K, 40), nf.randomized_low_rank(K, 40), nf.randomized_low_rank(K, 40, sweeps=2)):
            assert entry_error(dense(low), theta) <= EXACT[dtype]
            assert low.trace_error <= EXACT[dtype]
            if dtype == "float64":
                assert low.rank == 2


def test_the_same_seed_gives_the_same_and_another_another():
    K, _ = problem()
    for make in (
        lambda seed: nf.randomized_low_rank(K, 9, rng=seed).eigenvalues,
        lambda seed: nf.nystrom(K, 9, landmarks="random", rng=seed).landmarks,
    ):
        np.testing.assert_array_equal(make(1), make(1))
        assert not np.array_equal(make(1), make(2))
    assert len(set(nf.nystrom(K, 60, landmarks="random").landmarks)) == 60


def test_other_kernels():
    x = IMAGES["centred"](*SHAPE, 1, 0)
    for K in (
        nf.NNGP(NETS["vanilla"], x, channel_axis=-1),
        nf.NTK(nf.autoencoder(1), nf.NoiseInput(SHAPE)),
    ):
        assert entry_error(dense(nf.nystrom(K, D)), K.dense()) <= EXACT["float32"]
        assert entry_error(dense(nf.randomized_low_rank(K, D)), K.dense()) <= EXACT["float32"]


# --- Errors -------------------------------------------------------------------------------------------------------


@each_method
def test_trace_error_is_the_nuclear_norm_of_the_residual(method, kernel):
    K, theta = kernel
    low = method(K, 25)
    nuclear = np.abs(np.linalg.eigvalsh(theta - dense(low))).sum()
    assert low.trace_error == pytest.approx(nuclear / np.trace(theta), rel=1e-8)


@each_method
def test_frobenius_estimate_within_its_standard_errors(method, kernel):
    K, theta = kernel
    low = method(K, 25)
    truth = np.linalg.norm(theta - dense(low)) / np.linalg.norm(theta)
    estimates = [low.estimate_error(K, samples=30, rng=seed) for seed in range(60)]
    values, errors = np.array([(e.frobenius, e.standard_error) for e in estimates]).T
    assert abs(values.mean() - truth) <= 4 * values.std() / np.sqrt(60) + 0.01 * truth
    assert 0.5 <= errors.mean() / values.std() <= 1.5
    assert (np.abs(values - truth) <= 2 * errors).mean() >= 0.8
    assert errors.mean() <= 0.3 * truth


@each_method
def test_spectral_bounds_hold(method, kernel):
    K, theta = kernel
    low = method(K, 25)
    truth = np.linalg.norm(theta - dense(low), 2) / np.linalg.norm(theta, 2)
    for samples in (2, 30, 300):
        lower, upper = low.estimate_error(K, samples=samples).spectral_bounds
        assert 0 < lower <= truth * (1 + 1e-9)
        assert truth <= upper <= 1
    residual = low.lambda_max * lower / (1 - lower)
    assert residual >= 0.95 * np.linalg.norm(theta - dense(low), 2)  # from nearly all columns


@each_dtype
def test_the_error_of_what_is_exact_is_rounding(dtype):
    K, _ = problem(dtype=dtype)
    low = nf.nystrom(K, D)
    error = low.estimate_error(K, samples=10)
    assert low.trace_error <= EXACT[dtype]
    assert error.frobenius <= EXACT[dtype]
    assert error.spectral_bounds[0] <= EXACT[dtype]
    assert error.samples == 10


def test_estimates_need_no_sweep():
    K = nf.NTK(NETS["vanilla"], IMAGES["noise"](60, 60, 1, 0), channel_axis=-1)
    engine = K._engine
    K._engine = types.SimpleNamespace(
        columns=engine.columns, columns_bytes=engine.columns_bytes, diagonal=engine.diagonal
    )
    error = nf.nystrom(K, 30).estimate_error(K, samples=20)
    assert 0 < error.standard_error < error.frobenius < 1


# --- Filters ------------------------------------------------------------------------------------------------------


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


# --- A linear operator --------------------------------------------------------------------------------------------


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


# --- Landmarks ----------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_lattice(height, width, data):
    """Pixels are distinct, at most m, evenly spaced, and no lattice of as many leaves any pixel farther away."""
    m = data.draw(st.integers(1, height * width))
    pixels = lowrank.lattice((height, width), m)
    rows, cols = (np.unique(axis) for axis in np.divmod(pixels, width))
    a, b = len(rows), len(cols)
    np.testing.assert_array_equal(pixels, (rows[:, None] * width + cols).ravel())
    assert 1 <= a * b <= m
    for places, length in ((rows, height), (cols, width)):
        steps = np.diff(places)
        assert steps.max(initial=1) - steps.min(initial=length) <= 1
        before, after = places[0], length - 1 - places[-1]
        assert abs(before - after) <= 1
        assert max(before, after) <= length / len(places) / 2
    across = (height / a) ** 2 + (width / b) ** 2
    assert across == min((height / p) ** 2 + (width / min(width, m // p)) ** 2 for p in range(1, min(height, m) + 1))


@pytest.mark.parametrize(
    ("shape", "m", "sides"),
    [
        ((64, 64), 100, (10, 10)),
        ((64, 64), 64 * 64, (64, 64)),
        ((8, 8), 7, (2, 3)),  # not 1 x 7
        ((1, 50), 10, (1, 10)),
        ((50, 1), 50, (50, 1)),
        ((10, 300), 120, (2, 60)),
        ((300, 7), 1, (1, 1)),
    ],
)
def test_lattices_of_some_shapes(shape, m, sides):
    pixels = lowrank.lattice(shape, m)
    assert tuple(len(np.unique(axis)) for axis in np.divmod(pixels, shape[1])) == sides


def test_given_landmarks_keep_their_order():
    K, theta = problem()
    for given_ in ([9, 3, 100], (9, 3, 100), np.array([9, 3, 100], np.uint8)):
        low = nf.nystrom(K, landmarks=given_)
        np.testing.assert_array_equal(low.landmarks, [9, 3, 100])
        assert entry_error(low.columns([9, 3, 100]), theta[:, [9, 3, 100]]) <= EXACT["float64"]
    np.testing.assert_array_equal(nf.nystrom(K, 2, landmarks=[1, 0]).landmarks, [1, 0])


# --- Edges --------------------------------------------------------------------------------------------------------


@each_method
@each_dtype
@pytest.mark.parametrize("image", ["flat", "two_level", "spiked", "nearly_flat"])
def test_hard_images(image, dtype, method):
    K, theta = problem(image=image, dtype=dtype)
    low = method(K, D)
    assert entry_error(dense(low), theta) <= {"float32": 1e-5, "float64": 1e-7}[dtype]
    assert np.isfinite(nf.gradient_descent(low, np.ones(SHAPE), 100)).all()


@each_method
def test_a_zero_kernel_has_rank_zero(method):
    K = nf.NTK(NETS["vanilla"], np.zeros(SHAPE))
    low = method(K, 10)
    assert (low.rank, low.lambda_max, low.trace_error) == (0, 0.0, 0.0)
    assert low.eigenvectors.shape == (D, 0)
    assert low.estimate_error(K) == nf.ErrorEstimate(0.0, 0.0, (0.0, 0.0), 64)
    for result in (
        low @ np.ones(D),
        low.diagonal(),
        low.columns([3]),
        nf.gradient_descent(low, np.ones(SHAPE), 10),
        nf.gradient_flow(low, np.ones(SHAPE), 10.0),
        nf.ridge(low, np.ones(SHAPE), 1.0),
    ):
        assert not result.any()


@each_method
def test_one_pixel(method):
    K = nf.NTK(NETS["vanilla"], np.array([[2.0]]), dtype="float64")
    low = method(K, 1)
    assert low.eigenvalues[0] == pytest.approx(K.dense()[0, 0])
    assert low.trace_error == pytest.approx(0.0, abs=1e-15)
    assert low.estimate_error(K).frobenius <= 1e-15
    assert nf.ridge(low, [[1.0]], low.lambda_max)[0, 0] == pytest.approx(0.5)


def test_zero_patches_are_left_out():
    """Half of the image is zero: its columns are, and with them some landmarks."""
    x = np.zeros((12, 12))
    x[:, 7:] = IMAGES["noise"](12, 5, 1, 0)[..., 0]
    K = nf.NTK(NETS["vanilla"], x, dtype="float64")
    low = nf.nystrom(K, 144)
    assert low.rank == np.count_nonzero(K.diagonal()) < 144
    assert entry_error(dense(low), K.dense()) <= EXACT["float64"]


BAD = [
    (lambda K: nf.nystrom(K, 0), ValueError, "m must lie between 1 and 120, .*, got 0"),
    (lambda K: nf.nystrom(K, 121), ValueError, "m must lie between 1 and 120, .*, got 121"),
    (lambda K: nf.nystrom(K, 121, landmarks="random"), ValueError, "m must lie between 1 and 120"),
    (lambda K: nf.nystrom(K, -3), ValueError, "m must lie between 1 and 120.* got -3"),
    (lambda K: nf.nystrom(K, 5.0), TypeError, "m must be an integer, got 5.0"),
    (lambda K: nf.nystrom(K, True), TypeError, "m must be an integer, got True"),
    (lambda K: nf.nystrom(K), ValueError, "m must be given with landmarks='lattice'"),
    (lambda K: nf.nystrom(K, 5, landmarks="grid"), ValueError, r"landmarks must be one of .*, got 'grid'"),
    (lambda K: nf.nystrom(K, 5, landmarks=None), TypeError, "landmarks must be a 1-D sequence of integers, got None"),
    (lambda K: nf.nystrom(K, landmarks=[0.5]), TypeError, "landmarks must be a 1-D sequence of integers"),
    (lambda K: nf.nystrom(K, landmarks=[[1]]), TypeError, "landmarks must be a 1-D sequence of integers"),
    (lambda K: nf.nystrom(K, landmarks=[]), ValueError, "landmarks must not be empty"),
    (lambda K: nf.nystrom(K, landmarks=[4, 120]), ValueError, "landmarks must lie between 0 and 119, got 4 to 120"),
    (lambda K: nf.nystrom(K, landmarks=[-1]), ValueError, "landmarks must lie between 0 and 119, got -1 to -1"),
    (lambda K: nf.nystrom(K, landmarks=[7, 3, 7]), ValueError, "landmarks must be distinct, got 7 more than once"),
    (lambda K: nf.nystrom(K, 3, landmarks=[7, 3]), ValueError, "m must be the number of landmarks, 2, or None, got 3"),
    (lambda K: nf.nystrom(K, 5, rng=-1), ValueError, "rng must be at least 0, got -1"),
    (lambda K: nf.nystrom(K.dense(), 5), TypeError, r"ntkfast\.NTK or an ntkfast\.NNGP, got"),
    (lambda K: nf.nystrom(nf.nystrom(K, 5), 5), TypeError, r"ntkfast\.NTK or an ntkfast\.NNGP, got"),
    (
        lambda K: nf.randomized_low_rank(aslinearoperator(np.eye(4)), 2),
        TypeError,
        r"ntkfast\.NTK or an ntkfast\.NNGP, got",
    ),
    (
        lambda K: nf.randomized_low_rank(K, 0),
        ValueError,
        "rank must lie between 1 and 120, .* got 0",
    ),
    (
        lambda K: nf.randomized_low_rank(K, 121),
        ValueError,
        "rank must lie between 1 and 120, .* got 121",
    ),
    (lambda K: nf.randomized_low_rank(K, 5, sweeps=0), ValueError, "sweeps must be at least 1, got 0"),
    (lambda K: nf.randomized_low_rank(K, 5, sweeps=1.5), TypeError, "sweeps must be an integer, got 1.5"),
    (lambda K: nf.randomized_low_rank(K, 5, oversampling=-1), ValueError, "oversampling must be at least 0, got -1"),
    (lambda K: nf.randomized_low_rank(K, 5, rng="a"), TypeError, "rng must be an integer, None or a .*, got 'a'"),
    (lambda K: nf.nystrom(K, 5).estimate_error(K, samples=1), ValueError, "samples must be at least 2, got 1"),
    (
        lambda K: nf.nystrom(K, 5).estimate_error(None),
        TypeError,
        r"ntkfast\.NTK or an ntkfast\.NNGP, got None",
    ),
    (
        lambda K: nf.nystrom(nf.NTK(K.network, np.ones((10, 12))), 5).estimate_error(K),
        ValueError,
        r"K must be the kernel of an image of \(10, 12\) pixels, got \(12, 10\)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[message for _, _, message in BAD])
def test_bad_input(call, error, message):
    K = problem()[0]
    with pytest.raises(error, match=message):
        call(K)


# --- Memory -------------------------------------------------------------------------------------------------------

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
