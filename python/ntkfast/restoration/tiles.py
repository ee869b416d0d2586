"""Overlapping tiles of a stack of images, and blending them back."""

from __future__ import annotations

import numpy as np

__all__ = ["Tiling"]


class Tiling:
    """Overlapping tiles that cover every pixel of images of one shape.

    Parameters
    ----------
    shape : (n, H, W)
        Number of images and their size.
    size, overlap : int
        Side of the tiles and how much neighbours share, in pixels, 0 <= overlap < size.  An image smaller than a tile
        is one tile.

    Attributes
    ----------
    tile_shape : (int, int)
    count : int
        Tiles in all.
    """

    def __init__(self, shape: tuple[int, int, int], size: int, overlap: int) -> None:
        self.shape = shape
        self.tile_shape = (min(size, shape[1]), min(size, shape[2]))
        rows = _starts(shape[1], self.tile_shape[0], size - overlap)
        cols = _starts(shape[2], self.tile_shape[1], size - overlap)
        last = (shape[1] - self.tile_shape[0], shape[2] - self.tile_shape[1])
        shifts = _shifts(len(rows), len(cols), min(overlap, size - overlap) // 3)
        grid = [
            (min(rows[r] + dy, last[0]), min(cols[c] + dx, last[1]))
            for r, line in enumerate(shifts.tolist())
            for c, (dy, dx) in enumerate(line)
        ]
        self.places = [(n, y, x) for n in range(shape[0]) for y, x in grid]
        self.count = len(self.places)
        self._window = np.outer(*(_window(side) for side in self.tile_shape))[:, :, None]

    def extract(self, images: np.ndarray, which: slice = slice(None)) -> np.ndarray:
        """Tiles of ``images`` (n, H, W, C): (count, h, w, C), or those of the slice ``which``."""
        h, w = self.tile_shape
        return np.stack([images[n, y : y + h, x : x + w] for n, y, x in self.places[which]])

    def accumulator(self, channels: int) -> np.ndarray:
        """Zeros to which :meth:`add` adds; the last channel gathers the weights."""
        return np.zeros((*self.shape, channels + 1))

    def add(self, sums: np.ndarray, tiles: np.ndarray, which: slice) -> None:
        """Adds the tiles of the slice ``which``, weighted by the window."""
        h, w = self.tile_shape
        for tile, (n, y, x) in zip(tiles, self.places[which], strict=True):
            place = sums[n, y : y + h, x : x + w]
            place[..., :-1] += self._window * tile
            place[..., -1:] += self._window

    def coverage(self) -> np.ndarray:
        """Sum of the windows of all tiles at each pixel, (n, H, W, 1): what blending divides by."""
        sums = self.accumulator(0)
        self.add(sums, np.zeros((self.count, *self.tile_shape, 0)), slice(None))
        return sums

    def windowed(self, tiles: np.ndarray) -> np.ndarray:
        """Tiles (count, h, w, C) times the window."""
        return np.asarray(self._window * tiles)

    def scatter(self, images: np.ndarray, tiles: np.ndarray, which: slice) -> None:
        """Adds the tiles of the slice ``which`` to images (n, H, W, C), without windows: the transpose of extract."""
        h, w = self.tile_shape
        for tile, (n, y, x) in zip(tiles, self.places[which], strict=True):
            images[n, y : y + h, x : x + w] += tile

    @staticmethod
    def blend(sums: np.ndarray) -> np.ndarray:
        """Weighted means, (n, H, W, C)."""
        return np.asarray(sums[..., :-1] / sums[..., -1:])


def _starts(length: int, size: int, stride: int) -> list[int]:
    """First pixels of the tiles along one axis; the last tile ends with the image."""
    return [*range(0, length - size, stride), length - size]


def _shifts(rows: int, cols: int, most: int) -> np.ndarray:
    """By how much each tile is moved off the grid, up to ``most`` pixels along both axes: integers (rows, cols, 2).

    Rows of tiles are moved along the columns, and columns along the rows.  On a grid, what tiles do in their middle,
    where a slope changes its sign, would add up to lines: on a smooth picture the error could jump 1.5 times as far
    between the middle pixels of tiles as elsewhere (``test_a_plain_grid_would_leave_lines``), and with the shifts by no
    more than 1.25 times (``test_no_lines_on_a_smooth_image``).  Random shifts would do the same, but leave places where
    few tiles overlap.

    The outermost tiles stay at the borders, and all images have the same shifts.
    """
    cycle = np.array([0, most, -(most // 2), most // 2, -most])
    shifts = np.empty((rows, cols, 2), dtype=int)
    shifts[..., 0] = cycle[np.arange(cols) % len(cycle)]
    shifts[..., 1] = cycle[np.arange(rows) % len(cycle), None]
    shifts[[0, -1], :, 0] = 0
    shifts[:, [0, -1], 1] = 0
    return shifts


def _window(side: int) -> np.ndarray:
    """Half a sine wave: a tile's border knows the pixels on one side only, and weighs little."""
    return np.asarray(np.sin(np.pi * (np.arange(side) + 0.5) / side))
