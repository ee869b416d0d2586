"""These test the noise level that nobody told."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from skimage import data
from skimage.restoration import estimate_sigma

from ntkfast.restoration.noise_level import PATCH, WEAK, _gradient_energy, noise_level

PICTURES = {name: getattr(data, name)()[:400, :400].astype(np.float64) for name in ("astronaut", "chelsea", "coffee")}


def noisy(picture: np.ndarray, sigma: float) -> np.ndarray:
    return picture + sigma * np.random.default_rng(0).standard_normal(picture.shape)


@pytest.mark.parametrize(("sigma", "bar"), [(5, 0.1), (10, 0.04), (25, 0.02), (75, 0.02)])
def test_colour_pictures(sigma, bar):
    """It is within the bar, and at low levels nearer than the finest wavelets, which take texture for noise."""
    images = [noisy(picture, sigma) for picture in PICTURES.values()]
    errors = np.abs([noise_level(image) / sigma - 1 for image in images])
    assert errors.max() < bar
    wavelets = np.array([estimate_sigma(image, channel_axis=-1, average_sigmas=True) / sigma - 1 for image in images])
    if sigma <= 10:
        assert errors.mean() < 0.5 * np.abs(wavelets).mean()


@pytest.mark.parametrize(("sigma", "bar"), [(2, 0.3), (3, 0.2), (5, 0.15), (10, 0.07), (25, 0.04), (75, 0.03)])
def test_gray_pictures(sigma, bar):
    images = [noisy(picture.mean(axis=2), sigma) for picture in PICTURES.values()]
    errors = np.abs([noise_level(image[:, :, None]) / sigma - 1 for image in images])
    assert errors.max() < bar
    if sigma <= 10:
        assert errors.mean() < 0.5 * np.abs([estimate_sigma(image) / sigma - 1 for image in images]).mean()


@pytest.mark.parametrize("name", ["grass", "gravel", "coins", "page"])
def test_textures(name):
    """Their finest grain is like noise, so that even without noise the estimate of grass is 5."""
    picture = getattr(data, name)()[:192, :192].astype(np.float64)
    for sigma in (2, 3, 5):
        image = noisy(picture, sigma)
        estimate = noise_level(image[:, :, None])
        assert 0.9 * sigma < estimate
        assert estimate - sigma < 0.6 * (estimate_sigma(image) - sigma)


@pytest.mark.parametrize(("shape", "tolerance"), [((64, 64), 0.03), ((64, 200), 0.02), ((256, 256), 0.015)])
def test_white_noise_is_unbiased(shape, tolerance):
    rng = np.random.default_rng(5)
    slope = np.linspace(0, 100, shape[1])
    levels = [noise_level((slope + 3 * rng.standard_normal(shape))[:, :, None]) for _ in range(10)]
    assert np.mean(levels) == pytest.approx(3, rel=tolerance)


def test_the_bound_of_weak_patches():
    windows = sliding_window_view(np.random.default_rng(0).standard_normal((400, 400)), (PATCH, PATCH))
    assert np.mean(_gradient_energy(windows) > WEAK) == pytest.approx(0.004, abs=0.001)


def test_clipped_and_empty_parts_do_not_count():
    """Without noise they would look weakest of all."""
    dark = noisy(np.minimum(PICTURES["coffee"].mean(axis=2), 60) - 10, 15)
    assert np.mean(dark < 0) > 0.05
    assert noise_level(np.clip(dark, 0, None)[:, :, None]) == pytest.approx(15, rel=0.1)
    framed = noisy(PICTURES["chelsea"].mean(axis=2), 15)
    framed[:60] = framed[:, -60:] = 128
    assert noise_level(framed[:, :, None]) == pytest.approx(15, rel=0.1)


def test_small_crops():
    for picture in PICTURES.values():
        assert noise_level(noisy(picture[100:164, 100:164], 25)) == pytest.approx(25, rel=0.05)
        assert noise_level(noisy(picture[100:120, 100:120], 25)) == pytest.approx(25, rel=0.3)  # with few patches


def test_copies_of_one_channel_have_its_level():
    """The patches' noise lies in a third of the directions: their least eigenvalues are 0."""
    gray = noisy(PICTURES["coffee"][:, :, 0], 15)
    alone = noise_level(gray[:, :, None])
    assert alone == pytest.approx(15, rel=0.05)
    assert noise_level(np.repeat(gray[:, :, None], 3, axis=2)) == pytest.approx(alone, rel=1e-12)


def test_pure_noise_and_its_units():
    noise = np.random.default_rng(3).standard_normal((100, 120, 3))
    assert noise_level(noise) == pytest.approx(1, rel=0.02)
    assert noise_level(1e6 + 1e-1 * noise) == pytest.approx(0.1, rel=0.02)
    for unit in (1e-12, 1e12):
        assert noise_level(unit * noise) == pytest.approx(unit * noise_level(noise), rel=1e-9)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (1, 50, 3), (50, 1, 1), (3, 3, 2), (60, 60, 1), (60, 60, 3)])
def test_flat_pictures_have_none(shape):
    """None is meant exactly: an estimate of the size of rounding would make the denoiser work for nothing."""
    for value in (0.0, 99.0, 1 / 3):
        assert noise_level(np.full(shape, value)) == 0


def test_many_channels_one_by_one():
    image = noisy(np.zeros((40, 40, 30)), 2.0)
    assert noise_level(image) == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (5, 5), (20, 20), (5, 30)])
def test_too_few_patches_by_wavelets(shape):
    image = np.random.default_rng(0).standard_normal(shape)
    flat = image.ravel() if 1 in shape else image
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.nan_to_num(estimate_sigma(flat))
    assert noise_level(image[:, :, None]) == pytest.approx(expected)
