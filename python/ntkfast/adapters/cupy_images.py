"""CuPy's arrays, which lie on a device.  Results are CuPy's, on the same device."""

from __future__ import annotations

from typing import Any

import cupy

from ..images import Images

__all__ = ["CuPyImages"]


class CuPyImages(Images):
    """Arrays that engine/arrays.py takes where they lie, or copies to the host."""

    def to_array(self, name: str, value: Any) -> Any:
        return value

    def restored(self, result: Any, like: Any) -> Any:
        with like.device:
            return cupy.asarray(result)
