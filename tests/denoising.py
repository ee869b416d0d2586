"""Tests of the denoiser share these: photographs with noise, a measure of quality, and what must not be called."""

import numpy as np
from skimage import data
from skimage.metrics import peak_signal_noise_ratio


def psnr(image, clean, peak=255.0):
    return peak_signal_noise_ratio(clean, image, data_range=peak)


def photograph(name, rows, cols, sigma, seed=0):
    """Return a crop of a colour photograph, 0 to 255, and the same with noise."""
    clean = getattr(data, name)()[rows, cols].astype(float)
    return clean, clean + sigma * np.random.default_rng(seed).standard_normal(clean.shape)


def noisy_square(side, channels=3):
    return np.random.default_rng(0).standard_normal((side, side, channels))


def fail(*_args, **_options):
    raise AssertionError("work was begun")
