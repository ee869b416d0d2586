"""Image files come back as they were written, and nothing is ever half-written or overwritten unasked."""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from ntkfast.app import image_files
from ntkfast.app.image_files import (
    ImageFile,
    ImageFileError,
    check_destination,
    check_format,
    read_image,
    write_atomically,
    write_image,
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and links")

# ------------------------------------------------------------- a PNG encoder and decoder of our own, as the oracle


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """Return a PNG file of unfiltered rows; ``rows`` holds the packed samples of all of them."""
    stride = len(rows) // height
    raw = b"".join(b"\0" + rows[n * stride : (n + 1) * stride] for n in range(height))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def decode_png(data: bytes) -> np.ndarray:
    """Return the samples (H, W, n) of a PNG file with 8 or 16 bits, straight from the specification."""
    at, body = 8, b""
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(name + content)
        if name == b"IHDR":
            width, height, bits, colour, _, _, interlace = struct.unpack(">IIBBBBB", content)
        body += content if name == b"IDAT" else b""
        at += length + 12
    assert bits in (8, 16)
    assert interlace == 0
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    step = samples * bits // 8  # bytes from a sample to the same of the pixel to the left
    raw = np.frombuffer(zlib.decompress(body), np.uint8).reshape(height, 1 + width * step)
    rows = np.zeros((height + 1, step + width * step), np.int64)  # with a pixel of zeros to the left and a row above
    for y in range(height):
        kind, line, above = raw[y, 0], rows[y + 1], rows[y]
        for x in range(step, line.size):
            a, b, c = line[x - step], above[x], above[x - step]
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            predicted = (0, a, b, (a + b) // 2, paeth)[kind]
            line[x] = (int(raw[y, 1 + x - step]) + predicted) % 256
    flat = rows[1:, step:].astype(np.uint8).tobytes()
    return np.frombuffer(flat, ">u2" if bits == 16 else "u1").reshape(height, width, samples)


# ------------------------------------------------------------------------------------------------------------- helpers


def samples(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0.5, 1.0, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def picture(shape: tuple[int, ...], dtype: str = "uint8", alpha: bool = False, **kw: object) -> ImageFile:
    plane = samples(shape[:2], dtype, 1) if alpha else None
    wide = np.float64 if dtype in ("float64", "int32", "uint32") else np.float32
    return ImageFile(samples(shape, dtype).astype(wide), plane, np.dtype(dtype), Path("in"), **kw)  # type: ignore[arg-type]


def smooth(channels: int = 3) -> np.ndarray:
    """Return a picture that JPEG keeps to a few units: a gradient with a different slope in each direction."""
    y, x = np.mgrid[:24, :40]
    return np.stack([40 + 3 * x + 2 * y, 220 - 2 * x - 3 * y, 60 + x + 4 * y][:channels], axis=-1).astype(np.uint8)


def tiff(array: np.ndarray, **kw: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **kw)  # type: ignore[arg-type]
    return buffer.getvalue()


def read(tmp_path: Path, data: bytes, name: str = "picture") -> ImageFile:
    path = tmp_path / name
    path.write_bytes(data)
    return read_image(path)


def left_behind(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


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


# ----------------------------------------------------------------------------------------------------- reading: PNG

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


# ---------------------------------------------------------------------------------------------------- reading: JPEG


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


# ---------------------------------------------------------------------------------------------------- reading: TIFF


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


# ---------------------------------------------------------------------------------------------- reading: damaged files


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


# ------------------------------------------------------------------------------------------ whole files, or none at all


def test_existing_file_is_kept_without_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="the output exists"):
        write_atomically(path, b"yours")
    with pytest.raises(FileExistsError, match="the output exists"):
        check_destination(path, overwrite=False, source=tmp_path / "other")
    assert path.read_bytes() == b"mine"
    write_atomically(path, b"yours", overwrite=True)
    assert path.read_bytes() == b"yours"
    assert left_behind(tmp_path) == ["a.png"]


def forbid_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Act like a file system without hard links."""

    def link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)


@pytest.mark.parametrize("links", [True, False])
def test_file_that_appears_during_the_work_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    path = tmp_path / "a.png"
    if not links:
        forbid_links(monkeypatch)
    # fsync is the last thing done before the new file gets its name.
    monkeypatch.setattr(os, "fsync", lambda _: path.write_bytes(b"mine"))
    with pytest.raises(FileExistsError) as error:
        write_atomically(path, b"yours")
    assert error.value.filename == str(path)
    assert path.read_bytes() == b"mine"
    assert left_behind(tmp_path) == ["a.png"]


@posix
@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_new_file_has_the_permissions_of_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, umask: int, mode: int
) -> None:
    if not links:
        forbid_links(monkeypatch)
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "a.png", b"data")
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").read_bytes() == b"data"
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == mode
    assert left_behind(tmp_path) == ["a.png"]


@posix
def test_overwriting_keeps_permissions_and_follows_links(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(b"old")
    (tmp_path / "real.png").chmod(0o640)
    (tmp_path / "link.png").symlink_to("real.png")
    write_atomically(tmp_path / "link.png", b"new", overwrite=True)
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "real.png").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "real.png").stat().st_mode) == 0o640


@posix
def test_dangling_link_counts_as_existing(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to("nowhere.png")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "link.png", b"new")
    with pytest.raises(FileExistsError):
        check_destination(tmp_path / "link.png", overwrite=False, source=tmp_path / "in.png")
    assert left_behind(tmp_path) == ["link.png"]


FAILURES = [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]


@pytest.mark.parametrize("failure", FAILURES, ids=["full disk", "Ctrl-C"])
@pytest.mark.parametrize(
    ("function", "overwrite", "links"),
    [("fsync", False, True), ("fsync", True, True), ("replace", True, True), ("replace", False, False)],
)
def test_failure_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, overwrite: bool, links: bool, failure: BaseException
) -> None:
    path = tmp_path / "a.png"
    if overwrite:
        path.write_bytes(b"mine")
    if not links:
        forbid_links(monkeypatch)

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(type(failure)) as error:
        write_atomically(path, b"yours", overwrite=overwrite)
    if isinstance(error.value, OSError):
        assert error.value.filename == str(path)
        assert error.value.errno == errno.ENOSPC
    assert left_behind(tmp_path) == (["a.png"] if overwrite else [])
    assert not overwrite or path.read_bytes() == b"mine"


def test_failing_encoder_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise RuntimeError("encoder")

    (tmp_path / "a.png").write_bytes(b"mine")
    monkeypatch.setattr(imagecodecs, "png_encode", fail)
    with pytest.raises(RuntimeError, match="encoder"):
        write_image(picture((4, 5)), tmp_path / "a.png", overwrite=True)
    assert left_behind(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"mine"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(("parent", "message"), [("none", "No such file or directory"), ("file", "Not a directory")])
def test_directory_that_takes_no_files(tmp_path: Path, overwrite: bool, parent: str, message: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=message) as error:
        check_destination(tmp_path / parent / "a.png", overwrite=overwrite, source=tmp_path / "in.png")
    assert error.value.filename == str(tmp_path / parent)
    with pytest.raises(OSError, match=message):
        write_atomically(tmp_path / parent / "a.png", b"data", overwrite=overwrite)
    assert left_behind(tmp_path) == ["file"]


@posix
def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "directory.png").mkdir()
    for name, message in (("pipe.png", "must be a regular file"), ("directory.png", "must be a file, got a directory")):
        for check in (
            lambda path: check_destination(path, overwrite=True, source="in.png"),
            lambda path: write_atomically(path, b"data", overwrite=True),
        ):
            with pytest.raises(OSError, match=message):
                check(tmp_path / name)
    assert left_behind(tmp_path) == ["directory.png", "pipe.png"]
    assert stat.S_ISFIFO((tmp_path / "pipe.png").stat().st_mode)


@posix
def test_output_that_is_the_input_is_named_so(tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(b"mine")
    (tmp_path / "soft.png").symlink_to("in.png")
    os.link(tmp_path / "in.png", tmp_path / "hard.png")
    for name in ("in.png", "soft.png", "hard.png"):
        with pytest.raises(FileExistsError, match="the output is the input file itself"):
            check_destination(tmp_path / name, overwrite=False, source=tmp_path / "in.png")
        check_destination(tmp_path / name, overwrite=True, source=tmp_path / "in.png")


def test_checking_the_destination_leaves_nothing_behind(tmp_path: Path) -> None:
    check_destination(tmp_path / "a.png", overwrite=False, source=tmp_path / "in.png")
    assert left_behind(tmp_path) == []


def test_image_file_can_be_given_other_pixels() -> None:
    image = picture((4, 5, 3), alpha=True)
    other = replace(image, pixels=image.pixels + 1)
    assert other.alpha is image.alpha
    assert other.dtype == image.dtype
    assert other.channels == 3
