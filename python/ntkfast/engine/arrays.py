"""Arrays of the host and of devices have these few operations for the filters, whatever the caller's arrays are.

``namespace(x)`` says what ``x`` is: NumPy's (anything in the host's memory), or that of the library that made ``x`` on
a device.  Libraries are known by the top-level name of their types' module (:func:`register_arrays`), and none of them
is imported here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import numpy as np

from .program import Progress

__all__ = [
    "HOST",
    "NUMPY",
    "Arrays",
    "DeviceArrays",
    "in_memory_of_host",
    "namespace",
    "register_arrays",
    "register_memory",
    "to_host",
]

HOST = "cpu"  # the device whose memory is the host's
DLPACK_HOST = 1  # the same in DLPack's numbers


class Arrays:
    """This has what the filters do with arrays, for NumPy's; those of other libraries differ where they must.

    Arrays are real and of two or more dimensions, unless a method says otherwise.

    Attributes
    ----------
    device : str
        Name of the device whose memory holds the arrays, "cpu" or "cuda:0" say.
    """

    device = HOST
    _module: ModuleType = np

    def asarray(self, value: Any, dtype: Any) -> Any:
        """Return ``value``, of this kind or NumPy's, as an array of this kind and dtype; copy only where it must be."""
        return self._module.asarray(value, dtype=np.dtype(dtype))

    def to_host(self, array: Any) -> np.ndarray:
        """Return a NumPy array of the same dtype."""
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

    def moveaxis(self, array: Any, source: int, destination: int) -> Any:
        """Return the array with one axis at another place."""
        return self._module.moveaxis(array, source, destination)

    def transposed(self, array: Any) -> Any:
        """Return the array with its last two axes exchanged."""
        return array.swapaxes(-1, -2)

    def qr(self, array: Any) -> tuple[Any, Any]:
        """Return the reduced QR decomposition of each matrix of a stack."""
        q, r = self._module.linalg.qr(array)
        return q, r

    def squares(self, array: Any) -> np.ndarray:
        """Return the sum of squares of each item of a stack (batch, m, n), in double precision: NumPy (batch,)."""
        wide = array.astype(np.float64)
        return self.to_host((wide * wide).sum(axis=(1, 2)))

    def largest(self, array: Any) -> float:
        """Return the largest magnitude; 0 for an empty array."""
        return float(abs(array).max()) if array.size else 0.0

    def kind(self, array: Any) -> str:
        """Return NumPy's letter for the kind of the dtype: "f", "i", "u", "b", "c"."""
        return str(array.dtype.kind)

    def not_finite(self, array: Any) -> int:
        """Count the values that are NaN or infinite."""
        return int(array.size) - int(self._module.isfinite(array).sum())

    def product(self, engine: Any, v: Any, progress: Progress | None = None) -> Any:
        """Return Theta v of an engine for one image, for v (d, n) of the engine's dtype: an array of this kind."""
        return engine.product(self.contiguous(v)[:, :, None], progress)[:, :, 0]

    def current(self) -> AbstractContextManager[Any]:
        """Let new arrays be made on the device within it."""
        return nullcontext()

    def reusable(self) -> int:
        """Return the bytes of the device that the library holds free for its next arrays."""
        return 0


NUMPY = Arrays()


class DeviceArrays(Arrays):
    """Arrays in the memory of a device are taken by engines there by their address."""

    def __init__(self, module: ModuleType, device: str) -> None:
        self._module, self.device = module, device
        self._number = int(device.partition(":")[2] or 0)

    @abstractmethod
    def address(self, array: Any) -> tuple[int, tuple[int, ...], int]:
        """Return address, shape and number of the device of a contiguous array, as the engine takes them."""

    @abstractmethod
    def stream(self) -> int:
        """Return the caller's current stream on the device, as an integer."""

    def product(self, engine: Any, v: Any, progress: Progress | None = None) -> Any:
        with self.current():
            v = self.contiguous(v)
            out = self.empty_like(v)
            engine.product_on_device(self.address(v), self.address(out), stream=self.stream(), progress=progress)
            return out


# An adapter makes the operations for a value on a device of this name; adapters are found by the top-level module of a
# type.
Adapter = Callable[[Any, str], Arrays]
_adapters: dict[str, Adapter] = {}

# A Memory tells whose memory this is, by DLPack's type and number of a device: the name of the device, or None.
Memory = Callable[[int, int], "str | None"]
_memories: list[Memory] = []


def register_arrays(library: str, adapter: Adapter) -> None:
    """Let arrays of a library be taken on devices.

    Parameters
    ----------
    library : str
        Top-level name of the module of its types, "torch" say; it is not imported.  Its ``from_dlpack`` is what the
        message about arrays of other libraries offers.
    adapter : callable
        An array and the name of its device give its operations.
    """
    _adapters[library] = adapter


def register_memory(memory: Memory) -> None:
    """Let arrays in the memory of devices be recognised: DLPack's type and number give the device's name, or None."""
    _memories.append(memory)


def namespace(value: Any) -> Arrays:
    """Return the operations for ``value``, on its device; NUMPY for all that is in the host's memory.

    Raises
    ------
    TypeError
        If it is in the memory of a device, and of no library that is known.
    """
    # All libraries say where an array lies by DLPack's protocol.
    if isinstance(value, (np.ndarray, np.generic)) or not hasattr(value, "__dlpack_device__"):
        return NUMPY
    kind, number = value.__dlpack_device__()
    device = next((name for memory in _memories if (name := memory(int(kind), int(number))) is not None), None)
    if device is None:
        return NUMPY
    adapter = _adapters.get(type(value).__module__.partition(".")[0])
    if adapter is None:
        makers = " or ".join(f"{library}.from_dlpack(x)" for library in _adapters)
        raise TypeError(
            f"arrays on a GPU must be of {' or '.join(_adapters)}, got "
            f"{type(value).__module__}.{type(value).__name__}: {makers} makes one of it without a copy"
        )
    return adapter(value, device)


def in_memory_of_host(value: Any) -> bool:
    """Return whether an array that DLPack knows can be read by the host, also where it counts to an emulated device."""
    return int(value.__dlpack_device__()[0]) == DLPACK_HOST


def to_host(value: Any) -> Any:
    """Return ``value`` as a NumPy array if it lies in the memory of a device, else as it is."""
    arrays = namespace(value)
    return value if arrays is NUMPY else arrays.to_host(value)
