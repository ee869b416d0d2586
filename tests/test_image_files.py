"""Image files come back as they were written, and what a format cannot hold is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ntkfast.app import image_files
from ntkfast.app.image_files import (
    ImageFile,
    ImageFileError,
    check_format,
    read_image,
    write_image,
)
from picture_files import decode_png, left_behind, picture, png, read, smooth

# --------------------------------------------------------------------------------------------------------- round trips


LOSSLESS = [("out.png", dtype) for dtype in ("uint8", "uint16")]


LOSSLESS += [("out.tif", dtype) for dtype in (*image_files.NARROW, *image_files.WIDE)]


@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "alpha"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (6, 1), (1, 4), (6, 3, 3)], ids=str)
@pytest.mark.parametrize(("name", "dtype"), LOSSLESS)
def test_lossless_round_trip(tmp_path: Path, name: str, dtype: str, shape: tuple[int, ...], alpha: bool) -> None:
    image = picture(shape, dtype, alpha)
    write_image(image, tmp_path / name)
    back = read_image(tmp_path / name)
    assert back.dtype == image.dtype
    assert back.dtype.isnative
    np.testing.assert_array_equal(back.pixels, image.pixels)
    assert back.pixels.dtype == image.pixels.dtype
    assert (back.alpha is None) == (not alpha)
    if alpha:
        assert back.alpha is not None
        np.testing.assert_array_equal(back.alpha, image.alpha)
        assert back.alpha.dtype == image.dtype
        assert back.alpha_kind == "straight"
    assert left_behind(tmp_path) == [name]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "alpha"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_files_hold_what_the_specification_says(tmp_path: Path, dtype: str, alpha: bool, channels: int) -> None:
    image = picture((9, 11) if channels == 1 else (9, 11, 3), dtype, alpha)
    write_image(image, tmp_path / "out.png")
    stored = decode_png((tmp_path / "out.png").read_bytes())
    assert stored.shape == (9, 11, channels + alpha)
    assert stored.dtype.itemsize == image.dtype.itemsize
    np.testing.assert_array_equal(stored[..., :channels], image.pixels.reshape(9, 11, channels))
    if alpha:
        np.testing.assert_array_equal(stored[..., -1], image.alpha)


def test_every_value_of_a_16_bit_rgb_png_survives(tmp_path: Path) -> None:
    values = np.random.default_rng(0).permutation(3 * 65536).reshape(256, 256, 3) % 65536
    image = read(tmp_path, png(256, 256, 16, 2, values.astype(">u2").tobytes()))
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image.pixels, values)
    write_image(image, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes()[24:26] == bytes([16, 2])  # IHDR: bit depth, colour type
    np.testing.assert_array_equal(read_image(tmp_path / "out.png").pixels, values)


@pytest.mark.parametrize("name", ["out.jpg", "out.JPEG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_round_trip(tmp_path: Path, name: str, channels: int) -> None:
    pixels = smooth(channels).squeeze().astype(np.float32)
    write_image(ImageFile(pixels, None, np.dtype(np.uint8), Path("in")), tmp_path / name)
    back = read_image(tmp_path / name)
    assert back.pixels.shape == pixels.shape
    assert back.dtype == np.uint8
    assert back.alpha is None
    assert np.abs(back.pixels - pixels).max() <= 4
    assert (tmp_path / name).read_bytes()[:3] == b"\xff\xd8\xff"


@pytest.mark.parametrize("shape", [(5, 7, 2), (5, 7, 5)])
def test_tiff_with_any_number_of_channels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = picture(shape, "float32")
    write_image(image, tmp_path / "out.tif")
    back = read_image(tmp_path / "out.tif")
    np.testing.assert_array_equal(back.pixels, image.pixels)
    assert back.alpha is None
    assert back.channels == shape[2]


@pytest.mark.parametrize("kind", ["premultiplied", "unspecified"])
def test_tiff_remembers_the_kind_of_alpha(tmp_path: Path, kind: str) -> None:
    write_image(picture((5, 7, 3), "uint16", alpha=True, alpha_kind=kind), tmp_path / "out.tif")
    assert read_image(tmp_path / "out.tif").alpha_kind == kind


@pytest.mark.parametrize(("name", "size"), [("a.png", 700), ("a.tif", 700), ("a.jpg", 700), ("a.jpg", 200_000)])
def test_colour_profile_is_kept(tmp_path: Path, name: str, size: int) -> None:
    icc = np.random.default_rng(0).bytes(size)
    image = ImageFile(smooth().astype(np.float32), None, np.dtype(np.uint8), Path("in"), icc=icc)
    write_image(image, tmp_path / name)
    back = read_image(tmp_path / name)
    assert back.icc == icc
    assert np.abs(back.pixels - image.pixels).max() <= 4


def test_pixels_are_rounded_and_clipped(tmp_path: Path) -> None:
    pixels = np.array([[-3.0, 0.4, 0.6, 254.6, 300.0]], np.float32)
    for name in ("a.png", "a.tif"):
        write_image(ImageFile(pixels, None, np.dtype(np.uint8), Path("in")), tmp_path / name)
        assert read_image(tmp_path / name).pixels.tolist() == [[0, 0, 1, 255, 255]]


@pytest.mark.parametrize("dtype", ["int32", "uint32"])
def test_32_bit_ends_do_not_wrap(tmp_path: Path, dtype: str) -> None:
    pixels = np.array([[-1e10, 1e10]], np.float32)
    write_image(ImageFile(pixels, None, np.dtype(dtype), Path("in")), tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").pixels.tolist() == [[np.iinfo(dtype).min, np.iinfo(dtype).max]]


def test_nan_is_kept_in_floats_and_refused_in_integers(tmp_path: Path) -> None:
    pixels = np.array([[np.nan, np.inf, 1.0]], np.float32)
    write_image(ImageFile(pixels, None, np.dtype(np.float32), Path("in")), tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, pixels)
    with pytest.raises(ValueError, match="must be finite"):
        write_image(ImageFile(pixels, None, np.dtype(np.uint8), Path("in")), tmp_path / "b.png")
    assert left_behind(tmp_path) == ["a.tif"]


# ------------------------------------------------------------------------------------------------ what a format holds


@pytest.mark.parametrize(
    ("image", "name", "message"),
    [
        (picture((4, 5), "float32"), "a.png", r"a PNG file cannot hold float32 samples as in has; .* ends in \.tif$"),
        (picture((4, 5), "int16"), "a.png", "PNG file cannot hold int16"),
        (picture((4, 5, 2)), "a.png", "PNG file cannot hold 2 channels"),
        (picture((4, 5, 3), alpha=True, alpha_kind="premultiplied"), "a.png", "premultiplied alpha"),
        (picture((4, 5), "float32"), "a.jpg", r"JPEG file cannot hold float32 samples .* ends in \.tif$"),
        (picture((4, 5), "uint16"), "a.jpg", r"JPEG file cannot hold uint16 samples .* ends in \.png or \.tif$"),
        (picture((4, 5), alpha=True), "a.jpg", r"JPEG file cannot hold an alpha plane .* ends in \.png or \.tif$"),
        (picture((1, 65501)), "a.jpg", "JPEG file cannot hold 65501 pixels along one side"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path: Path, image: ImageFile, name: str, message: str) -> None:
    with pytest.raises(ImageFileError, match=message):
        check_format(image, name)
    with pytest.raises(ImageFileError, match=message):
        write_image(image, tmp_path / name)
    assert left_behind(tmp_path) == []
    check_format(image, "a.tif")


@pytest.mark.parametrize("name", ["a.gif", "a", ".png", "png"])
def test_unknown_extension(name: str) -> None:
    with pytest.raises(ValueError, match=f"must end in .png, .jpg, .jpeg, .tif, .tiff, got '{name}'"):
        image_files.output_format(name)


def test_image_file_can_be_given_other_pixels() -> None:
    image = picture((4, 5, 3), alpha=True)
    other = replace(image, pixels=image.pixels + 1)
    assert other.alpha is image.alpha
    assert other.dtype == image.dtype
    assert other.channels == 3
