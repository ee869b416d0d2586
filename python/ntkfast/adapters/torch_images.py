"""PyTorch's tensors, of the host or of any device.  Results are tensors on the same device, without gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..engine.torch_arrays import require_no_gradient
from ..images import Images

__all__ = ["TorchImages"]

# NumPy has no bfloat16; float32 holds every number of either type.
HALVES = (torch.float16, torch.bfloat16)


class TorchImages(Images):
    """Tensors; those that record gradients are refused, as the gradients would be lost without a word."""

    def to_array(self, name: str, value: torch.Tensor) -> Any:
        require_no_gradient(value)
        if value.layout != torch.strided:
            raise TypeError(f"{name} must be a dense tensor, got layout {value.layout}: give {name}.to_dense()")
        tensor = value.detach()
        tensor = tensor.float() if tensor.dtype in HALVES else tensor
        # A tensor of CUDA is taken where it lies, or copied to the host, by engine/arrays.py.
        return tensor if tensor.device.type == "cuda" else tensor.cpu().resolve_conj().resolve_neg().numpy()

    def restored(self, result: Any, like: torch.Tensor) -> torch.Tensor:
        tensor = result if isinstance(result, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(result))
        return tensor.to(like.device)
