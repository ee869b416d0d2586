"""The methods of the denoiser by their option objects: a method is a room with a :class:`Method`, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .image_filter import Method
from .options import Compute, Tiles, WholeImage
from .tile_filter import TileMethod
from .whole_filter import WholeMethod

__all__ = ["METHODS"]

# Each makes the method, as an object of these options asks for it, for a picture (1, H, W, C) of that shape.
METHODS: dict[type[Any], Callable[[Any, Compute, tuple[int, ...]], Method]] = {
    Tiles: TileMethod.of,
    WholeImage: WholeMethod.of,
}
