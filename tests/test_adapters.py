"""Arrays of PyTorch, xarray and CuPy are taken everywhere, and results are of their kind; dask's arrays are refused."""

from __future__ import annotations

import subprocess
import sys
import types

import numpy as np
import pytest

import ntkfast as nf
from images import centred, noise
from ntkfast import images
from ntkfast._libraries import LIBRARIES
from ntkfast.images import as_frames, as_image, as_stack

H, W = 6, 7
D = H * W
NET = nf.vanilla_cnn(1, 3)
IMAGE = centred(H, W, 3, 0)


def kernel(image=IMAGE, **options):
    return nf.NTK(NET, image, **({"channel_axis": -1, "device": "cpu", "threads": 1} | options))


# Everything that takes right-hand sides over pixels or images, and returns what they are.
CALLS = {
    "apply": lambda K, y: K.apply(y),
    "descent": lambda K, y: nf.gradient_descent(K, y, 7),
    "iteration": lambda K, y: nf.gradient_descent(K, y, 4, method="iteration"),
    "flow": lambda K, y: nf.gradient_flow(K, y, 1.0),
    "ridge": lambda K, y: nf.ridge(K, y, 1.0),
    "low rank": lambda K, y: nf.nystrom(K, 9).apply(y),
    "low-rank ridge": lambda K, y: nf.ridge(nf.nystrom(K, 9), y, 1.0),
}
PATHS = {
    "descent": lambda K, y: nf.gradient_descent(K, y, [2, 7, 9]),
    "flow": lambda K, y: nf.gradient_flow(K, y, [0.5, 1.0, 2.0]),
    "ridge": lambda K, y: nf.ridge(K, y, [0.5, 1.0, 2.0]),
}
PRODUCTS = {
    "@": lambda K, v: K @ v,
    "dot": lambda K, v: K.dot(v),
    "matmat": lambda K, v: K.matmat(v),
    "rmatmat": lambda K, v: K.rmatmat(v),
    "low rank": lambda K, v: nf.nystrom(K, 9) @ v,
}


def test_importing_the_package_imports_no_library():
    code = f"import sys, ntkfast; ntkfast.NTK; ntkfast.denoise_ntk; print(*({set(LIBRARIES)} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_every_library_has_an_adapter():
    for library, place in LIBRARIES.items():
        module, _, name = place.partition(":")
        if library == "cupy":
            continue  # imports CuPy, which wants a card
        pytest.importorskip(library)
        assert issubclass(getattr(__import__(module, fromlist=[name]), name), images.Images)


# --- PyTorch ------------------------------------------------------------------------------------------------------


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tensors_over_images(torch, name, dtype):
    y = noise(H, W, 3, 1)
    K = kernel(dtype=dtype)
    out = CALLS[name](kernel(dtype=dtype), torch.from_numpy(y))  # a filter keeps the lambda_max that it has found
    assert isinstance(out, torch.Tensor)
    assert out.dtype == getattr(torch, dtype)
    assert not out.requires_grad
    np.testing.assert_array_equal(out.numpy(), CALLS[name](K, y))
    if name in PATHS:
        np.testing.assert_array_equal(PATHS[name](K, torch.from_numpy(y)).numpy(), PATHS[name](K, y))
        out, info = nf.gradient_descent(K, torch.from_numpy(y), 3, return_info=True)
        assert isinstance(out, torch.Tensor)
        assert isinstance(info, nf.FilterInfo)


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_tensors(torch, name):
    K, V = kernel(), noise(D, 3, 1, 1)[..., 0].astype(np.float32)
    for array in (V, V.astype(np.float64), V[:, ::2], np.stack([V, 2 * V]), V + 1j * V[::-1]):
        out = PRODUCTS[name](K, torch.from_numpy(np.ascontiguousarray(array)))
        assert isinstance(out, torch.Tensor)
        np.testing.assert_array_equal(out.numpy(), PRODUCTS[name](K, np.ascontiguousarray(array)))
    vectors = torch.from_numpy(V.T.copy())
    np.testing.assert_array_equal(K.matvec(vectors).numpy(), K.matvec(V.T.copy()))
    np.testing.assert_array_equal((K @ vectors[0]).numpy(), K @ V[:, 0].copy())


def test_tensors_of_every_type(torch):
    v = torch.arange(D) % 5
    K = kernel()
    expected = K @ v.numpy().astype(np.float64)
    for dtype in (torch.uint8, torch.int16, torch.float16, torch.bfloat16, torch.float32, torch.float64):
        np.testing.assert_array_equal((K @ v.to(dtype)).numpy(), expected)
    np.testing.assert_array_equal((K @ (v > 2)).numpy(), K @ (v.numpy() > 2))
    np.testing.assert_array_equal(
        (K @ torch.conj(v + 1j * v)).resolve_conj().numpy(), np.conj(K @ (v + 1j * v).numpy())
    )


@pytest.mark.parametrize("axis", [0, -1])
def test_kernels_of_tensors(torch, axis):
    image = torch.from_numpy(np.ascontiguousarray(np.moveaxis(IMAGE, -1, axis)))
    for kind in (nf.NTK, nf.NNGP):
        expected = kind(NET, IMAGE, channel_axis=-1, device="cpu").dense()
        np.testing.assert_array_equal(kind(NET, image, channel_axis=axis, device="cpu").dense(), expected)
    with pytest.raises(ValueError, match=r"image has shape \(.*\), 3 dimensions: pass channel_axis="):
        kernel(image, channel_axis=None)


def test_denoised_tensors(torch):
    image = noise(12, 14, 3, 1)
    for dtype, kept in ((torch.float64, torch.float64), (torch.float32, torch.float32), (torch.float16, torch.float32)):
        tensor = torch.from_numpy(image).to(dtype)
        out = nf.denoise_ntk(tensor, 0.5, channel_axis=-1)
        assert isinstance(out, torch.Tensor)
        assert out.dtype == kept
        np.testing.assert_array_equal(out.numpy(), nf.denoise_ntk(tensor.numpy(), 0.5, channel_axis=-1))


@pytest.mark.parametrize(
    "take", [lambda x: kernel(x), lambda x: kernel().apply(x), lambda x: nf.denoise_ntk(x, 1.0, channel_axis=-1)]
)
def test_gradients_are_not_lost_without_a_word(torch, take):
    tensor = torch.from_numpy(IMAGE).requires_grad_()
    with pytest.raises(TypeError, match=r"record gradients .* give tensor\.detach\(\), or call within torch\.no_grad"):
        take(tensor)
    with torch.no_grad():
        take(tensor)
    take(tensor.detach())


@pytest.mark.parametrize("library", ["torch", "xarray"])
def test_restored_data_are_of_their_kind(library):
    module = pytest.importorskip(library)
    data = noise(12, 14, 3, 2)
    A = nf.Inpainting(np.random.default_rng(0).random((12, 14)) < 0.6)
    expected = nf.restore_ntk(data, A, channel_axis=-1)
    if library == "torch":
        out = nf.restore_ntk(module.from_numpy(data), A, channel_axis=-1)
        assert isinstance(out, module.Tensor)
        np.testing.assert_array_equal(out.numpy(), expected)
    else:
        labels = labelled(module, data, ("y", "x", "band"))
        out = nf.restore_ntk(labels, A)
        require_labels(out, labels, module)
        np.testing.assert_array_equal(out.values, expected)


def test_a_set_of_tensors_is_denoised_to_one(torch):
    stack = torch.from_numpy(noise(12, 14, 2, 3)).movedim(-1, 0)
    out = nf.denoise_ntk(stack, 0.5, frame_axis=0)
    assert isinstance(out, torch.Tensor)
    np.testing.assert_array_equal(out.numpy(), nf.denoise_ntk(stack.numpy(), 0.5, frame_axis=0))
    each = nf.denoise_ntk([stack[0], stack[1].numpy()], 0.5)
    assert [type(picture) for picture in each] == [torch.Tensor, np.ndarray]


def test_sparse_tensors_are_told_what_to_do(torch):
    with pytest.raises(TypeError, match=r"must be a dense tensor, got layout torch\.sparse_coo: give .*\.to_dense\(\)"):
        kernel() @ torch.eye(D).to_sparse()


def test_sets_of_tensors(torch):
    tensor = torch.from_numpy(noise(H, W, 4, 0)).movedim(-1, 0)
    frames = as_frames("image", tensor, None, 0)
    assert len(frames.pictures) == 4
    out = frames.restored([2 * picture for picture in frames.pictures])
    assert torch.equal(out, 2 * tensor)
    each = as_frames("image", [tensor[0], tensor[1].numpy()], None, None)
    assert [type(picture) for picture in each.pictures] == [torch.Tensor, np.ndarray]


# --- xarray -------------------------------------------------------------------------------------------------------


@pytest.fixture
def xarray():
    return pytest.importorskip("xarray")


def labelled(xarray, values, dims):
    """A DataArray with coordinates, attributes and a name."""
    coordinates = {name: 10.0 * np.arange(size) for name, size in zip(dims, np.shape(values), strict=True)}
    return xarray.DataArray(values, coordinates, dims, "elevation", {"units": "m"})


def require_labels(out, like, xarray):
    assert isinstance(out, xarray.DataArray)
    assert (out.dims, out.name, out.attrs) == (like.dims, like.name, like.attrs)
    assert set(out.coords) == set(like.coords)
    for name in like.coords:
        np.testing.assert_array_equal(out[name], like[name])


@pytest.mark.parametrize("name", CALLS)
def test_data_arrays_over_images(xarray, name):
    y = noise(H, W, 3, 1)
    K = kernel()
    labels = labelled(xarray, y, ("y", "x", "band"))
    out = CALLS[name](kernel(), labels)
    require_labels(out, labels, xarray)
    np.testing.assert_array_equal(out.values, CALLS[name](K, y))
    if name in PATHS:
        path = PATHS[name](K, labels)
        assert path.dims == ("step", "y", "x", "band")
        require_labels(path[1], labels, xarray)
        np.testing.assert_array_equal(path.values, PATHS[name](K, y))


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_data_arrays(xarray, name):
    K, V = kernel(), noise(D, 3, 1, 1)[..., 0]
    labels = labelled(xarray, V, ("pixel", "n"))
    out = PRODUCTS[name](K, labels)
    require_labels(out, labels, xarray)
    np.testing.assert_array_equal(out.values, PRODUCTS[name](K, V))


@pytest.mark.parametrize("channel", ["channel", "channels", "c", "band", "bands"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_dimension_of_channels_is_known_by_its_name(xarray, channel, axis):
    dims = ["y", "x"]
    dims.insert(axis, channel)
    labels = labelled(xarray, np.moveaxis(IMAGE, -1, axis), dims)
    np.testing.assert_array_equal(kernel(labels, channel_axis=None).dense(), kernel().dense())
    stack, layout = as_stack("image", labels, None, np.dtype("float64"))
    np.testing.assert_array_equal(stack[0], IMAGE)
    require_labels(layout.restored(stack)[0], labels, xarray)
    other = labelled(xarray, IMAGE, ("band", "x", "y"))  # the caller knows better
    np.testing.assert_array_equal(as_image("image", other, -1, np.dtype("float64")), IMAGE)


def test_dimensions_of_other_names_are_asked_for(xarray):
    with pytest.raises(ValueError, match=r"pass channel_axis=-1 for an image \(H, W, C\)"):
        kernel(labelled(xarray, IMAGE, ("y", "x", "time")), channel_axis=None)


def test_denoised_data_arrays(xarray):
    image = noise(12, 14, 3, 1).astype(np.float32)
    labels = labelled(xarray, image, ("y", "x", "band"))
    out = nf.denoise_ntk(labels, 0.5)
    require_labels(out, labels, xarray)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out.values, nf.denoise_ntk(image, 0.5, channel_axis=-1))
    gray = labelled(xarray, image[..., 0], ("lat", "lon"))
    require_labels(nf.denoise_ntk(gray, 0.5), gray, xarray)


def test_data_arrays_of_tensors(xarray):
    torch = pytest.importorskip("torch")
    adapter = images._library_of(xarray.DataArray(IMAGE))
    held = types.SimpleNamespace(data=torch.from_numpy(IMAGE))
    with pytest.raises(
        TypeError, match=r"must be an array, such as an xarray\.DataArray, got an xarray\.SimpleNamespace"
    ):
        adapter.to_array("image", held)
    with pytest.raises(TypeError, match=r"got an xarray\.Dataset: give one of its variables"):
        kernel(xarray.Dataset({"a": ("x", [1.0])}))


def test_larger_results_have_no_coordinates_along_larger_sides(xarray):
    labels = labelled(xarray, np.ones((4, 5)), ("y", "x"))
    out = images._library_of(labels).restored(np.ones((1, 8, 5)), labels)[0]
    assert set(out.coords) == {"x"}
    assert out.attrs == labels.attrs
    flat = images._library_of(labels).restored(np.ones((1, 20)), labels)[0]
    assert (flat.shape, flat.name) == ((20,), "elevation")


def test_sets_of_data_arrays(xarray):
    labels = labelled(xarray, np.moveaxis(noise(H, W, 4, 0), -1, 0), ("time", "y", "x"))
    frames = as_frames("image", labels, None, 0)
    out = frames.restored([2 * picture for picture in frames.pictures])
    require_labels(out, labels, xarray)
    np.testing.assert_array_equal(out.values, 2 * labels.values)


# --- dask ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", [False, True])
def test_dask_arrays_are_refused_and_told_what_to_do(wrapped):
    dask = pytest.importorskip("dask.array")
    image = dask.ones((32, 32), chunks=16)
    if wrapped:
        image = pytest.importorskip("xarray").DataArray(image, dims=("y", "x"))
    message = r"^(image|y|the array) is a dask array, which would be loaded whole: give .*\.compute\(\), or denoise it "
    for call in (
        lambda: nf.NTK(NET, image),
        lambda: nf.denoise_ntk(image, 0.1),
        lambda: kernel(np.ones((32, 32)), channel_axis=None).apply(image),
        lambda: (
            kernel(np.ones((32, 32)), channel_axis=None) @ image.reshape(-1) if not wrapped else kernel().apply(image)
        ),
        lambda: nf.ridge(kernel(np.ones((32, 32)), channel_axis=None), image, 1.0),
        lambda: nf.restore_ntk(image, nf.Inpainting(np.ones((32, 32), bool))),
    ):
        with pytest.raises(TypeError, match=message):
            call()


# --- CuPy, as far as this goes without a card ---------------------------------------------------------------------


class FakeDevice:
    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None


class FakeArray(np.ndarray):
    """An array that says it is CuPy's."""

    __module__ = "cupy"
    device = FakeDevice()


def test_arrays_of_cupy_are_passed_on_and_given_back(monkeypatch):
    fake = types.ModuleType("cupy")
    fake.asarray = lambda array: np.asarray(array).view(FakeArray)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.delitem(sys.modules, "ntkfast.adapters.cupy_images", raising=False)
    monkeypatch.setattr(images, "_libraries", dict(LIBRARIES))
    image = IMAGE.view(FakeArray)
    np.testing.assert_array_equal(kernel(image).dense(), kernel().dense())
    stack, layout = as_stack("image", image, -1, np.dtype("float32"))
    out = layout.restored(stack)[0]
    assert isinstance(out, FakeArray)
    np.testing.assert_array_equal(np.asarray(out), IMAGE)
    monkeypatch.delitem(sys.modules, "ntkfast.adapters.cupy_images", raising=False)
