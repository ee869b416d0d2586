"""The denoiser in deepinv gives the same results as without, whatever the tensor; deepinv's optimisers take it."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ntkfast as nf
from vision import import_torchvision

import_torchvision()
import deepinv  # noqa: E402

from ntkfast.deepinv import NTKDenoiser  # noqa: E402

QUICK = {"steps": 6, "refine": 0}  # without the stopping rule


def batch(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return noise of level 0.1 around slopes that differ from image to image and from channel to channel."""
    values = np.random.default_rng(0).normal(0, 0.1, shape) + np.linspace(0, 1, shape[-1])
    values += np.random.default_rng(1).uniform(0, 1, (*shape[:2], 1, 1))
    return torch.tensor(values, dtype=dtype)


def directly(x: torch.Tensor, sigmas: list[float | None], **options: Any) -> np.ndarray:
    """Run denoise_ntk on one image after the other."""
    images = x.numpy()
    return np.stack([nf.denoise_ntk(y, s, channel_axis=0, **options) for y, s in zip(images, sigmas, strict=True)])


@pytest.mark.parametrize("shape", [(1, 1, 20, 24), (2, 3, 24, 17), (3, 5, 9, 9)])
def test_each_image_as_denoise_ntk_does_it(shape: tuple[int, ...]) -> None:
    x = batch(*shape)
    out = NTKDenoiser()(x, 0.1)
    np.testing.assert_array_equal(out.numpy(), directly(x, [0.1] * shape[0]))
    assert (out.dtype, out.shape) == (x.dtype, x.shape)
    assert not np.array_equal(out.numpy(), x.numpy())


def test_one_channel_is_a_gray_image() -> None:
    x = batch(1, 1, 20, 24)
    np.testing.assert_array_equal(NTKDenoiser()(x, 0.1)[0, 0].numpy(), nf.denoise_ntk(x[0, 0].numpy(), 0.1))


@pytest.mark.parametrize(
    ("sigma", "levels"),
    [
        (0.1, [0.1, 0.1]),
        (1, [1, 1]),
        (None, [None, None]),
        ([0.05, 0.2], [0.05, 0.2]),
        (np.array([0.05, 0.2]), [0.05, 0.2]),
        (torch.tensor(0.25), [0.25, 0.25]),
        (torch.tensor([0.25]), [0.25, 0.25]),
        (torch.tensor([0.125, 0.25]), [0.125, 0.25]),
        (torch.tensor([0.125, 0.25], requires_grad=True).reshape(2, 1, 1, 1), [0.125, 0.25]),
    ],
)
def test_noise_levels(sigma: Any, levels: list[float | None]) -> None:
    x = batch(2, 1, 16, 16)
    np.testing.assert_array_equal(NTKDenoiser(refine=0)(x, sigma).numpy(), directly(x, levels, refine=0))


def test_noise_level_is_estimated_by_default() -> None:
    x = batch(1, 3, 16, 16)
    np.testing.assert_array_equal(NTKDenoiser()(x).numpy(), NTKDenoiser()(x, None).numpy())


def test_options_reach_the_denoiser() -> None:
    x = batch(1, 2, 18, 18)
    options = {"network": nf.vanilla_cnn(2, 3), "tile_size": 10, "tile_overlap": 3, "refine": 1, "steps": [4, 9]}
    denoiser = NTKDenoiser(**options)
    np.testing.assert_array_equal(denoiser(x, 0.1).numpy(), directly(x, [0.1], **options))
    assert "tile_size=10, tile_overlap=3" in repr(denoiser)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_given_back(dtype: torch.dtype) -> None:
    x = batch(2, 3, 16, 12, dtype=dtype)
    out = NTKDenoiser(**QUICK)(x, 0.1)
    assert out.dtype == dtype
    expected = directly(x.double(), [0.1] * 2, **QUICK)
    # The result is rounded once at the end; the engine computes in float32 by default.
    np.testing.assert_allclose(out.double().numpy(), expected, rtol=torch.finfo(dtype).eps, atol=2e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no card")
def test_device_is_given_back() -> None:
    x = batch(2, 3, 16, 12)
    denoiser = NTKDenoiser(device="cpu", **QUICK)
    out = denoiser(x.cuda(), torch.tensor(0.1, device="cuda"))
    assert out.device == x.cuda().device
    np.testing.assert_array_equal(out.cpu().numpy(), denoiser(x, 0.1).numpy())


def test_no_gradient_and_input_untouched() -> None:
    x = batch(1, 1, 16, 16).requires_grad_()
    before = x.detach().clone()
    out = NTKDenoiser(**QUICK)(x, 0.1)
    assert not out.requires_grad
    out += 1  # it has its own memory
    assert torch.equal(x, before)


def test_memory_order_does_not_matter() -> None:
    x = batch(2, 3, 16, 20)
    out = NTKDenoiser(**QUICK)(x.contiguous(memory_format=torch.channels_last), 0.1)
    np.testing.assert_array_equal(out.numpy(), NTKDenoiser(**QUICK)(x, 0.1).numpy())


def test_empty_batch() -> None:
    assert NTKDenoiser()(torch.zeros(0, 3, 8, 8), 0.1).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    ("x", "sigma", "error", "message"),
    [
        (np.zeros((1, 1, 8, 8)), 0.1, TypeError, "x must be a torch.Tensor, got ndarray"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), 0.1, TypeError, "real floating dtype, got torch.uint8"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.complex64), 0.1, TypeError, "real floating dtype, got torch.complex64"),
        (torch.zeros(1, 8, 8), 0.1, ValueError, r"x must have the shape \(B, C, H, W\), got \(1, 8, 8\)"),
        (torch.zeros(2, 1, 8, 8), [0.1, 0.2, 0.3], ValueError, "sigma must be one value or 2, .* got 3"),
        (torch.zeros(1, 1, 8, 8), -0.1, ValueError, "sigma must be >= 0, got -0.1"),
        (torch.zeros(1, 1, 8, 8), "0.1", TypeError, "sigma must be real numbers, got '0.1'"),
        (torch.full((1, 1, 8, 8), torch.nan), 0.1, ValueError, "image must be finite"),
    ],
)
def test_refuses(x: Any, sigma: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        NTKDenoiser()(x, sigma)


@pytest.mark.parametrize("name", ["depth", "sigma", "channel_axis", "full_output"])
def test_unknown_options(name: str) -> None:
    with pytest.raises(
        TypeError, match=f"options of NTKDenoiser must be among network, method, steps, .*, got '{name}'"
    ):
        NTKDenoiser(**{name: 1})


def test_as_a_prior_of_deepinv() -> None:
    denoiser = NTKDenoiser(**QUICK)
    assert isinstance(denoiser, deepinv.models.Denoiser)
    x = batch(2, 3, 16, 16)
    proximal = deepinv.optim.PnP(denoiser=denoiser).prox(x, 0.1)
    np.testing.assert_array_equal(proximal.numpy(), denoiser(x, 0.1).numpy())


def test_plug_and_play_restores() -> None:
    example = runpy.run_path(str(Path(__file__).parent.parent / "examples" / "plug_and_play.py"))
    clean = example["photograph"](40)
    blurred, physics = example["degrade"](clean, 1.5, 0.02)
    restored = example["restore"](blurred, physics, 0.02)
    assert example["decibels"](restored, clean) > example["decibels"](blurred, clean) + 2


# ------------------------------------------------------------------------------------------------------------- imports


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_ntkfast_imports_neither_torch_nor_deepinv() -> None:
    done = python("import sys, ntkfast; ntkfast.denoise_ntk; sys.exit(str({'torch', 'deepinv'} & set(sys.modules)))")
    assert done.stderr == "set()\n"


@pytest.mark.parametrize("missing", ["torch", "deepinv"])
def test_says_what_to_install(missing: str) -> None:
    done = python(f"import sys; sys.modules[{missing!r}] = None; import ntkfast.deepinv")
    assert "ImportError: ntkfast.deepinv needs PyTorch and deepinv, and" in done.stderr
    assert f"{missing}" in done.stderr
    assert "pip install ntkfast[deepinv]" in done.stderr


MISFIT = """
import importlib.abc, sys

class Misfit(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "deepinv":
            raise RuntimeError("operator torchvision::nms does not exist")

sys.meta_path.insert(0, Misfit())
"""


def test_says_that_torchvision_does_not_fit() -> None:
    done = python(MISFIT + "import ntkfast.deepinv")
    assert "ImportError: ntkfast.deepinv: deepinv cannot be imported (operator torchvision::nms does not" in done.stderr
    assert "needs a torchvision that fits the installed PyTorch (CPU with CPU, CUDA with CUDA)" in done.stderr
    example = Path(__file__).parents[1] / "examples" / "plug_and_play.py"
    done = python(MISFIT + f"import runpy; runpy.run_path({str(example)!r}, run_name='__main__')")
    assert done.returncode == 1
    assert done.stderr.startswith("operator torchvision::nms does not exist\n")
    assert "needs a torchvision that fits the installed PyTorch" in done.stderr
    assert "Traceback" not in done.stderr
