"""The noise level that nobody told."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data
from skimage.restoration import estimate_sigma

from ntkfast.noise_level import _by_patches, noise_level

PICTURES = {name: getattr(data, name)()[:400, :400].astype(np.float64) for name in ("astronaut", "chelsea", "coffee")}


def noisy(picture: np.ndarray, sigma: float) -> np.ndarray:
    return picture + sigma * np.random.default_rng(0).standard_normal(picture.shape)


@pytest.mark.parametrize(("sigma", "bar"), [(5, 0.1), (10, 0.04), (25, 0.02), (75, 0.02)])
def test_colour_pictures(sigma, bar):
    """Within the bar, and at low levels nearer than the finest wavelets, which take texture for noise."""
    images = [noisy(picture, sigma) for picture in PICTURES.values()]
    errors = np.abs([noise_level(image) / sigma - 1 for image in images])
    assert errors.max() < bar
    wavelets = np.array([estimate_sigma(image, channel_axis=-1, average_sigmas=True) / sigma - 1 for image in images])
    if sigma <= 10:
        assert errors.mean() < 0.5 * np.abs(wavelets).mean()


def test_gray_pictures_by_wavelets():
    image = noisy(PICTURES["chelsea"].mean(axis=2), 20)
    assert noise_level(image[:, :, None]) == estimate_sigma(image)


def test_gray_patches_would_err_more():
    """Textures of one channel fill all directions of a patch; of three channels alike they do not."""
    images = [noisy(picture.mean(axis=2), 5)[:, :, None] for picture in PICTURES.values()]
    wavelets, patches = (
        np.abs([estimate(image) / 5 - 1 for image in images]).mean() for estimate in (noise_level, _by_patches)
    )
    assert patches > 1.5 * wavelets


def test_small_crops():
    for picture in PICTURES.values():
        assert noise_level(noisy(picture[100:164, 100:164], 25)) == pytest.approx(25, rel=0.05)
        assert noise_level(noisy(picture[100:120, 100:120], 25)) == pytest.approx(25, rel=0.3)  # by wavelets


def test_copies_of_one_channel_have_its_level():
    """The patches' noise lies in a third of the directions: their least eigenvalues are 0."""
    gray = noisy(PICTURES["coffee"][:, :, 0], 15)
    assert noise_level(np.repeat(gray[:, :, None], 3, axis=2)) == pytest.approx(estimate_sigma(gray), rel=1e-12)


def test_pure_noise_and_its_units():
    noise = np.random.default_rng(3).standard_normal((100, 120, 3))
    assert noise_level(noise) == pytest.approx(1, rel=0.02)
    assert noise_level(1e6 + 1e-1 * noise) == pytest.approx(0.1, rel=0.02)
    for unit in (1e-12, 1e12):
        assert noise_level(unit * noise) == pytest.approx(unit * noise_level(noise), rel=1e-9)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (1, 50, 3), (50, 1, 1), (3, 3, 2), (60, 60, 1), (60, 60, 3)])
def test_flat_pictures_have_none(shape):
    """Exactly: an estimate of the size of rounding would make the denoiser work for nothing."""
    for value in (0.0, 99.0, 1 / 3):
        assert noise_level(np.full(shape, value)) == 0


def test_many_channels_by_wavelets():
    image = noisy(np.zeros((40, 40, 30)), 2.0)
    assert noise_level(image) == pytest.approx(2.0, rel=0.05)
