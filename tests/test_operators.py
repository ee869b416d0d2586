"""These test what kernels and their approximations share as operators: right-hand sides of every kind, and pickles."""

from __future__ import annotations

import inspect
import pickle

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator, cg, eigsh, gmres

import ntkfast as nf
from images import centred, noise
from ntkfast._check import Random

H, W = 6, 7
D = H * W
IMAGE = centred(H, W, 3, 0)
NET = nf.vanilla_cnn(2, 3)

MAKE = {
    "NTK": lambda dtype: nf.NTK(NET, IMAGE, channel_axis=-1, device="cpu", dtype=dtype),
    "NNGP": lambda dtype: nf.NNGP(NET, IMAGE, channel_axis=-1, device="cpu", dtype=dtype),
    "stream": lambda dtype: nf.NTK(NET, IMAGE, channel_axis=-1, device="cpu", dtype=dtype, storage="stream"),
    "fourier": lambda dtype: nf.NTK(
        nf.vanilla_cnn(1, 3, padding="circular"), nf.NoiseInput((H, W)), device="cpu", dtype=dtype
    ),
    "LowRank": lambda dtype: nf.nystrom(nf.NTK(NET, IMAGE, channel_axis=-1, device="cpu", dtype=dtype), 9),
}
each_operator = pytest.mark.parametrize("name", MAKE)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
COMPLEX = {"float32": np.complex64, "float64": np.complex128}


def complex_noise(*shape):
    rng = np.random.default_rng(3)
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


# --- Complex right-hand sides -------------------------------------------------------------------------------------


@each_operator
@each_dtype
def test_complex_vectors_are_mapped_by_their_parts(name, dtype):
    K = MAKE[name](dtype)
    for v in (complex_noise(D), complex_noise(D, 3), complex_noise(D, 0)):
        out = K @ v
        assert out.dtype == COMPLEX[dtype]
        assert out.shape == v.shape
        parts = K @ np.concatenate([v.real.reshape(D, -1), v.imag.reshape(D, -1)], axis=1)
        n = parts.shape[1] // 2
        np.testing.assert_array_equal(out.real.reshape(D, -1), parts[:, :n])
        np.testing.assert_array_equal(out.imag.reshape(D, -1), parts[:, n:])
    v = complex_noise(D)
    for product in (K.matvec(v), K.rmatvec(v), K.dot(v), K.H @ v, K.T @ v, v @ K):
        np.testing.assert_allclose(product, K @ v, rtol=1e-4, atol=1e-5 * np.abs(K @ v).max())
    np.testing.assert_allclose(K.matmat(v[:, None])[:, 0], K @ v, rtol=1e-5)
    image = complex_noise(H, W, 2)
    np.testing.assert_array_equal(K.apply(image).reshape(D, 2), K @ image.reshape(D, 2))


@each_operator
def test_filters_take_complex_data(name):
    K = MAKE[name]("float64")
    y = complex_noise(H, W)
    for call in (
        lambda y: nf.gradient_descent(K, y, [3, 40]),
        lambda y: nf.gradient_descent(K, y, 7, method="iteration"),
        lambda y: nf.gradient_flow(K, y, 1.0),
        lambda y: nf.ridge(K, y, [0.1, 1.0]),
    ):
        out = call(y)
        assert out.dtype == np.complex128
        np.testing.assert_allclose(out, call(y.real) + 1j * call(y.imag), atol=1e-7 * np.abs(y).max())


# --- Batches ------------------------------------------------------------------------------------------------------


@each_operator
@each_dtype
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_batches_of_matrices_and_vectors(name, dtype, kind):
    K = MAKE[name](dtype)
    theta = K.dense().astype(np.float64)
    make = complex_noise if kind == "complex" else lambda *shape: complex_noise(*shape).real
    tolerance = {"float32": 1e-4, "float64": 1e-11}[dtype]
    for shape in ((2, D, 3), (2, 4, D, 1), (1, D, 2), (D, D, 2), (0, D, 3)):
        X = make(*shape)
        for out in (K @ X, K.matmat(X), K.dot(X)):
            assert out.shape == shape
            assert np.all(np.abs(out - theta @ X) <= tolerance * np.abs(theta).max() * D)
    for shape in ((5, D), (2, 3, D), (D, D), (1, D), (0, D)):
        x = make(*shape)
        for out in (K.matvec(x), K.rmatvec(x)):
            assert out.shape == shape
            assert np.all(np.abs(out - x @ theta) <= tolerance * np.abs(theta).max() * D)


@each_operator
def test_a_batch_is_as_its_members(name):
    K = MAKE[name]("float64")
    X = noise(D, 3, 4, 1).transpose(2, 0, 1)
    for member, out in zip(X, K @ X, strict=True):
        np.testing.assert_allclose(out, K @ member, rtol=1e-12, atol=1e-12)


def test_one_pixel_has_vectors_and_matrices_alike():
    K = nf.NTK(nf.vanilla_cnn(1, 3), np.array([[2.0]]), dtype="float64")
    theta = K.dense()[0, 0]
    for x in (np.ones(1), np.ones((1, 1)), np.ones((4, 1))):
        np.testing.assert_allclose(K.matvec(x), theta * x)
    np.testing.assert_allclose(K @ np.ones((3, 1, 2)), theta * np.ones((3, 1, 2)))


@each_operator
def test_shapes_that_do_not_fit_are_told_which_would(name):
    K = MAKE[name]("float32")
    for x in (np.ones(D + 1), np.ones((3, D)), np.ones((D, 3, 2)), np.ones((2, 3, D))):
        with pytest.raises(
            ValueError, match=rf"dimension mismatch: .* must have shape \({D},\) or \(\.\.\., {D}, n\), got"
        ):
            K @ x
    for x in (np.ones(D + 1), np.ones((D, 3)), np.ones((2, D, 3))):
        with pytest.raises(ValueError, match=rf"must have shape \(\.\.\., {D}\) or \({D}, 1\), got"):
            K.matvec(x)
    with pytest.raises(ValueError, match=rf"two dimensions or more, got shape \({D},\)"):
        K.matmat(np.ones(D))
    for dtype in ("M8[D]", object, "U1"):
        with pytest.raises(TypeError, match="applies to real and complex arrays, got dtype"):
            K @ np.zeros(D, dtype)


def test_solvers_of_scipy_take_them():
    K = MAKE["NTK"]("float64")
    ridge = K + 0.1 * aslinearoperator(np.eye(D))
    y = noise(D, 1, 1, 0).ravel()
    for solver in (cg, gmres):
        x, code = solver(ridge, y, rtol=1e-10)
        assert code == 0
        np.testing.assert_allclose(K @ x, nf.ridge(K, y, 0.1), atol=1e-6)
    values = eigsh(K, 3, return_eigenvectors=False)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(K.dense())[-3:], rtol=1e-9)


# --- No arrays ----------------------------------------------------------------------------------------------------


@each_operator
def test_an_operator_is_no_array(name):
    K = MAKE[name]("float32")
    for call in (np.asarray, np.array, lambda K: np.array([K, K]), lambda K: np.linalg.eigvalsh(K), np.exp):
        with pytest.raises(TypeError, match=r"use K @ V for a product, .* or K\.dense\(\) for the whole matrix|ufunc"):
            call(K)
    np.testing.assert_allclose(K.dense() @ np.ones(D), K @ np.ones(D), rtol=1e-4)
    np.testing.assert_array_equal(np.float64(2) * K @ np.ones(D), 2 * (K @ np.ones(D)))


# --- Pickles ------------------------------------------------------------------------------------------------------


@each_operator
@each_dtype
def test_operators_pickle_to_the_bit(name, dtype):
    K, y = MAKE[name](dtype), noise(D, 3, 1, 2)[..., 0]
    made = pickle.loads(pickle.dumps(K))
    assert type(made) is type(K)
    assert made.dtype == K.dtype
    assert made.image_shape == K.image_shape
    assert repr(made) == repr(K)
    for call in (lambda K: K @ y, lambda K: K.columns([3, 5]), lambda K: K.diagonal(), lambda K: K.dense()):
        np.testing.assert_array_equal(call(made), call(K))
    np.testing.assert_array_equal(*(nf.gradient_descent(each, y, [2, 30]) for each in (made, K)))
    assert made.lambda_max == K.lambda_max


@pytest.mark.parametrize("kind", [nf.NTK, nf.NNGP])
@pytest.mark.parametrize("storage", ["stream", "dense"])
def test_a_pickle_has_the_options_and_no_callback(kind, storage):
    seen = []
    K = kind(NET, IMAGE, channel_axis=-1, device="cpu", storage=storage, threads=1, progress=seen.append)
    nf.ridge(K, IMAGE, 1.0)
    nf.gradient_descent(K, IMAGE, 5)
    assert K.lambda_max
    made = pickle.loads(pickle.dumps(K))
    kept = ("network", "device", "storage", "threads", "channels", "image_shape", "dtype", "lambda_max", "shape")
    assert [getattr(made, name) for name in kept] == [getattr(K, name) for name in kept]
    count = len(seen)
    _ = made @ np.ones(D)
    assert len(seen) == count
    assert len(pickle.dumps(K)) < 8 * IMAGE.size + 2000  # the image, and not the matrix that is kept


def test_an_image_of_any_axis_pickles():
    K = nf.NTK(NET, np.moveaxis(IMAGE, -1, 0).astype(np.float32), channel_axis=0, device="cpu")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(K)).dense(), K.dense())


def test_the_eigenpairs_of_a_pickle_are_read_only():
    low = pickle.loads(pickle.dumps(MAKE["LowRank"]("float64")))
    with pytest.raises(ValueError, match="read-only"):
        low.eigenvalues[0] = 1.0
    assert low.landmarks is not None
    assert low.trace_error == MAKE["LowRank"]("float64").trace_error


# --- Names and signatures -----------------------------------------------------------------------------------------


def test_help_shows_how_an_operator_is_made():
    for kind in (nf.NTK, nf.NNGP):
        assert list(inspect.signature(kind).parameters) == [
            "network", "image", "channel_axis", "device", "dtype", "storage", "threads", "progress",
        ]  # fmt: skip
    assert "eigenvectors" in inspect.signature(nf.LowRank).parameters
    for name in ("__init__", "matvec", "matmat", "rmatvec", "rmatmat", "dot", "apply", "columns", "dense"):
        for kind in (nf.NTK, nf.NNGP, nf.LowRank):
            method = getattr(kind, name)
            assert method.__module__.startswith("ntkfast."), (kind, name)
            assert inspect.getdoc(method), (kind, name)


def test_random_numbers_come_from_one_argument():
    assert Random == int | np.random.Generator | None
    K = MAKE["NTK"]("float64")
    for call in (
        lambda rng: nf.nystrom(K, 5, landmarks="random", rng=rng).eigenvectors,
        lambda rng: nf.randomized_low_rank(K, 5, rng=rng).eigenvectors,
        lambda rng: nf.nystrom(K, 5).estimate_error(K, samples=9, rng=rng).frobenius,
    ):
        np.testing.assert_array_equal(call(4), call(np.random.default_rng(4)))
        assert np.any(call(None) != call(None))
        going_on = np.random.default_rng(4)
        assert np.any(call(going_on) != call(going_on))
