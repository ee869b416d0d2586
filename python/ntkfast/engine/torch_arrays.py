"""PyTorch is not imported here: who has a tensor has imported it.

In a build whose CUDA engine is emulated (tests), the device's memory is the host's, and tensors on the CPU are there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import numpy as np

from .arrays import DeviceArrays

__all__ = ["TorchArrays", "require_no_gradient"]


def require_no_gradient(tensor: Any) -> None:
    """Refuse a tensor whose gradient would be lost without a word."""
    if tensor.requires_grad and sys.modules["torch"].is_grad_enabled():
        raise TypeError(
            "tensors that record gradients are not differentiated through: give tensor.detach(), or call within "
            "torch.no_grad()"
        )


class TorchArrays(DeviceArrays):
    """These are PyTorch's tensors on one device, without gradients."""

    def __init__(self, module: ModuleType, torch_device: Any, device: str) -> None:
        super().__init__(module, device)
        self._torch_device = torch_device

    @classmethod
    def of(cls, tensor: Any, device: str) -> TorchArrays:
        """Return the operations for a tensor."""
        return cls(sys.modules["torch"], tensor.device, device)

    def _dtype(self, dtype: Any) -> Any:
        return getattr(self._module, np.dtype(dtype).name)

    def asarray(self, value: Any, dtype: Any) -> Any:
        tensor = self._module.as_tensor(value, dtype=self._dtype(dtype), device=self._torch_device)
        require_no_gradient(tensor)
        return tensor

    def to_host(self, array: Any) -> np.ndarray:
        return np.asarray(array.detach().cpu().numpy())

    def contiguous(self, array: Any) -> Any:
        return array.contiguous()

    def zeros(self, shape: Sequence[int], dtype: Any) -> Any:
        return self._module.zeros(tuple(shape), dtype=self._dtype(dtype), device=self._torch_device)

    def concatenate(self, arrays: Sequence[Any], axis: int) -> Any:
        return self._module.cat(list(arrays), dim=axis)

    def stack(self, arrays: Sequence[Any]) -> Any:
        return self._module.stack(list(arrays))

    def squares(self, array: Any) -> np.ndarray:
        wide = array.to(self._module.float64)
        return self.to_host((wide * wide).sum(dim=(1, 2)))

    def largest(self, array: Any) -> float:
        return float(array.abs().max()) if array.numel() else 0.0

    def kind(self, array: Any) -> str:
        if array.dtype == self._module.bool:
            return "b"
        return "f" if array.dtype.is_floating_point else "c" if array.dtype.is_complex else "i"

    def not_finite(self, array: Any) -> int:
        return int(array.numel()) - int(self._module.isfinite(array).sum())

    def address(self, array: Any) -> tuple[int, tuple[int, ...], int]:
        return int(array.data_ptr()), tuple(array.shape), self._number

    def stream(self) -> int:
        if self._torch_device.type != "cuda":
            return 0  # emulation
        return int(self._module.cuda.current_stream(self._torch_device).cuda_stream)

    def current(self) -> AbstractContextManager[Any]:
        if self._torch_device.type != "cuda":
            return nullcontext()
        context: AbstractContextManager[Any] = self._module.cuda.device(self._torch_device)
        return context

    def reusable(self) -> int:
        if self._torch_device.type != "cuda":
            return 0  # emulation
        cuda, device = self._module.cuda, self._torch_device
        return int(cuda.memory_reserved(device) - cuda.memory_allocated(device))
