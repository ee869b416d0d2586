"""All tests share these images: ``IMAGES[name](height, width, channels, seed)`` is a float64 (H, W, C) array.

There are groups: on ``NATURAL`` images neighbouring patches differ, as in a photograph; ``HARD`` ones are built to
break numerics, with patches that are alike, opposite, or zero.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

Image = np.ndarray


@cache
def _photograph() -> Image:
    """Return a colour photograph in [0, 1] with its luminance as a fourth channel, shape (512, 512, 4)."""
    import skimage.data  # here, not above: images without the photograph must not need it

    rgb = skimage.data.astronaut() / 255.0
    return np.concatenate([rgb, rgb.mean(axis=2, keepdims=True)], axis=2)


def natural(height: int, width: int, channels: int, seed: int) -> Image:
    """Crop a photograph around the face, halved or quartered where it fits, in [0, 1]; sides up to 512."""
    photograph = _photograph()
    if max(height, width) > len(photograph) or channels > 4:
        raise ValueError(f"natural images go up to (512, 512, 4), got {(height, width, channels)}")
    factor = min(4, len(photograph) // max(height, width))
    corner = []
    for size, centre in ((factor * height, 110), (factor * width, 225)):
        # The seed moves the crop a little: enough for another image, not enough to reach the plain background.
        shifted = centre + np.random.default_rng((seed, size)).integers(-20, 21) - size // 2
        corner.append(int(np.clip(shifted, 0, len(photograph) - size)))
    crop = photograph[corner[0] : corner[0] + factor * height, corner[1] : corner[1] + factor * width]
    x = crop.reshape(height, factor, width, factor, 4).mean(axis=(1, 3))
    return x[..., [3]] if channels == 1 else x[..., :channels].copy()


def centred(height: int, width: int, channels: int, seed: int) -> Image:
    """Return the natural image less its mean in every channel."""
    x = natural(height, width, channels, seed)
    return x - x.mean(axis=(0, 1))


def noise(height: int, width: int, channels: int, seed: int) -> Image:
    """Return iid standard normal values."""
    return np.random.default_rng(seed).standard_normal((height, width, channels))


def flat(height: int, width: int, channels: int, seed: int) -> Image:
    """Return the constant 0.7: all patches are alike."""
    return np.full((height, width, channels), 0.7)


def nearly_flat(height: int, width: int, channels: int, seed: int) -> Image:
    """Return 0.5 plus normal noise of 1e-4: all patches are nearly alike."""
    return 0.5 + 1e-4 * noise(height, width, channels, seed)


def spiked(height: int, width: int, channels: int, seed: int) -> Image:
    """Return zeros with a few spikes of 1e-3 to 1e3, of both signs: zero patches, and norms far apart."""
    rng = np.random.default_rng(seed)
    x = np.zeros((height * width, channels))
    at = rng.choice(len(x), size=1 + len(x) // 20, replace=False)
    x[at] = rng.choice([-1.0, 1.0], (len(at), channels)) * 10 ** rng.uniform(-3, 3, (len(at), 1))
    return x.reshape(height, width, channels)


def periodic(height: int, width: int, channels: int, seed: int) -> Image:
    """Return a checkerboard, or stripes of period 2 to 4, less its mean: patches exactly alike and exactly opposite."""
    rows, cols = np.indices((height, width))
    period = 2 + seed % 3
    phase = (rows + cols, cols, rows)[seed // 3 % 3] % period
    x = (2 * phase >= period)[..., None] * np.linspace(1.0, 0.5, channels)
    return x - x.mean(axis=(0, 1))


def two_level(height: int, width: int, channels: int, seed: int) -> Image:
    """Return blocks of 3 x 4 pixels on a few levels, less the mean in every channel."""
    levels = np.random.default_rng(seed).integers(0, 4, (height // 3 + 1, width // 4 + 1, channels)) / 3
    x = levels.repeat(3, axis=0).repeat(4, axis=1)[:height, :width]
    return x - x.mean(axis=(0, 1))


def zero(height: int, width: int, channels: int, seed: int) -> Image:
    """Return zeros."""
    return np.zeros((height, width, channels))


def ramp(height: int, width: int, channels: int, seed: int) -> Image:
    """Return a plane from 0 to 1 across the diagonal: patches on a line through the origin, nearly parallel."""
    rows, cols = np.indices((height, width))
    x = (rows + cols) / max(height + width - 2, 1)
    return x[..., None] * np.linspace(1.0, 0.5, channels)


def axis_of(image: object) -> int | None:
    """``channel_axis`` of an image (H, W) or (H, W, C); None of what is no array, such as a NoiseInput."""
    return -1 if getattr(image, "ndim", 2) == 3 else None


IMAGES: dict[str, Callable[[int, int, int, int], Image]] = {
    f.__name__: f for f in (natural, centred, noise, flat, nearly_flat, spiked, periodic, two_level, zero, ramp)
}
NATURAL: tuple[str, ...] = ("natural", "centred", "noise")
HARD: tuple[str, ...] = tuple(name for name in IMAGES if name not in NATURAL)


def image_variants():
    x = np.random.default_rng(0).integers(0, 200, (6, 5, 3))
    locked = x.astype(float)
    locked.flags.writeable = False
    wide = np.random.default_rng(1).standard_normal((12, 10, 6))
    wide[::2, ::-2, 1::2] = x
    return x, {
        "uint8": x.astype(np.uint8),
        "int64": x,
        "float16": x.astype(np.float16),
        "float32": x.astype(np.float32),
        "longdouble": x.astype(np.longdouble),
        "big-endian": x.astype(">f8"),
        "list": x.tolist(),
        "read-only": locked,
        "Fortran order": np.asfortranarray(x.astype(float)),
        "strided and reversed": wide[::2, ::-2, 1::2],
    }
