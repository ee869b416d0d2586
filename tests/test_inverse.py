"""Operators of inverse problems are compared with scipy and their adjoints, restoration with dense float64 formulas."""

import os
import pickle
import signal
import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage, sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import ntkfast as nf
from images import IMAGES
from ntkfast.engine import memory
from ntkfast.engine.backend import Backend
from ntkfast.reference import kernel_matrix
from ntkfast.restoration import inverse
from ntkfast.restoration.first_guess import GUESS_WEIGHTS, first_guess
from ntkfast.restoration.inverse import MAX_STEPS, NOISELESS_MISFIT
from ntkfast.restoration.operators import BOUNDARIES
from ntkfast.restoration.progress import ProductsDone
from ntkfast.spectral.filters import METHODS as SOLVERS
from ntkfast.spectral.filters import random_direction
from ntkfast.spectral.lanczos import landweber_filter

SHAPE = (12, 10)
NETWORK = nf.vanilla_cnn(1, 5)
DOUBLE = nf.Compute(dtype="float64")
KERNEL = np.outer([1.0, 3.0, 2.0], [1.0, 2.0, 1.0, 0.5]) / 27.0


def known(shape, share=0.5, seed=0):
    mask = np.random.default_rng(seed).random(shape) < share
    mask[0, 0] = True
    return mask


OPERATORS = {
    "inpainting": lambda: nf.Inpainting(known(SHAPE)),
    "blurring": lambda: nf.Blur(SHAPE, KERNEL),
    "downsampling": lambda: nf.Downsampling(SHAPE, 2),
}


def dense(A):
    return A.matmat(np.eye(A.shape[1]))


def problem(name, channels=3, noise=0.0):
    """Return an operator, its matrix, data of shape (n, C), and a guide."""
    A = OPERATORS[name]()
    clean = IMAGES["natural"](*SHAPE, channels, 0)
    y = A.matmat(clean.reshape(-1, channels))
    y = y + noise * np.random.default_rng(1).standard_normal(y.shape)
    return A, dense(A), y, IMAGES["natural"](*SHAPE, channels, 5)


def closed_form(matrix, guide, y, times, share=1.0, network=NETWORK):
    """Return m + Theta A^T f_t(A Theta A^T) (y - A m) by an eigendecomposition in float64, and eta."""
    theta = kernel_matrix(network, guide - guide.mean(axis=(0, 1)), channel_axis=-1)
    ones = matrix.sum(axis=1)
    mean = (ones @ y) / (ones @ ones)
    values, vectors = np.linalg.eigh(matrix @ theta @ matrix.T)
    values = np.maximum(values, 0)
    eta = share / values[-1]
    coordinates = vectors.T @ (y - ones[:, None] * mean)
    out = []
    for t in times:
        x = eta * values
        with np.errstate(invalid="ignore", divide="ignore"):
            f = np.where(x * t > 1e-6, (1 - (1 - x) ** t) / values, eta * t)
        out.append(mean + theta @ matrix.T @ (vectors @ (f[:, None] * coordinates)))
    return np.array(out), eta


def assert_close(got, wanted, tolerance):
    assert got.shape == wanted.shape
    assert np.linalg.norm(got - wanted) <= tolerance * np.linalg.norm(wanted)


# Operators


def assert_adjoint(A, seed=0):
    rng = np.random.default_rng(seed)
    u, v = rng.standard_normal(A.shape[1]), rng.standard_normal(A.shape[0])
    scale = np.linalg.norm(A @ u) * np.linalg.norm(v) + np.linalg.norm(u) * np.linalg.norm(A.T @ v)
    assert abs((A @ u) @ v - u @ (A.T @ v)) <= 1e-13 * scale
    U = rng.standard_normal((A.shape[1], 3))
    np.testing.assert_allclose(A.matmat(U)[:, 1], A @ U[:, 1], atol=1e-12)


sides = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=60, deadline=None)
@given(sides, st.tuples(st.integers(1, 21), st.integers(1, 21)), st.sampled_from(list(BOUNDARIES)), st.integers(0, 999))
def test_blurring_is_scipys_convolution_with_an_exact_adjoint(shape, size, boundary, seed):
    """Kernels of even sides and larger than the image are among them."""
    # SciPy 1.17 is wrong where a reflected image is read four or more of its sides away, but for a side of one pixel.
    near = all(side == 1 or length // 2 < 4 * side for side, length in zip(shape, size, strict=True))
    assume(boundary != "reflect" or near)
    rng = np.random.default_rng(seed)
    kernel, image = rng.standard_normal(size), rng.standard_normal(shape)
    A = nf.Blur(shape, kernel, boundary=boundary)
    wanted = ndimage.convolve(image, kernel, mode=boundary)
    np.testing.assert_allclose((A @ image.ravel()).reshape(shape), wanted, atol=1e-12 * np.abs(kernel).sum())
    assert_adjoint(A, seed)


def test_blurring_far_beyond_a_reflected_image():
    kernel, image = np.random.default_rng(0).standard_normal((2, 17))[..., None]
    image = image[:2]
    A = nf.Blur((2, 1), kernel)
    wanted = np.convolve(np.pad(image[:, 0], 8, mode="symmetric"), kernel[:, 0], mode="valid")
    np.testing.assert_allclose(A @ image.ravel(), wanted, atol=1e-12 * np.abs(kernel).sum())
    assert_adjoint(A, 0)


@settings(max_examples=30, deadline=None)
@given(sides, st.integers(1, 5), st.integers(0, 999))
def test_downsampling_takes_means_and_has_an_exact_adjoint(shape, factor, seed):
    fine = tuple(factor * n for n in shape)
    image = np.random.default_rng(seed).standard_normal(fine)
    A = nf.Downsampling(fine, factor)
    wanted = [
        image[factor * i : factor * (i + 1), factor * j : factor * (j + 1)].mean()
        for i in range(shape[0])
        for j in range(shape[1])
    ]
    np.testing.assert_allclose(A @ image.ravel(), wanted, atol=1e-12)
    assert_adjoint(A, seed)


@settings(max_examples=30, deadline=None)
@given(sides, st.floats(0.0, 1.0), st.integers(0, 999))
def test_inpainting_picks_pixels_and_has_an_exact_adjoint(shape, share, seed):
    mask = known(shape, share, seed)
    image = np.random.default_rng(seed).standard_normal(shape)
    A = nf.Inpainting(mask)
    np.testing.assert_array_equal(A @ image.ravel(), image[mask])
    np.testing.assert_array_equal((A.T @ image[mask]).reshape(shape), np.where(mask, image, 0))
    assert_adjoint(A, seed)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nf.Inpainting(np.zeros((3, 4))), ValueError, "known must have at least one known pixel"),
        (lambda: nf.Inpainting(np.ones(4)), ValueError, r"known must have 2 dimensions, got shape \(4,\)"),
        (lambda: nf.Inpainting(np.full((2, 2), 0.5)), ValueError, "known must be True or 1"),
        (lambda: nf.Inpainting(np.full((2, 2), np.nan)), ValueError, "known must be finite"),
        (lambda: nf.Inpainting(np.zeros((0, 2))), ValueError, "known must not be empty"),
        (lambda: nf.Blur((4, 4), np.ones(3)), ValueError, "kernel must have 2 dimensions"),
        (lambda: nf.Blur((4, 4), np.ones((3, 0))), ValueError, "kernel must not be empty"),
        (lambda: nf.Blur((4, 4), 1j * np.ones((3, 3))), TypeError, "kernel must be a real numeric array"),
        (lambda: nf.Blur((4, 4), np.ones((3, 3)), "zeros"), ValueError, "boundary must be one of .* got 'zeros'"),
        (lambda: nf.Blur(4, np.ones((3, 3))), TypeError, r"shape must be two integers \(H, W\), got 4"),
        (lambda: nf.Blur((4, 0), np.ones((3, 3))), ValueError, "shape must be two positive integers"),
        (lambda: nf.Downsampling((5, 4), 2), ValueError, r"shape must have multiples of factor = 2, got \(5, 4\)"),
        (lambda: nf.Downsampling((4, 4), 0), ValueError, "factor must be at least 1, got 0"),
        (lambda: nf.Downsampling((4, 4), 2.0), TypeError, "factor must be an integer, got 2.0"),
        (lambda: nf.Downsampling((4, 4.0), 2), TypeError, "shape must be an integer, got 4.0"),
        (
            lambda: nf.Downsampling((4, 4), 2) @ np.ones(16, object),
            TypeError,
            "complex arrays, got dtype object",
        ),
        (
            lambda: np.asarray(nf.Downsampling((4, 4), 2)),
            TypeError,
            "Downsampling is an operator and no array",
        ),
        (
            lambda: nf.restore_ntk("x", nf.Inpainting(np.eye(4))),
            TypeError,
            "y must be a real numeric array",
        ),
    ],
)
def test_bad_operators(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "A", [nf.Inpainting(np.eye(4)), nf.Blur((4, 4), np.ones((3, 1)), "wrap"), nf.Downsampling((4, 4), 2)]
)
def test_operators_map_complex_images_by_their_parts(A):
    rng = np.random.default_rng(0)
    for operator in (A, A.H):
        v, w = rng.standard_normal((2, operator.shape[1]))
        np.testing.assert_allclose(operator @ (v + 1j * w), operator @ v + 1j * (operator @ w), atol=1e-12)


def test_operators_say_how_they_were_made():
    blur = nf.Blur((4, 4), [[1, 2]], "wrap")
    np.testing.assert_array_equal(blur.kernel, [[1.0, 2.0]])
    assert (blur.boundary, blur.image_shape, nf.Downsampling((4, 4), 2).factor) == ("wrap", (4, 4), 2)


def test_masked_data_are_refused():
    y = np.ma.masked_array(np.ones((4, 4)), np.eye(4))
    for A in (nf.Inpainting(np.eye(4)), nf.Downsampling((4, 4), 1)):
        with pytest.raises(TypeError, match="y must not be a masked array: fill"):
            nf.restore_ntk(y, A)


@pytest.mark.parametrize("name", list(OPERATORS))
def test_operators_pickle(name):
    A = OPERATORS[name]()
    again = pickle.loads(pickle.dumps(A))
    assert type(again) is type(A)
    assert (again.shape, again.image_shape, again.data_shape) == (A.shape, A.image_shape, A.data_shape)
    np.testing.assert_array_equal(dense(again), dense(A))
    np.testing.assert_allclose(again.rmatmat(np.eye(A.shape[0])), dense(A).T, atol=1e-15)
    assert repr(A) == f"<{type(A).__name__} of {SHAPE[0]} x {SHAPE[1]} pixels, shape {A.shape}>"


# Restoration


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(OPERATORS))
def test_the_path_is_the_closed_form(name, dtype):
    A, matrix, y, guide = problem(name)
    times = [0, 1, 9, 200, 5000]
    method, compute = nf.Landweber(NETWORK, times, tolerance=1e-5), nf.Compute(dtype=dtype)
    path, info = nf.restore_ntk(y, A, channel_axis=-1, guide=guide, method=method, compute=compute, return_info=True)
    wanted, eta = closed_form(matrix, guide, y, times)
    assert info.learning_rate[0] == pytest.approx(eta, rel=1e-3)
    wanted, _ = closed_form(matrix, guide, y, times, share=info.learning_rate[0] / eta)
    for z, reference in zip(path, wanted, strict=True):
        assert_close(z.reshape(reference.shape), reference, 3e-4 if dtype == "float32" else 2e-5)
    assert info.steps == (5000,)
    misfits = [np.sqrt(np.mean((matrix @ z.reshape(-1, 3) - y) ** 2)) for z in path]
    np.testing.assert_allclose(info.misfit, misfits, rtol=1e-6)
    assert misfits == sorted(misfits, reverse=True)


@pytest.mark.parametrize("name", list(OPERATORS))
def test_lanczos_follows_the_plain_iteration(name):
    A, matrix, y, guide = problem(name)
    rate = 1.9 * closed_form(matrix, guide, y, [])[1]
    options = {"channel_axis": -1, "guide": guide, "compute": DOUBLE, "return_info": True}
    times = [0, 1, 2, 30]
    fast, _ = nf.restore_ntk(y, A, method=nf.Landweber(NETWORK, times, rate, tolerance=1e-9), **options)
    slow, info = nf.restore_ntk(y, A, method=nf.Landweber(NETWORK, times, rate, solver="iteration"), **options)
    np.testing.assert_allclose(fast, slow, atol=1e-7 * np.abs(slow).max())
    assert np.isnan(info.error)


def test_the_error_bounds_the_error():
    A, matrix, y, guide = problem("inpainting")
    theta = kernel_matrix(NETWORK, guide - guide.mean(axis=(0, 1)), channel_axis=-1)
    assert np.linalg.eigvalsh(theta)[0] > 0
    for tolerance in (1e-1, 1e-2, 1e-3):
        method = nf.Landweber(NETWORK, 2000, tolerance=tolerance)
        z, info = nf.restore_ntk(y, A, channel_axis=-1, guide=guide, method=method, compute=DOUBLE, return_info=True)
        share = info.learning_rate[0] * np.linalg.eigvalsh(matrix @ theta @ matrix.T)[-1]
        wanted = closed_form(matrix, guide, y, [2000], share)[0][0]
        mean = y.mean(axis=0)
        error = np.linalg.norm(matrix @ (z.reshape(-1, 3) - wanted))
        assert info.error <= tolerance
        # lambda_max, and so eta, is itself known to 1e-6 or so
        assert error <= (info.error + 1e-5) * np.linalg.norm(matrix @ (wanted - mean))


def test_the_identity_gives_gradient_descent():
    image = IMAGES["natural"](*SHAPE, 3, 0)
    centred = image - image.mean(axis=(0, 1))
    K = nf.NTK(NETWORK, centred, channel_axis=-1, dtype="float64")
    wanted, descent = nf.gradient_descent(K, centred, [3, 300], tolerance=1e-9, return_info=True)
    identity = LinearOperator((120, 120), matvec=lambda v: v, rmatvec=lambda v: v, dtype=np.float64)
    for A in (identity, nf.Inpainting(np.ones(SHAPE)), nf.Downsampling(SHAPE, 1), nf.Blur(SHAPE, [[1.0]])):
        method = nf.Landweber(NETWORK, [3, 300], tolerance=1e-9)
        got, info = nf.restore_ntk(
            image.reshape(-1, 3), A, channel_axis=-1, guide=image, method=method, compute=DOUBLE, return_info=True
        )
        assert info.lambda_max[0] == pytest.approx(descent.lambda_max, rel=1e-5)
        np.testing.assert_allclose(got - image.mean(axis=(0, 1)), wanted, atol=1e-5)


@pytest.mark.parametrize("name", list(OPERATORS))
def test_linear_in_the_data_for_a_fixed_guide(name):
    A, _, y, guide = problem(name)
    other = np.random.default_rng(3).standard_normal(y.shape)

    def f(data):
        method = nf.Landweber(NETWORK, 100, tolerance=1e-10)
        return nf.restore_ntk(data, A, channel_axis=-1, guide=guide, method=method, compute=DOUBLE)

    np.testing.assert_allclose(f(2 * y - 3 * other), 2 * f(y) - 3 * f(other), atol=1e-5)


def test_constant_data_give_a_constant_image():
    for make in OPERATORS.values():
        A = make()
        y = A.matvec(np.full(120, 7.0))
        out, info = nf.restore_ntk(y, A, return_info=True)
        np.testing.assert_allclose(out, np.full(SHAPE, 7.0), atol=1e-4)
        assert info.steps == (0,)


@pytest.mark.parametrize("solver", ["lanczos", "iteration"])
@pytest.mark.parametrize("tau", [1.0, 1.5])
def test_the_discrepancy_principle_takes_the_first_time_that_fits(tau, solver):
    """It fits when |A z_t - y|^2 <= tau C sigma^2 tr q, q = (I - eta A Theta A^T)^t, the trace from one vector."""
    A, matrix, y, guide = problem("blurring", noise=0.05)
    options = {"channel_axis": -1, "guide": guide, "compute": DOUBLE, "return_info": True}
    method = nf.Landweber(NETWORK, tau=tau, tolerance=1e-6, solver=solver)
    _, info = nf.restore_ntk(y, A, 0.05, method=method, **options)
    t, eta = info.steps[0], info.learning_rate[0]
    assert t > 3
    path, _ = nf.restore_ntk(y, A, method=nf.Landweber(NETWORK, [t - 1, t], eta, tolerance=1e-6), **options)
    before, after = (np.mean((matrix @ z.reshape(-1, 3) - y) ** 2) for z in path)
    theta = kernel_matrix(NETWORK, guide - guide.mean(axis=(0, 1)), channel_axis=-1)
    v = random_direction(120)
    left = np.linalg.matrix_power(np.eye(120) - eta * matrix @ theta @ matrix.T, t - 1)
    goals = [
        tau * 0.05**2 * ((v.T @ q @ v) / (v.T @ v)).item()
        for q in (left, left - eta * matrix @ theta @ matrix.T @ left)
    ]
    assert before > goals[0] * (1 - 1e-4)
    assert after <= goals[1] * (1 + 1e-4)
    assert goals[1] / (tau * 0.05**2) == pytest.approx(np.trace(left) / 120, abs=0.1)
    assert info.misfit == pytest.approx(np.sqrt(after), rel=1e-4)


def test_without_noise_the_data_are_fitted_to_a_stated_share():
    A, _, y, guide = problem("inpainting")
    _, info = nf.restore_ntk(y, A, channel_axis=-1, guide=guide, return_info=True)
    goal = NOISELESS_MISFIT * np.sqrt(np.mean((y - y.mean(axis=0)) ** 2))
    assert info.steps[0] < MAX_STEPS
    assert 0.8 * goal < info.misfit <= 1.05 * goal
    _, same = nf.restore_ntk(y, A, 0, channel_axis=-1, guide=guide, return_info=True)
    assert same.steps == info.steps


def test_noise_as_large_as_the_picture_gives_the_mean():
    A, _, y, guide = problem("inpainting")
    out, info = nf.restore_ntk(y, A, 100.0, channel_axis=-1, guide=guide, return_info=True)
    assert info.steps == (0,)
    np.testing.assert_allclose(out, np.broadcast_to(y.mean(axis=0), out.shape), atol=1e-6)


def test_refinement_takes_the_kernel_of_the_result():
    A, _, y, guide = problem("inpainting")
    options = {"channel_axis": -1, "compute": DOUBLE}
    method = nf.Landweber(NETWORK, 50)
    once = nf.restore_ntk(y, A, guide=guide, method=method, **options)
    twice, info = nf.restore_ntk(y, A, guide=guide, method=replace(method, passes=2), return_info=True, **options)
    assert info.passes == 2
    assert info.method == replace(method, passes=2)
    assert len(info.steps) == len(info.learning_rate) == len(info.lambda_max) == 2
    np.testing.assert_allclose(twice, nf.restore_ntk(y, A, guide=once, method=method, **options), atol=1e-4)
    assert np.abs(twice - once).max() > 1e-3


def test_a_network_of_several_resolutions_sees_the_guide_mirrored():
    """Theta is that of the larger picture, restricted to the pixels that are there."""
    shape = (7, 10)
    network = nf.autoencoder(2)
    guide = IMAGES["natural"](*shape, 1, 2)
    mask = known(shape)
    y = IMAGES["natural"](*shape, 1, 0)[mask]
    method, A = nf.Landweber(network, 40, tolerance=1e-8), nf.Inpainting(mask)
    out, info = nf.restore_ntk(y[:, 0], A, guide=guide[..., 0], method=method, compute=DOUBLE, return_info=True)
    inside = np.zeros((8, 12), bool)
    inside[:7, :10] = True
    centred = np.pad(guide - guide.mean(), ((0, 1), (0, 2), (0, 0)), mode="symmetric")
    theta = kernel_matrix(network, centred, channel_axis=-1)[np.ix_(inside.ravel(), inside.ravel())]
    matrix = np.eye(70)[mask.ravel()]
    mean, z = y.mean(), np.zeros(70)
    for _ in range(40):
        z = z + info.learning_rate[0] * theta @ matrix.T @ (y[:, 0] - mean - matrix @ z)
    np.testing.assert_allclose(out.ravel(), mean + z, atol=1e-5)


def test_shapes_axes_and_types():
    mask = known(SHAPE)
    A = nf.Inpainting(mask)
    image = IMAGES["natural"](*SHAPE, 3, 0)
    options = {"method": nf.Landweber(NETWORK, [2, 5])}
    wanted = nf.restore_ntk(image[mask], A, channel_axis=-1, **options)
    assert wanted.shape == (2, *SHAPE, 3)
    assert wanted.dtype == np.float64
    holes = np.where(mask[..., None], image, np.nan)
    np.testing.assert_array_equal(nf.restore_ntk(holes, A, channel_axis=2, **options), wanted)
    first = nf.restore_ntk(np.moveaxis(holes, -1, 0), A, channel_axis=0, **options)
    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), wanted)
    np.testing.assert_array_equal(nf.restore_ntk(image[mask].T, A, channel_axis=0, **options), first)
    np.testing.assert_array_equal(nf.restore_ntk(image[mask], A, channel_axis=1, **options), wanted)
    single = nf.restore_ntk(
        image[mask].astype(np.float32), A, channel_axis=-1, method=nf.Landweber(network=NETWORK, steps=5)
    )
    assert single.shape == (*SHAPE, 3)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, wanted[1], atol=1e-4)
    gray = nf.restore_ntk(image[..., 0][mask], A, **options)
    assert gray.shape == (2, *SHAPE)
    half = nf.Downsampling(SHAPE, 2)
    coarse = half.matmat(image.reshape(-1, 3))
    flat = nf.restore_ntk(coarse, half, channel_axis=-1, **options)
    np.testing.assert_array_equal(nf.restore_ntk(coarse.reshape(6, 5, 3), half, channel_axis=-1, **options), flat)


def test_any_operator_and_matrix_will_do():
    A = nf.Downsampling(SHAPE, 2)
    matrix = dense(A)
    y = A @ IMAGES["natural"](*SHAPE, 1, 0).ravel()
    guide = first_guess(A, y[:, None], SHAPE, 0.0)[..., 0]
    options = {"method": nf.Landweber(NETWORK, 20)}
    wanted = nf.restore_ntk(y, A, **options)
    for other in (matrix, sparse.csr_matrix(matrix), aslinearoperator(matrix)):
        np.testing.assert_allclose(nf.restore_ntk(y, other, shape=SHAPE, **options), wanted, atol=1e-5)
        np.testing.assert_allclose(nf.restore_ntk(y, other, guide=guide, **options), wanted, atol=1e-5)


def test_an_operator_of_zeros_gives_zeros():
    out = nf.restore_ntk(np.ones(5), np.zeros((5, 120)), shape=SHAPE)
    np.testing.assert_array_equal(out, np.zeros(SHAPE))


@pytest.mark.parametrize("name", ["blurring", "downsampling"])
def test_the_first_guess_solves_its_equations(name):
    A, matrix, y, _ = problem(name)
    guess = first_guess(A, y, SHAPE, 0.0).reshape(-1, 3)
    second = ndimage.laplace(np.eye(120).reshape(*SHAPE, 120), mode="reflect", axes=(0, 1)).reshape(120, 120)
    mu = GUESS_WEIGHTS[-1] * np.linalg.norm(matrix, 2) ** 2
    wanted = np.linalg.solve(matrix.T @ matrix + mu * second.T @ second, matrix.T @ y)
    assert_close(guess, wanted, 0.01)
    smoother = first_guess(A, y, SHAPE, 0.05)
    misfit = np.sqrt(np.mean((matrix @ smoother.reshape(-1, 3) - y) ** 2))
    assert np.sqrt(np.mean((matrix @ guess - y) ** 2)) < misfit <= 0.05


def test_the_first_guess_of_inpainting_is_biharmonic():
    mask = known(SHAPE)
    y = IMAGES["natural"](*SHAPE, 2, 0)[mask]
    guess = first_guess(nf.Inpainting(mask), y, SHAPE, 0.0)
    np.testing.assert_array_equal(guess[mask], y)
    twice = ndimage.laplace(ndimage.laplace(guess, mode="reflect", axes=(0, 1)), mode="reflect", axes=(0, 1))
    assert np.abs(twice[~mask]).max() < 1e-10
    np.testing.assert_array_equal(first_guess(nf.Inpainting(np.ones((1, 3))), np.eye(3)[:, :1], (1, 3), 0.0)[0, 0], [1])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1)])
def test_small_images(shape):
    for A in (nf.Inpainting(known(shape)), nf.Blur(shape, KERNEL), nf.Downsampling(shape, 1)):
        y = A @ np.arange(shape[0] * shape[1], dtype=float)
        for sigma in (None, 0.5):
            out = nf.restore_ntk(y, A, sigma, method=nf.Landweber(passes=2))
            assert out.shape == shape
            assert np.isfinite(out).all()


def test_a_bound_on_products_warns():
    A, _, y, guide = problem("inpainting")
    with pytest.warns(RuntimeWarning, match="max_products"):
        _, info = nf.restore_ntk(
            y, A, channel_axis=-1, guide=guide, return_info=True, method=nf.Landweber(steps=500, max_products=3)
        )
    assert info.products == 4  # and one for the result


@pytest.mark.parametrize("solver", ["lanczos", "iteration"])
def test_a_diverging_rate_names_the_bound(solver):
    A, matrix, y, guide = problem("blurring")
    bound = 2 * closed_form(matrix, guide, y, [])[1]
    method = nf.Landweber(NETWORK, 10, 1.01 * bound, solver=solver)
    with pytest.raises(ValueError, match=r"learning_rate must be below 2/lambda_max = [0-9.e-]+") as error:
        nf.restore_ntk(y, A, channel_axis=-1, guide=guide, method=method)
    # Lanczos stops at the first estimate of lambda_max that is too large for the rate, and it comes from below.
    stated = float(str(error.value).split("= ")[1].split(",")[0])
    assert stated == pytest.approx(bound, rel=1e-3 if solver == "iteration" else 1e-2)
    assert stated >= bound * (1 - 1e-6)


def test_progress_reaches_one_and_can_stop():
    A, _, y, _ = problem("inpainting")
    seen = []
    nf.restore_ntk(y, A, channel_axis=-1, method=nf.Landweber(passes=2), compute=nf.Compute(progress=seen.append))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(seen) > 4

    def stop(fraction):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        nf.restore_ntk(y, A, channel_axis=-1, compute=nf.Compute(progress=stop))


def test_ctrl_c_stops():
    image = IMAGES["natural"](160, 160, 1, 0)[..., 0]
    method = nf.Landweber(nf.vanilla_cnn(6, 3), 10**6, storage="stream", tolerance=1e-12, solver="iteration")
    stopper = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    stopper.start()
    with pytest.raises(KeyboardInterrupt):
        nf.restore_ntk(image.ravel(), nf.Inpainting(np.ones(image.shape)), guide=image, method=method)
    stopper.join()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y": np.ones(7)}, ValueError, r"y must have shape \(30,\) or \(6, 5\), .* got \(7,\)"),
        ({"y": np.ones((30, 3))}, ValueError, r"y must have shape .* channel_axis=None, got \(30, 3\)"),
        ({"y": np.full(30, np.nan)}, ValueError, "y must be finite, got 30 NaN"),
        ({"y": np.ones(30, complex)}, TypeError, "y must be a real numeric array"),
        ({"y": None}, TypeError, "y must be a real numeric array"),
        ({"channel_axis": 1}, ValueError, "channel_axis must be an axis of y"),
        ({"A": "blur"}, TypeError, "A must be a LinearOperator or a matrix, got str"),
        ({"A": np.ones((30, 120)) * 1j}, TypeError, "A must be real, got dtype complex128"),
        ({"A": np.ones((30, 120))}, ValueError, r"shape must be given, \(H, W\)"),
        ({"A": np.ones((30, 120)), "shape": (11, 10)}, ValueError, r"shape must have the size .*120 col.*\(11, 10\)"),
        ({"shape": (10, 12)}, ValueError, r"shape must have the size .* got \(10, 12\)"),
        ({"A": LinearOperator((30, 120), matvec=lambda v: v[:30], dtype=float)}, TypeError, "A must have an adjoint"),
        ({"guide": np.ones((10, 12))}, ValueError, r"guide must have the size .* got \(10, 12\)"),
        ({"guide": np.full(SHAPE, np.inf)}, ValueError, "guide must be finite"),
        ({"sigma": -1.0}, ValueError, "sigma must be >= 0, got -1.0"),
        ({"sigma": float("nan")}, ValueError, "sigma must be finite"),
        ({"sigma": "5"}, TypeError, "sigma must be a real number"),
        ({"method": nf.Tiles()}, TypeError, r"method must be an ntkfast.Landweber, got Tiles\(\)"),
        ({"compute": {}}, TypeError, "compute must be an ntkfast.Compute, got {}"),
        ({"rng": 1.5}, TypeError, "rng must be an integer, None or a numpy.random.Generator, got 1.5"),
    ],
)
def test_bad_arguments(change, error, message):
    arguments = {"y": np.arange(30.0), "A": nf.Downsampling(SHAPE, 2)} | change
    with pytest.raises(error, match=message):
        nf.restore_ntk(**arguments)


# --- The operator and its adjoint ---------------------------------------------------------------------------------


def masked(forward, backward=None, dtype=float, shape=(120, 120)):
    """Return an operator on 120 pixels that claims ``backward``, by default ``forward``, as its adjoint."""
    return LinearOperator(shape, matvec=forward, rmatvec=backward or forward, dtype=dtype)


MASK = known(SHAPE).ravel().astype(float)


@pytest.mark.parametrize(
    "A",
    [
        masked(lambda v: MASK * v, lambda v: 3 * MASK * v + 0.1),
        masked(lambda v: MASK * v, lambda v: 1.01 * MASK * v),
        masked(lambda v: MASK * v, lambda v: MASK * v + 0.1),
        masked(lambda v: MASK * v + 0.1),
        masked(lambda v: np.roll(v, 1)),
        masked(lambda v: MASK * v, lambda v: v),
        masked(np.cumsum),
        masked(lambda v: 1e-9 * np.roll(v, 1)),
        masked(lambda v: v[:30], lambda v: np.repeat(v, 4), shape=(30, 120)),
    ],
)
@pytest.mark.parametrize("rng", range(3))
def test_an_rmatvec_that_is_no_adjoint_is_refused(A, rng):
    message = r"A must have its adjoint as rmatvec, <A u, v> = <u, A\^T v>: .* left side is \S+ and the right side \S+$"
    with pytest.raises(ValueError, match=message):
        nf.restore_ntk(np.ones(A.shape[0]), A, shape=SHAPE, rng=rng)


@pytest.mark.parametrize("rng", range(3))
def test_operators_in_single_precision_pass(rng):
    """Rounding is far below what the test lets pass, in operators of any size and scale."""
    single = sparse.random(500, 120, 0.3, random_state=0, dtype=np.float32)
    y = single @ np.ones(120)
    for scale in (1e-12, 1.0, 1e12):
        A = (np.float32(scale) * single).tocsr()
        method = nf.Landweber(NETWORK, 3)
        assert np.isfinite(nf.restore_ntk(scale * y, A, shape=SHAPE, method=method, rng=rng)).all()


@pytest.mark.parametrize(
    ("A", "message"),
    [
        (masked(lambda v: np.full(120, np.nan)), "A must give finite numbers, got 120 NaN .* from its matvec"),
        (masked(lambda v: v, lambda v: v / np.r_[0.0, np.ones(119)]), "got 1 NaN or infinite values from its rmatvec"),
        (masked(lambda v: v[:90]), "A must give 120 numbers for 120, but its matvec failed: cannot reshape array"),
        (masked(lambda v: v, lambda v: v[:9]), "A must give 120 numbers for 120, but its rmatvec failed: "),
    ],
)
def test_what_an_operator_gives_is_blamed_on_it(A, message):
    with np.errstate(divide="ignore"), pytest.raises(ValueError, match=message):
        nf.restore_ntk(np.ones(120), A, shape=SHAPE)


def test_nan_that_comes_later_is_blamed_on_the_operator():
    calls = []

    def late(v):
        calls.append(1)
        return v if len(calls) < 8 else np.full_like(v, np.nan)

    with pytest.raises(ValueError, match="A must give finite numbers"):
        nf.restore_ntk(np.arange(120.0), masked(late), shape=SHAPE)


# --- Memory -------------------------------------------------------------------------------------------------------


def wide_problem(channels):
    """Return operator, data and options for an image whose vectors are larger than what does not grow with it."""
    rng = np.random.default_rng(0)
    A = nf.Inpainting(known((48, 48)))
    image = rng.standard_normal((48, 48, channels))
    return A, image, {"guide": image, "channel_axis": -1}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_results_take_what_is_counted(solver, dtype, monkeypatch):
    A, y, options = wide_problem(3)
    asked = []
    monkeypatch.setattr(Backend, "peaks", lambda *_: {"stream": 0})  # the engine's arrays are not NumPy's

    def require(budget, what, hint, more=0):
        asked.append((what, budget.free - budget.left + more))

    monkeypatch.setattr(memory.Budget, "require", require)
    options["method"] = nf.Landweber(steps=list(range(1, 31)), solver=solver, storage="stream")
    options["compute"] = nf.Compute(dtype=dtype, threads=1)
    nf.restore_ntk(y, A, **options)
    tracemalloc.start()
    nf.restore_ntk(y, A, **options)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (counted,) = {needed for what, needed in asked if what.startswith("restoring")}
    assert 0.4 * counted <= taken <= counted


@pytest.mark.parametrize(
    ("channels", "steps", "hint"),
    [
        (3, list(range(200)), "ask for fewer steps at once"),
        (3, 7, "restore one channel at a time"),
        (1, None, "use a smaller image"),
    ],
)
def test_what_does_not_fit_is_refused_before_work(channels, steps, hint, monkeypatch):
    A, y, options = wide_problem(channels)
    options |= {"method": nf.Landweber(steps=steps, storage="stream"), "compute": nf.Compute(threads=1), "guide": None}
    monkeypatch.setattr(inverse, "first_guess", lambda *_: pytest.fail("work was begun"))
    looks = []
    monkeypatch.setattr(memory, "available_memory", lambda: looks.append(1) or 0)
    with pytest.raises(MemoryError, match=r"restoring .* needs") as error:
        nf.restore_ntk(y, A, **options)
    assert len(looks) == 1
    needed = int(str(error.value).split("(")[1].split()[0])
    monkeypatch.setattr(memory, "available_memory", lambda: needed - 1)
    count = f"{np.size(steps)} images" if np.size(steps) > 1 else "1 image"
    with pytest.raises(MemoryError, match=rf"restoring {count} of 48 x 48 x {channels} numbers needs .*: {hint}"):
        nf.restore_ntk(y, A, **options)


def test_products_with_the_data_count_what_the_kernel_takes():
    A, y, _ = wide_problem(1)
    K = nf.NTK(NETWORK, y, channel_axis=-1, storage="stream", threads=1)
    misfit = inverse._Misfit(A, K, (48, 48), ProductsDone(None, 1))
    assert misfit.working_bytes(2) == K.working_bytes(2) + 8 * inverse.PRODUCT_VECTORS * 48**2 * 2


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 1.99), st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5))
def test_the_filter_is_the_sum_of_the_steps(steps, share, shares):
    """The sum f(x) = eta sum_{k < t} (1 - eta x)^k is made by doubling: S_2n = S_n (1 + q^n)."""
    x = np.array([[0.0, 1e-12, *shares]])
    q, eta = 1 - share * x, share
    total, power = np.zeros_like(x), np.ones_like(x)
    for bit in f"{steps:b}":
        total, power = total * (1 + power), power**2
        if bit == "1":
            total, power = total + power, power * q
    np.testing.assert_allclose(landweber_filter(steps, eta).value(x), eta * total, rtol=1e-9)
