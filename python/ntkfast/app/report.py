"""The page on which a denoised picture can be judged: ``ntkfast denoise IN OUT --report PAGE``.

One HTML file that holds all of its pictures and loads nothing.  matplotlib, an optional dependency (``pip install
ntkfast[plot]``), draws the figures and gives the colour scales.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from . import figures
from .figures import MARK, displayed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..restoration.denoise import DenoiseInfo
    from ..restoration.options import Tiles, WholeImage

__all__ = ["PathPoint", "choose_pixels", "method_text", "page", "psnr", "psnr_path"]

LARGEST_SIDE = 1024  # pixels; of a larger picture only every n-th is shown as a whole
CROP_SIDES = 16, 64  # least and greatest side of the zoomed crops, in pixels; between them a quarter of the picture
AFFINITY_SIDE = 128  # greatest side of the part of the picture over which filter weights are drawn
DIFFERENCE_SCALE = 3.0  # standard deviations of what was removed, at the ends of the colour scale
DIFFERENCE_COLOURS = "RdBu_r"
PATH_FACTORS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)

REGIONS = {"edge": "On an edge", "texture": "In a texture", "flat": "In a flat region"}


@dataclass(frozen=True)
class PathPoint:
    """One point of :func:`psnr_path`.

    Attributes
    ----------
    factor : float
        By which the steps of all passes were multiplied.
    steps : tuple of int
        The products, rounded, at least 1.
    psnr : float
        Decibels.
    """

    factor: float
    steps: tuple[int, ...]
    psnr: float


def psnr(picture: np.ndarray, clean: np.ndarray, peak: float | None = None) -> float:
    """PSNR of a picture in decibels, 10 log10(peak^2 / mean squared error); infinity if it equals ``clean``.

    ``peak`` is by default the range of ``clean``.
    """
    from skimage.metrics import peak_signal_noise_ratio

    peak = _range(clean) if peak is None else peak
    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(clean, picture, data_range=peak))  # type: ignore[no-untyped-call]


def _range(picture: np.ndarray) -> float:
    return float(np.ptp(picture)) or 1.0


def psnr_path(
    run: Callable[[list[int]], np.ndarray],
    steps: Sequence[int],
    result: np.ndarray,
    clean: np.ndarray,
    peak: float | None = None,
) -> list[PathPoint]:
    """PSNR against the clean picture where the steps of all passes are multiplied by 1/8 to 8.

    Parameters
    ----------
    run : callable
        Denoises with the given steps of each pass; called for each factor but 1, and for no steps twice.
    steps : sequence of int
        Steps of each pass, for a factor of 1.
    result : ndarray
        The picture denoised with ``steps``.
    clean : ndarray
        Of the same shape.
    peak : float, optional
        Of the PSNR, as in :func:`psnr`.

    Returns
    -------
    list of PathPoint
        By increasing factor; empty if ``steps`` is.
    """
    points: dict[tuple[int, ...], PathPoint] = {}
    if not steps:
        return []
    # The factor of 1 comes first: where rounding gives others the same steps, it is the one that is shown.
    for factor in sorted(PATH_FACTORS, key=lambda f: abs(np.log(f))):
        scaled = tuple(max(1, round(factor * n)) for n in steps)
        if scaled not in points:
            picture = result if factor == 1 else run(list(scaled))
            points[scaled] = PathPoint(factor, scaled, psnr(picture, clean, peak))
    return sorted(points.values(), key=lambda point: point.factor)


def choose_pixels(picture: np.ndarray, side: int) -> dict[str, tuple[int, int]]:
    """A pixel on an edge, one in a texture and one in a flat region, chosen by the structure tensor.

    The eigenvalues l1 >= l2 of the tensor, the mean of grad x grad^T over a Gaussian, tell regions apart (Harris and
    Stephens, "A combined corner and edge detector", 1988): in flat ones both are small, on edges l1 alone is large, in
    textures both are.  With a Gaussian of ``side`` / 8 pixels, the regions are those of largest l1 - l2 and of least
    l1.  The textured one has the largest mean, over the same Gaussian, of the square root of l2 for a Gaussian of one
    pixel: many small details count more there than one strong corner.  On the edge and in the texture, the pixel is
    then the one nearby of largest l1 - l2 and l2 for a Gaussian of one pixel.

    Parameters
    ----------
    picture : ndarray, shape (H, W) or (H, W, C)
        Better the result than the noisy one.
    side : int
        Of squares around the pixels that lie within the picture, and apart from each other, wherever there is room.

    Returns
    -------
    dict of (int, int)
        Row and column of "edge", "texture" and "flat"; of "flat" alone in a picture of one colour or one row.
    """
    from scipy.ndimage import gaussian_filter

    gray = displayed(picture, None)
    gray = gray if gray.ndim == 2 else gray.mean(axis=2)
    height, width = gray.shape
    if min(height, width) < 3:
        return {"flat": (height // 2, width // 2)}
    dy, dx = np.gradient(gray)

    def eigenvalues(blur: float) -> tuple[np.ndarray, np.ndarray]:
        yy, xy, xx = (gaussian_filter(product, blur) for product in (dy * dy, dx * dy, dx * dx))
        middle, spread = (yy + xx) / 2, np.hypot((yy - xx) / 2, xy)
        return middle + spread, np.maximum(middle - spread, 0.0)

    blur = max(1.0, side / 8)
    l1, l2 = eigenvalues(blur)
    fine_l1, fine_l2 = eigenvalues(1.0)
    coarse = {"edge": l1 - l2, "texture": gaussian_filter(np.sqrt(fine_l2), blur), "flat": -l1}
    fine = {"edge": fine_l1 - fine_l2, "texture": fine_l2}
    free = np.zeros((height, width), bool)
    rows, cols = (min(side // 2, (n - 1) // 2) for n in (height, width))
    free[rows : height - rows, cols : width - cols] = True
    chosen: dict[str, tuple[int, int]] = {}
    for region, score in coarse.items():
        if region != "flat" and not score.max() > 0:
            continue
        allowed = free.copy()
        if not free.any():  # no room: anywhere but on the others
            allowed[:] = True
            for at in chosen.values():
                allowed[at] = False
        row, col = divmod(int(np.argmax(np.where(allowed, score, -np.inf))), width)
        if region in fine:  # the middle of the region may lie beside the edge or detail itself
            near = _square(row, col, round(blur))
            y, x = divmod(int(np.argmax(np.where(allowed, fine[region], -np.inf)[near])), allowed[near].shape[1])
            row, col = near[0].start + y, near[1].start + x
        chosen[region] = row, col
        free[_square(row, col, side)] = False
    return chosen


def _square(row: int, col: int, reach: int) -> tuple[slice, slice]:
    """The pixels up to ``reach`` rows and columns away."""
    return slice(max(row - reach, 0), row + reach + 1), slice(max(col - reach, 0), col + reach + 1)


# ----------------------------------------------------------------------------------------------------------- the page


@dataclass(frozen=True)
class _Pictures:
    """The pictures of one page, and how they are shown."""

    noisy: np.ndarray
    result: np.ndarray
    clean: np.ndarray | None
    peak: float | None
    value_range: tuple[float, float]  # shown black and white
    limit: float  # the difference's colour scale ends there

    def gray(self, picture: np.ndarray) -> np.ndarray:
        """8 bit pixels of a picture, (h, w) or (h, w, 3)."""
        return np.asarray(np.rint(255 * displayed(picture, self.value_range)), np.uint8)

    def coloured(self, difference: np.ndarray) -> np.ndarray:
        """8 bit pixels of a difference, (h, w, 3)."""
        from matplotlib import colormaps

        place = (_mean_of_channels(difference) / self.limit + 1) / 2
        return np.asarray(np.rint(255 * colormaps[DIFFERENCE_COLOURS](np.clip(place, 0, 1))[..., :3]), np.uint8)

    def panels(self, where: tuple[slice, slice]) -> dict[str, np.ndarray]:
        """8 bit pixels of what is shown side by side, of the part ``where``, under their names."""
        noisy, result = self.noisy[where], self.result[where]
        panels = {"noisy": self.gray(noisy), "result": self.gray(result)}
        if self.clean is not None:
            panels["clean"] = self.gray(self.clean[where])
        panels["removed: noisy - result"] = self.coloured(noisy - result)
        if self.clean is not None:
            panels["left: result - clean"] = self.coloured(result - self.clean[where])
        return panels

    def psnr(self, where: tuple[slice, slice] = (slice(None), slice(None))) -> dict[str, float]:
        """PSNR of the noisy picture and the result, if the clean one is known."""
        if self.clean is None:
            return {}
        both = {"noisy": self.noisy, "result": self.result}
        return {name: psnr(picture[where], self.clean[where], self.peak) for name, picture in both.items()}


def page(
    noisy: np.ndarray,
    result: np.ndarray,
    info: DenoiseInfo,
    *,
    clean: np.ndarray | None = None,
    peak: float | None = None,
    value_range: tuple[float, float] | None = None,
    path: Sequence[PathPoint] = (),
    path_seconds: float = 0.0,
    title: str = "Denoised picture",
    facts: Mapping[str, str] | None = None,
) -> str:
    """The page, as HTML.

    Parameters
    ----------
    noisy, result : ndarray of float, shape (H, W) or (H, W, C)
        Shown in colour for C = 3, else in gray.
    info : DenoiseInfo
        What the denoiser did.
    clean : ndarray, optional
        The picture without noise: adds it, what is left of the noise, and the PSNR.
    peak : float, optional
        Of the PSNR, as in :func:`psnr`.
    value_range : (float, float), optional
        Values shown black and white; by default the least and greatest of ``result``.
    path : sequence of PathPoint
        As :func:`psnr_path` gives it; drawn if there are some.
    path_seconds : float
        What it took.
    title : str
    facts : mapping of str to str, optional
        More lines of the table of what was done, or others in place of those of the same name.

    Returns
    -------
    str
        With all pictures inside, and no reference to anything outside.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If the pictures differ in shape.
    """
    for name, other in (("result", result), ("clean", clean)):
        if other is not None and other.shape != noisy.shape:
            raise ValueError(f"{name} must have the shape of noisy {noisy.shape}, got {other.shape}")
    figures.check_available()
    started = time.perf_counter()
    spread = DIFFERENCE_SCALE * float(_mean_of_channels(noisy - result).std())
    pictures = _Pictures(
        noisy=noisy,
        result=result,
        clean=clean,
        peak=_range(clean) if peak is None and clean is not None else peak,
        value_range=value_range or (float(result.min()), float(result.max())),
        limit=float(f"{spread:.2g}") or 1.0,
    )
    side = min(int(np.clip(min(noisy.shape[:2]) // 4, *CROP_SIDES)), *noisy.shape[:2])
    pixels = choose_pixels(result, side)
    crops = {region: _around(at, (side, side), noisy.shape) for region, at in pixels.items()}
    parts = [_overview(pictures, crops)]
    if path:
        parts.append(_path_section(path, pictures.psnr()["noisy"] if clean is not None else None, path_seconds))
    parts += [_region_section(pictures, info, region, at, crops[region]) for region, at in pixels.items()]
    parts.append(_facts_section(info, noisy.shape, facts or {}, time.perf_counter() - started))
    heading = f"<h1>{escape(title)}</h1>\n"
    return f"{_HEAD.replace('TITLE', escape(title))}{heading}{''.join(parts)}</main>\n</body>\n</html>\n"


def _around(at: tuple[int, int], sides: tuple[int, int], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """A window of these sides with the pixel in its middle, or as near as the picture's border lets it."""
    starts = [min(max(p - side // 2, 0), n - side) for p, side, n in zip(at, sides, shape[:2], strict=True)]
    rows, cols = (slice(start, start + side) for start, side in zip(starts, sides, strict=True))
    return rows, cols


def _mean_of_channels(picture: np.ndarray) -> np.ndarray:
    return picture if picture.ndim == 2 else picture.mean(axis=2)


# ----------------------------------------------------------------------------------------------------------- sections


def _overview(pictures: _Pictures, crops: Mapping[str, tuple[slice, slice]]) -> str:
    """All of each picture, with the crops outlined in the result."""
    height, width = pictures.noisy.shape[:2]
    stride = -(-max(height, width) // LARGEST_SIDE)
    sparse = slice(None, None, stride)
    levels = pictures.psnr()
    shown = []
    for name, pixels in pictures.panels((sparse, sparse)).items():
        boxes = ""
        if name == "result":
            boxes = "".join(
                f'<span class="box" style="left:{100 * cols.start / width:.3f}%;top:{100 * rows.start / height:.3f}%;'
                f"width:{100 * (cols.stop - cols.start) / width:.3f}%;"
                f'height:{100 * (rows.stop - rows.start) / height:.3f}%"><b>{escape(region)}</b></span>'
                for region, (rows, cols) in crops.items()
            )
        shown.append(_panel(name, pixels, boxes, levels.get(name)))
    note = f" Of the rows and columns, one in {stride} is shown." if stride > 1 else ""
    if pictures.peak is not None and levels:
        note += f" Decibels are PSNR for a peak of {_number(pictures.peak)}, before rounding to the file's values."
    return (
        f'<section>\n<h2>Pictures</h2>\n<div class="row">{"".join(shown)}</div>\n{_legend(pictures)}'
        f"<p>The outlined parts are enlarged below.{note}</p>\n</section>\n"
    )


def _panel(name: str, pixels: np.ndarray, over: str = "", decibels: float | None = None) -> str:
    caption = escape(name) + ("" if decibels is None else f", {decibels:.2f} dB")
    image = _image(_encoded(pixels), name)
    return f'<figure><div class="picture">{image}{over}</div><figcaption>{caption}</figcaption></figure>'


def _legend(pictures: _Pictures) -> str:
    """The colour scale of differences, and how much it amplifies."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    colours = ", ".join(to_hex(c) for c in colormaps[DIFFERENCE_COLOURS](np.linspace(0, 1, 11)))
    low, high = pictures.value_range
    limit, amplified = pictures.limit, (high - low) / (2 * pictures.limit)
    channels = ", the mean of the channels" if pictures.noisy.ndim == 3 else ""
    return (
        f'<p class="scale">{_number(-limit)} <span style="background:linear-gradient(to right, {colours})"></span> '
        f"{_number(limit)}</p>\n<p>Differences{channels}, in the picture's units, are amplified {amplified:.2g} "
        f"times; white is 0. What was removed should look like noise: structures in it have been lost.</p>\n"
    )


def _region_section(
    pictures: _Pictures, info: DenoiseInfo, region: str, at: tuple[int, int], crop: tuple[slice, slice]
) -> str:
    levels = pictures.psnr(crop)
    shown = "".join(_panel(name, p, decibels=levels.get(name)) for name, p in pictures.panels(crop).items())
    rows, cols = crop
    return (
        f'<section>\n<h2>{REGIONS[region]}</h2>\n<div class="row crops">{shown}</div>\n'
        f"<p>Rows {rows.start} to {rows.stop - 1}, columns {cols.start} to {cols.stop - 1}.</p>\n"
        f"{_affinity(pictures, info, at)}</section>\n"
    )


def _affinity(pictures: _Pictures, info: DenoiseInfo, at: tuple[int, int]) -> str:
    """Filter weights of one pixel, drawn over the part of the result around it."""
    from ..images import last_axis
    from ..kernel import NTK
    from ..restoration.options import Tiles

    network = info.method.trained_network
    m, shape = network.multiple, pictures.result.shape
    height, width = (min(n, AFFINITY_SIDE) // m * m for n in shape[:2])
    where = f"the pixel at row {at[0]}, column {at[1]}"
    if 0 in (height, width):
        return f"<p>No filter weights: the network needs sides that are multiples of {m}.</p>\n"
    rows, cols = window = _around(at, (height, width), shape)
    row, col = at[0] - rows.start, at[1] - cols.start
    part = pictures.result[window]
    # Each tile loses its mean, channel by channel, before the denoiser builds its kernel.
    centred = part - part.mean(axis=(0, 1), dtype=np.float64).astype(part.dtype)
    weights = NTK(network, centred, channel_axis=last_axis(centred), device="cpu").affinity(row, col)
    if not weights[row, col] > 0:
        return f"<p>No filter weights: around {where} the picture is its mean.</p>\n"
    figure = figures.affinity_figure(
        part,
        weights,
        row,
        col,
        value_range=pictures.value_range,
        patch=network.receptive_field,
        origin=(rows.start, cols.start),
    )
    image = _image(figures.render(figure, "png"), f"filter weights of {where}")
    own = " The denoiser's own kernels are those of its tiles, so that it uses the weights within them."
    own = own if isinstance(info.method, Tiles) else ""
    part_of = "the result" if (height, width) == shape[:2] else f"{height} x {width} pixels of the result"
    return (
        f'<figure class="drawn">{image}<figcaption>Filter weights of {where}: one row of the neural tangent kernel of '
        f"{part_of}, less the mean. The square is the patch that the network compares.{own}</figcaption></figure>\n"
    )


def _path_section(path: Sequence[PathPoint], noisy: float | None, seconds: float) -> str:
    runs = sum(point.factor != 1 for point in path)
    chosen = next(point for point in path if point.factor == 1)
    best = max(path, key=lambda point: (point.psnr, point.factor == 1))  # the one chosen, among equals
    apart = (
        "No other point is better."
        if best is chosen
        else f"The best point, {_factor(best.factor)} times the steps, is {best.psnr - chosen.psnr:.2f} dB better."
    )
    image = _image(figures.render(_path_figure(path, noisy), "png"), "PSNR over the number of steps")
    return (
        f'<section>\n<h2>Stopping</h2>\n<figure class="drawn">{image}<figcaption>PSNR of the result where the steps of '
        f"all passes are multiplied by one factor. Each point is a run of the whole denoiser, {runs} more in "
        f"{seconds:.1f} s. {apart}</figcaption></figure>\n</section>\n"
    )


def _path_figure(path: Sequence[PathPoint], noisy: float | None) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 3.6), layout="compressed")
    axes = figure.subplots()
    factors, levels = [p.factor for p in path], [p.psnr for p in path]
    axes.plot(factors, levels, color="0.25", marker="o", markersize=4, label="result")
    chosen = next(p for p in path if p.factor == 1)
    axes.plot(1, chosen.psnr, color=MARK, marker="o", markersize=9, linestyle="none", label="steps used")
    if noisy is not None:
        axes.plot([factors[0], factors[-1]], [noisy, noisy], color="0.6", linestyle="--", linewidth=1, label="noisy")
    axes.set_xscale("log", base=2)
    steps = ["\n+ ".join(map(str, p.steps)) for p in path]
    axes.set_xticks(factors, [f"{_factor(f)}\n{s}" for f, s in zip(factors, steps, strict=True)], fontsize="small")
    axes.set_xlabel("factor, and steps of each pass")
    axes.set_ylabel("PSNR / dB")
    axes.grid(color="0.9")
    axes.legend(fontsize="small")
    return figure


def _factor(factor: float) -> str:
    return f"{factor:g}" if factor >= 1 else f"1/{1 / factor:g}"


def method_text(method: Tiles | WholeImage, tiles: int) -> str:
    """Say what had a kernel of its own, and how many there were: ``method`` and ``tiles`` of a DenoiseInfo."""
    from ..restoration.options import Tiles

    if isinstance(method, Tiles):
        number = "1 tile" if tiles == 1 else f"{tiles} tiles"
        return f"{number} of {method.size} x {method.size} pixels, overlapping by {method.overlap}"
    kernel = "exact kernel" if method.landmarks is None else f"{method.landmarks} landmarks"
    return f"whole image, {kernel}"


def _facts_section(info: DenoiseInfo, shape: tuple[int, ...], facts: Mapping[str, str], seconds: float) -> str:
    """The table of what was done; what a later denoiser adds to its info comes under the name that it has there."""
    import ntkfast

    said = dict(vars(info))
    channels = f", {shape[2]} channels" if len(shape) == 3 else ""
    lines = {"picture": f"{shape[0]} rows, {shape[1]} columns{channels}"}
    noise, level = said.pop("noise"), said.pop("level")
    lines["noise level"] = f"{_number(level)} ({'estimated' if noise.estimated else 'given'}), in the picture's units"
    method, tiles = said.pop("method"), said.pop("tiles")
    lines["network"] = repr(method.trained_network)
    lines["passes"] = f"{said.pop('passes')}, each after the first with the kernel of the result so far"
    lines["method"] = method_text(method, tiles)
    lines["steps"] = ", then ".join(map(str, said.pop("steps"))) or "none"
    lines["stopping rule"] = said.pop("stopping")
    lines["step size"] = ", then ".join(map(_number, said.pop("learning_rate"))) or "none"
    lines["seconds"] = f"{said.pop('seconds'):.1f}, and {seconds:.1f} for this page"
    lines |= {name.replace("_", " "): _number(v) if isinstance(v, float) else str(v) for name, v in said.items()}
    lines["version"] = f"ntkfast {ntkfast.__version__}"
    lines |= facts
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>\n" for name, value in lines.items())
    return f"<section>\n<h2>What was done</h2>\n<table>\n{body}</table>\n</section>\n"


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


# --------------------------------------------------------------------------------------------------------------- HTML


def _encoded(pixels: np.ndarray) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))


def _image(png: bytes, description: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{escape(description)}" src="data:image/png;base64,{data}">'


_HEAD = f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>TITLE</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0; }}
main {{ max-width: 1400px; margin: 0 auto; padding: 1rem 1.5rem 3rem; }}
h1 {{ font-size: 1.5rem; }}
h2 {{ font-size: 1.15rem; margin: 2rem 0 .5rem; border-top: 1px solid #ddd; padding-top: 1rem; }}
figure {{ margin: 0; }}
figcaption {{ color: #555; font-size: .9rem; max-width: 60rem; }}
img {{ display: block; width: 100%; height: auto; }}
.row {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 360px), 1fr)); gap: 1rem; }}
.crops {{ grid-template-columns: repeat(auto-fit, minmax(200px, 240px)); }}
.crops img {{ image-rendering: pixelated; }}
.picture {{ position: relative; }}
.box {{ position: absolute; box-sizing: border-box; border: 2px solid {MARK}; }}
.box b {{ background: {MARK}; color: #000; font-size: 11px; line-height: 1; padding: 0 2px 1px; position: absolute; }}
.drawn img {{ width: auto; max-width: 100%; }}
.scale {{ display: flex; gap: .5rem; align-items: center; margin-bottom: 0; }}
.scale span {{ width: 16rem; height: .8rem; }}
th {{ text-align: left; padding-right: 2rem; vertical-align: top; font-weight: 600; }}
td {{ overflow-wrap: anywhere; }}
</style>
</head>
<body>
<main>
"""
