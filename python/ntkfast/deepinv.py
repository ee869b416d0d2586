"""The denoiser as one of the library deepinv (deepinv.github.io), for its plug-and-play optimisers.

Importing this module imports PyTorch and deepinv; nothing else in ntkfast imports deepinv.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

try:
    import torch
    from deepinv.models import Denoiser
except ImportError as error:
    raise ImportError(
        f"ntkfast.deepinv needs PyTorch and deepinv, and {error.name or 'a part of them'} cannot be imported: "
        "pip install ntkfast[deepinv]"
    ) from error
except RuntimeError as error:  # torchvision raises it where its operators do not load
    raise ImportError(
        f"ntkfast.deepinv: deepinv cannot be imported ({error}).  "
        "It needs a torchvision that fits the installed PyTorch (CPU with CPU, CUDA with CUDA)"
    ) from error

from torch.autograd.function import once_differentiable

from .images import as_stack
from .restoration.denoise import Denoised, rule_seed
from .restoration.denoise import Denoiser as Pipeline
from .restoration.noise_model import NoiseModel
from .restoration.options import Compute, Tiles, WholeImage
from .restoration.progress import share

__all__ = ["NTKDenoiser"]


class NTKDenoiser(Denoiser):  # type: ignore[misc]  # deepinv has no types
    """:func:`ntkfast.denoise_ntk` in the form of a :class:`deepinv.models.Denoiser`.

    Every image of a batch is denoised by itself, on the CPU or, as ``compute`` says, with kernels computed on a card.
    It has no weights and learns from that image alone.

    **Gradients.**  The last pass is a linear filter of the image once its kernel Theta and its numbers of steps are
    chosen.  Its transpose is what ``backward`` applies: the same kernels, times, tiles and blending.  That Theta, the
    steps and an estimated sigma depend on the image, too, is left out, so the result is not the gradient of the whole
    map but that of the filter in use, as in optimisers that hold a non-local filter fixed within a step.  There are no
    second derivatives, and none for sigma.

    Parameters
    ----------
    method : Tiles or WholeImage, optional
        As for :func:`ntkfast.denoise_ntk`.  With ``steps`` given the stopping rule is not run, which takes most of the
        time; sigma then no longer matters.
    compute : Compute, optional
        ``device`` is where kernels are computed, not where tensors live.
    strength : float
        As for :func:`ntkfast.denoise_ntk`.
    rng : int, None or numpy Generator
        As for :func:`ntkfast.denoise_ntk`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.

    Examples
    --------
    >>> import torch
    >>> denoiser = nf.deepinv.NTKDenoiser(nf.Tiles(passes=1, steps=20))
    >>> x = torch.rand(2, 3, 16, 16, generator=torch.manual_seed(0), requires_grad=True)
    >>> out = denoiser(x, 0.1)
    >>> out.shape
    torch.Size([2, 3, 16, 16])
    >>> out.sum().backward()
    >>> x.grad.shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        method: Tiles | WholeImage | None = None,
        compute: Compute | None = None,
        strength: float = 1.0,
        rng: int | np.random.Generator | None = 0,
    ) -> None:
        pipeline = Pipeline.of(method, compute, strength)
        rule_seed(rng)
        super().__init__()
        self.pipeline, self.rng = pipeline, rng

    def extra_repr(self) -> str:
        """The options, as ``print`` shows them between the parentheses.

        Examples
        --------
        >>> nf.deepinv.NTKDenoiser(nf.Tiles(size=12))
        NTKDenoiser(method=Tiles(size=12), compute=Compute(), strength=1.0)
        """
        said = {"method": self.pipeline.method, "compute": self.pipeline.compute, "strength": self.pipeline.strength}
        return ", ".join(f"{name}={value!r}" for name, value in said.items())

    def forward(self, x: torch.Tensor, sigma: Any = None) -> torch.Tensor:
        """Denoise a batch.

        Parameters
        ----------
        x : torch.Tensor of a real floating dtype, shape (B, C, H, W)
            Images of any number of channels, in any units; the channels of one image share its kernel.
        sigma : float, torch.Tensor or array_like, optional
            Standard deviation of the noise in the units of x: one value, or B values in any shape.  By default
            estimated, image by image.

        Returns
        -------
        torch.Tensor
            Shape, dtype and device of x; with a gradient if x has one.

        Raises
        ------
        TypeError, ValueError
            If x is no such tensor, sigma has another number of values, or ``denoise_ntk`` refuses a value.

        Examples
        --------
        >>> import torch
        >>> denoiser = nf.deepinv.NTKDenoiser(nf.Tiles(steps=9))
        >>> denoiser(torch.ones(2, 1, 8, 8), [0.1, 0.2]).shape
        torch.Size([2, 1, 8, 8])
        """
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"x must be a torch.Tensor, got {type(x).__name__}")
        if not x.is_floating_point():
            raise TypeError(f"x must have a real floating dtype, got {x.dtype}")
        if x.ndim != 4:
            raise ValueError(f"x must have the shape (B, C, H, W), got {tuple(x.shape)}")
        result: torch.Tensor = _Filter.apply(x, self, _levels(sigma, len(x)))  # type: ignore[no-untyped-call]
        return result


def _denoised(denoiser: NTKDenoiser, images: np.ndarray, levels: list[float | None]) -> Iterator[Denoised]:
    """Denoise images (B, C, H, W), one after the other."""
    compute = denoiser.pipeline.compute
    for n, (image, level) in enumerate(zip(images, levels, strict=True)):
        pixels, _ = as_stack("image", image, 0, compute.precision)
        noise = None if level is None else NoiseModel(level)
        progress = share(compute.progress, n, len(images))
        yield denoiser.pipeline.run(pixels, noise, rule_seed(denoiser.rng), progress)


class _Filter(torch.autograd.Function):
    """The filters of a batch of images, each with its transpose as the gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, denoiser: NTKDenoiser, levels: list[float | None]) -> torch.Tensor:
        pictures, ctx.transposed = [], []
        for done in _denoised(denoiser, _host(x), levels):
            pictures.append(done.pixels)
            if ctx.needs_input_grad[0]:  # it keeps what the filter was made of
                ctx.transposed.append(done.transposed)
        return _stacked(pictures, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        images = np.moveaxis(_host(gradient).astype(np.float64), 1, -1)
        turned = [transposed(g[None]) for transposed, g in zip(ctx.transposed, images, strict=True)]
        return _stacked(turned, gradient), None, None


def _host(x: torch.Tensor) -> np.ndarray:
    """A tensor's numbers; NumPy has no bfloat16, so that what is narrower than float32 goes as float32."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return np.asarray(x.detach().to("cpu", wide).numpy())


def _stacked(pictures: list[np.ndarray], like: torch.Tensor) -> torch.Tensor:
    """Pictures (1, H, W, C) as a tensor (B, C, H, W) with the dtype and the device of another."""
    if not pictures:  # an empty batch has none
        return torch.empty_like(like)
    dtype = np.float64 if like.dtype == torch.float64 else np.float32
    stack = np.moveaxis(np.concatenate(pictures), -1, 1).astype(dtype)
    return torch.from_numpy(np.ascontiguousarray(stack)).to(like)


def _levels(sigma: Any, count: int) -> list[float | None]:
    """Noise level of each of ``count`` images; None where it is to be estimated."""
    if sigma is None:
        return [None] * count
    values = sigma.detach().cpu().double().numpy() if isinstance(sigma, torch.Tensor) else np.asarray(sigma)
    if values.dtype.kind not in "iuf":
        raise TypeError(f"sigma must be real numbers, got {sigma!r}")
    if values.size not in (1, count):
        raise ValueError(f"sigma must be one value or {count}, one for each image, got {values.size}")
    return [float(level) for level in np.broadcast_to(values.reshape(-1), (count,))]
