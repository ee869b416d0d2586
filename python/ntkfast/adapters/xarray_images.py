"""xarray's DataArrays.  Results keep their dimensions, coordinates, attributes and name."""

from __future__ import annotations

from typing import Any

import xarray

from ..images import Images, opened

__all__ = ["XarrayImages"]

# A dimension of one of these names is the channel axis, for a caller who names none.
CHANNELS = ("channel", "channels", "c", "band", "bands")

# The dimension of results that are several, such as those of a filter at several times.
SEVERAL = "step"


class XarrayImages(Images):
    """DataArrays, whatever array is in them."""

    def to_array(self, name: str, value: Any) -> Any:
        if not isinstance(value, xarray.DataArray):
            raise TypeError(
                f"{name} must be an array, such as an xarray.DataArray, got an xarray.{type(value).__name__}: give one "
                "of its variables"
            )
        return opened(name, value.data)

    def channel_axis(self, value: Any) -> int | None:
        axes = [axis for axis, name in enumerate(getattr(value, "dims", ())) if name in CHANNELS]
        return axes[0] if len(axes) == 1 else None

    def restored(self, result: Any, like: xarray.DataArray) -> xarray.DataArray:
        if result.ndim != like.ndim + 1:  # an image that data in another layout were restored to
            return xarray.DataArray(result, name=like.name, attrs=like.attrs)
        sizes = dict(zip(like.dims, result.shape[1:], strict=True))
        # An image that is larger than the data it was made from has no coordinates along these sides.
        coordinates = {
            name: place
            for name, place in like.coords.items()
            if all(sizes[name] == size for name, size in place.sizes.items())
        }
        several = SEVERAL if SEVERAL not in like.dims else f"{SEVERAL}_of_{like.name or 'result'}"
        return xarray.DataArray(result, coordinates, (several, *like.dims), like.name, like.attrs)
