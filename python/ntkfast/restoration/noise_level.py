"""The noise level of a picture that nobody told: standard deviation of white noise, the same in all channels.

Where the channels show the same edges, patches of all of them lie near few directions, and the least eigenvalues of
their covariance are those of the noise:

    Chen, Zhu, Heng, "An Efficient Statistical Method for Image Noise Level Estimation", ICCV 2015.

Patches of one channel fill all directions.  There, of those with weak texture alone, the least eigenvalue is taken:

    Liu, Tanaka, Okutomi, "Single-Image Noise Level Estimation for Blind Denoising", TIP 2013.

Both err far less than the finest wavelets (scikit-image's ``estimate_sigma``: Donoho, Johnstone, 1994), which take
texture for noise and are left for pictures with too few patches: ``python -m tools.tuning.levels``.
"""

from __future__ import annotations

import warnings
from typing import Any, TypeVar, overload

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from threadpoolctl import threadpool_limits

from ..images import as_frames, as_stack
from .noise_model import NoiseModel

__all__ = ["estimate_noise", "noise_level"]

PATCH = 5  # side: larger ones need larger pictures, smaller ones tell texture from noise less well
MOST_NUMBERS = 200  # a patch has no more, in all channels
PATCHES_EACH = 16  # at least so many patches for each number of one: with fewer the least eigenvalues fall
MOST_PATCHES = 60_000  # a 512 x 512 picture gives one in four

# Copies of one channel, and channels interpolated from each other, have noise in some directions only.  The estimate
# channel by channel errs by less than this factor.
TRUSTED = 0.5

# In white noise of level 1, 996 patches in 1000 have a gradient energy below WEAK, and the least eigenvalue of n such
# patches is (1 - FALL/sqrt(n))^2: simulated, tests/test_noise_level.py repeats it.  With a bound that leaves out one in
# ten the choice feeds on itself and ends far too low; one of 45 errs more on the tuning pictures of bench.quality.
WEAK = 33.0
FALL = 5.3
MOST_ROUNDS = 10

# This is a share of the largest magnitude: below it an estimate is the rounding of a picture without noise.
ROUNDING = 1e-12


# Both are type variables, since mypy takes a call for ambiguous where one of two declarations says object.
Pictures = TypeVar("Pictures", bound="list[Any] | tuple[Any, ...]")
Picture = TypeVar("Picture")


@overload
def estimate_noise(  # type: ignore[overload-overlap]  # to the last one a set is an image
    image: Pictures, *, channel_axis: int | None = None, frame_axis: None = None
) -> list[NoiseModel]: ...


@overload
def estimate_noise(image: object, *, channel_axis: int | None = None, frame_axis: int) -> list[NoiseModel]: ...


@overload
def estimate_noise(image: Picture, *, channel_axis: int | None = None, frame_axis: None = None) -> NoiseModel: ...


def estimate_noise(
    image: Any, *, channel_axis: int | None = None, frame_axis: int | None = None
) -> NoiseModel | list[NoiseModel]:
    """Estimate a picture's noise, as :func:`denoise_ntk` does where it is told nothing: one level for all pixels.

    Parameters
    ----------
    image : array_like, shape (H, W) or with a channel axis, real; or a list or tuple of such
        Integer types are not rescaled: the level is in the units of the image.
    channel_axis : int, optional
        Axis of the channels; None for a gray image.
    frame_axis : int, optional
        Axis of the pictures, if ``image`` is an array with one more axis that holds a set of them.

    Returns
    -------
    NoiseModel, or a list of them for a set of pictures
        ``sigma`` is one number, 0 or more, and ``estimated`` is True.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.

    Notes
    -----
    Sources: Chen, Zhu, Heng, ICCV 2015, for colour, and Liu, Tanaka, Okutomi, TIP 2013, for gray pictures; fine texture
    in gray that fills all directions counts as noise.

    Examples
    --------
    >>> noisy = 100 + 5 * np.random.default_rng(0).standard_normal((64, 64))
    >>> nf.estimate_noise(noisy)  # doctest: +ELLIPSIS
    NoiseModel(sigma=5.1..., estimated)
    """
    frames = as_frames("image", image, channel_axis, frame_axis)
    if frames is None:
        return _estimated("image", image, channel_axis, frames=True)
    pictures, names, axis = frames.named("image")
    return [_estimated(name, picture, axis) for name, picture in zip(names, pictures, strict=True)]


def _estimated(name: str, picture: Any, channel_axis: int | None, *, frames: bool = False) -> NoiseModel:
    pixels, _ = as_stack(name, picture, channel_axis, np.dtype(np.float64), frames=frames)
    return NoiseModel(noise_level(pixels[0]), estimated=True)


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
    level = float(np.mean([_of_channel(planes[:, :, c]) for c in range(planes.shape[2])]))
    by_patches = _by_patches(planes) if planes.shape[2] > 1 else None
    if by_patches is not None and TRUSTED * level <= by_patches:
        level = by_patches
    return level if level > ROUNDING * np.abs(planes).max() else 0.0


def _of_channel(plane: np.ndarray) -> float:
    level = _by_weak_patches(plane)
    return _by_wavelets(plane) if level is None else level


def _by_wavelets(plane: np.ndarray) -> float:
    """Median magnitude of the finest wavelet coefficients, scaled to that of noise."""
    from skimage.restoration import estimate_sigma  # takes long to import: only when it is needed

    if 1 in plane.shape:  # one row or column: along an axis of one pixel all wavelets are 0
        plane = plane.ravel()
    with warnings.catch_warnings():
        # Images smaller than the wavelet's support: the estimate is poor but there is no better one.
        warnings.simplefilter("ignore")
        level = float(estimate_sigma(plane))  # type: ignore[no-untyped-call]
    return level if np.isfinite(level) else 0.0


def _by_weak_patches(plane: np.ndarray) -> float | None:
    """Level of the least eigenvalue of the weak patches' covariance; None where there are too few patches for it.

    Patches are weak whose gradients are no stronger than those of noise of the level found so far, from all patches on.
    """
    least, rows, cols = PATCHES_EACH * PATCH**2, plane.shape[0] - PATCH + 1, plane.shape[1] - PATCH + 1
    if min(rows, cols) < 1 or rows * cols < least:
        return None
    stride = max(1, round((rows * cols / MOST_PATCHES) ** 0.5))
    windows = sliding_window_view(plane, (PATCH, PATCH))[::stride, ::stride]
    energy = _gradient_energy(windows)
    # Flat areas and clipped pixels have lost their noise.  Where nothing is clipped this leaves out hardly a patch.
    noisy = (energy > 0) & (windows.min(axis=(2, 3)) > plane.min()) & (windows.max(axis=(2, 3)) < plane.max())
    patches, energy = windows[noisy].reshape(-1, PATCH**2), energy[noisy]
    weak, level = np.ones(len(energy), dtype=bool), None
    for _ in range(MOST_ROUNDS):
        count = np.count_nonzero(weak)
        if count < least:
            break
        chosen = patches[weak] - patches[weak].mean(axis=0)
        with threadpool_limits(1, user_api="blas"):
            value = float(np.linalg.eigvalsh(chosen.T @ chosen / count)[0])
        level = max(value, 0.0) ** 0.5 / (1 - FALL / count**0.5)
        before, weak = weak, energy <= WEAK * level**2
        if np.array_equal(before, weak):
            break
    return level


def _gradient_energy(windows: np.ndarray) -> np.ndarray:
    """Sum of the squared central differences along both axes inside of each patch (n, m, p, p)."""
    across, down = windows[..., 2:] - windows[..., :-2], windows[..., 2:, :] - windows[..., :-2, :]
    return np.asarray(np.einsum("...ij,...ij", across, across) + np.einsum("...ij,...ij", down, down)) / 4


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
    # Some milliseconds, but on a busy machine many times as long where BLAS threads wait for each other.
    with threadpool_limits(1, user_api="blas"):
        values = np.linalg.eigvalsh(patches.T @ patches / len(patches))[::-1]
    for n in range(len(values)):
        mean = float(values[n:].mean())
        if np.median(values[n:]) >= mean:
            return float(np.sqrt(max(mean, 0.0)))
    return None
