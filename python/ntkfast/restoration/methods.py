"""The methods of the denoiser by name: a method is a room with a :class:`Method`, and a line here."""

from __future__ import annotations

from collections.abc import Callable

from .image_filter import Method
from .options import Areas, Compute, Training
from .tile_filter import TileMethod
from .whole_filter import WholeMethod

__all__ = ["METHODS"]

# Each makes the method for a picture (1, H, W, C) of that shape.
METHODS: dict[str, Callable[[Areas, Training, Compute, tuple[int, ...]], Method]] = {
    "tiles": TileMethod.of,
    "exact": WholeMethod.exact,
    "nystrom": WholeMethod.nystrom,
}
