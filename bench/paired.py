"""Whether one checkout is slower than another: the same calls in both, in turn, and the ratio of their times.

``python -m bench.paired BEFORE AFTER`` takes the folders that hold the two ``ntkfast`` packages, each with its compiled
engine: ``python`` of a checkout with an engine built in place, or ``lib/python3.11/site-packages`` of an environment.
Each of 20 rounds starts a process for either, in alternating order, which makes every call once to warm up and then
takes the fastest of a few; a round gives one ratio for each call.  Printed are the median of the ratios after/before
and the interval of its mean at 95 % (Student's t); nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats

import ntkfast as nf
from bench.networks import NETWORKS, picture, table

ROOT = Path(__file__).resolve().parent.parent
ROUNDS, REPEATS, TOLERANCE = 20, 3, 0.02
NOISE = 25 / 255


def calls(small: bool) -> dict[str, Callable[[], object]]:
    """What is timed: streaming products of a chain and of a U-Net, and the denoiser."""
    sides = (32, 32, 32) if small else (128, 64, 128)
    chain = nf.NTK(NETWORKS["three3x3"], picture(sides[0]), storage="stream", device="cpu")
    levels = nf.NTK(nf.unet(2), picture(sides[1]), storage="stream", device="cpu")
    rng = np.random.default_rng(0)
    v, w = (rng.standard_normal((K.shape[0], 3)).astype(np.float32) for K in (chain, levels))
    clean = picture(sides[2])
    noisy = clean + rng.normal(0, NOISE, clean.shape)
    return {
        "product, three3x3": lambda: chain @ v,
        "product, unet(2)": lambda: levels @ w,
        "denoise_ntk": lambda: nf.denoise_ntk(noisy, sigma=NOISE, channel_axis=-1, device="cpu"),
    }


def measure(small: bool) -> dict[str, float]:
    """Seconds of each call: the fastest of a few, after one to warm up."""
    seconds = {}
    for name, call in calls(small).items():
        call()
        times = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        seconds[name] = min(times)
    return seconds


def in_process(package: Path, small: bool) -> dict[str, float]:
    """``measure`` in a process of its own that imports ntkfast from a folder."""
    path = os.pathsep.join([str(package.resolve()), str(ROOT)])  # before what is installed
    command = [sys.executable, "-m", "bench.paired", "--worker", *(["--small"] if small else []), str(package)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True
    )
    seconds: dict[str, float] = json.loads(done.stdout)
    return seconds


def ratios(before: Path, after: Path, rounds: int, small: bool) -> dict[str, list[float]]:
    """Call -> time in ``after`` over time in ``before``, one for each round."""
    found: dict[str, list[float]] = {}
    for n in range(rounds):
        order = (before, after) if n % 2 == 0 else (after, before)
        seconds = {package: in_process(package, small) for package in order}
        for name, first in seconds[before].items():
            found.setdefault(name, []).append(seconds[after][name] / first)
        print(f"round {n + 1}: " + ", ".join(f"{name} {r[-1]:.3f}" for name, r in found.items()), file=sys.stderr)
    return found


def interval(values: list[float]) -> tuple[float, float]:
    """Interval of the mean at 95 %."""
    mean, error = float(np.mean(values)), float(stats.sem(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return mean - half, mean + half


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="the same calls in two checkouts, in turn")
    parser.add_argument("packages", metavar="FOLDER", type=Path, nargs="+", help="holds the package: BEFORE, AFTER")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--small", action="store_true", help="small pictures: tests this script")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.worker:
        print(json.dumps(measure(args.small)))
        return 0
    if len(args.packages) != 2 or args.rounds < 2:
        parser.error("two folders, and two rounds or more, are needed")
    rows = []
    for name, values in ratios(*args.packages, args.rounds, args.small).items():
        low, high = interval(values)
        slower = " slower" if low > 1 + TOLERANCE else ""
        rows.append([name, f"{np.median(values):.3f}", f"{low:.3f} to {high:.3f}{slower}"])
    print("\n".join(table(["call", "median ratio", "interval of the mean"], rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
