"""Exact neural tangent kernels of convolutional denoisers over all pairs of pixels of an image, matrix-free.

``NTK(network, image)`` is the kernel as a linear operator; ``gradient_descent``, ``gradient_flow`` and ``ridge`` are
the filters that it defines; ``denoise_ntk`` is the denoiser made of them, and ``restore`` what they make of incomplete,
blurred or coarse data.  See README.md and docs/.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# What type checkers see: a star stands for the module's own __all__.
if TYPE_CHECKING:
    from .activations import GELU, Abs, Cos, Erf, LeakyReLU, ReLU, Sin
    from .engine.info import __version__, info
    from .engine.roofline import *
    from .finite.from_torch import *
    from .inputs import *
    from .kernel import *
    from .network import *
    from .restoration.denoise import *
    from .restoration.inverse import *
    from .restoration.operators import blurring, downsampling, inpainting
    from .restoration.stabilize import *
    from .spectral.filters import *
    from .spectral.lowrank import *

# Spelt out for type checkers.  from_torch is left out, so that ``from ntkfast import *`` does not need torch.
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
    "roofline",
    "unet",
    "vanilla_cnn",
]

# Everything is imported at first use.  scipy.sparse.linalg and torch take longer to import than all the rest together;
# and while the command line imports even NumPy, it must be able to say that Ctrl-C interrupted it (_entry.py).
_MODULES = {
    "activations": ("GELU", "Abs", "Cos", "Erf", "LeakyReLU", "ReLU", "Sin"),
    "engine.info": ("__version__", "info"),
    "engine.roofline": ("roofline",),
    "finite.from_torch": ("from_torch",),
    "restoration.denoise": ("DenoiseInfo", "denoise_ntk"),
    "spectral.filters": ("FilterInfo", "gradient_descent", "gradient_flow", "ridge"),
    "inputs": ("NoiseInput",),
    "restoration.inverse": ("RestoreInfo", "restore"),
    "kernel": ("NTK",),
    "spectral.lowrank": ("ErrorEstimate", "LowRank", "nystrom", "randomized"),
    "network": (
        "AvgPool", "Conv", "Identity", "Network", "Skip", "Upsample", "autoencoder", "unet", "vanilla_cnn",
    ),
    "restoration.operators": ("blurring", "downsampling", "inpainting"),
    "restoration.stabilize": ("PoissonGaussian",),
}  # fmt: skip
_LAZY = {name: module for module, names in _MODULES.items() for name in names}

# Modules with names that the package itself does not have; deepinv and finite need PyTorch.
_SUBMODULES = ("deepinv", "finite", "reference")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f".{name}", __name__)
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_SUBMODULES})
