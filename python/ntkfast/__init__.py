"""Exact neural tangent kernels of convolutional denoisers over all pairs of pixels of an image, matrix-free.

``NTK(network, image)`` is the kernel as a linear operator; ``gradient_descent``, ``gradient_flow`` and ``ridge`` are
the filters that it defines; ``denoise_ntk`` is the denoiser made of them, and ``restore_ntk`` what they make of
incomplete, blurred or coarse data.  See README.md and docs/.
"""

import lazy_loader as _lazy

# The names stand in __init__.pyi, and each is imported at its first use.  scipy.sparse.linalg and torch take longer to
# import than all the rest together; and while the command line imports even NumPy, it must be able to say that Ctrl-C
# interrupted it (app/entry.py).
__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)

# ``from ntkfast import *`` must not need PyTorch.
__all__ = [name for name in __all__ if name not in ("deepinv", "finite", "from_torch")]
