"""Damage a photograph in four ways, repair it, and say how well that went.

    python examples/restore_photo.py [--size N] [--network NETWORK] [--out DIR]

The damage is missing pixels, text and scratches, blur with noise, and half the resolution; each is repaired by ntkfast
and by a simple method of scikit-image.  The command writes ``missing.png``, ``scratched.png``, ``blurred.png`` and
``coarse.png`` (damaged, simple method, ntkfast, clean) to DIR, replacing files of these names; it needs the ``plot``
extra.  The photograph, scikit-image's *astronaut* (NASA, public domain), is part of scikit-image's package: nothing is
downloaded.  Values are 0 to 255.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import skimage.data
from skimage.draw import line
from skimage.metrics import peak_signal_noise_ratio
from skimage.morphology import dilation
from skimage.restoration import inpaint_biharmonic, richardson_lucy, unsupervised_wiener
from skimage.transform import resize
from tqdm import tqdm

import ntkfast as nf
from ntkfast.app import figures
from ntkfast.app.image_files import write_atomically
from ntkfast.restoration.operators import ImageOperator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FULL_SIZE = 512
FACE = 110, 225  # row and column around which the photograph is cropped
SEED = 0
MISSING = 0.75  # share of the pixels
TEXT = "the quick brown\nfox jumps over\nthe lazy dog"
SCRATCHES = 6
BLUR, NOISE = 2.0, 5.0  # standard deviations: of the Gaussian blur in pixels, of the noise in gray levels of 255
RICHARDSON_LUCY_STEPS = 10
FACTOR = 2
NETWORKS = {
    "vanilla_cnn(1, 5)": nf.vanilla_cnn(1, 5),
    "vanilla_cnn(1, 11)": nf.vanilla_cnn(1, 11),
    "vanilla_cnn(3, 5)": nf.vanilla_cnn(3, 5),
    "autoencoder(1)": nf.autoencoder(1),
    "autoencoder(2)": nf.autoencoder(2),
}


@dataclass(frozen=True)
class Problem:
    """A Problem is a way to damage a picture, with the simple methods that repair it.

    Attributes
    ----------
    name : str
        That of the file.
    operator : ImageOperator
    data : ndarray, shape (n, 3)
    sigma : float
        Noise level of the data.
    shown : ndarray, shape (H, W, 3) or (h, w, 3)
        The data as a picture.
    simple : dict of str to callable
        Simple methods: a name and what computes the picture (H, W, 3).
    """

    name: str
    operator: ImageOperator
    data: np.ndarray
    sigma: float
    shown: np.ndarray
    simple: dict[str, Callable[[], np.ndarray]]


def photograph(size: int) -> np.ndarray:
    """Return the crop around the face, float64 of shape (size, size, 3), 0 to 255."""
    row, col = (min(max(centre - size // 2, 0), FULL_SIZE - size) for centre in FACE)
    return skimage.data.astronaut()[row : row + size, col : col + size].astype(np.float64)


def inpainting(name: str, clean: np.ndarray, known: np.ndarray) -> Problem:
    """Know some pixels and not the others."""
    damaged = np.where(known[:, :, None], clean, 0.0)
    return Problem(
        name=name,
        operator=nf.Inpainting(known),
        data=clean[known],
        sigma=0.0,
        shown=damaged,
        simple={"biharmonic": lambda: 255 * inpaint_biharmonic(damaged / 255, ~known, channel_axis=-1)},
    )


def blurred(clean: np.ndarray) -> Problem:
    """Blur by a Gaussian, then add noise."""
    radius = round(4 * BLUR)
    line = np.exp(-0.5 * (np.arange(-radius, radius + 1) / BLUR) ** 2)
    kernel = np.outer(line, line) / line.sum() ** 2
    operator = nf.Blur(clean.shape[:2], kernel)
    data = operator.matmat(clean.reshape(-1, 3))
    data += NOISE * np.random.default_rng(SEED).standard_normal(data.shape)
    picture = data.reshape(clean.shape)

    def each_channel(method: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Mirror the picture around first, as the blur did: these methods take the picture to repeat itself."""
        around = min(4 * radius, *clean.shape[:2])
        wide = np.pad(picture / 255, ((around, around), (around, around), (0, 0)), mode="symmetric")
        result = np.stack([method(wide[:, :, channel]) for channel in range(3)], axis=-1)
        return 255 * result[around:-around, around:-around]

    return Problem(
        name="blurred",
        operator=operator,
        data=data,
        sigma=NOISE,
        shown=picture,
        simple={
            "unsupervised Wiener": lambda: each_channel(
                lambda x: unsupervised_wiener(x, kernel, clip=False, rng=SEED)[0]
            ),
            "Richardson-Lucy": lambda: each_channel(
                lambda x: richardson_lucy(np.maximum(x, 0), kernel, RICHARDSON_LUCY_STEPS, clip=False)
            ),
        },
    )


def coarse(clean: np.ndarray) -> Problem:
    """Take means of blocks of pixels."""
    operator = nf.Downsampling(clean.shape[:2], FACTOR)
    data = operator.matmat(clean.reshape(-1, 3))
    picture = data.reshape(*operator.data_shape, 3)
    return Problem(
        name="coarse",
        operator=operator,
        data=data,
        sigma=0.0,
        shown=picture,
        simple={"bicubic": lambda: resize(picture, clean.shape, order=3, mode="edge")},
    )


def scattered(size: int) -> np.ndarray:
    """Return a mask of shape (size, size): True at the few pixels that are known."""
    return np.random.default_rng(SEED).random((size, size)) >= MISSING


def scratched(size: int) -> np.ndarray:
    """Return a mask of shape (size, size): False under text and scratches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1), dpi=size)
    canvas = FigureCanvasAgg(figure)
    figure.text(0.5, 0.5, TEXT, ha="center", va="center", fontsize=72 * 0.11, fontweight="bold")  # 72 points an inch
    canvas.draw()
    known = np.asarray(canvas.buffer_rgba())[:, :, 0] > 200
    scratches = np.zeros_like(known)
    for row, end in np.random.default_rng(SEED).integers(0, size, (SCRATCHES, 2)):
        scratches[line(row, 0, end, size - 1)] = True
    return known & ~dilation(scratches, np.ones((2, 2)))


def main() -> int:
    """Run the example and return the exit code."""
    args = parse_arguments()
    figures.check_available()  # before the work, not after it
    args.out.mkdir(parents=True, exist_ok=True)
    clean = photograph(args.size)
    problems = [
        inpainting("missing", clean, scattered(args.size)),
        inpainting("scratched", clean, scratched(args.size)),
        blurred(clean),
        coarse(clean),
    ]
    print(f"picture    astronaut, {args.size} x {args.size}; PSNR in dB, time in seconds")
    for problem in problems:
        started = time.perf_counter()
        simple = {name: method() for name, method in problem.simple.items()}
        simple_seconds = time.perf_counter() - started
        restored, info = restore(problem, args.network)
        results = {**simple, "first guess": info.guide, "ntkfast": restored}
        decibels = {name: peak_signal_noise_ratio(clean, clip(z), data_range=255) for name, z in results.items()}
        best = max(simple, key=lambda name: decibels[name])
        figure = draw(problem, (best, simple[best]), restored, clean, decibels)
        write_atomically(args.out / f"{problem.name}.png", figures.render(figure, "png"), overwrite=True)
        listed = ", ".join(f"{name} {value:.2f}" for name, value in decibels.items())
        steps = " then ".join(map(str, info.steps))
        print(f"{problem.name:10} {listed}; {steps} steps by {info.products} products")
        print(f"{'':10} {info.seconds:.1f} s, simple methods {simple_seconds:.1f} s")
    print(f"written    {', '.join(str(args.out / problem.name) + '.png' for problem in problems)}")
    return 0


def restore(problem: Problem, network: str | None) -> tuple[np.ndarray, nf.RestoreInfo]:
    """Repair, with one of ``NETWORKS`` or the default, behind a progress bar where there is a terminal to show it."""
    with tqdm(total=1.0, desc=problem.name, disable=None, leave=False, bar_format="{desc} |{bar}| {elapsed}") as bar:
        restored, info = nf.restore_ntk(
            problem.data,
            problem.operator,
            problem.sigma,
            channel_axis=-1,
            return_info=True,
            method=nf.Landweber(network=None if network is None else NETWORKS[network]),
            compute=nf.Compute(progress=lambda done: bar.update(done - bar.n)),
        )
    return restored, info


def clip(picture: np.ndarray) -> np.ndarray:
    """Return values that a screen can show."""
    return np.clip(picture, 0, 255)


def draw(
    problem: Problem,
    simple: tuple[str, np.ndarray],
    restored: np.ndarray,
    clean: np.ndarray,
    decibels: dict[str, float],
) -> Figure:
    """Draw four panels: damaged, simple method, ntkfast, clean."""
    from matplotlib.figure import Figure

    name, picture = simple
    figure = Figure(figsize=(12, 3.4), layout="compressed")
    panels = {
        problem.name: problem.shown,
        f"{name}, {decibels[name]:.2f} dB": picture,
        f"ntkfast, {decibels['ntkfast']:.2f} dB": restored,
        "clean": clean,
    }
    for axes, (title, shown) in zip(figure.subplots(1, 4), panels.items(), strict=True):
        axes.imshow(clip(shown) / 255, interpolation="nearest")
        axes.set_title(title)
        axes.set_axis_off()
    return figure


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Damage a photograph in four ways and repair it with ntkfast.")
    parser.add_argument("--size", type=int, default=128, help="side of the crop in pixels, even (default: 128)")
    parser.add_argument("--network", choices=NETWORKS, help="for all problems (default: that of ntkfast for each)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder to write to (default: out)")
    args = parser.parse_args()
    if not 32 <= args.size <= FULL_SIZE or args.size % FACTOR:
        parser.error(f"argument --size: must be even and lie between 32 and {FULL_SIZE}, got {args.size}")
    return args


if __name__ == "__main__":
    sys.exit(main())
