"""Low-rank approximations are compared with dense float64 linear algebra on small images: errors, landmarks, edges."""

from __future__ import annotations

import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator

import ntkfast as nf
from images import IMAGES
from lowrank_cases import EXACT, NETS, SHAPE, D, dense, each_dtype, each_method, entry_error, problem
from ntkfast.spectral import lowrank


@pytest.fixture(scope="module", params=[("vanilla", 3), ("deep circular", 1), ("autoencoder", 1), ("unet circular", 3)])
def kernel(request):
    return problem(*request.param)


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
        columns=engine.columns,
        columns_bytes=engine.columns_bytes,
        diagonal=engine.diagonal,
        exponent=engine.exponent,
    )
    error = nf.nystrom(K, 30).estimate_error(K, samples=20)
    assert 0 < error.standard_error < error.frobenius < 1


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
