"""This finds out whether one checkout is slower than another: both make the same calls in turn.

The result is the ratio of their times.

``python -m bench.paired BEFORE AFTER`` takes the folders that hold the two ``ntkfast`` packages, each with its compiled
engine: ``python`` of a checkout with an engine built in place, or ``lib/python3.11/site-packages`` of an environment.
Each of 20 rounds starts a process for either; they make the same call in turn, so that what else the machine does hits
both, and the fastest of a few turns of either gives the round's ratio.  A checkout makes the calls that its own copy of
this script says, since names may have changed, and one without a copy makes ours.  Printed are the median of the
ratios after/before and the interval of its mean at 95 % (Student's t); nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
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
ROUNDS, REPEATS, TOLERANCE = 20, 5, 0.02
NAMES = ("product, three3x3", "product, unet(2)", "denoise_ntk")
NOISE = 25 / 255


def calls(small: bool) -> dict[str, Callable[[], object]]:
    """Return what is timed: streaming products of a chain and of a U-Net, and the denoiser."""
    sides = (32, 32, 32) if small else (96, 64, 64)
    chain = nf.NTK(NETWORKS["three3x3"], picture(sides[0]), storage="stream", device="cpu", channel_axis=-1)
    levels = nf.NTK(nf.unet(2), picture(sides[1]), storage="stream", device="cpu", channel_axis=-1)
    rng = np.random.default_rng(0)
    v, w = (rng.standard_normal((K.shape[0], 3)).astype(np.float32) for K in (chain, levels))
    clean = picture(sides[2])
    noisy = clean + rng.normal(0, NOISE, clean.shape)
    made = (
        lambda: chain @ v,
        lambda: levels @ w,
        lambda: nf.denoise_ntk(noisy, sigma=NOISE, channel_axis=-1, compute=nf.Compute(device="cpu")),
    )
    return dict(zip(NAMES, made, strict=True))


def serve(small: bool) -> None:
    """Make the call that each line of the standard input names, once to warm up, and print its seconds."""
    known = calls(small)
    for line in sys.stdin:
        call = known[line.strip()]
        started = time.perf_counter()
        call()
        print(time.perf_counter() - started, flush=True)


class Worker:
    """This is a process that imports ntkfast from a folder and makes calls when asked to."""

    def __init__(self, package: Path, small: bool) -> None:
        own = package.resolve().parent
        root = own if (own / "bench" / "paired.py").exists() else ROOT
        path = os.pathsep.join([str(package.resolve()), str(root)])  # before what is installed
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.paired", "--worker", *(["--small"] if small else []), str(package)],
            env={**os.environ, "PYTHONPATH": path},
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, name: str) -> float:
        """Return the seconds that a call takes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def ratios(before: Path, after: Path, rounds: int, small: bool) -> dict[str, list[float]]:
    """Map each call to its times in ``after`` over those in ``before``, one for each round."""
    found: dict[str, list[float]] = {}
    for n in range(rounds):
        workers = {package: Worker(package, small) for package in (before, after)}
        for name in NAMES:
            times: dict[Path, list[float]] = {before: [], after: []}
            for turn in range(1 + REPEATS):
                for package in (before, after) if (n + turn) % 2 == 0 else (after, before):
                    times[package].append(workers[package].seconds(name))
            # The first turn warms up.
            found.setdefault(name, []).append(min(times[after][1:]) / min(times[before][1:]))
        for worker in workers.values():
            worker.close()
        print(f"round {n + 1}: " + ", ".join(f"{name} {r[-1]:.3f}" for name, r in found.items()), file=sys.stderr)
    return found


def interval(values: list[float]) -> tuple[float, float]:
    """Return the interval of the mean at 95 %."""
    mean, error = float(np.mean(values)), float(stats.sem(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return mean - half, mean + half


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="the same calls in two checkouts, in turn")
    parser.add_argument("packages", metavar="FOLDER", type=Path, nargs="+", help="holds the package: BEFORE, AFTER")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--small", action="store_true", help="small pictures: tests this script")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.worker:
        serve(args.small)
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
