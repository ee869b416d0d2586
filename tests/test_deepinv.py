"""The denoiser in deepinv gives the same results as without, whatever the tensor; deepinv's optimisers take it."""

from __future__ import annotations

import dataclasses
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ntkfast as nf
from ntkfast.restoration import whole_filter
from ntkfast.restoration.denoise import Denoised, Denoiser
from ntkfast.restoration.methods import METHODS as METHODS_OF
from ntkfast.restoration.picture import Picture, white_noise
from vision import import_torchvision

import_torchvision()
import deepinv  # noqa: E402

from ntkfast.deepinv import NTKDenoiser  # noqa: E402

QUICK = nf.Tiles(steps=6, passes=1)  # without the stopping rule


ONCE = nf.Tiles(passes=1)


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
    np.testing.assert_array_equal(NTKDenoiser(ONCE)(x, sigma).numpy(), directly(x, levels, method=ONCE))


def test_noise_level_is_estimated_by_default() -> None:
    x = batch(1, 3, 16, 16)
    np.testing.assert_array_equal(NTKDenoiser()(x).numpy(), NTKDenoiser()(x, None).numpy())


def test_options_reach_the_denoiser() -> None:
    x = batch(1, 2, 18, 18)
    options = {
        "method": nf.Tiles(nf.vanilla_cnn(2, 3), 10, 3, passes=1, stopping="recorrupted"),
        "compute": nf.Compute(dtype="float64"),
        "strength": 1.5,
    }
    denoiser = NTKDenoiser(**options, rng=3)
    np.testing.assert_array_equal(denoiser(x, 0.1).numpy(), directly(x, [0.1], **options, rng=3))
    assert "size=10, overlap=3), compute=Compute(dtype='float64'), strength=1.5" in repr(denoiser)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_given_back(dtype: torch.dtype) -> None:
    x = batch(2, 3, 16, 12, dtype=dtype)
    out = NTKDenoiser(QUICK)(x, 0.1)
    assert out.dtype == dtype
    expected = directly(x.double(), [0.1] * 2, method=QUICK)
    # The result is rounded once at the end; the engine computes in float32 by default.
    np.testing.assert_allclose(out.double().numpy(), expected, rtol=torch.finfo(dtype).eps, atol=2e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no card")
def test_device_is_given_back() -> None:
    x = batch(2, 3, 16, 12)
    denoiser = NTKDenoiser(device="cpu", **QUICK)
    out = denoiser(x.cuda(), torch.tensor(0.1, device="cuda"))
    assert out.device == x.cuda().device
    np.testing.assert_array_equal(out.cpu().numpy(), denoiser(x, 0.1).numpy())


@pytest.mark.parametrize("sigma", [0.1, 0.0])
def test_input_untouched(sigma: float) -> None:
    x = batch(1, 1, 16, 16)
    before = x.clone()
    out = NTKDenoiser(QUICK if sigma else None)(x, sigma)
    out += 1  # it has its own memory
    assert torch.equal(x, before)


def test_memory_order_does_not_matter() -> None:
    x = batch(2, 3, 16, 20)
    out = NTKDenoiser(QUICK)(x.contiguous(memory_format=torch.channels_last), 0.1)
    np.testing.assert_array_equal(out.numpy(), NTKDenoiser(QUICK)(x, 0.1).numpy())


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


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "tiles"}, TypeError, "method must be an ntkfast.Tiles or ntkfast.WholeImage, got 'tiles'"),
        ({"compute": "cpu"}, TypeError, "compute must be an ntkfast.Compute, got 'cpu'"),
        ({"strength": -1}, ValueError, "strength must be >= 0, got -1"),
        ({"rng": 1.5}, TypeError, "rng must be an integer, None or"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        NTKDenoiser(**options)


# ------------------------------------------------------------------------------------------------------------ gradients


EXACT = nf.Compute(dtype="float64")


@pytest.fixture
def exact_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """All eigenvectors of each tile, and Lanczos to rounding: what is left of an error is that of the transpose."""
    monkeypatch.setattr("ntkfast.restoration.tile_filter.EIGENVECTORS_FROM", 0)
    settings = dataclasses.replace(whole_filter.LANCZOS, tolerance=1e-12)
    monkeypatch.setattr(whole_filter, "LANCZOS", settings)


METHODS = [
    nf.Tiles(steps=(9, 30), size=8, overlap=5),
    nf.Tiles(nf.unet(1), steps=20, passes=1, size=6, overlap=2),  # sides are mirrored up to multiples of 2
    nf.Tiles(nf.autoencoder(2), steps=7, size=30),  # one tile, mirrored
    nf.WholeImage(steps=(9, 30)),
    nf.WholeImage(landmarks=20, steps=30, passes=1),
]


def linear_map(
    pixels: np.ndarray, method: Any, noise: nf.NoiseModel
) -> tuple[Denoised, Callable[[np.ndarray], np.ndarray]]:
    """Denoise pixels (1, H, W, C); also return the map of the last pass with Theta held fixed."""
    done = Denoiser.of(method, EXACT, 1.0).run(pixels, noise, [0], None)
    chosen = METHODS_OF[type(method)](method, EXACT, pixels.shape)

    def again(other: np.ndarray) -> np.ndarray:
        """All passes but the last see ``pixels``, as in the run above; the last filters ``other``."""
        white, given = (white_noise(noise, p, np.dtype(float)) for p in (pixels, other))
        first, last = (Picture(w.pixels, w.level, w.levels, chosen) for w in (white, given))
        guide = first.pixels
        for steps in method.given_steps[:-1]:
            guide = first.filter(guide).path([steps], lambda _: None)[0]
        run = first.filter(guide)
        run._target = last.pixels
        return given.back(last.image(run.path(method.given_steps[-1:], lambda _: None)[0]))

    return done, again


@pytest.mark.parametrize("noise", ["level", "channels", "map"])
@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("shape", [(17, 11, 3), (9, 13, 1), (3, 2, 2)])
def test_the_gradient_is_the_transpose_of_the_filter(
    shape: tuple[int, int, int], method: Any, noise: str, exact_filters: None
) -> None:
    """<L u, v> = <u, L^T v>, for the map L that made the result: L y is what the denoiser returned."""
    rng = np.random.default_rng(0)
    pixels = batch(1, *shape, dtype=torch.float64).numpy()
    sigma = {"level": 0.1, "channels": rng.uniform(0.05, 0.2, shape[2]), "map": rng.uniform(0.05, 0.2, shape[:2])}
    done, again = linear_map(pixels, method, nf.NoiseModel(sigma[noise]))
    np.testing.assert_allclose(again(pixels), done.pixels, atol=1e-10)
    u, v = rng.standard_normal((2, *pixels.shape))
    left, right = float((again(u) * v).sum()), float((u * done.transposed(v)).sum())
    assert left == pytest.approx(right, rel=1e-9, abs=1e-9)


def test_gradients_by_finite_differences_of_the_filter(exact_filters: None) -> None:
    """Differences of the map with Theta held fixed are what autograd returns, entry by entry."""
    x = batch(2, 2, 9, 7, dtype=torch.float64).requires_grad_()
    method = nf.Tiles(steps=(9, 30), size=6, overlap=3)
    out = NTKDenoiser(method, EXACT)(x, [0.1, 0.2])
    weights = torch.tensor(np.random.default_rng(0).standard_normal(out.shape))
    (out * weights).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float64
    pixels = np.moveaxis(x.detach().numpy(), 1, -1)
    for n, level in enumerate((0.1, 0.2)):
        _, again = linear_map(pixels[n : n + 1], method, nf.NoiseModel(level))
        for row, col, channel in ((0, 0, 0), (4, 3, 1), (8, 6, 0)):
            step = np.zeros_like(pixels[n : n + 1])
            step[0, row, col, channel] = 1e-3
            change = (again(pixels[n : n + 1] + step) - again(pixels[n : n + 1] - step)) / 2e-3
            expected = float((np.moveaxis(change, -1, 1)[0] * weights[n].numpy()).sum())
            assert float(x.grad[n, channel, row, col]) == pytest.approx(expected, abs=1e-8)


def test_gradients_of_the_defaults() -> None:
    """The rule's steps are held fixed; Lanczos stops at 1e-3, in both directions."""
    x = batch(2, 3, 20, 24).requires_grad_()
    out = NTKDenoiser()(x, 0.1)
    assert out.requires_grad
    v = torch.randn(out.shape, generator=torch.manual_seed(0))
    (gradient,) = torch.autograd.grad(out, x, v)
    assert gradient.dtype == x.dtype
    # The filter keeps constant images: the rows of L add up to one, and so do those of L^T for a constant v.
    (ones,) = torch.autograd.grad(NTKDenoiser()(x, 0.1), x, torch.ones_like(out))
    assert float(ones.sum()) == pytest.approx(out.numel(), rel=1e-4)
    assert 0.1 < float(gradient.norm() / v.norm()) < 1


def test_where_there_is_no_gradient() -> None:
    x = batch(1, 1, 12, 12)
    assert not NTKDenoiser(QUICK)(x, 0.1).requires_grad
    with torch.no_grad():
        assert not NTKDenoiser(QUICK)(x.requires_grad_(), 0.1).requires_grad
    out = NTKDenoiser(QUICK)(x, 0.1)
    (gradient,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
    untouched = NTKDenoiser()(x, 0.0)
    (gradient,) = torch.autograd.grad(untouched.sum(), x)
    np.testing.assert_array_equal(gradient.numpy(), 1)  # the picture itself, where there is no noise


def test_a_gradient_step_lowers_a_loss() -> None:
    """The gradient is good enough to fit an input to a wanted output."""
    denoiser = NTKDenoiser(nf.Tiles(steps=40, passes=1))
    x = batch(1, 1, 16, 16).requires_grad_()
    goal = torch.linspace(0, 1, 16).expand(1, 1, 16, 16)
    losses = []
    for _ in range(3):
        loss = (denoiser(x, 0.1) - goal).square().sum()
        losses.append(float(loss.detach()))
        (gradient,) = torch.autograd.grad(loss, x)
        x = (x - 0.4 * gradient).detach().requires_grad_()
    assert losses[2] < losses[1] < 0.7 * losses[0]


# ----------------------------------------------------------------------------------------------------------- in deepinv


def test_as_a_prior_of_deepinv() -> None:
    denoiser = NTKDenoiser(QUICK)
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
