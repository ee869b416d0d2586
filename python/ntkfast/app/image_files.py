"""Pictures from and to PNG, JPEG and TIFF files, with their size, dtype and alpha plane kept.

Files are recognised by their first bytes and written by the extension of their name.  ``imagecodecs`` does PNG and
JPEG and ``tifffile`` does TIFF, since widespread alternatives read 16 bit RGB PNG silently as 8 bit.  Both are imported
on first use only.

What is carried over: pixels, dtype, alpha plane, ICC colour profile.  What is not: the orientation tag (it is applied
to the pixels, so that the picture is upright), resolution and other metadata.  Pictures with fewer than 8 bits a sample
and palettes become 8 bit gray or RGB.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import secrets
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "ImageFile",
    "ImageFileError",
    "check_destination",
    "check_format",
    "output_format",
    "read_image",
    "write_atomically",
    "write_image",
]

EXTENSIONS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}

JPEG_QUALITY = 95  # the scale ends at 100; without chroma subsampling: a denoised picture should not gain new artefacts
JPEG_MAX_SIDE = 65500  # pixels; libjpeg's limit

# Dtypes read from files.  The narrow ones are exact in float32; float64 holds the wide ones.
NARROW = ("uint8", "int8", "uint16", "int16", "float16", "float32")
WIDE = ("uint32", "int32", "float64")

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

ICC_MAX_BYTES = 1 << 24  # a larger one is damaged, or made to fill the memory
ICC_SEGMENT_BYTES = 65519  # so much fits a JPEG APP2 segment beside its 16 bytes of header
ICC_HEADER = b"ICC_PROFILE\0"


class ImageFileError(ValueError):
    """A picture cannot be read from, or does not fit into, a file; the message names the file and the remedy."""


@dataclass(frozen=True)
class ImageFile:
    """A picture with what is needed to write it as it was read.

    Attributes
    ----------
    pixels : ndarray of float32 or float64, shape (H, W) or (H, W, C)
        Gray or C channels without alpha, in the file's own units: 0..255 for 8 bit, 0..65535 for 16 bit.
    alpha : ndarray of ``dtype``, shape (H, W), or None
        The alpha plane, untouched.
    dtype : numpy.dtype
        Of the samples in the file, native byte order.
    path : pathlib.Path
        Where the picture comes from.
    alpha_kind : {"straight", "premultiplied", "unspecified"}
        What a TIFF file says about ``alpha``; PNG knows "straight" alone.
    icc : bytes or None
        ICC colour profile.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    dtype: np.dtype
    path: Path
    alpha_kind: str = "straight"
    icc: bytes | None = None

    @property
    def channels(self) -> int:
        """Number of channels without alpha; 1 for gray."""
        return 1 if self.pixels.ndim == 2 else self.pixels.shape[2]


# ------------------------------------------------------------------------------------------------------------ reading


def read_image(path: str | os.PathLike[str]) -> ImageFile:
    """Read one picture from a PNG, JPEG or TIFF file, recognised by its first bytes.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    ImageFile
        Upright: an orientation tag has been applied.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ImageFileError
        If it is damaged, in another format, or of a kind that cannot be kept (CMYK, stacks, complex numbers, ...).
    """
    path = Path(path)
    data = path.read_bytes()
    decode = _decoder(path, data)
    try:
        samples, icc, orientation, kind = decode(data)
    except ImageFileError as error:
        raise ImageFileError(f"cannot read {path}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # each codec has its own exceptions, down to struct.error and IndexError
        raise ImageFileError(f"cannot read {path}: the file is damaged or incomplete ({error})") from error
    samples = np.ascontiguousarray(_upright(samples, orientation))
    if samples.dtype.name not in (*NARROW, *WIDE):
        raise ImageFileError(
            f"cannot read {path}: samples must be of dtype {', '.join((*NARROW, *WIDE))}, got {samples.dtype.name}"
        )
    alpha = None
    if kind is not None:
        samples, alpha = samples[..., :-1], np.ascontiguousarray(samples[..., -1])
    if samples.ndim == 3 and samples.shape[2] == 1:
        samples = samples[..., 0]
    pixels = np.ascontiguousarray(samples, dtype=np.float32 if samples.dtype.name in NARROW else np.float64)
    return ImageFile(pixels, alpha, samples.dtype, path, kind or "straight", icc)


# A decoder returns this: samples (H, W) or (H, W, n) with any alpha last, ICC profile, orientation 1..8 as in Exif, and
# the alpha_kind (None: no alpha).
Decoded = tuple[np.ndarray, bytes | None, int, str | None]


def _decoder(path: Path, data: bytes) -> Callable[[bytes], Decoded]:
    """Choose the decoder by the file's first bytes."""
    if data.startswith(PNG_SIGNATURE):
        return _decode_png
    if data.startswith(JPEG_SIGNATURE):
        return _decode_jpeg
    if data.startswith(TIFF_SIGNATURES):
        return _decode_tiff
    found = f"it starts with {data[:8]!r}" if data else "it is empty"
    raise ImageFileError(f"cannot read {path}: must be a PNG, JPEG or TIFF file, but {found}")


def _decode_png(data: bytes) -> Decoded:
    import imagecodecs

    chunks = dict(_png_chunks(data))
    if b"acTL" in chunks:
        raise ImageFileError("an animated PNG; ntkfast takes one picture")
    samples = imagecodecs.png_decode(data)  # expands palettes, fewer than 8 bits, and tRNS to alpha
    kind = "straight" if samples.ndim == 3 and samples.shape[2] in (2, 4) else None
    return samples, _png_icc(chunks.get(b"iCCP")), _exif_orientation(chunks.get(b"eXIf", b"")), kind


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, content) of the chunks ahead of the pixels."""
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name = data[at + 4 : at + 8]
        if name == b"IDAT":
            return
        yield name, data[at + 8 : at + 8 + length]
        at += length + 12


def _png_icc(chunk: bytes | None) -> bytes | None:
    """Return the profile in an iCCP chunk; None where there is none or it is damaged."""
    if chunk is None or b"\0" not in chunk:
        return None
    with contextlib.suppress(zlib.error):
        inflate = zlib.decompressobj()
        icc = inflate.decompress(chunk[chunk.index(b"\0") + 2 :], ICC_MAX_BYTES)
        return icc if inflate.eof else None
    return None


def _decode_jpeg(data: bytes) -> Decoded:
    import imagecodecs

    segments, scan = _jpeg_segments(data)
    if scan is None or data.find(b"\xff\xd9", scan) < 0:  # libjpeg would fill the missing part with gray
        raise ImageFileError("the file is damaged or incomplete (it ends before its picture does)")
    samples = imagecodecs.jpeg8_decode(data)
    if samples.dtype != np.uint8:
        raise ImageFileError("a JPEG with more than 8 bits a sample; convert it to 16 bit PNG or TIFF")
    if samples.ndim == 3 and samples.shape[2] != 3:
        raise ImageFileError("a CMYK JPEG; convert it to RGB")
    exif = next((body[6:] for mark, body in segments if mark == 0xE1 and body.startswith(b"Exif\0\0")), b"")
    parts = [body[len(ICC_HEADER) :] for mark, body in segments if mark == 0xE2 and body.startswith(ICC_HEADER)]
    icc = b"".join(part[2:] for part in sorted(parts, key=lambda part: part[:1]))  # first byte: number of the part
    return samples, icc or None, _exif_orientation(exif), None


def _jpeg_segments(data: bytes) -> tuple[list[tuple[int, bytes]], int | None]:
    """Return the (marker, content) segments ahead of the pixels, and where the pixels start (None: nowhere)."""
    segments: list[tuple[int, bytes]] = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        mark = data[at + 1]
        if mark == 0xFF:  # a fill byte
            at += 1
            continue
        if mark == 0xDA:
            return segments, at
        (length,) = struct.unpack_from(">H", data, at + 2)
        segments.append((mark, data[at + 4 : at + 2 + length]))
        at += 2 + length
    return segments, None


def _exif_orientation(exif: bytes) -> int:
    """Return the orientation that an Exif block (a small TIFF file) tells; 1 where it is damaged or tells none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    with contextlib.suppress(struct.error):
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for n in range(count):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, start + 2 + 12 * n)
            if tag == 0x0112:
                return int(value)
    return 1


def _upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an Exif orientation: 2..4 keep height and width, 5..8 exchange them, others mean nothing."""
    if not 1 <= orientation <= 8:
        return samples
    if orientation in (3, 4, 6, 7):
        samples = samples[::-1]
    if orientation in (2, 3, 7, 8):
        samples = samples[:, ::-1]
    return samples.swapaxes(0, 1) if orientation >= 5 else samples


def _decode_tiff(data: bytes) -> Decoded:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        pages: Any = file.pages
        if len(pages) == 0:
            raise ImageFileError("the file is damaged or incomplete (it holds no picture)")
        page = pages[0]
        shape = file.series[0].shape
        if len(pages) > 1 or math.prod(shape) != math.prod(page.shape) or page.axes not in ("YX", "YXS", "SYX"):
            raise ImageFileError(f"ntkfast takes one picture, got a stack of {len(pages)} page(s) and shape {shape}")
        _check_tiff_page(page)
        samples = page.asarray()
        orientation = page.tags.valueof(274, 1)
        icc = page.iccprofile
    if samples.dtype == bool:
        samples = samples.astype(np.uint8) * np.uint8(255)
    if page.axes == "SYX":
        samples = np.moveaxis(samples, 0, -1)
    if page.photometric.name == "MINISWHITE":
        samples = np.iinfo(samples.dtype).max - samples
    return samples, icc, orientation, _tiff_alpha_kind(page)


def _check_tiff_page(page: Any) -> None:
    """Refuse pages whose numbers mean something else than brightness."""
    name = getattr(page.photometric, "name", str(page.photometric))
    # JPEG-compressed YCbCr comes out of the decoder as RGB.
    plain = name in ("MINISBLACK", "RGB") or (name == "YCBCR" and page.compression in (6, 7))
    if name == "MINISWHITE" and page.dtype is not None:
        plain = page.dtype.kind in "ub"
    if not plain:
        raise ImageFileError(f"a TIFF picture must be gray or RGB, got photometric interpretation {name}")
    if page.dtype is None or (page.dtype.kind in "uif" and page.bitspersample != 8 * page.dtype.itemsize):
        raise ImageFileError(f"a TIFF picture must have 1, 8, 16, 32 or 64 bits a sample, got {page.bitspersample}")


def _tiff_alpha_kind(page: Any) -> str | None:
    """Return the alpha_kind of the page's last sample, or None where it is a channel like the others."""
    extra = tuple(int(kind) for kind in page.extrasamples)
    if len(extra) == 1 and (extra[0] in (1, 2) or page.photometric.name == "RGB"):
        return {1: "premultiplied", 2: "straight"}.get(extra[0], "unspecified")
    if any(extra):
        raise ImageFileError(f"a TIFF picture may have one alpha plane, got extra samples of kinds {extra}")
    return None


# ------------------------------------------------------------------------------------------------------------ writing


def output_format(path: str | os.PathLike[str]) -> str:
    """Return "PNG", "JPEG" or "TIFF" by the extension of ``path``; ValueError for another."""
    extension = Path(path).suffix.lower()
    if extension not in EXTENSIONS:
        raise ValueError(f"the output's name must end in {', '.join(EXTENSIONS)}, got {os.fspath(path)!r}")
    return EXTENSIONS[extension]


def check_format(image: ImageFile, path: str | os.PathLike[str]) -> None:
    """Raise ImageFileError if a file named ``path`` cannot hold the dtype, channels and alpha of ``image``."""
    form = output_format(path)
    if form == "TIFF":
        return
    unfit, remedy = None, ".tif"
    if image.channels not in (1, 3):
        unfit = f"{image.channels} channels"
    elif image.dtype.name not in ("uint8", "uint16"):
        unfit = f"{image.dtype.name} samples"
    elif image.alpha is not None and image.alpha_kind != "straight":
        unfit = f"a plane of {image.alpha_kind} alpha"
    elif form == "JPEG" and image.dtype.name != "uint8":
        unfit, remedy = f"{image.dtype.name} samples", ".png or .tif"
    elif form == "JPEG" and image.alpha is not None:
        unfit, remedy = "an alpha plane", ".png or .tif"
    elif form == "JPEG" and max(image.pixels.shape) > JPEG_MAX_SIDE:
        unfit, remedy = f"{max(image.pixels.shape)} pixels along one side", ".png or .tif"
    if unfit:
        raise ImageFileError(
            f"a {form} file cannot hold {unfit} as {image.path} has; give the output a name that ends in {remedy}"
        )


def write_image(image: ImageFile, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a picture in the format that the extension of ``path`` names, atomically.

    Parameters
    ----------
    image : ImageFile
        Its ``pixels`` are rounded and clipped to the range of ``dtype``.
    path : path-like
        Ends in .png, .jpg, .jpeg, .tif or .tiff.
    overwrite : bool
        Whether an existing file is replaced.

    Raises
    ------
    FileExistsError
        If ``path`` exists and ``overwrite`` is false.
    OSError
        If it cannot be written; nothing is left behind then.
    ImageFileError
        If the format cannot hold the picture.
    ValueError
        If ``path`` has another extension, or the pixels are NaN or infinite where ``dtype`` is an integer.
    """
    check_format(image, path)
    encode = {"PNG": _encode_png, "JPEG": _encode_jpeg, "TIFF": _encode_tiff}[output_format(path)]
    write_atomically(path, encode(image, _samples(image)), overwrite=overwrite)


def _samples(image: ImageFile) -> np.ndarray:
    """Return pixels and alpha as one array of the file's dtype, (H, W) or (H, W, n)."""
    pixels, dtype = image.pixels, image.dtype
    if dtype.kind in "ui":
        if not np.isfinite(pixels).all():
            raise ValueError(f"pixels must be finite to be written as {dtype.name}, got NaN or infinity")
        limits = np.iinfo(dtype)
        # float32 does not hold the ends of the 32 bit range: a clipped value could overflow.
        pixels = np.rint(pixels, dtype=np.float64 if dtype.itemsize > 2 else np.float32)
        pixels = np.clip(pixels, limits.min, limits.max)
    samples = pixels.astype(dtype)
    return samples if image.alpha is None else np.dstack([samples, image.alpha])


def _encode_png(image: ImageFile, samples: np.ndarray) -> bytes:
    import imagecodecs

    data = bytes(imagecodecs.png_encode(samples))
    if image.icc is None:
        return data
    body = b"iCCP" + b"icc\0\0" + zlib.compress(image.icc)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    after_header = len(PNG_SIGNATURE) + 25  # IHDR: 4 length, 4 name, 13 content, 4 checksum
    return data[:after_header] + chunk + data[after_header:]


def _encode_jpeg(image: ImageFile, samples: np.ndarray) -> bytes:
    import imagecodecs

    data = bytes(imagecodecs.jpeg8_encode(samples, JPEG_QUALITY, subsampling="444"))
    icc = image.icc or b""
    parts = [icc[n : n + ICC_SEGMENT_BYTES] for n in range(0, len(icc), ICC_SEGMENT_BYTES)]
    if len(parts) > 255:
        return data
    bodies = [ICC_HEADER + bytes([n, len(parts)]) + part for n, part in enumerate(parts, start=1)]
    profile = b"".join(b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body for body in bodies)
    # JFIF wants its APP0 segment to come first.
    after_header = 4 + struct.unpack_from(">H", data, 4)[0] if data[2:4] == b"\xff\xe0" else 2
    return data[:after_header] + profile + data[after_header:]


def _encode_tiff(image: ImageFile, samples: np.ndarray) -> bytes:
    import tifffile

    extra = [0] * (image.channels - 1) if image.channels != 3 else []
    if image.alpha is not None:
        extra.append({"premultiplied": 1, "straight": 2}.get(image.alpha_kind, 0))
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        samples,
        photometric="rgb" if image.channels == 3 else "minisblack",
        planarconfig="contig" if samples.ndim == 3 else None,
        extrasamples=extra or None,
        iccprofile=image.icc,
        software="ntkfast",
        metadata=None,
    )
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------- files, whole or not at all


def check_destination(path: str | os.PathLike[str], *, overwrite: bool, source: str | os.PathLike[str]) -> None:
    """Raise what writing ``path`` would raise, so that no long work is done in vain.

    Parameters
    ----------
    path : path-like
        The file to be written.
    overwrite : bool
        Whether it may exist.
    source : path-like
        The input, which the message names if it is the same file.

    Raises
    ------
    FileExistsError
        If ``path`` exists and ``overwrite`` is false.
    OSError
        If its directory does not exist or takes no files, or ``path`` is a directory or a device.
    """
    if not overwrite and _same_file(path, source):
        raise FileExistsError(errno.EEXIST, "the output is the input file itself", os.fspath(path))
    target = _target(path, overwrite)
    temporary = _temporary_beside(target)
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise _about(error, target.parent) from error
    finally:
        _remove(temporary)


def write_atomically(path: str | os.PathLike[str], data: bytes, *, overwrite: bool = False) -> None:
    """Write a file so that it appears complete or not at all, and never in the place of another unasked.

    Parameters
    ----------
    path : path-like
        The file.  A symbolic link is followed if ``overwrite``.
    data : bytes
        Its content.
    overwrite : bool
        Whether an existing file is replaced; the new one then takes over its permissions.

    Raises
    ------
    FileExistsError
        If ``path`` exists and ``overwrite`` is false, also when it appears while this function runs.
    OSError
        If the file cannot be written; nothing is left behind then.
    """
    target = _target(path, overwrite)
    temporary = _temporary_beside(target)
    try:
        _write_through(temporary, data)
        if overwrite:
            if target.exists():
                os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
            os.replace(temporary, target)
        else:
            _rename_to_new(temporary, target)
    except OSError as error:
        raise _about(error, target) from error
    finally:  # also on Ctrl-C
        _remove(temporary)


def _target(path: str | os.PathLike[str], overwrite: bool) -> Path:
    """Return the file that would be written, or raise if it is there already or cannot be a file."""
    if not overwrite:
        if os.path.lexists(path):  # a dangling link is somebody's file too
            raise FileExistsError(errno.EEXIST, "the output exists", os.fspath(path))
        return Path(path)
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "the output must be a file, got a directory", os.fspath(path))
    if target.exists() and not target.is_file():  # replacing /dev/null would harm the machine
        raise OSError(errno.EINVAL, "the output must be a regular file", os.fspath(path))
    return target


def _same_file(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> bool:
    """Tell whether two names, through links too, lead to one file; False where one leads nowhere."""
    with contextlib.suppress(OSError):
        return os.path.samefile(a, b)
    return False


def _remove(path: Path) -> None:
    """Remove a file of ours if it is there; a failure must not hide the error that brought us here."""
    with contextlib.suppress(OSError):
        path.unlink()


def _temporary_beside(target: Path) -> Path:
    """Return a fresh name in the same directory, so that renaming stays within one file system."""
    return target.parent / f".ntkfast-{secrets.token_hex(8)}.tmp"


def _about(error: OSError, path: Path) -> OSError:
    """Return ``error`` with the name of the file that the user knows instead of the temporary one's."""
    return type(error)(error.errno, error.strerror, os.fspath(path))


def _write_through(path: Path, data: bytes) -> None:
    """Create a file with the permissions that the umask leaves, and force its content to the disk."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags, 0o666), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _rename_to_new(temporary: Path, target: Path) -> None:
    """Give a finished file its name; FileExistsError if the name has been taken meanwhile."""
    try:
        os.link(temporary, target)  # unlike a rename, fails if the name is taken
        return
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, "the output appeared meanwhile", os.fspath(target)) from None
    except OSError:
        pass  # a file system without hard links: claim the name with an empty file and replace that
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        os.replace(temporary, target)
    except BaseException:
        _remove(target)
        raise
