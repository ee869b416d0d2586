"""Images of libraries that add themselves are taken, and results are of their kind."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest

import ntkfast as nf
from images import noise
from ntkfast import _check, images
from ntkfast.engine import arrays
from ntkfast.images import Images, register_images

NET = nf.vanilla_cnn(1, 3)


@dataclass(frozen=True)
class Picture:
    """A library's picture, which NumPy cannot read, has ``axes`` of letters, "yxc" say, or None where it names none."""

    values: np.ndarray
    axes: str | None = None

    def __array__(self, dtype=None, copy=None):
        raise TypeError("only the adapter reads pictures")

    def __getitem__(self, n: int) -> Picture:
        return Picture(self.values[n], self.axes)


class Pictures(Images):
    def to_array(self, name: str, value: Picture) -> np.ndarray:
        return value.values

    def channel_axis(self, value: Picture) -> int | None:
        return value.axes.index("c") if value.axes is not None and "c" in value.axes else None

    def restored(self, result: np.ndarray, like: Picture) -> Picture:
        return Picture(result, like.axes)


@pytest.fixture
def pictures(monkeypatch):
    monkeypatch.setattr(images, "_libraries", {})
    register_images("test_images", Pictures())


def test_a_library_must_be_registered():
    with pytest.raises(TypeError, match="only the adapter reads pictures"):
        nf.denoise_ntk(Picture(noise(8, 8, 1, 0)[..., 0]), 0.1, method=nf.Tiles(steps=3))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_type_names_the_channel_axis_where_the_caller_does_not(pictures, axis):
    image = noise(6, 8, 3, 0)
    picture = Picture(np.moveaxis(image, -1, axis), "yx"[:axis] + "c" + "yx"[axis:])
    assert images.shape_of_image("image", picture, None) == (6, 8, 3)
    np.testing.assert_array_equal(images.as_image("image", picture, None, np.dtype("float64")), image)
    misnamed = Picture(np.moveaxis(image, -1, axis), "c" + "yx" if axis else "yxc")
    np.testing.assert_array_equal(images.as_image("image", misnamed, axis, np.dtype("float64")), image)
    expected = nf.NTK(NET, image, channel_axis=-1, dtype="float64").dense()
    np.testing.assert_array_equal(nf.NTK(NET, picture, dtype="float64").dense(), expected)


def test_denoised_images_are_of_the_callers_kind(pictures):
    image = np.moveaxis(noise(10, 12, 3, 1), -1, 0).astype(np.float32)
    options = {"method": nf.Tiles(NET, steps=3), "compute": nf.Compute(threads=1)}
    expected = nf.denoise_ntk(image, 0.1, channel_axis=0, **options)
    named = nf.denoise_ntk(Picture(image, "cyx"), 0.1, **options)
    nameless = nf.denoise_ntk(Picture(image), 0.1, channel_axis=0, **options)
    for result in (named, nameless):
        assert isinstance(result, Picture)
        assert result.values.dtype == np.float32
        np.testing.assert_array_equal(result.values, expected)
    assert named.axes == "cyx"
    gray = nf.denoise_ntk(Picture(image[0], "yx"), 0.1, **options)
    np.testing.assert_array_equal(gray.values, nf.denoise_ntk(image[0], 0.1, **options))
    assert type(nf.denoise_ntk(image[0], 0.1, **options)) is np.ndarray


def test_restored_images_are_of_the_kind_of_the_data(pictures):
    image = np.moveaxis(noise(8, 8, 2, 2), -1, 0)
    A = nf.Inpainting(np.random.default_rng(0).random((8, 8)) < 0.6)
    options = {"compute": nf.Compute(dtype="float64", threads=1)}
    one, two = nf.Landweber(NET, 5), nf.Landweber(NET, [2, 5])
    expected = nf.restore_ntk(image, A, channel_axis=0, method=two, **options)
    path = nf.restore_ntk(Picture(image, "cyx"), A, method=two, **options)
    assert isinstance(path, Picture)
    np.testing.assert_array_equal(path.values, expected)
    last = nf.restore_ntk(Picture(image, "cyx"), A, guide=image[0], method=one, **options)
    np.testing.assert_array_equal(
        last.values, nf.restore_ntk(image, A, channel_axis=0, guide=image[0], method=one, **options)
    )
    guided = nf.restore_ntk(image, A, channel_axis=0, guide=Picture(image[0], "yx"), method=one, **options)
    np.testing.assert_array_equal(guided, last.values)


def test_a_refusal_names_the_libraries_on_devices(monkeypatch):
    class Elsewhere:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 77, 0

    monkeypatch.setattr(arrays, "_memories", [lambda kind, number: "toy:0" if kind == 77 else None])
    monkeypatch.setattr(arrays, "_adapters", {"one": None, "other": None})
    with pytest.raises(TypeError, match=r"of one or other, got test_images\.Elsewhere: one\.from_dlpack\(x\) or"):
        arrays.namespace(Elsewhere())


# --- One rule for the axes of channels and of pictures ------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((64, 64, 3), r"channel_axis=-1 for an image \(H, W, C\)$"),
        ((3, 64, 64), r"channel_axis=0 for an image \(C, H, W\)$"),
        ((64, 1, 64), r"channel_axis=1 for an image \(H, C, W\)$"),
        ((64, 64, 32), r"channel_axis=-1 for an image \(H, W, C\)$"),
        ((3, 3, 3), r"channel_axis=-1 for an image \(H, W, C\)$"),
    ],
)
def test_three_dimensions_without_a_channel_axis(shape, advice):
    message = "image has shape " + re.escape(str(shape)) + ", 3 dimensions: pass " + advice
    calls = (
        lambda image: nf.NTK(NET, image),
        lambda image: nf.reference.kernel_matrix(NET, image),
        lambda image: images.as_image("image", image, None, np.dtype("float32")),
        lambda image: images.as_stack("image", image, None, np.dtype("float32")),
        lambda image: images.as_planes("image", image, None),
        lambda image: nf.denoise_ntk(image, 0.1),
    )
    for call in calls:
        with pytest.raises(ValueError, match=message.replace("$", "")):
            call(np.ones(shape))


def test_sets_are_offered_where_they_are_taken():
    with pytest.raises(ValueError, match=r"\(H, W, C\), or frame_axis=0 for a stack of gray images$"):
        images.as_stack("image", np.ones((8, 8, 3)), None, np.dtype("float32"), frames=True)
    with pytest.raises(ValueError, match=r"4 dimensions: pass frame_axis=0 and channel_axis=-1 for a stack of images"):
        images.as_stack("image", np.ones((2, 8, 8, 3)), None, np.dtype("float32"), frames=True)
    with pytest.raises(ValueError, match=r"frame_axis=0 and channel_axis=1 for a stack of images \(N, C, H, W\)$"):
        images.as_stack("image", np.ones((1, 3, 8, 8)), None, np.dtype("float32"), frames=True)
    with pytest.raises(ValueError, match=r"channel_axis is given, got shape .*: pass frame_axis=0 too"):
        images.as_stack("image", np.ones((2, 8, 8, 3)), -1, np.dtype("float32"), frames=True)
    with pytest.raises(ValueError, match=r"frame_axis is given, got shape .*: pass channel_axis too"):
        images.as_frames("image", np.ones((2, 8, 8, 3)), None, 0)
    with pytest.raises(ValueError, match=r"must have shape \(H, W\), or 3 dimensions and a channel_axis, got"):
        images.as_stack("image", np.ones((2, 8, 8, 3)), None, np.dtype("float32"))


@pytest.mark.parametrize("shape", [(8,), (8, 8), (2, 8, 8, 3)])
def test_a_channel_axis_wants_three_dimensions(shape):
    with pytest.raises(ValueError, match=r"image must have 3 dimensions when channel_axis is given, got shape"):
        nf.NTK(NET, np.ones(shape), channel_axis=-1)
    with pytest.raises(ValueError, match=r"image must have 3 dimensions when channel_axis is given, got shape"):
        nf.reference.kernel_matrix(NET, np.ones(shape), channel_axis=-1)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_every_entry_takes_any_channel_axis(axis):
    image = noise(6, 8, 3, 0)
    moved = np.moveaxis(image, -1, axis)
    np.testing.assert_array_equal(images.as_planes("x", moved, axis)[0], image.transpose(2, 0, 1))
    expected = nf.reference.kernel_matrix(NET, image, channel_axis=-1)
    np.testing.assert_array_equal(nf.reference.kernel_matrix(NET, moved, channel_axis=axis), expected)


def test_data_without_their_channel_axis_are_told_of_it():
    A = nf.Inpainting(np.ones((8, 6), bool))
    with pytest.raises(ValueError, match=r"channel_axis=None, got \(8, 6, 3\): pass channel_axis=-1"):
        nf.restore_ntk(np.ones((8, 6, 3)), A)
    with pytest.raises(ValueError, match=r"channel_axis=None, got \(3, 48\): pass channel_axis=-2"):
        nf.restore_ntk(np.ones((3, 48)), A)


@pytest.mark.parametrize("kind", [list, tuple])
def test_sets_of_pictures_are_lists_and_tuples(kind):
    pictures = kind([noise(5, 6, 3, 0), noise(7, 4, 3, 1).astype(np.float32)])
    frames = images.as_frames("image", pictures, -1, None)
    assert frames.pictures == tuple(pictures)
    assert frames.channel_axis == -1
    results = frames.restored([np.zeros(2), np.ones(3)])
    assert type(results) is kind
    assert [len(result) for result in results] == [2, 3]
    assert images.as_frames("image", noise(5, 6, 1, 0)[..., 0], None, None) is None


@pytest.mark.parametrize(("frame", "channel"), [(0, None), (-1, None), (1, None), (0, -1), (3, 0), (1, 3), (-1, -4)])
def test_an_axis_of_an_array_holds_pictures(frame, channel):
    pictures = np.random.default_rng(0).standard_normal((5, 6, 7, 3) if channel is not None else (5, 6, 7))
    axes = ([0], [frame]) if channel is None else ([0, 3], [frame, channel])
    frames = images.as_frames("image", np.moveaxis(pictures, *axes), channel, frame)
    dtype = np.dtype("float32")
    stacks = [images.as_stack("image", picture, frames.channel_axis, dtype) for picture in frames.pictures]
    assert len(stacks) == 5
    np.testing.assert_array_equal(np.concatenate([stack for stack, _ in stacks]).reshape(pictures.shape), pictures)
    results = frames.restored([layout.restored(stack)[0] for stack, layout in stacks])
    np.testing.assert_array_equal(results, np.moveaxis(pictures, *axes))


@pytest.mark.parametrize(
    ("value", "axes", "error", "message"),
    [
        (
            [[1.0, 2.0], [3.0, 4.0]],
            (None, None),
            TypeError,
            r"image\[0\] is of type list: give numpy",
        ),
        (
            [1, 2],
            (None, None),
            TypeError,
            r"image must be an array, or a list of .*, but image\[0\] is of type int",
        ),
        ((), (None, None), ValueError, r"image must not be empty, got \(\)"),
        ([np.ones((4, 4))], (None, 0), ValueError, r"frame_axis is for an array of pictures: image is a list already"),
        (
            np.ones((4, 4)),
            (None, 0),
            ValueError,
            r"3 dimensions when frame_axis is given, got shape \(4, 4\)",
        ),
        (np.ones((2, 4, 4)), (-1, 0), ValueError, r"4 dimensions when frame_axis and channel_axis are given, got"),
        (np.ones((2, 4, 4)), (None, 3), ValueError, r"frame_axis must lie between -3 and 2, got 3"),
        (np.ones((2, 4, 4)), (None, 0.0), TypeError, r"frame_axis must be an integer, got 0\.0"),
        (np.ones((2, 4, 4, 3)), (0, -4), ValueError, r"must be two axes, got -4 and 0"),
        (np.ones((2, 4, 4, 3)), (4, 0), ValueError, r"channel_axis must lie between -4 and 3, got 4"),
    ],
)
def test_what_is_no_set_of_pictures(value, axes, error, message):
    with pytest.raises(error, match=message):
        images.as_frames("image", value, *axes)


def test_a_set_of_a_library_is_of_its_kind(pictures):
    values = np.moveaxis(noise(6, 5, 4, 0), -1, 0)
    frames = images.as_frames("image", Picture(values, None), None, 0)
    assert [type(picture) for picture in frames.pictures] == [np.ndarray] * 4
    result = frames.restored([2 * picture for picture in frames.pictures])
    assert isinstance(result, Picture)
    np.testing.assert_array_equal(result.values, 2 * values)


# --- Random numbers -----------------------------------------------------------------------------------------------


def test_random_numbers_are_the_same_with_a_number_and_go_on_with_a_generator():
    first, again = (_check.generator("rng", 3).standard_normal(4) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, np.random.default_rng(3).standard_normal(4))
    own = np.random.default_rng(3)
    assert _check.generator("rng", own) is own
    assert (_check.generator("rng", None).random(4) != _check.generator("rng", None).random(4)).all()
    np.testing.assert_array_equal(_check.generator("rng", np.random.SeedSequence(3)).standard_normal(4), first)


@pytest.mark.parametrize(
    ("rng", "error", "message"),
    [
        (-1, ValueError, "rng must be at least 0, got -1"),
        (True, TypeError, r"rng must be an integer, None or a numpy\.random\.Generator, got True"),
        (1.0, TypeError, "got 1.0"),
        (np.random.RandomState(0), TypeError, "got RandomState"),
    ],
)
def test_what_is_no_source_of_random_numbers(rng, error, message):
    with pytest.raises(error, match=message):
        _check.generator("rng", rng)


def test_an_image_need_only_be_array_like():
    class Photo:
        size = (8, 6)  # as PIL's images have it

        def __array__(self, dtype=None, copy=None):
            return np.ones((6, 8), np.uint8)

    pixels, _ = images.as_stack("image", Photo(), None, np.dtype("float32"))
    assert pixels.shape == (1, 6, 8, 1)
