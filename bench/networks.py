"""These are timed: three networks, the picture, and the times of the prototype that the engine has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ntkfast import Conv, Network, ReLU, vanilla_cnn


def stack(convs: int, kernel_size: int) -> Network:
    """Return ``convs`` convolutions with a ReLU between any two."""
    hidden = [Conv(kernel_size), ReLU()]
    return Network([*hidden * (convs - 1), Conv(kernel_size)])


NETWORKS: dict[str, Network] = {
    "conv11": vanilla_cnn(1, 11),  # Conv 11, ReLU, Conv 1
    "three3x3": stack(3, 3),
    "six3x3": stack(6, 3),
}

# This maps (network, side of the image) to the seconds of one streaming product with three columns, by a plain C++
# prototype on two cores with AVX2.
PROTOTYPE_SECONDS: dict[tuple[str, int], float] = {
    ("conv11", 64): 0.03,
    ("conv11", 128): 0.56,
    ("conv11", 256): 4.8,
    ("three3x3", 64): 0.05,
    ("three3x3", 128): 0.53,
    ("three3x3", 256): 6.8,
    ("six3x3", 64): 0.10,
    ("six3x3", 128): 1.05,
    ("six3x3", 256): 14.2,
}
FASTER_THAN_PROTOTYPE = 1.25  # target
ROOFLINE_SHARE = 0.7  # target, at 256 x 256


def picture(size: int) -> np.ndarray:
    """Return a colour photograph cropped around the face, less its mean in every channel: float64 (size, size, 3)."""
    import skimage.data  # here, not above: what measures memory imports this file and must stay small

    photograph = skimage.data.astronaut() / 255.0
    if not 1 <= size <= len(photograph):
        raise ValueError(f"size must lie between 1 and {len(photograph)}, got {size}")
    row, col = (int(np.clip(centre - size // 2, 0, len(photograph) - size)) for centre in (110, 225))
    x = photograph[row : row + size, col : col + size]
    return np.asarray(x - x.mean(axis=(0, 1)))


def pairs(size: int) -> int:
    """Count unordered pairs of distinct pixels of a square image."""
    return size**2 * (size**2 - 1) // 2


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of text: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return ["  ".join(_cells(row, widths)) for row in (head, *rows)]


def _cells(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *others = zip(row, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
