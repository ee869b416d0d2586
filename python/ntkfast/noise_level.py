"""The noise level of a picture that nobody told: standard deviation of white noise, the same in all channels.

Where the channels show the same edges, patches of all of them lie near few directions, and the least eigenvalues of
their covariance are those of the noise:

    Chen, Zhu, Heng, "An Efficient Statistical Method for Image Noise Level Estimation", ICCV 2015.

On colour pictures this errs far less than the finest wavelets (scikit-image's ``estimate_sigma``: Donoho, Johnstone,
1994), which take texture for noise: tests/test_noise_level.py compares the two.  On gray ones it errs more, and there
the wavelets decide.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from threadpoolctl import threadpool_limits

__all__ = ["noise_level"]

PATCH = 5  # side: larger ones need larger pictures, smaller ones tell texture from noise less well
MOST_NUMBERS = 200  # of a patch, all channels
PATCHES_EACH = 16  # at least so many patches for each number of one: with fewer the least eigenvalues fall
MOST_PATCHES = 60_000  # a 512 x 512 picture gives one in four

# Copies of one channel, and channels interpolated from each other, have noise in some directions only.  The wavelets
# see each channel by itself, and err by less than this factor.
TRUSTED = 0.5

# Of the largest magnitude: below it an estimate is the rounding of a picture without noise.
ROUNDING = 1e-12


def noise_level(planes: np.ndarray) -> float:
    """Estimated standard deviation of the noise, 0 or more.

    Parameters
    ----------
    planes : ndarray, shape (H, W, C), float64

    Returns
    -------
    float
        In the units of ``planes``.
    """
    level = _by_wavelets(planes)
    by_patches = _by_patches(planes) if planes.shape[2] > 1 else None
    if by_patches is not None and TRUSTED * level <= by_patches:
        level = by_patches
    return level if level > ROUNDING * np.abs(planes).max() else 0.0


def _by_wavelets(planes: np.ndarray) -> float:
    """Mean over the channels of the median magnitude of the finest wavelet coefficients, scaled to that of noise."""
    from skimage.restoration import estimate_sigma  # takes long to import: only when it is needed

    channels = np.moveaxis(planes, -1, 0)
    if 1 in channels.shape[1:]:  # one row or column: along an axis of one pixel all wavelets are 0
        channels = channels.reshape(len(channels), -1)
    with warnings.catch_warnings():
        # Images smaller than the wavelet's support: the estimate is poor but there is no better one.
        warnings.simplefilter("ignore")
        level = float(np.mean([estimate_sigma(channel) for channel in channels]))  # type: ignore[no-untyped-call]
    return level if np.isfinite(level) else 0.0


def _by_patches(planes: np.ndarray) -> float | None:
    """Level of the least eigenvalues of the patches' covariance; None where there are too few patches for it.

    Eigenvalues of pure noise lie symmetrically around sigma^2: the largest are dropped until the mean of the rest is
    not above their median.
    """
    height, width, channels = planes.shape
    numbers = PATCH**2 * channels
    rows, cols = height - PATCH + 1, width - PATCH + 1
    if numbers > MOST_NUMBERS or min(rows, cols) < 1 or rows * cols < PATCHES_EACH * numbers:
        return None
    stride = max(1, round((rows * cols / MOST_PATCHES) ** 0.5))
    windows = sliding_window_view(planes, (PATCH, PATCH), axis=(0, 1))[::stride, ::stride]
    patches = windows.reshape(-1, numbers)
    patches = patches - patches.mean(axis=0)
    # On a busy machine the product took 2 s on two BLAS threads, which wait for each other, and 0.01 s on one.
    with threadpool_limits(1, user_api="blas"):
        values = np.linalg.eigvalsh(patches.T @ patches / len(patches))[::-1]
    for n in range(len(values)):
        mean = float(values[n:].mean())
        if np.median(values[n:]) >= mean:
            return float(np.sqrt(max(mean, 0.0)))
    return None
