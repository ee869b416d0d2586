"""Arrays of the host and of a GPU: the few operations of the filters, on whatever the caller's arrays are.

``namespace(x)`` says what ``x`` is: NumPy's (anything in the host's memory), CuPy's, or PyTorch's on a GPU.  Neither
CuPy nor PyTorch is imported unless an array is one of theirs, or a filter on a GPU wants CuPy for what it keeps there.

In a build whose CUDA engine is emulated (tests), the device's memory is the host's: PyTorch's tensors on the CPU are
device arrays there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from .. import _core

__all__ = ["NUMPY", "Arrays", "cupy_arrays", "namespace", "to_host"]

# Device types of DLPack (dlpack.h): the host; CUDA's own memory, and managed memory.
DLPACK_CPU = (1,)
DLPACK_CUDA = (2, 13)


class Arrays:
    """What the filters do with arrays, on NumPy's; CuPy's and PyTorch's differ where they must.

    Arrays are real and of two or more dimensions, unless a method says otherwise.

    Attributes
    ----------
    device : int or None
        Number of the device whose memory holds the arrays; None for the host's.
    """

    device: int | None = None
    _module: ModuleType = np

    def asarray(self, value: Any, dtype: Any) -> Any:
        """``value``, of this kind or NumPy's, as an array of this kind and dtype, a copy only where it must be one."""
        return self._module.asarray(value, dtype=np.dtype(dtype))

    def to_host(self, array: Any) -> np.ndarray:
        """A NumPy array of the same dtype."""
        return np.asarray(array)

    def contiguous(self, array: Any) -> Any:
        return self._module.ascontiguousarray(array)

    def empty_like(self, array: Any) -> Any:
        return self._module.empty_like(array)

    def zeros(self, shape: Sequence[int], dtype: Any) -> Any:
        return self._module.zeros(tuple(shape), dtype=np.dtype(dtype))

    def concatenate(self, arrays: Sequence[Any], axis: int) -> Any:
        return self._module.concatenate(arrays, axis=axis)

    def stack(self, arrays: Sequence[Any]) -> Any:
        return self._module.stack(arrays)

    def transposed(self, array: Any) -> Any:
        """The last two axes exchanged."""
        return array.swapaxes(-1, -2)

    def qr(self, array: Any) -> tuple[Any, Any]:
        """Reduced QR decomposition of each matrix of a stack."""
        q, r = self._module.linalg.qr(array)
        return q, r

    def squares(self, array: Any) -> np.ndarray:
        """Sum of squares of each item of a stack (batch, m, n), in double precision: NumPy (batch,)."""
        wide = array.astype(np.float64)
        return self.to_host((wide * wide).sum(axis=(1, 2)))

    def largest(self, array: Any) -> float:
        """Largest magnitude; 0 of an empty array."""
        return float(abs(array).max()) if array.size else 0.0

    def kind(self, array: Any) -> str:
        """NumPy's letter for the kind of the dtype: "f", "i", "u", "b", "c"."""
        return str(array.dtype.kind)

    def not_finite(self, array: Any) -> int:
        """How many values are NaN or infinite."""
        return int(array.size) - int(self._module.isfinite(array).sum())

    def address(self, array: Any) -> tuple[int, tuple[int, ...], int]:
        """Address, shape and device of a contiguous device array, as the engine takes them."""
        raise NotImplementedError("arrays of the host have no device")

    def stream(self) -> int:
        """The caller's current stream on the device, as an integer."""
        return 0

    def current(self) -> AbstractContextManager[Any]:
        """Within it, new arrays are made on the device."""
        return nullcontext()

    def reusable(self) -> int:
        """Bytes of the device that the library holds free for its next arrays."""
        return 0


NUMPY = Arrays()


class CuPyArrays(Arrays):
    """CuPy's arrays on one device."""

    def __init__(self, module: ModuleType, device: int) -> None:
        self._module, self.device = module, device

    def asarray(self, value: Any, dtype: Any) -> Any:
        with self.current():
            return super().asarray(value, dtype)

    def zeros(self, shape: Sequence[int], dtype: Any) -> Any:
        with self.current():
            return super().zeros(shape, dtype)

    def to_host(self, array: Any) -> np.ndarray:
        return np.asarray(self._module.asnumpy(array))

    def address(self, array: Any) -> tuple[int, tuple[int, ...], int]:
        return int(array.data.ptr), tuple(array.shape), int(array.device.id)

    def stream(self) -> int:
        with self.current():
            return int(self._module.cuda.get_current_stream().ptr)

    def current(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self._module.cuda.Device(self.device)
        return context

    def reusable(self) -> int:
        with self.current():
            return int(self._module.get_default_memory_pool().free_bytes())


class TorchArrays(Arrays):
    """PyTorch's tensors on one device, without gradients."""

    def __init__(self, module: ModuleType, torch_device: Any, device: int) -> None:
        self._module, self.device = module, device
        self._torch_device = torch_device

    def _dtype(self, dtype: Any) -> Any:
        return getattr(self._module, np.dtype(dtype).name)

    def asarray(self, value: Any, dtype: Any) -> Any:
        tensor = self._module.as_tensor(value, dtype=self._dtype(dtype), device=self._torch_device)
        if tensor.requires_grad:
            raise TypeError("tensors that record gradients are not differentiated through: give tensor.detach()")
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
        return int(array.data_ptr()), tuple(array.shape), int(self.device or 0)

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


def emulated() -> bool:
    """Whether the CUDA engine is emulated on the host."""
    return bool(_core.cuda_backend() == "emulation")


def namespace(value: Any) -> Arrays:
    """The operations for ``value``, on its device; NUMPY for all that is in the host's memory.

    Raises
    ------
    TypeError
        If it is in the memory of a GPU, and neither CuPy's nor PyTorch's.
    """
    device = _device_of(value)
    if device is None:
        return NUMPY
    library = type(value).__module__.partition(".")[0]
    if library == "torch":
        return TorchArrays(sys.modules["torch"], value.device, device)
    if library == "cupy":
        return CuPyArrays(sys.modules["cupy"], device)
    raise TypeError(
        f"arrays on a GPU must be CuPy's or PyTorch's, got {type(value).__module__}.{type(value).__name__}: "
        "cupy.from_dlpack(x) or torch.from_dlpack(x) makes one of it without a copy"
    )


def _device_of(value: Any) -> int | None:
    """Number of the GPU that holds ``value``; None for all else.  All libraries say so by DLPack's protocol."""
    if isinstance(value, (np.ndarray, np.generic)) or not hasattr(value, "__dlpack_device__"):
        return None
    kind, number = value.__dlpack_device__()
    return int(number) if kind in (DLPACK_CPU if emulated() else DLPACK_CUDA) else None


def cupy_arrays(device: int) -> Arrays:
    """CuPy's on a device, for what a filter of arrays of the host keeps there; NUMPY where there is no CuPy."""
    if emulated():
        return NUMPY
    try:
        return CuPyArrays(import_module("cupy"), device)
    except ImportError:
        return NUMPY


def to_host(value: Any) -> Any:
    """``value`` as a NumPy array if it lies in the memory of a GPU, else as it is."""
    arrays = namespace(value)
    return value if arrays is NUMPY else arrays.to_host(value)
