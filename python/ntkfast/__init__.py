"""Exact neural tangent kernels of convolutional denoisers over all pairs of pixels of an image, matrix-free.

``NTK(network, image)`` is the kernel as a linear operator; ``gradient_descent``, ``gradient_flow`` and ``ridge`` are
the filters that it defines; ``denoise_ntk`` is the denoiser made of them, and ``restore`` what they make of incomplete,
blurred or coarse data.  See README.md and docs/.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._info import __version__, info
    from .convert import from_torch as from_torch
    from .denoise import DenoiseInfo, denoise_ntk
    from .filters import FilterInfo, gradient_descent, gradient_flow, ridge
    from .inputs import NoiseInput
    from .inverse import RestoreInfo, restore
    from .kernel import NTK
    from .lowrank import ErrorEstimate, LowRank, nystrom, randomized
    from .network import (
        GELU,
        Abs,
        AvgPool,
        Conv,
        Cos,
        Erf,
        Identity,
        LeakyReLU,
        Network,
        ReLU,
        Sin,
        Skip,
        Upsample,
        autoencoder,
        unet,
        vanilla_cnn,
    )
    from .operators import blurring, downsampling, inpainting
    from .stabilize import PoissonGaussian

__all__ = [
    "GELU",
    "NTK",
    "Abs",
    "AvgPool",
    "Conv",
    "Cos",
    "DenoiseInfo",
    "Erf",
    "ErrorEstimate",
    "FilterInfo",
    "Identity",
    "LeakyReLU",
    "LowRank",
    "Network",
    "NoiseInput",
    "PoissonGaussian",
    "ReLU",
    "RestoreInfo",
    "Sin",
    "Skip",
    "Upsample",
    "__version__",
    "autoencoder",
    "blurring",
    "denoise_ntk",
    "downsampling",
    "gradient_descent",
    "gradient_flow",
    "info",
    "inpainting",
    "nystrom",
    "randomized",
    "restore",
    "ridge",
    "unet",
    "vanilla_cnn",
]

# Everything is imported at first use.  scipy.sparse.linalg and torch take longer to import than all the rest together;
# and while the command line imports even NumPy, it must be able to say that Ctrl-C interrupted it (_entry.py).
# from_torch is not in __all__, so that ``from ntkfast import *`` does not need torch.
_LAZY = {
    "PoissonGaussian": "stabilize",
    "NTK": "kernel",
    "DenoiseInfo": "denoise",
    "ErrorEstimate": "lowrank",
    "FilterInfo": "filters",
    "LowRank": "lowrank",
    "RestoreInfo": "inverse",
    "blurring": "operators",
    "denoise_ntk": "denoise",
    "downsampling": "operators",
    "from_torch": "convert",
    "gradient_descent": "filters",
    "gradient_flow": "filters",
    "nystrom": "lowrank",
    "randomized": "lowrank",
    "inpainting": "operators",
    "restore": "inverse",
    "ridge": "filters",
    "NoiseInput": "inputs",
    "__version__": "_info",
    "info": "_info",
    **dict.fromkeys(
        (
            "GELU", "Abs", "AvgPool", "Conv", "Cos", "Erf", "Identity", "LeakyReLU", "Network", "ReLU", "Sin", "Skip",
            "Upsample", "autoencoder", "unet", "vanilla_cnn",
        ),
        "network",
    ),
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_LAZY})
