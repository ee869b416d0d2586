"""The denoiser as one of the library deepinv (deepinv.github.io), for its plug-and-play optimisers.

Importing this module imports PyTorch and deepinv; nothing else in ntkfast imports deepinv.
"""

from __future__ import annotations

import inspect
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
except RuntimeError as error:  # what torchvision raises where its operators do not load
    raise ImportError(
        f"ntkfast.deepinv: deepinv cannot be imported ({error}).  "
        "It needs a torchvision that fits the installed PyTorch (CPU with CPU, CUDA with CUDA)"
    ) from error

from .restoration.denoise import denoise_ntk

__all__ = ["NTKDenoiser"]

# What forward itself gives to denoise_ntk.
GIVEN_BY_FORWARD = ("image", "sigma", "channel_axis", "full_output")


class NTKDenoiser(Denoiser):  # type: ignore[misc]  # deepinv has no types
    """:func:`ntkfast.denoise_ntk` in the form of a :class:`deepinv.models.Denoiser`.

    Every image of a batch is denoised by itself, on the CPU or, as the option ``device`` says, with kernels computed on
    a card; it has no weights and learns from that image alone.  **It is not differentiable**: the input is detached,
    and the result requires no gradient.  So it fits the optimisers of deepinv as they are, but not unfolded ones that
    train through the denoiser, and not losses that differentiate it.

    Parameters
    ----------
    **options
        Of :func:`ntkfast.denoise_ntk`, with its defaults: ``network``, ``steps``, ``tile_size``, ``refine``,
        ``threads``, ...  ``device`` is the option of ``denoise_ntk``, not where tensors live.  With ``steps`` given the
        stopping rule is not run, which takes most of the time; sigma then no longer matters.

    Raises
    ------
    TypeError
        If an option is unknown to ``denoise_ntk``, or is one that ``forward`` gives.  Values are checked at the first
        image.

    Examples
    --------
    >>> prior = deepinv.optim.PnP(denoiser=NTKDenoiser())                   # doctest: +SKIP
    """

    def __init__(self, **options: Any) -> None:
        known = [name for name in inspect.signature(denoise_ntk).parameters if name not in GIVEN_BY_FORWARD]
        for name in options:
            if name not in known:
                raise TypeError(f"options of NTKDenoiser must be among {', '.join(known)}, got {name!r}")
        super().__init__()
        self.options = options

    def extra_repr(self) -> str:
        """What ``print`` shows between the parentheses."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())

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
            Shape, dtype and device of x; without gradient.

        Raises
        ------
        TypeError, ValueError
            If x is no such tensor, sigma has another number of values, or ``denoise_ntk`` refuses a value.
        """
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"x must be a torch.Tensor, got {type(x).__name__}")
        if not x.is_floating_point():
            raise TypeError(f"x must have a real floating dtype, got {x.dtype}")
        if x.ndim != 4:
            raise ValueError(f"x must have the shape (B, C, H, W), got {tuple(x.shape)}")
        levels = _levels(sigma, len(x))
        # NumPy has no bfloat16: what is narrower than float32 goes as float32.
        images = x.detach().to("cpu", torch.float64 if x.dtype == torch.float64 else torch.float32).numpy()
        results = np.empty_like(images)
        for n, (image, level) in enumerate(zip(images, levels, strict=True)):
            results[n] = denoise_ntk(image, level, channel_axis=0, **self.options)
        return torch.from_numpy(results).to(x)


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
