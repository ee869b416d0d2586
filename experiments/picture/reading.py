"""A picture of one's own from its file, as the cases see it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments import data
from experiments.architectures import OF_PICTURES
from experiments.data import Problem
from ntkfast.app.image_files import ImageFileError, read_image

# The cases, by what becomes of the picture's mean before anything sees it.
MEANS = {"removed": True, "kept": False}


class PictureError(ValueError):
    """A picture cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class OwnPicture:
    """A picture whose sides the networks take.

    Attributes
    ----------
    title : str
        What the report calls it.
    pixels : ndarray of float64, shape (H, W, C)
        Values from 0, black, to 1, white.
    """

    title: str
    pixels: np.ndarray

    @property
    def fingerprint(self) -> str:
        """Tells the pixels from those of other pictures, and seeds their noise."""
        return hashlib.sha256(repr(self.pixels.shape).encode() + self.pixels.tobytes()).hexdigest()[:16]

    def problem(self, sigma: float, mean: str) -> Problem:
        """Return the picture with noise of so much of 255, one of :data:`MEANS`."""
        return data.of_picture(self.pixels, self.fingerprint, sigma, centred=MEANS[mean])


def read(path: Path, title: str | None) -> OwnPicture:
    """Read a picture, without its alpha plane, and crop it at the right and below to sides that all networks take.

    Raises
    ------
    PictureError
        If the file cannot be read as a picture, is too small, or has values that are no shades from black to white.
    """
    try:
        file = read_image(path)
    except (OSError, ImageFileError) as error:
        raise PictureError(f"argument --picture: {error}") from None
    pixels = file.pixels.astype(np.float64)
    if file.dtype.kind in "ui":
        limits = np.iinfo(file.dtype)
        pixels = (pixels - limits.min) / (limits.max - limits.min)
    elif not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        raise PictureError(
            f"argument --picture: {path} must have values from 0 to 1, as its samples are {file.dtype.name}, got "
            f"{pixels.min():.3g} to {pixels.max():.3g}"
        )
    multiple = max(network.multiple for network in OF_PICTURES.values())
    height, width = (side - side % multiple for side in pixels.shape[:2])
    if min(height, width) < multiple:
        raise PictureError(
            f"argument --picture: {path} must have at least {multiple} x {multiple} pixels, got "
            f"{pixels.shape[0]} x {pixels.shape[1]}"
        )
    cropped = np.ascontiguousarray(np.atleast_3d(pixels)[:height, :width])
    return OwnPicture(path.stem if title is None else title, cropped)
