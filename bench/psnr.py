"""All benchmarks give the peak signal-to-noise ratio so; nothing is clipped or rounded."""

from __future__ import annotations

from typing import Any

import numpy as np


def psnr(clean: np.ndarray, picture: Any, peak: float = 255.0) -> float:
    """Return the PSNR of a picture in dB, over all channels; ``peak`` is white."""
    return decibels(np.mean(np.square(np.asarray(picture, dtype=np.float64) - clean)), peak)


def decibels(mse: Any, peak: float = 255.0) -> float:
    """Return the PSNR of a mean squared error: 10 log10(peak^2 / mse)."""
    return float(10 * np.log10(peak**2 / mse))
