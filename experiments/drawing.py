"""How several experiments draw: axes over the width, weights over a picture, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.analysis import RADIUS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SATURATION = 0.4  # share of the largest weight, where the colours end: the pixel's own is far above the others


def logarithmic(axes: Any, widths: Sequence[int]) -> None:
    """Both axes logarithmic; the widths as whole numbers, other ticks in plain decimals."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(widths, [str(width) for width in widths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: decimal(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("width c (channels of each hidden layer)")
    axes.grid(alpha=0.25)


def decimal(value: float) -> str:
    """A power of ten times 1, 2 or 5 in plain decimals, as in ``0.00005``; far from 1 with an exponent."""
    if not 1e-6 <= abs(value) < 1e6:
        return f"{value:.0e}"
    return f"{value:.6f}".rstrip("0").rstrip(".")


def draw_weights(
    axes: Axes, picture: np.ndarray, weights: np.ndarray, pixel: Any, *, saturation: float = SATURATION
) -> Any:
    """Weights, over the largest of them, on the faint gray picture; returns what a colour scale is made of."""
    import matplotlib
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Rectangle

    gray = picture if picture.ndim == 2 else picture.mean(axis=2)
    axes.imshow(0.6 + 0.4 * gray, cmap="gray", vmin=0, vmax=1)
    values = np.linspace(-1, 1, 255)
    colours = matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, 255))
    colours[:, 3] = np.minimum(1.0, 3 * np.abs(values))
    relative = weights / np.abs(weights).max()
    shown = axes.imshow(relative, cmap=ListedColormap(colours), vmin=-saturation, vmax=saturation)
    axes.autoscale(False)
    side = 2 * RADIUS + 1
    corner = (pixel[1] - side / 2, pixel[0] - side / 2)
    axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="black", linewidth=0.8))
    axes.plot(pixel[1], pixel[0], "+", color="black", markersize=7, markeredgewidth=1.2)
    return shown


def display(image: np.ndarray) -> np.ndarray:
    """A picture less its mean as values 0 to 1, black and white at the clean extremes of the data."""
    low, high = np.percentile(image, (0.5, 99.5))
    return np.asarray(np.clip((image - low) / ((high - low) or 1.0), 0, 1))
