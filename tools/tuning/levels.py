"""This compares the estimated noise level with the true one, on gray and colour pictures.

The finest wavelets stand beside ntkfast's.

``python -m tools.tuning.levels`` prints, for each set of pictures and noise level, the mean of |estimate/sigma - 1|
and the estimate that is furthest off, as its signed error.  The constants of ``ntkfast.restoration.noise_level`` were
chosen on the tuning set.  ``textures`` are gray pictures of scikit-image, none of them in the other sets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench import machine
from bench.networks import table
from bench.quality import pictures

from ntkfast.restoration.noise_level import noise_level

TEXTURES = ("grass", "gravel", "coins", "page", "camera", "brick")
SIGMAS = (2.0, 3.0, 5.0, 10.0, 25.0, 50.0, 75.0)


def by_wavelets(planes: np.ndarray) -> float:
    """Return scikit-image's estimate, the mean over the channels."""
    from skimage.restoration import estimate_sigma

    return float(estimate_sigma(planes, channel_axis=-1, average_sigmas=True))


ESTIMATORS: dict[str, Callable[[np.ndarray], float]] = {"wavelets": by_wavelets, "ntkfast": noise_level}


def textures(size: int) -> dict[str, np.ndarray]:
    """Map names to uint8 (H, W, 1), the middle of each."""
    return {name: pictures.Picture(pictures.from_skimage(name), "", "").crop(size)[:, :, None] for name in TEXTURES}


def grays(colours: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the mean of the channels, and each channel by itself."""
    out = {name: picture.mean(axis=2, keepdims=True) for name, picture in colours.items()}
    return out | {f"{name}/{c}": picture[:, :, c : c + 1] for name, picture in colours.items() for c in range(3)}


def measure(cleans: dict[str, np.ndarray], sigma: float) -> dict[str, dict[str, float]]:
    """Map each estimator and picture to estimate/sigma - 1."""
    found: dict[str, dict[str, float]] = {way: {} for way in ESTIMATORS}
    for name, clean in cleans.items():
        noisy = pictures.add_noise(clean, name, sigma).astype(np.float64)
        for way, estimate in ESTIMATORS.items():
            found[way][name] = estimate(noisy) / sigma - 1
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.tuning.levels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ("tuning gray", "test gray", "test colour", "textures")
    parser.add_argument("--sets", nargs="+", choices=names, default=names)
    parser.add_argument("--sigmas", type=float, nargs="+", default=SIGMAS, help="noise levels of 255")
    parser.add_argument("--size", type=int, default=pictures.SIZE, help="side of the crops (default: %(default)s)")
    parser.add_argument("--each", action="store_true", help="also each picture's estimates")
    parser.add_argument("--json", type=Path, help="write the results here")
    args = parser.parse_args(argv)
    load: dict[str, Callable[[], dict[str, np.ndarray]]] = {
        "tuning gray": lambda: grays(pictures.tuning_set(size=args.size)),
        "test gray": lambda: grays(pictures.test_set(size=args.size)),
        "test colour": lambda: pictures.test_set(size=args.size),
        "textures": lambda: textures(args.size),
    }
    results: list[dict[str, Any]] = []
    for chosen in args.sets:
        cleans, rows, each = load[chosen](), [], []
        for sigma in args.sigmas:
            found = measure(cleans, sigma)
            cells = []
            for way, errors in found.items():
                worst = max(errors, key=lambda name: abs(errors[name]))
                mean = float(np.mean(np.abs(list(errors.values()))))
                cells += [f"{100 * mean:.1f}", f"{100 * errors[worst]:+.0f}", worst]
                each += [[way, f"{sigma:g}", name, f"{sigma * (1 + error):.2f}"] for name, error in errors.items()]
                results.append({"set": chosen, "sigma": sigma, "estimator": way, "errors": errors})
            rows.append([f"{sigma:g}", *cells])
        heads = [head for way in ESTIMATORS for head in (f"{way}, %", "worst, %", "")]
        print(f"{chosen}, {len(cleans)}", *table(["sigma", *heads], rows), sep="\n")
        if args.each:
            print(*table(["", "sigma", "", "estimate"], each), sep="\n")
        print(flush=True)
    if args.json:
        machine.save(args.json, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
