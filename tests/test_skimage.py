"""The helpers of skimage.restoration take the denoiser as they take their own."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.restoration import calibrate_denoiser, denoise_invariant

import ntkfast as nf
from images import IMAGES

PARAMETERS = {"method": [nf.Tiles(steps=steps, passes=1) for steps in (2, 30, 20000)]}


@pytest.mark.parametrize("channels", [None, 3])
def test_calibrated_by_its_j_invariant_version(channels: int | None) -> None:
    """The self-supervised loss finds the steps of the least true error."""
    clean = IMAGES["natural"](32, 32, channels or 1, 0)
    clean = clean if channels else clean[..., 0]
    noisy = clean + 0.1 * np.random.default_rng(0).standard_normal(clean.shape)
    axis = {} if channels is None else {"channel_axis": [-1]}
    best, (tested, losses) = calibrate_denoiser(noisy, nf.denoise_ntk, {**PARAMETERS, **axis}, extra_output=True)
    errors = [np.mean((nf.denoise_ntk(noisy, **parameters) - clean) ** 2) for parameters in tested]
    assert np.argmin(losses) == np.argmin(errors) == 1
    assert np.mean((best(noisy) - clean) ** 2) < 0.6 * np.mean((noisy - clean) ** 2)


@pytest.mark.parametrize(("dtype", "result"), [("float32", "float32"), ("float64", "float64"), ("uint8", "float64")])
def test_j_invariant_version_of_any_dtype(dtype: str, result: str) -> None:
    image = (200 * IMAGES["natural"](16, 16, 1, 0)[..., 0]).astype(dtype)
    image = image if dtype == "uint8" else image / 255
    out = denoise_invariant(image, nf.denoise_ntk, stride=2, denoiser_kwargs={"method": nf.Tiles(steps=10, passes=1)})
    assert (out.shape, out.dtype) == (image.shape, np.dtype(result))
    assert 0 < np.abs(out - image / (255 if dtype == "uint8" else 1)).mean() < 0.1
