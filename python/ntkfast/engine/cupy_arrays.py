"""CuPy is imported only where a filter on a device wants arrays there: who has its arrays has imported it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

import numpy as np

from .arrays import DeviceArrays

__all__ = ["CuPyArrays", "cupy_arrays"]


class CuPyArrays(DeviceArrays):
    """These are CuPy's arrays on one device."""

    @classmethod
    def of(cls, _: Any, device: str) -> CuPyArrays:
        """Return the operations for an array."""
        return cls(sys.modules["cupy"], device)

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
        context: AbstractContextManager[Any] = self._module.cuda.Device(self._number)
        return context

    def reusable(self) -> int:
        with self.current():
            return int(self._module.get_default_memory_pool().free_bytes())


def cupy_arrays(device: str) -> CuPyArrays | None:
    """Return CuPy's arrays on a device, which a filter of arrays of the host keeps there; None without CuPy."""
    try:
        return CuPyArrays(import_module("cupy"), device)
    except ImportError:
        return None
