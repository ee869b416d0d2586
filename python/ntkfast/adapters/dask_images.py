"""Dask's arrays, which are refused: loading one as a whole is what it is there to avoid."""

from __future__ import annotations

from typing import Any, NoReturn

from ..images import Images

__all__ = ["DaskImages"]


class DaskImages(Images):
    """Arrays whose numbers do not exist before they are asked for."""

    def to_array(self, name: str, value: Any) -> NoReturn:
        raise TypeError(
            f"{name} is a dask array, which would be loaded whole: give {name}.compute(), or denoise it block by block "
            "with dask.array.map_overlap(ntkfast.denoise_ntk, ...)"
        )

    def restored(self, result: Any, like: Any) -> NoReturn:
        raise TypeError("a dask array is never taken, so that there is no result of its kind")
