"""Images of libraries that add themselves are taken, and results are of their kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import ntkfast as nf
from images import noise
from ntkfast import images
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
    def to_array(self, value: Picture) -> np.ndarray:
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
        nf.denoise_ntk(Picture(noise(8, 8, 1, 0)[..., 0]), 0.1, steps=3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_channel_axis_of_a_type_goes_before_the_callers(pictures, axis):
    image = noise(6, 8, 3, 0)
    picture = Picture(np.moveaxis(image, -1, axis), "yx"[:axis] + "c" + "yx"[axis:])
    wrong = (axis + 1) % 3
    assert images.shape_of_image("image", picture, wrong) == (6, 8, 3)
    np.testing.assert_array_equal(images.as_image("image", picture, wrong, np.dtype("float64")), image)
    expected = nf.NTK(NET, image, dtype="float64").dense()
    np.testing.assert_array_equal(nf.NTK(NET, picture, dtype="float64").dense(), expected)


def test_denoised_images_are_of_the_callers_kind(pictures):
    image = np.moveaxis(noise(10, 12, 3, 1), -1, 0).astype(np.float32)
    options = {"network": NET, "steps": 3, "threads": 1}
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
    A = nf.inpainting(np.random.default_rng(0).random((8, 8)) < 0.6)
    options = {"network": NET, "threads": 1, "dtype": "float64"}
    expected = nf.restore(image, A, channel_axis=0, steps=[2, 5], **options)
    path = nf.restore(Picture(image, "cyx"), A, steps=[2, 5], **options)
    assert isinstance(path, Picture)
    np.testing.assert_array_equal(path.values, expected)
    last = nf.restore(Picture(image, "cyx"), A, steps=5, guide=image[0], **options)
    np.testing.assert_array_equal(last.values, nf.restore(image, A, channel_axis=0, steps=5, guide=image[0], **options))
    guided = nf.restore(image, A, channel_axis=0, steps=5, guide=Picture(image[0], "yx"), **options)
    np.testing.assert_array_equal(guided, last.values)


def test_a_refusal_names_the_libraries_on_devices(monkeypatch):
    class Elsewhere:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 77, 0

    monkeypatch.setattr(arrays, "_memories", [lambda kind, number: "toy:0" if kind == 77 else None])
    monkeypatch.setattr(arrays, "_adapters", {"one": None, "other": None})
    with pytest.raises(TypeError, match=r"of one or other, got test_images\.Elsewhere: one\.from_dlpack\(x\) or"):
        arrays.namespace(Elsewhere())
