"""These test the refusals of bad images, networks, options, indices and right-hand sides."""

from __future__ import annotations

import numpy as np
import pytest

import ntkfast
from images import noise
from ntkfast import NNGP, NTK, Conv, Network, ReLU
from ntkfast.images import without_mean
from ntkfast.reference import kernel_matrix
from operators import NET, relative

X = np.ones((4, 5))


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.ones(4), ValueError, r"image must have shape \(H, W\).*got shape \(4,\)"),
        (np.ones((2, 2, 2, 2)), ValueError, r"image must have .*got shape \(2, 2, 2, 2\)"),
        (3.0, ValueError, r"image must have .*got shape \(\)"),
        (np.ones((0, 4)), ValueError, r"image must not be empty, got shape \(0, 4\)"),
        (np.ones((4, 4, 0)), ValueError, r"image must not be empty, got shape \(4, 4, 0\)"),
        ([], ValueError, r"image must not be empty"),
        (np.array([[1, np.nan], [np.nan, 1]]), ValueError, r"image must be finite, got 2 "),
        (np.array([[1, -np.inf]]), ValueError, r"image must be finite, got 1 "),
        (np.array([[1, np.inf]], np.float16), ValueError, r"image must be finite, got 1 "),
        (np.array([[1, 2j]]), TypeError, r"image must be a real numeric array, got dtype complex"),
        (np.array([["a", "b"]]), TypeError, r"image must be a real numeric array, got dtype <U1"),
        ("photo.png", TypeError, r"image must be a real numeric array"),
        (np.array([[1, None]]), TypeError, r"image must be a real numeric array, got dtype object"),
        (None, TypeError, r"image must be a real numeric array, got dtype object"),
        (np.array([["2020-01-01"]], "M8[D]"), TypeError, r"image must be a real numeric array"),
        ([[1, 2], [3]], ValueError, r"image must be"),
        (np.full((2, 2), 1e16), ValueError, r"image must have magnitudes up to 1e\+15 for dtype float32, got 1e\+16"),
        (np.full((2, 2), -1e16), ValueError, r"image must have magnitudes"),
        (
            np.full((2, 2), 1e-25),
            ValueError,
            r"image must have magnitudes of 1e-18 or more for dtype float32, got at most",
        ),
    ],
    ids=repr,
)
def test_bad_images(image, error, message):
    with pytest.raises(error, match=message):
        NTK(NET, image)


def test_a_network_that_is_none_is_told_what_makes_one():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"must be an ntkfast\.Network, got Conv2d.*: ntkfast\.from_torch makes one"):
        NTK(torch.nn.Conv2d(1, 1, 1), np.ones((2, 2)))
    with pytest.raises(TypeError, match=r"got \[Conv\(1\)\]: give ntkfast\.Network\(layers\)"):
        NTK([Conv(1)], np.ones((2, 2)))


def test_products_with_images_are_told_of_apply():
    K = NTK(NET, np.ones((3, 4)))
    for product in (K.dot, K.matmat, K.matvec):
        with pytest.raises(ValueError, match=r"got \(3, 4\): apply takes images$"):
            product(np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"got \(3, 4, 2\): apply takes images$"):
        K @ np.ones((3, 4, 2))
    with pytest.raises(TypeError, match="the array must not be a masked array"):
        K @ np.ma.masked_array(np.ones(12), np.arange(12) > 3)


def test_magnitudes_of_double_precision():
    assert np.isfinite(NTK(NET, np.full((2, 2), 1e120), dtype="float64").dense()).all()
    assert np.isfinite(NTK(NET, np.full((2, 2), 1e15), dtype="float32").dense()).all()
    with pytest.raises(ValueError, match=r"magnitudes up to 1e\+120 for dtype float64, got 1e\+121"):
        NTK(NET, np.full((2, 2), 1e121), dtype="float64")
    with pytest.raises(ValueError, match=r"magnitudes of 1e-150 or more for dtype float64, got at most 1e-151"):
        NTK(NET, np.full((2, 2), 1e-151), dtype="float64")


@pytest.mark.parametrize(("dtype", "least"), [("float32", 1e-18), ("float64", 1e-150)])
def test_the_smallest_images_have_a_kernel(dtype, least):
    image = np.zeros((4, 5))
    assert not NTK(NET, image, dtype=dtype).dense().any()
    image[1, 2] = least
    scaled = NTK(NET, image, dtype=dtype).dense() / least**2
    assert relative(scaled, kernel_matrix(NET, (image / least)[..., None], channel_axis=-1)) <= 1e-5


def test_a_flat_image_less_its_mean_is_zero():
    """The mean's rounding is no picture."""
    flat = np.full((5, 7, 2), [1e-10, 0.3])
    assert not without_mean(flat).any()
    flat[2, 3, 0] = 2e-10
    assert without_mean(flat)[..., 0].any()
    assert not without_mean(flat)[..., 1].any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "gpu"}, ValueError, r"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
        ({"device": "cuda:"}, ValueError, r"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'cuda:'"),
        ({"device": "cuda:-1"}, ValueError, r"device must be .*got 'cuda:-1'"),
        ({"device": 0}, TypeError, r"device must be .*got 0"),
        ({"storage": "sparse"}, ValueError, r"storage must be one of \('auto', 'stream', 'coarse', 'dense'\), got 's"),
        ({"storage": True}, TypeError, r"storage must be one of .*got True"),
        ({"dtype": "float16"}, ValueError, r"dtype must be 'float32' or 'float64', got 'float16'"),
        ({"dtype": int}, ValueError, r"dtype must be 'float32' or 'float64'"),
        ({"dtype": None}, ValueError, r"dtype must be 'float32' or 'float64', got None"),
        ({"dtype": "real"}, TypeError, r"dtype must be 'float32' or 'float64', got 'real'"),
        ({"threads": 0}, ValueError, r"threads must be at least 1, got 0"),
        ({"threads": -1}, ValueError, r"threads must be at least 1, got -1"),
        ({"threads": 1.5}, TypeError, r"threads must be an integer, got 1.5"),
        ({"threads": "2"}, TypeError, r"threads must be an integer, got '2'"),
        ({"threads": True}, TypeError, r"threads must be an integer, got True"),
        ({"progress": 3}, TypeError, r"progress must be callable, got 3"),
    ],
    ids=str,
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        NTK(NET, X, **options)


@pytest.mark.parametrize("axis", [3, -4, 100])
def test_channel_axis_out_of_range(axis):
    with pytest.raises(ValueError, match=rf"channel_axis must lie between -3 and 2, got {axis}"):
        NTK(NET, np.ones((4, 5, 3)), channel_axis=axis)


@pytest.mark.parametrize("axis", [1.0, "2", True])
def test_channel_axis_of_the_wrong_kind(axis):
    with pytest.raises(TypeError, match=r"channel_axis must be an integer"):
        NTK(NET, np.ones((4, 5, 3)), channel_axis=axis)
    with pytest.raises(TypeError, match=r"channel_axis must be an integer"):
        NTK(NET, np.ones((4, 5)), channel_axis=axis)


@pytest.mark.parametrize("network", [None, "vanilla", [Conv(3), ReLU(), Conv(1)], Conv(3), Network])
def test_networks_only(network):
    with pytest.raises(TypeError, match=r"network must be an ntkfast\.Network, got "):
        NTK(network, X)


def test_a_frozen_network_has_a_covariance_but_no_tangent_kernel():
    net = Network([Conv(3, trainable=False), ReLU(), Conv(1, trainable=False)])
    image = noise(4, 5, 1, 0)
    with pytest.raises(ValueError, match=r"network must have a trainable Conv for an NTK"):
        NTK(net, image, channel_axis=-1)
    K = NNGP(net, image, dtype="float64", channel_axis=-1)
    assert relative(K.dense(), kernel_matrix(net, image, "nngp", channel_axis=-1)) <= 1e-12


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([20], ValueError, r"indices must lie between 0 and 19, got 20 to 20"),
        ([3, -1], ValueError, r"indices must lie between 0 and 19, got -1 to 3"),
        (np.array([2**63], np.uint64), ValueError, r"indices must lie between 0 and 19"),
        ([1.0], TypeError, r"indices must be a 1-D sequence of integers"),
        (3, TypeError, r"indices must be a 1-D sequence of integers, got 3"),
        ([[1], [1, 2]], TypeError, r"indices must be a 1-D sequence of integers"),
        ([[1]], TypeError, r"indices must be a 1-D sequence of integers"),
        ([True], TypeError, r"indices must be a 1-D sequence of integers"),
        (["1"], TypeError, r"indices must be a 1-D sequence of integers"),
        (None, TypeError, r"indices must be a 1-D sequence of integers, got None"),
    ],
    ids=repr,
)
def test_bad_indices(indices, error, message):
    with pytest.raises(error, match=message):
        NTK(NET, X).columns(indices)


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ((4, 0), ValueError, "row must lie between 0 and 3, got 4"),
        ((0, 5), ValueError, "col must lie between 0 and 4, got 5"),
        ((-1, 0), ValueError, "row must lie between 0 and 3, got -1"),
        ((0, 1.0), TypeError, "col must be an integer, got 1.0"),
        (("0", 1), TypeError, "row must be an integer, got '0'"),
    ],
)
def test_bad_places(place, error, message):
    with pytest.raises(error, match=message):
        NTK(NET, X).affinity(*place)


def test_bad_right_hand_sides():
    K = NTK(NET, X)
    wanted = r"image must have shape \(20,\) or \(20, n\), or \(4, 5\) or \(4, 5, n\), got "
    for shape in ((19,), (5, 4), (4, 5, 3, 1), (21, 2), (2, 20), (20, 1, 1)):
        with pytest.raises(ValueError, match=wanted):
            K.apply(np.ones(shape))
    with pytest.raises(ValueError, match=wanted):
        K.apply(1.0)
    with pytest.raises(ValueError, match="image must be finite"):
        K.apply(np.full(20, np.nan))
    with pytest.raises(ValueError, match="image must be finite, got 20 "):
        K.apply(np.full(20, complex(0.0, np.nan)))
    for dtype in ("M8[D]", "m8[s]", object, "U1"):
        with pytest.raises(TypeError, match="the operator applies to real and complex arrays, got dtype "):
            K @ np.zeros(20, dtype)
        with pytest.raises(TypeError, match="image must be a real numeric array, got dtype "):
            K.apply(np.zeros(20, dtype))
    with pytest.raises(ValueError, match="dimension mismatch"):
        K @ np.ones(19)


def test_unknown_instruction_set(monkeypatch):
    monkeypatch.setenv("NTKFAST_ISA", "sse9")
    with pytest.raises(ValueError, match=r"environment variable NTKFAST_ISA must be one of \['baseline'.*got 'sse9'"):
        NTK(NET, X)
    with pytest.raises(ValueError, match="NTKFAST_ISA"):
        ntkfast.info()
    monkeypatch.setenv("NTKFAST_ISA", " baseline ")
    assert ntkfast.info()["isa_active"] == "baseline"
    monkeypatch.setenv("NTKFAST_ISA", "")
    assert ntkfast.info()["isa_active"] == ntkfast.info()["isa_supported"][-1]
