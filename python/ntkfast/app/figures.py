"""The figure by which a denoiser explains itself: the filter weights of one pixel, drawn over the picture.

matplotlib is an optional dependency (``pip install ntkfast[plot]``), imported on first use.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

__all__ = ["FIGURE_FORMATS", "MARK", "affinity_figure", "check_available", "displayed", "render"]

FIGURE_FORMATS = {".png": "png", ".pdf": "pdf", ".svg": "svg"}

FAINTEST = 0.55  # gray level of black in the faint picture; white stays 1
MARK = "#00c000"  # green: in none of the colour scales


def check_available() -> None:
    """Raise ImportError that names the remedy if matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError("drawing needs matplotlib, which is not installed: pip install ntkfast[plot]") from error


def affinity_figure(
    picture: np.ndarray,
    weights: np.ndarray,
    row: int,
    col: int,
    *,
    value_range: tuple[float, float] | None = None,
    patch: int | None = None,
    title: str | None = None,
    origin: tuple[int, int] = (0, 0),
) -> Figure:
    """Draw a picture with one pixel marked, and beside it the filter weights of that pixel.

    Parameters
    ----------
    picture : ndarray, shape (H, W) or (H, W, C)
        Shown in colour for C = 3, else in gray.
    weights : ndarray of float, shape (H, W)
        Row of the kernel matrix that belongs to the pixel, as :meth:`NTK.affinity` gives it.  Drawn divided by the
        pixel's own weight, so that this one is 1.
    row, col : int
        The pixel.
    value_range : (float, float), optional
        Values of ``picture`` shown black and white; its least and greatest by default.
    patch : int, optional
        Side in pixels of the patch that the network compares; outlined if given.
    title : str, optional
        A second line above both panels, such as the network.
    origin : (int, int)
        Row and column, in a larger picture, of the first pixel of ``picture`` if it is a crop: all that is written, the
        pixel's place and the axes, then counts from the larger picture's first pixel.

    Returns
    -------
    matplotlib.figure.Figure
        Tied to no window and no global state.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If ``weights`` is not finite, has another size than ``picture``, or is not positive at the pixel.
    """
    shape = picture.shape[:2]
    if weights.shape != shape:
        raise ValueError(f"weights must have the picture's shape {shape}, got {weights.shape}")
    if not (0 <= row < shape[0] and 0 <= col < shape[1]):
        raise ValueError(f"the pixel must lie within {shape[0]} rows and {shape[1]} columns, got ({row}, {col})")
    own = float(weights[row, col])
    if not (np.isfinite(weights).all() and own > 0):
        raise ValueError(
            f"weights must be finite, and positive at the pixel itself, got {own} at ({row}, {col}); "
            "the weights of a patch of zeros are all 0"
        )
    check_available()
    from matplotlib.figure import Figure

    figure = Figure(figsize=_size(*shape), layout="compressed")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    shown = displayed(picture, value_range)
    row, col = origin[0] + row, origin[1] + col
    # Edges of the picture: left, right, bottom, top; the centres of pixels have whole coordinates.
    extent = (origin[1] - 0.5, origin[1] + shape[1] - 0.5, origin[0] + shape[0] - 0.5, origin[0] - 0.5)
    left.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=extent)
    left.set_title("picture")
    _draw_weights(right, shown, weights / own, extent)
    right.set_title("filter weights")
    for axes in (left, right):
        _mark(axes, row, col, patch)
        axes.set_xlabel("column")
    left.set_ylabel("row")
    figure.suptitle("\n".join(filter(None, (f"pixel at row {row}, column {col}", title))), fontsize="medium")
    return figure


def render(figure: Figure, form: str) -> bytes:
    """Return the figure as the content of a file; ``form`` is "png", "pdf" or "svg"."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=150, bbox_inches="tight")
    return buffer.getvalue()


def _size(height: int, width: int) -> tuple[float, float]:
    """Size in inches of a figure with two panels of this shape, a colour scale, titles and labels."""
    aspect = width / height
    panel_width, panel_height = (5.0, 5.0 / aspect) if aspect > 1 else (5.0 * aspect, 5.0)
    return 2 * max(panel_width, 2.8) + 1.9, max(panel_height, 2.0) + 1.2


def displayed(picture: np.ndarray, value_range: tuple[float, float] | None) -> np.ndarray:
    """Return the picture in 0..1, (H, W) gray or (H, W, 3) colour."""
    shown = np.asarray(picture, dtype=np.float64)
    if shown.ndim == 3 and shown.shape[2] != 3:
        shown = shown.mean(axis=2)
    low, high = value_range or (float(shown.min()), float(shown.max()))
    return np.clip((shown - low) / ((high - low) or 1.0), 0.0, 1.0)


def _draw_weights(
    axes: Axes, shown: np.ndarray, weights: np.ndarray, extent: tuple[float, float, float, float]
) -> None:
    """Draw the picture in faint gray and the weights over it, the more opaque the larger."""
    gray = shown if shown.ndim == 2 else shown @ (0.299, 0.587, 0.114)
    faint = FAINTEST + (1 - FAINTEST) * gray
    axes.imshow(faint, cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=extent)
    # A symmetric scale where weights of both signs matter, so that the colour tells the sign.  Rounding alone makes
    # tiny negative weights.
    largest = float(np.abs(weights).max())
    signed = float(weights.min()) < -1e-6 * largest
    low = -largest if signed else 0.0
    overlay = axes.imshow(
        weights, cmap=_weight_colours(signed), vmin=low, vmax=largest, interpolation="nearest", extent=extent
    )
    bar = axes.figure.colorbar(overlay, ax=axes, shrink=0.85)
    bar.set_label(r"weight / the pixel's own" "\n" r"$\Theta(i,j)\,/\,\Theta(i,i)$")


def _weight_colours(signed: bool) -> Colormap:
    """A perceptual colour scale that is transparent at 0."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    colours = colormaps["RdBu_r" if signed else "plasma_r"](np.linspace(0, 1, 255))
    size = np.abs(np.linspace(-1 if signed else 0, 1, 255))
    colours[:, 3] = np.minimum(1.0, 3.0 * size)
    return ListedColormap(colours, name="weights")


def _mark(axes: Axes, row: int, col: int, patch: int | None) -> None:
    """Mark the pixel by a cross, and outline its patch."""
    from matplotlib.patches import Rectangle

    axes.autoscale(False)  # the patch of a pixel near the border reaches out of the picture
    if patch is not None:
        corner = (col - patch / 2, row - patch / 2)
        axes.add_patch(Rectangle(corner, patch, patch, fill=False, edgecolor=MARK, linewidth=1.2))
    axes.plot(col, row, marker="+", markersize=9, markeredgewidth=1.2, color=MARK)
