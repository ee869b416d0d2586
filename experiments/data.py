"""The small pictures of the experiments: parts of photographs in the public domain, averaged down, with noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bench.quality import pictures

SIGMA = 25.0  # standard deviation of the noise, of 255


@dataclass(frozen=True)
class Problem:
    """A denoising problem, in units where white is 1.

    Attributes
    ----------
    clean, noisy : ndarray of float64, shape (side, side) or (side, side, 3)
        Both less the mean of the noisy picture: what networks and filters see.
    sigma : float
        Standard deviation of the noise.
    """

    clean: np.ndarray
    noisy: np.ndarray
    sigma: float

    def psnr(self, image: np.ndarray) -> float:
        """In dB; white is 1."""
        from skimage.metrics import peak_signal_noise_ratio

        return float(peak_signal_noise_ratio(self.clean, image, data_range=1))  # type: ignore[no-untyped-call]


def of_picture(pixels: np.ndarray, name: str, sigma: float, *, centred: bool) -> Problem:
    """A whole picture with noise.

    Parameters
    ----------
    pixels : ndarray, shape (H, W, C)
        Values from 0, black, to 1, white.
    name : str
        Seeds the noise.
    sigma : float
        Standard deviation of the noise, of 255.
    centred : bool
        Whether the mean of each channel of the noisy picture is subtracted.
    """
    noisy = pictures.add_noise(255 * pixels, name, sigma).astype(np.float64) / 255
    mean = noisy.mean(axis=(0, 1)) if centred else 0.0
    return Problem(pixels - mean, noisy - mean, sigma / 255)


def problem(
    name: str, side: int, *, reduction: int = 4, centre: tuple[float, float] = (0.5, 0.5), gray: bool = True
) -> Problem:
    """Part of a picture of the test set, with noise of standard deviation 25 of 255.

    Parameters
    ----------
    name : str
        In :data:`bench.quality.pictures.TEST`; those of scikit-image need no download.
    side : int
        Of the square part, in pixels after the reduction.
    reduction : int
        Means of reduction x reduction pixels are taken first, so that small parts have content.
    centre : (float, float)
        Of the part: row and column as shares of the reduced picture's sides.
    gray : bool
        Whether the three channels are averaged.
    """
    whole = pictures.TEST[name].load().astype(np.float64)
    rows, cols = whole.shape[0] // reduction, whole.shape[1] // reduction
    cells = whole[: rows * reduction, : cols * reduction].reshape(rows, reduction, cols, reduction, -1)
    reduced = cells.mean(axis=(1, 3))
    if side > min(rows, cols):
        raise ValueError(f"side must be at most {min(rows, cols)} for {name} at reduction {reduction}, got {side}")
    row, col = (
        min(max(round(share * n - side / 2), 0), n - side) for share, n in zip(centre, (rows, cols), strict=True)
    )
    clean = reduced[row : row + side, col : col + side]
    clean = clean.mean(axis=2) if gray else clean
    noisy = pictures.add_noise(clean, f"{name} {side} {reduction}", SIGMA).astype(np.float64)
    mean = noisy.mean(axis=(0, 1))
    return Problem((clean - mean) / 255, (noisy - mean) / 255, SIGMA / 255)
