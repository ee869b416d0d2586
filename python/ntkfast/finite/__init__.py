"""Networks of finite width in PyTorch: what the kernels describe the limit of.  Needs ``torch``.

Use them to watch real training next to the closed form, and to check the closed form: as the width grows, the
empirical tangent kernel of :func:`to_torch`'s network tends to the kernel of the :class:`~ntkfast.network.Network`,
with a random error that falls as one over the square root of the width.

- :func:`to_torch` makes a random network of a description (``modules.py``);
- :func:`train` fits it to an image, and records what the closed form predicts (``training.py``);
- :func:`empirical_ntk` is its tangent kernel at its present weights, as an operator (``empirical.py``).
"""

try:
    import torch  # noqa: F401
except ImportError as error:  # pragma: no cover - depends on the installation
    raise ImportError("ntkfast.finite and from_torch need PyTorch: install it with `pip install torch`") from error

from .empirical import EmpiricalNTK, empirical_ntk
from .modules import NTKConv2d, NTKGraph, to_torch
from .training import Record, Training, train

__all__ = ["EmpiricalNTK", "NTKConv2d", "NTKGraph", "Record", "Training", "empirical_ntk", "to_torch", "train"]
