"""This measures what the denoiser's choices are worth, on crops of the tuning set, at the best times of each.

Stopping rules then do not matter.

``python -m tools.tuning.choices --json tools/tuning/results/choices.json`` prints one table for each of tiles,
networks, guide, colour and passes: mean PSNR, mean and median difference to the default, seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from bench.networks import table
from bench.quality import pictures
from threadpoolctl import threadpool_limits

from ntkfast import Network, autoencoder, unet, vanilla_cnn
from ntkfast._choices import PASSES
from ntkfast.engine.backend import TileEngine
from ntkfast.restoration.image_filter import Advance
from ntkfast.restoration.tile_filter import TileFilter, TileMethod
from ntkfast.restoration.tiles import Tiling
from tools.tuning import oracle
from tools.tuning.oracle import DEFAULT, Spectra, Trial

Row = dict[str, Any]
Window = Callable[[np.ndarray], np.ndarray]


def _windowed(change: Window) -> type[TileFilter]:
    """Return a filter whose tiles are blended with another window, made from the default one."""

    class Windowed(TileFilter):
        def path(self, steps: Sequence[int], advance: Advance) -> list[np.ndarray]:
            kept = self._tiling._window
            self._tiling._window = change(kept)
            try:
                return super().path(steps, advance)
            finally:
                self._tiling._window = kept

    return Windowed


class ByVariance(TileFilter):
    """Tiles are blended with the window over the variance of the noise they keep, sum f(lambda)^2 + 1 for the mean."""

    def path(self, steps: Sequence[int], advance: Advance) -> list[np.ndarray]:
        spectra = Spectra(self)
        kept = (spectra.filters(steps) ** 2).sum(axis=1) + 1  # (tiles, times, C)
        images = []
        for n, tiles in enumerate(spectra.after(steps)):
            weights = np.broadcast_to(1 / kept[:, n, None, None, :], tiles.shape)
            # Both are divided by the same sum of windows.
            images.append(oracle.blend(self._tiling, weights * tiles) / oracle.blend(self._tiling, weights))
        return images


class WholeMean(TileFilter):
    """Tiles lose the mean of the picture, both for Theta and for what is filtered."""

    def __init__(self, setting: TileMethod, tiling: Tiling, guide: np.ndarray, target: np.ndarray) -> None:
        self._mean = target.mean(axis=(1, 2), keepdims=True)
        super().__init__(setting, tiling, guide - guide.mean(axis=(1, 2), keepdims=True), target - self._mean)

    def _engine(self, which: slice) -> TileEngine:
        tiles = self._tiling.extract(self._guide, which)
        return self._method.backend.tiles.engine(self._method.problem(tiles.shape), tiles)

    def path(self, steps: Sequence[int], advance: Advance) -> list[np.ndarray]:
        sums = [self._tiling.accumulator(self._target.shape[3]) for _ in steps]
        for which in self._batches():
            tiles = self._tiling.extract(self._target, which)
            for total, part in zip(sums, self._descend(which, tiles, None, steps), strict=True):
                self._tiling.add(total, part, which)
        return [Tiling.blend(total) + self._mean for total in sums]


class OnGrid(TileFilter):
    """Tiles stay on their grid."""

    def __init__(self, setting: TileMethod, tiling: Tiling, guide: np.ndarray, target: np.ndarray) -> None:
        with mock.patch(
            "ntkfast.restoration.tiles._shifts", lambda rows, cols, most: np.zeros((rows, cols, 2), dtype=int)
        ):
            on_grid = Tiling(tiling.shape, setting.size, setting.overlap)
        super().__init__(setting, on_grid, guide, target)


class NNGP(TileFilter):
    """The kernel is that of the network of which only the last layer is trained."""

    def _engine(self, which: slice) -> TileEngine:
        tiles = self._tiling.extract(self._guide, which)
        tiles = tiles - tiles.mean(axis=(1, 2), keepdims=True)
        problem = replace(self._method.problem(tiles.shape), kernel="nngp")
        return self._method.backend.tiles.engine(problem, tiles)


GuideOf = Callable[[Trial, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Choice:
    """A Choice is one line of a table.

    Attributes
    ----------
    setting : TileMethod
    kind : type of TileFilter
    guide : callable, optional
        Trial and image of a pass -> guide of the next; by default the image.
    passes : int
    """

    setting: TileMethod = DEFAULT
    kind: type[TileFilter] = TileFilter
    guide: GuideOf | None = None
    passes: int = PASSES


def mixture(share: float) -> GuideOf:
    """Guide by the last image with a share of the noisy picture."""
    return lambda trial, image: (1 - share) * image + share * trial.pixels


def both(weight: float) -> GuideOf:
    """Guide by channels of the last image and, weighted, of the noisy picture: inner products of the two add up."""
    return lambda trial, image: np.concatenate([image, weight * trial.pixels], axis=3)


def brighter(factor: float) -> GuideOf:
    """Guide by the last image with the mean of the channels weighted more than their differences."""
    return lambda _, image: image * np.array([factor] + [1.0] * (image.shape[3] - 1))


def of_network(network: Network) -> Choice:
    """Return the default with another network."""
    return Choice(replace(DEFAULT, network=network))


NETWORKS: dict[str, Choice] = {
    **{f"Conv {r}": of_network(vanilla_cnn(1, r)) for r in (5, 1, 3, 7, 9, 11)},
    **{f"{layers} x Conv {r}": of_network(vanilla_cnn(layers, r)) for layers, r in ((2, 3), (2, 5), (3, 3))},
    "autoencoder(1)": of_network(autoencoder(1)),
    "unet(1)": of_network(unet(1)),
    "Conv 5, NNGP": Choice(kind=NNGP),
}

# The first line of each table is the default.
CHOICES: dict[str, dict[str, Choice]] = {
    "tiles": {
        f"{DEFAULT.size}, stride {DEFAULT.size - DEFAULT.overlap}": Choice(),
        **{
            f"{size}, stride {stride}": Choice(replace(DEFAULT, size=size, overlap=size - stride))
            for size in (12, 16, 20, 24)
            for stride in (4, 6, 8)
            if (size, size - stride) != (DEFAULT.size, DEFAULT.overlap)
        },
        "on the grid": Choice(kind=OnGrid),
        "window squared": Choice(kind=_windowed(np.square)),
        "window flat": Choice(kind=_windowed(np.ones_like)),
        "window over sum f^2": Choice(kind=ByVariance),
        "mean of the picture": Choice(kind=WholeMean),
    },
    "networks": NETWORKS,
    "guide": {
        "first result": Choice(),
        "0.1 of the noisy picture": Choice(guide=mixture(0.1)),
        "0.2 of the noisy picture": Choice(guide=mixture(0.2)),
        "channels of both": Choice(guide=both(1.0)),
        "channels of both, noisy times 0.3": Choice(guide=both(0.3)),
        "mean of the channels times 1.5": Choice(guide=brighter(1.5)),
    },
    "colour": {
        "chroma_time 1/3": Choice(),
        **{
            f"chroma_time {'1/' if n > 1 else ''}{n}{' (as RGB)' if n == 1 else ''}": Choice(
                replace(DEFAULT, chroma_time=1 / n)
            )
            for n in (1, 2, 4, 6)
        },
    },
    "passes": {f"passes {n}": Choice(passes=n) for n in (2, 1, 3)},
}


def measure(name: str, clean: np.ndarray, sigma: float, choice: Choice) -> tuple[float, float]:
    """Return the best PSNR of the last pass in dB, and seconds of all passes over all times tried."""
    trial = Trial(name, clean, sigma, choice.setting)
    guide = choice.guide
    with threadpool_limits(1, user_api="blas"):
        start = time.perf_counter()
        found = oracle.passes(
            trial,
            choice.passes,
            lambda seen: trial.filter(seen, kind=choice.kind),
            None if guide is None else lambda image: guide(trial, image),
        )
        return found[-1].best, time.perf_counter() - start


def measure_all(name: str, crops: dict[str, np.ndarray], sigma: float, choice: Choice) -> Row:
    """Return the best PSNR of each picture in dB, and mean seconds."""
    found = {picture: measure(picture, clean, sigma, choice) for picture, clean in crops.items()}
    seconds = float(np.mean([seconds for _, seconds in found.values()]))
    return {"choice": name, "sigma": sigma, "psnr": {p: psnr for p, (psnr, _) in found.items()}, "seconds": seconds}


def lines(what: str, rows: Sequence[Row]) -> list[str]:
    """Return a group's table: at each sigma mean PSNR, mean and median difference to the default; mean seconds."""
    sigmas = sorted({r["sigma"] for r in rows})
    names = list(dict.fromkeys(r["choice"] for r in rows))

    of = {(r["choice"], r["sigma"]): r for r in rows}
    body = []
    for name in names:
        cells = [name]
        for sigma in sigmas:
            values, default = (np.array(list(of[n, sigma]["psnr"].values())) for n in (name, names[0]))
            differences = values - default  # picture by picture
            cells += [f"{values.mean():.2f}", f"{differences.mean():+.2f}", f"{np.median(differences):+.2f}"]
        body.append([*cells, f"{np.mean([of[name, sigma]['seconds'] for sigma in sigmas]):.2f}"])
    head = [part for sigma in sigmas for part in (f"{sigma:g}: dB", "diff.", "median")]
    return table([what, *head, "s"], body)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.tuning.choices",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--what", nargs="+", choices=list(CHOICES), default=list(CHOICES))
    parser.add_argument("--sigmas", type=oracle.positive, nargs="+", default=[25.0], help="of 255")
    parser.add_argument("--pictures", nargs="+", choices=list(pictures.TUNING), default=list(pictures.TUNING))
    parser.add_argument("--size", type=oracle.side, default=96, help="side of the crops (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the results here, beside tables of other runs")
    args = parser.parse_args(argv)
    crops = pictures.tuning_set(args.pictures, args.size)
    for what in args.what:
        rows = []
        for name, choice in CHOICES[what].items():
            print(f"{what}: {name}", file=sys.stderr, flush=True)
            for sigma in args.sigmas:
                rows.append(measure_all(name, crops, sigma, choice))
        print("\n".join([*lines(what, rows), ""]), flush=True)
        if args.json:
            oracle.save(args.json, what, {"size": args.size, "sigmas": args.sigmas, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
