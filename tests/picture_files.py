"""Tests of image files share these: pictures, and a PNG encoder and decoder of our own as the oracle."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile

from ntkfast.app.image_files import (
    ImageFile,
    read_image,
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and links")


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
