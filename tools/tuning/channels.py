"""This filters tiles of many channels by block Lanczos and by all their eigenvectors: seconds and PSNR.

``python -m tools.tuning.channels`` makes the channels from the astronaut's three, as random mixtures whose weights add
up to one.  ``ntkfast.restoration.tile_filter.EIGENVECTORS_FROM`` is where the second way becomes the faster one.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from bench import machine
from bench.networks import table
from bench.psnr import psnr
from bench.quality import pictures

from ntkfast import Compute, denoise_ntk
from ntkfast.restoration import tile_filter

NAME = "astronaut"
WAYS = {"Lanczos": np.inf, "eigenvectors": 0.0}  # EIGENVECTORS_FROM


def mixtures(size: int, channels: int) -> np.ndarray:
    """Return the picture's middle in so many channels: (size, size, channels), 0 to 255."""
    weights = np.random.default_rng(channels).random((3, channels))
    return pictures.TEST[NAME].crop(size) @ (weights / weights.sum(axis=0))


def measure(size: int, channels: int, sigma: float, threads: int | None) -> list[dict[str, Any]]:
    """Measure both ways on one picture."""
    clean = mixtures(size, channels)
    noisy = clean + sigma * np.random.default_rng(0).standard_normal(clean.shape)
    rows = []
    for way, least in WAYS.items():
        with mock.patch.object(tile_filter, "EIGENVECTORS_FROM", least):
            start = time.perf_counter()
            denoised = denoise_ntk(noisy, sigma, channel_axis=-1, compute=Compute(threads=threads))
            seconds = time.perf_counter() - start
        rows.append({"channels": channels, "way": way, "seconds": seconds, "psnr": psnr(clean, denoised)})
    return rows


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.tuning.channels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--channels", type=int, nargs="+", default=[3, 8, 16, 24, 32, 64])
    parser.add_argument("--size", type=int, default=96, help="side of the picture (default: %(default)s)")
    parser.add_argument("--sigma", type=float, default=25.0, help="noise level of 255")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--json", type=Path, help="write the results here")
    args = parser.parse_args(argv)
    results, rows = [], []
    for channels in args.channels:
        lanczos, eigen = measure(args.size, channels, args.sigma, args.threads)
        # The filters are the same up to Lanczos' tolerance.
        assert abs(lanczos["psnr"] - eigen["psnr"]) < 0.02, (lanczos, eigen)
        results += [lanczos, eigen]
        cells = [f"{r['seconds']:.2f}" for r in (lanczos, eigen)]
        rows.append([str(channels), *cells, f"{lanczos['psnr']:.2f}", f"{eigen['psnr']:.2f}"])
    print("\n".join(table(["channels", "Lanczos, s", "eigenvectors, s", "dB", "dB"], rows)))
    if args.json:
        machine.save(args.json, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
