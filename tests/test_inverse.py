"""These compare the restoration of inverse problems with dense float64 formulas."""

import os
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import ntkfast as nf
from images import IMAGES
from ntkfast.reference import kernel_matrix
from ntkfast.restoration.first_guess import GUESS_WEIGHTS, first_guess
from ntkfast.restoration.inverse import MAX_STEPS, NOISELESS_MISFIT
from ntkfast.spectral.filters import random_direction
from ntkfast.spectral.lanczos import landweber_filter
from restoring import (
    DOUBLE,
    KERNEL,
    NETWORK,
    OPERATORS,
    SHAPE,
    assert_close,
    closed_form,
    dense,
    known,
    problem,
)


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
