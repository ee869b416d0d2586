"""This measures seconds and memory of the denoiser against the size of the picture, and how far from linear they are.

``python -m bench.quality.scaling`` denoises the astronaut, 512 x 512, mirrored until it fills larger sizes: the content
is the same at all of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.networks import table
from bench.quality import methods, pictures

NAME = "astronaut"


def mirrored(size: int) -> np.ndarray:
    """Return the picture, or its middle, mirrored at its borders up to ``size`` x ``size``: uint8 (size, size, 3)."""
    pixels = pictures.TEST[NAME].crop(min(size, pictures.SIZE))
    return np.pad(pixels, [(0, size - side) for side in pixels.shape[:2]] + [(0, 0)], mode="symmetric")


def fit(pixels: Sequence[float], values: Sequence[float]) -> tuple[float, float, float]:
    """Fit value = offset + slope * pixels by least squares of relative errors; return both and the largest error.

    Errors are relative, since the largest picture, 16 times the smallest, would else be all that counts.
    """
    x, y = np.asarray(pixels, dtype=float), np.asarray(values, dtype=float)
    # This minimises over (a, b) the sum ((a + b x - y) / y)^2.
    design = np.stack([1 / y, x / y], axis=1)
    (offset, slope), *_ = np.linalg.lstsq(design, np.ones_like(y), rcond=None)
    return float(offset), float(slope), float(np.abs(design @ (offset, slope) - 1).max())


def measure(size: int, sigma: float, threads: int | None) -> dict[str, Any]:
    """Run the denoiser on one size, in a process of its own."""
    clean = mirrored(size)
    noisy = pictures.add_noise(clean, NAME, sigma)
    outcome = methods.run("ours", noisy, clean.astype(np.float32), sigma, methods.Options(threads=threads))
    return {
        "size": size,
        "sigma": sigma,
        "threads": threads,
        "seconds": outcome.seconds,
        "peak_bytes_above_import": outcome.peak_bytes_above_import,
    }


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.quality.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048], help="sides of the pictures")
    parser.add_argument("--sigma", type=float, default=25.0, help="noise level of 255")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--json", type=Path, help="write the results here")
    args = parser.parse_args()

    results = [measure(size, args.sigma, args.threads) for size in args.sizes]
    rows = [
        [
            f"{r['size']} x {r['size']}",
            f"{r['seconds']:.2f}",
            f"{1e6 * r['seconds'] / r['size'] ** 2:.2f}",
            f"{r['peak_bytes_above_import'] / 1e6:.0f}",
            f"{r['peak_bytes_above_import'] / r['size'] ** 2:.0f}",
        ]
        for r in results
    ]
    print("\n".join(table(["size", "s", "us a pixel", "MB", "bytes a pixel"], rows)))
    if len(set(args.sizes)) > 1:
        pixels = [r["size"] ** 2 for r in results]
        for name, key, scale in (("s", "seconds", 1.0), ("MB", "peak_bytes_above_import", 1e-6)):
            offset, slope, error = fit(pixels, [scale * r[key] for r in results])
            print(f"{name} = {offset:.3g} + {1e6 * slope:.3g} a megapixel, off by at most {100 * error:.0f} %")
    if args.json:
        machine.save(args.json, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
