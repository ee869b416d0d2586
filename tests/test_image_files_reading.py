"""These read image files that others wrote: every variant is read as it was meant, or refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from ntkfast.app.image_files import (
    ImageFileError,
    read_image,
)
from picture_files import chunk, png, read, samples, smooth, tiff

# ----------------------------------------------------------------------------------------------------- PNG


PALETTE = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0, 1, 2, 3]))


def test_png_of_one_bit_becomes_8_bit_gray(tmp_path: Path) -> None:
    image = read(tmp_path, png(10, 2, 1, 0, b"\xaa\x80\x55\x00"))
    assert image.dtype == np.uint8
    assert image.alpha is None
    assert image.pixels.tolist() == [[255, 0] * 4 + [255, 0], [0, 255] * 4 + [0, 0]]


@pytest.mark.parametrize(("bits", "row"), [(8, bytes([0, 1, 2])), (2, b"\x18")])
def test_palette_png_becomes_rgb(tmp_path: Path, bits: int, row: bytes) -> None:
    image = read(tmp_path, png(3, 1, bits, 3, row, PALETTE))
    assert image.dtype == np.uint8
    assert image.alpha is None
    assert image.pixels.tolist() == [[[255, 0, 0], [0, 255, 0], [1, 2, 3]]]


def test_transparent_palette_png_becomes_rgb_and_alpha(tmp_path: Path) -> None:
    image = read(tmp_path, png(3, 1, 8, 3, bytes([0, 1, 2]), PALETTE + chunk(b"tRNS", bytes([10, 20]))))
    assert image.pixels.tolist() == [[[255, 0, 0], [0, 255, 0], [1, 2, 3]]]
    assert image.alpha is not None
    assert image.alpha.tolist() == [[10, 20, 255]]


def test_animated_png_is_refused(tmp_path: Path) -> None:
    animated = png(2, 1, 8, 0, b"\1\2", chunk(b"acTL", struct.pack(">II", 2, 0)))
    with pytest.raises(ImageFileError, match=r"cannot read .*picture: an animated PNG"):
        read(tmp_path, animated)


def test_damaged_colour_profile_does_not_hide_the_picture(tmp_path: Path) -> None:
    good = chunk(b"iCCP", b"name\0\0" + zlib.compress(b"profile"))
    assert read(tmp_path, png(2, 1, 8, 0, b"\1\2", good)).icc == b"profile"
    image = read(tmp_path, png(2, 1, 8, 0, b"\1\2", chunk(b"iCCP", b"name\0\0" + zlib.compress(b"profile")[:-5])))
    assert image.icc is None
    assert image.pixels.tolist() == [[1, 2]]


# ---------------------------------------------------------------------------------------------------- JPEG


def test_cmyk_jpeg_is_refused(tmp_path: Path) -> None:
    cmyk = imagecodecs.jpeg8_encode(samples((16, 16, 4), "uint8"), 95, colorspace="CMYK", outcolorspace="CMYK")
    with pytest.raises(ImageFileError, match="CMYK JPEG; convert it to RGB"):
        read(tmp_path, cmyk)


def test_12_bit_jpeg_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match="more than 8 bits"):
        read(tmp_path, imagecodecs.jpeg8_encode(smooth().astype(np.uint16), 95, bitspersample=12))


ORIENTED = {  # the stored picture must be turned into this
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),  # clockwise
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
    9: lambda a: a,  # no such orientation
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", ORIENTED)
def test_orientation_tag_is_applied(tmp_path: Path, orientation: int, order: str) -> None:
    exif = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, 2)
    for tag, value in ((0x0100, 7), (0x0112, orientation)):
        exif += struct.pack(order + "HHIHH", tag, 3, 1, value, 0)
    body = b"Exif\0\0" + exif
    jpeg = imagecodecs.jpeg8_encode(smooth(), 95, subsampling="444")
    jpeg = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]
    expected = ORIENTED[orientation](smooth())
    assert np.abs(read(tmp_path, jpeg).pixels - expected).max() <= 4
    stored = smooth()
    from_png = read(tmp_path, png(40, 24, 8, 2, stored.tobytes(), chunk(b"eXIf", exif)))
    np.testing.assert_array_equal(from_png.pixels, expected)
    from_tiff = read(tmp_path, tiff(stored, photometric="rgb", extratags=[(274, "H", 1, orientation, True)]))
    np.testing.assert_array_equal(from_tiff.pixels, expected)


@pytest.mark.parametrize("exif", [b"", b"II*\0", b"II*\0\xff\xff\xff\x7f", b"II*\0\x08\0\0\0\xff\xff", b"nonsense"])
def test_damaged_exif_does_not_hide_the_picture(tmp_path: Path, exif: bytes) -> None:
    assert read(tmp_path, png(2, 1, 8, 0, b"\1\2", chunk(b"eXIf", exif))).pixels.tolist() == [[1, 2]]


# ---------------------------------------------------------------------------------------------------- TIFF


@pytest.mark.parametrize(
    "options", [{"byteorder": ">"}, {"bigtiff": True}, {"compression": "zlib"}, {"tile": (16, 16)}], ids=str
)
def test_tiff_variants(tmp_path: Path, options: dict[str, object]) -> None:
    stored = samples((20, 30, 3), "uint16")
    image = read(tmp_path, tiff(stored, photometric="rgb", **options))
    np.testing.assert_array_equal(image.pixels, stored)
    assert image.dtype.isnative


def test_tiff_in_separate_planes(tmp_path: Path) -> None:
    stored = samples((4, 20, 30), "uint8")
    image = read(tmp_path, tiff(stored, photometric="rgb", planarconfig="separate", extrasamples=["unassalpha"]))
    np.testing.assert_array_equal(image.pixels, np.moveaxis(stored[:3], 0, -1))
    np.testing.assert_array_equal(image.alpha, stored[3])


def test_tiff_with_white_as_zero_is_turned_over(tmp_path: Path) -> None:
    stored = samples((4, 5), "uint16")
    image = read(tmp_path, tiff(stored, photometric="miniswhite"))
    np.testing.assert_array_equal(image.pixels, 65535 - stored.astype(int))


def test_bilevel_tiff_becomes_8_bit_gray(tmp_path: Path) -> None:
    stored = samples((4, 9), "uint8") > 99
    image = read(tmp_path, tiff(stored, photometric="minisblack"))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image.pixels, stored * 255)


@pytest.mark.parametrize(
    ("stored", "options", "message"),
    [
        (
            np.zeros((5, 8, 9), np.uint8),
            {"photometric": "minisblack"},
            r"one picture, got a stack of 5 page.*\(5, 8, 9\)",
        ),
        (np.zeros((5, 8, 9), np.uint8), {"photometric": "minisblack", "volumetric": True}, "one picture, got a stack"),
        (np.zeros((5, 8, 9, 3), np.uint8), {"photometric": "rgb"}, "one picture, got a stack"),
        (np.zeros((5, 8, 9), np.uint8), {"photometric": "minisblack", "truncate": True}, "one picture, got a stack"),
        (np.zeros((8, 9, 4), np.uint8), {"photometric": "separated"}, "must be gray or RGB, got .* SEPARATED"),
        (np.zeros((8, 9), np.uint8), {"photometric": "palette", "colormap": np.zeros((3, 256), "u2")}, "PALETTE"),
        (np.zeros((8, 9), np.uint16), {"bitspersample": 12}, "bits a sample, got 12"),
        (np.zeros((8, 9), np.complex64), {}, "must be of dtype .*, got complex64"),
        (np.zeros((8, 9), np.int64), {}, "must be of dtype .*, got int64"),
        (np.zeros((8, 9), np.float32), {"photometric": "miniswhite"}, "must be gray or RGB, got .* MINISWHITE"),
        (
            np.zeros((8, 9, 5), np.uint8),
            {"photometric": "rgb", "extrasamples": ["assocalpha", "unassalpha"]},
            "may have one alpha plane",
        ),
    ],
)
def test_tiff_that_cannot_be_kept_is_refused(tmp_path: Path, stored: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ImageFileError, match=message) as error:
        read(tmp_path, tiff(stored, **options))
    assert str(tmp_path / "picture") in str(error.value)


def test_tiff_with_pages_of_different_sizes_is_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.zeros((8, 9), np.uint8), photometric="minisblack", metadata=None)
        file.write(np.zeros((4, 5), np.uint8), photometric="minisblack", metadata=None)
    with pytest.raises(ImageFileError, match="one picture, got a stack of 2 page"):
        read_image(tmp_path / "a.tif")


# ---------------------------------------------------------------------------------------------- damaged files


def whole(name: str) -> bytes:
    noisy = samples((40, 40, 3), "uint8")
    if name == "png":
        return bytes(imagecodecs.png_encode(noisy))
    return bytes(imagecodecs.jpeg8_encode(noisy, 95)) if name == "jpeg" else tiff(noisy, photometric="rgb")


@pytest.mark.parametrize("name", ["png", "jpeg", "tiff"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_truncated_files_are_refused(tmp_path: Path, name: str, share: float) -> None:
    data = whole(name)
    assert read(tmp_path, data).pixels.shape == (40, 40, 3)
    with pytest.raises(ImageFileError, match=r"cannot read .*picture: the file is damaged or incomplete"):
        read(tmp_path, data[: max(12, int(share * len(data)))])


@pytest.mark.parametrize(
    ("data", "found"),
    [(b"", "it is empty"), (b"P3 1 1 255 0 0 0", "it starts with b'P3 1 1 2'"), (b"GIF89a", "GIF89a")],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes, found: str) -> None:
    with pytest.raises(ImageFileError, match=f"must be a PNG, JPEG or TIFF file, but .*{found}"):
        read(tmp_path, data, "picture.png")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png")


def test_contents_count_and_not_the_name(tmp_path: Path) -> None:
    assert read(tmp_path, whole("jpeg"), "picture.png").pixels.shape == (40, 40, 3)
