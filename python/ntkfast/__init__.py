"""Exact neural tangent kernels of convolutional denoisers over all pairs of pixels of an image, matrix-free.

``NTK(network, image)`` is the kernel as a linear operator; ``gradient_descent``, ``gradient_flow`` and ``ridge`` are
the filters that it defines; ``denoise_ntk`` is the denoiser made of them.  See README.md and docs/.
"""

from ._engine import __version__, info
from .denoise import DenoiseInfo, denoise_ntk
from .filters import FilterInfo, gradient_descent, gradient_flow, ridge
from .kernel import NTK
from .network import Conv, LeakyReLU, Network, ReLU, vanilla_cnn

__all__ = [
    "NTK",
    "Conv",
    "DenoiseInfo",
    "FilterInfo",
    "LeakyReLU",
    "Network",
    "ReLU",
    "__version__",
    "denoise_ntk",
    "gradient_descent",
    "gradient_flow",
    "info",
    "ridge",
    "vanilla_cnn",
]
