"""These compare blurring, downsampling and inpainting with scipy, and test their adjoints."""

import pickle

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

import ntkfast as nf
from ntkfast.restoration.operators import BOUNDARIES
from restoring import OPERATORS, SHAPE, dense, known


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
