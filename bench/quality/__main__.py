"""This runs denoisers beside each other on the test set: quality, seconds and memory.

``python -m bench.quality --json bench/results/quality.json`` runs what the file does not hold yet and prints tables and
targets.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.psnr import psnr
from bench.quality import methods, pictures, tables

DIP_SIZE = 256  # side of the crops where the deep image prior is among the methods


def ssim(clean: np.ndarray, picture: np.ndarray) -> float:
    """Return the structural similarity of Wang et al.  2004 (Gaussian window of 1.5 pixels), mean over the channels."""
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            clean.astype(np.float64),
            picture.astype(np.float64),
            data_range=255,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def checksum(clean: np.ndarray) -> int:
    """Return a number that tells whether a result kept is of the same pixels."""
    return zlib.crc32(clean.tobytes())


def measure(name: str, clean: np.ndarray, sigma: float, method: str, options: methods.Options) -> tables.Result:
    """Measure one method on one picture, uint8 (H, W, 3)."""
    noisy = pictures.add_noise(clean, name, sigma)
    outcome = methods.run(method, noisy, clean.astype(np.float32), sigma, options)
    found = {
        "picture": name,
        "shape": list(clean.shape),
        "crc32": checksum(clean),
        "sigma": sigma,
        "method": method,
        "psnr": psnr(clean, outcome.denoised),
        "ssim": ssim(clean, outcome.denoised),
        "seconds": outcome.seconds,
        "peak_bytes_above_import": outcome.peak_bytes_above_import,
    }
    if outcome.extra:
        found["extra"] = outcome.extra
    if method != "noisy":  # each by itself, since results of many runs stand in one file
        found["threads"] = options.threads
        found["date"] = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    if method == "ours":
        found["commit"] = machine.commit()
    return found


class Results:
    """Results are held by picture, size, sigma and method, in a JSON file after each; without a path in memory."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        kept = json.loads(path.read_text())["results"] if path is not None and path.exists() else []
        self._kept: dict[tuple[Any, ...], tables.Result] = {self._key(r): r for r in kept}

    @staticmethod
    def _key(r: tables.Result) -> tuple[Any, ...]:
        return r["picture"], r["crc32"], float(r["sigma"]), r["method"]

    def get(self, name: str, crc32: int, sigma: float, method: str) -> tables.Result | None:
        """Return the result kept, if there is one of the same pixels."""
        return self._kept.get((name, crc32, float(sigma), method))

    def put(self, result: tables.Result) -> None:
        """Keep a result in place of the one before."""
        self._kept[self._key(result)] = result
        if self._path is not None:
            machine.save(self._path, list(self._kept.values()))


def run(
    names: list[str],
    sigmas: list[float],
    chosen: list[str],
    size: int,
    options: methods.Options,
    results: Results,
    again: list[str],
) -> list[tables.Result]:
    """Run all pictures, sigmas and methods; what is kept is not repeated, unless its method is in ``again``."""
    found = []
    for name, clean in pictures.test_set(names, size).items():
        for sigma in sigmas:
            for method in chosen:
                result = results.get(name, checksum(clean), sigma, method)
                if result is None or method in again:
                    print(f"{name}, sigma {sigma:g}, {method}", file=sys.stderr, flush=True)
                    result = measure(name, clean, sigma, method, options)
                    results.put(result)
                found.append(result)
    return found


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = list(methods.METHODS)
    parser.add_argument("--sigmas", type=float, nargs="+", default=[10.0, 25.0, 50.0], help="noise levels of 255")
    parser.add_argument(
        "--methods", nargs="+", choices=known, default=["noisy", "nlm", "bm3d", "ours"], help="default: all but dip"
    )
    parser.add_argument("--pictures", nargs="+", choices=list(pictures.TEST), default=list(pictures.TEST))
    parser.add_argument(
        "--size",
        type=int,
        help=f"side of the crops (default: {pictures.SIZE}, with dip among the methods {DIP_SIZE})",
    )
    parser.add_argument("--threads", type=int, help="of bm3d, ours and dip (default: each method's own choice)")
    parser.add_argument("--dip-steps", type=int, default=methods.Options.dip_steps, help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="keep the results here, and repeat none that is there")
    parser.add_argument("--again", nargs="+", choices=known, default=[], help="repeat these methods all the same")
    args = parser.parse_args(argv)
    if not all(sigma > 0 and math.isfinite(sigma) for sigma in args.sigmas):
        parser.error("argument --sigmas: must be finite numbers > 0")
    for name in ("size", "threads", "dip_steps"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"argument --{name.replace('_', '-')}: must be at least 1, got {value}")
    if args.size is None:
        args.size = DIP_SIZE if "dip" in args.methods else pictures.SIZE
    # An option repeated names nothing new; the order of the tables is that of the table of methods.
    args.methods = [name for name in known if name in args.methods]
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    args = arguments(argv)
    options = methods.Options(threads=args.threads, dip_steps=args.dip_steps)
    found = run(args.pictures, args.sigmas, args.methods, args.size, options, Results(args.json), args.again)
    by_sigma = tables.grids(found, args.pictures, args.methods)
    for sigma, grid in by_sigma.items():
        print("\n".join(tables.lines(sigma, grid)))
    print("\n".join(tables.targets(by_sigma)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
