"""This stops the passes of the denoiser at the best times, which only who has the clean picture can find.

The best time of a pass is searched among ``ntkfast.restoration.stopping.STEPS``.  :func:`passes` guides each pass by
the best image of the one before, which is greedy: another guide may serve the next pass a few hundredths of a dB
better, and :func:`best` tries some.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from bench import machine
from bench.psnr import psnr
from bench.quality import pictures
from threadpoolctl import threadpool_limits

from ntkfast._choices import OVERLAP, PASSES, SIZE
from ntkfast.engine.arrays import NUMPY
from ntkfast.engine.cpu import CPU
from ntkfast.restoration.image_filter import centred
from ntkfast.restoration.options import CHROMA_TIME, NETWORK
from ntkfast.restoration.picture import Picture
from ntkfast.restoration.stopping import STEPS, Crops
from ntkfast.restoration.tile_filter import TileFilter, TileMethod
from ntkfast.restoration.tiles import Tiling
from ntkfast.spectral.lanczos import gradient_descent_filter

# These are the denoiser's defaults, on one thread of the processor: the small crops here would gain little by more.
DEFAULT = TileMethod(
    network=NETWORK,
    size=SIZE,
    overlap=OVERLAP,
    dtype=np.dtype(np.float32),
    backend=CPU,
    threads=1,
    chroma_time=CHROMA_TIME,
)
GUIDES = (-4, -2, 0, 2, 4)  # guides of pass 2 that `best` tries: so many times away from the best in STEPS


class Trial:
    """A Trial is a noisy picture as the passes see it, channels mixed, with the clean one.

    Parameters
    ----------
    name : str
        That of the picture: it seeds the noise.
    clean : ndarray, shape (H, W, 3), uint8
    sigma : float
        Noise level, in units of 255.
    setting : TileMethod

    Attributes
    ----------
    noisy : ndarray, shape (H, W, 3), float32
    pixels : ndarray, shape (1, H, W, 3)
        The noisy picture, channels mixed.
    """

    def __init__(self, name: str, clean: np.ndarray, sigma: float, setting: TileMethod = DEFAULT) -> None:
        self.name, self.clean, self.sigma, self.setting = name, clean, sigma, setting
        self.noisy = pictures.add_noise(clean, name, sigma)
        self._picture = Picture(self.noisy[None].astype(np.float64), sigma, None, setting)
        self.pixels = self._picture.pixels

    @property
    def crops(self) -> Crops:
        """Return what the stopping rules are given."""
        return self._picture.crops([0])

    def filter(
        self, guide: np.ndarray, target: np.ndarray | None = None, kind: type[TileFilter] = TileFilter
    ) -> TileFilter:
        """Return the pass with Theta from ``guide``, both (n, H, W, 3); the target is the noisy picture by default."""
        seen = self.pixels if target is None else target
        return kind(self.setting, self.setting.tiling(seen.shape[:3]), guide, seen)

    @cached_property
    def spectra(self) -> Spectra:
        """Return the spectra of pass 1."""
        return Spectra(self.filter(self.pixels))

    def psnr(self, mixed: np.ndarray) -> float:
        """Return the PSNR in dB of what a pass makes, (1, H, W, 3)."""
        return psnr(self.clean, self._picture.image(mixed)[0])


@dataclass(frozen=True)
class Pass:
    """A Pass is one pass along its time.

    Attributes
    ----------
    times : ndarray, shape (n,)
        Steps times step size.
    psnr : ndarray, shape (n,)
    images : list of ndarray, shape (1, H, W, 3)
        Channels mixed.
    """

    times: np.ndarray
    psnr: np.ndarray
    images: list[np.ndarray]

    @property
    def best(self) -> float:
        """Return the best PSNR, dB."""
        return float(self.psnr.max())

    @property
    def image(self) -> np.ndarray:
        """Return the image of the best time."""
        return self.images[int(self.psnr.argmax())]


Make = Callable[[np.ndarray], TileFilter]
Guide = Callable[[np.ndarray], np.ndarray]


def one_pass(trial: Trial, run: TileFilter) -> Pass:
    """Return all times of a pass."""
    with threadpool_limits(1, user_api="blas"):
        images = run.path(STEPS, ignore)
    return Pass(run.learning_rate * np.array(STEPS), np.array([trial.psnr(z) for z in images]), images)


def passes(trial: Trial, count: int = PASSES, make: Make | None = None, guide: Guide | None = None) -> list[Pass]:
    """Run pass after pass; ``make`` makes the filters, and ``guide`` the guide of a pass from the best image before."""
    found: list[Pass] = []
    seen = trial.pixels
    for _ in range(count):
        found.append(one_pass(trial, (make or trial.filter)(seen)))
        seen = found[-1].image if guide is None else guide(found[-1].image)
    return found


def best(trial: Trial) -> float:
    """Return the best PSNR of two passes in dB over the times of both: pass 2 with guides around the best of pass 1."""
    first = one_pass(trial, trial.filter(trial.pixels))
    places = {int(np.clip(first.psnr.argmax() + n, 0, len(STEPS) - 1)) for n in GUIDES}
    return max(one_pass(trial, trial.filter(first.images[n])).best for n in places)


def after(trial: Trial, times: Sequence[float]) -> float:
    """Return the PSNR of passes of the times given, in dB."""
    guide = trial.pixels
    with threadpool_limits(1, user_api="blas"):
        for time in times:
            run = trial.filter(guide)
            guide = run.path([run.steps(time)], ignore)[0]
    return trial.psnr(guide)


def ignore(_: int) -> None:
    """Take progress that nobody asks for."""


def tiles_after(run: TileFilter, steps: Sequence[int]) -> np.ndarray:
    """Return filtered tiles before they are blended: (times, tiles, h, w, C)."""
    parts = []
    for which in run._batches():
        tiles, means = centred(run._tiling.extract(run._target, which), None)
        parts.append(run._descend(which, tiles, None, steps) + means)
    return np.concatenate(parts, axis=1)


def blend(tiling: Tiling, tiles: np.ndarray) -> np.ndarray:
    """Return the image (n, H, W, C) of tiles (count, h, w, C)."""
    sums = tiling.accumulator(tiles.shape[3])
    tiling.add(sums, tiles, slice(None))
    return Tiling.blend(sums)


class Spectra:
    """These are eigenvalues and eigenvectors of every tile's Theta, which the denoiser never needs: O(d^3) a tile.

    Attributes
    ----------
    values : ndarray, shape (tiles, d)
    vectors : ndarray, shape (tiles, d, d)
    """

    def __init__(self, run: TileFilter) -> None:
        self._run = run
        matrices = []
        for which in run._batches():
            engine = run._engine(which)
            count = len(run._tiling.places[which])
            d = math.prod(run._tiling.tile_shape)
            identity = np.broadcast_to(np.eye(d, dtype=run._method.dtype), (count, d, d))
            matrices.append(engine.product(NUMPY, identity))
        values, self.vectors = np.linalg.eigh(np.concatenate(matrices).astype(np.float64))
        self.values = np.maximum(values, 0.0)  # rounding

    def filters(self, steps: Sequence[int]) -> np.ndarray:
        """Return f_t(lambda) by channel, (tiles, d, times, C): less time for the differences between the channels."""
        run = self._run
        channels = run._target.shape[3]

        def after(times: Sequence[int]) -> np.ndarray:
            return np.stack([gradient_descent_filter(t, run.learning_rate).value(self.values) for t in times], axis=2)

        rest = [after(run._steps_of_differences(steps))] * (channels - 1)
        return np.stack([after(steps), *rest], axis=3)

    def after(self, steps: Sequence[int]) -> np.ndarray:
        """Compute by eigenvalues what :func:`tiles_after` computes without them."""
        tiling = self._run._tiling
        tiles, means = centred(tiling.extract(self._run._target), None)
        columns = tiles.reshape(*self.values.shape, -1)
        turned = self.filters(steps) * (np.swapaxes(self.vectors, 1, 2) @ columns)[:, :, None, :]
        return _each_time(self.vectors, turned).reshape(len(steps), *tiles.shape) + means

    def divergence(self, steps: Sequence[int]) -> np.ndarray:
        """Return dz_p/dy_p with Theta held fixed, of tiles before they are blended: (times, tiles, h, w, C).

        z = F (y - mean) + mean with F = V f V^T, hence dz_p/dy_p = sum_i f_i V_pi (V_pi - mean_q V_qi) + 1/d.
        """
        tiling = self._run._tiling
        d = self.values.shape[1]
        share = self.vectors * (self.vectors - self.vectors.mean(axis=1, keepdims=True))
        diagonal = _each_time(share, self.filters(steps)) + 1 / d
        return diagonal.reshape(len(steps), tiling.count, *tiling.tile_shape, -1)


def _each_time(matrices: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return products (times, tiles, d, C) of (tiles, d, d) and (tiles, d, times, C)."""
    tiles, d, times, channels = columns.shape
    product = matrices @ columns.reshape(tiles, d, -1)
    return np.moveaxis(product.reshape(tiles, d, times, channels), 2, 0)


def parts(path: Path | None) -> dict[str, Any]:
    """Return the parts of a file of results, by name."""
    return json.loads(path.read_text())["results"] if path is not None and path.exists() else {}


def save(path: Path, part: str, found: dict[str, Any]) -> None:
    """Write one part of a file of results, with its own commit, and keep the others."""
    machine.save(path, {**parts(path), part: {**found, "commit": machine.commit()}})


def positive(text: str) -> float:
    """Read an argument of the command line: a finite number > 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number > 0, got {text}")
    return value


def side(text: str) -> int:
    """Read an argument of the command line: side of the crops, at least 8."""
    value = int(text)
    if value < 8:
        raise argparse.ArgumentTypeError(f"must be at least 8, got {text}")
    return value
