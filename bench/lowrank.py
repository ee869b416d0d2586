"""This puts low-rank approximations beside the exact kernel: time, error, and what the filter made of them is worth.

``python -m bench.lowrank`` adds noise of level 25 of 255 to the picture and filters it by gradient descent, with the
exact kernel, streaming, and with each approximation.  For each number of columns k: Nystrom from k landmarks on a
lattice and at random, and random sketches of k vectors, in one sweep and in two, of rank k - 10.  The table has

- k; the rank; s: seconds to make it, columns or products and the factorisation; cpu: the same of the processors, which
  other programs do not change much; filter: seconds of the processors for all times at once;
- trace: the relative error in the trace; Frobenius: the estimated relative error and its standard error;
- z: |z~_t - z_t| / |z_t| at the time t that is best for the exact filter, both with its learning rate;
- PSNR: at the time that is best for each, in dB;
- of the exact kernel, in its own line: s and cpu of one product of three columns, the filter's products in brackets.

``--approximate`` leaves the exact filter out, as large pictures need: no line of the exact kernel, no z, and Nystrom
from the lattice alone, with the rate one over its own largest eigenvalue.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.linalg import norm

from bench import machine
from bench.networks import picture, table
from bench.psnr import psnr
from ntkfast import (
    NTK,
    LowRank,
    Network,
    autoencoder,
    gradient_descent,
    nystrom,
    randomized_low_rank,
    unet,
    vanilla_cnn,
)

NETWORKS: dict[str, Network] = {
    "conv5": vanilla_cnn(1, 5),
    "conv11": vanilla_cnn(1, 11),
    "autoencoder": autoencoder(1),
    "unet": unet(1),
}
OVERSAMPLING = 10  # vectors of a sketch beyond its rank


def sketch(K: NTK, k: int, sweeps: int) -> LowRank:
    """Return the sketch of k random vectors."""
    return randomized_low_rank(K, k - OVERSAMPLING, sweeps=sweeps, oversampling=OVERSAMPLING)


METHODS: dict[str, Callable[[NTK, int], LowRank]] = {
    "lattice": nystrom,
    "random": lambda K, k: nystrom(K, k, landmarks="random"),
    "one sweep": lambda K, k: sketch(K, k, 1),
    "two sweeps": lambda K, k: sketch(K, k, 2),
}
SKETCHES = ("one sweep", "two sweeps")
SIGMA = 25 / 255
STEPS = np.unique(np.round(np.geomspace(1, 2000, 30)).astype(int)).tolist()
SAMPLES = 64  # columns of the Frobenius estimate


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return the result, seconds, and seconds of the processors: as many times more as threads were at work."""
    start, busy = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - start, time.process_time() - busy


def measure(
    name: str, size: int, counts: list[int], sketches: list[int], *, exact: bool = True
) -> list[dict[str, Any]]:
    """Measure the exact kernel of a network and size, then each approximation; without ``exact`` lattices alone."""
    clean = picture(size)
    noisy = clean + np.random.default_rng(0).normal(0, SIGMA, clean.shape)
    mean = noisy.mean(axis=(0, 1))
    y = noisy - mean
    K = NTK(NETWORKS[name], y, storage="stream", device="cpu", channel_axis=-1)
    common = {"network": name, "size": size, "threads": K.threads}
    results: list[dict[str, Any]] = []
    path, rate, best, filter_error = None, None, 0, None
    if exact:
        _, product, product_busy = timed(lambda: K.apply(y))
        (path, info), seconds, busy = timed(lambda: gradient_descent(K, y, STEPS, return_info=True))
        quality = [psnr(clean, z + mean, peak=1) for z in path]
        best, rate = int(np.argmax(quality)), info.learning_rate
        found = {
            "method": "exact",
            "seconds": product,
            "cpu_seconds": product_busy,
            "filter_seconds": seconds,
            "filter_cpu_seconds": busy,
            "products": info.products,
            "steps": STEPS[best],
            "psnr": quality[best],
        }
        results.append(common | found)
    for method, make in METHODS.items() if exact else [("lattice", nystrom)]:
        for k in sketches if method in SKETCHES else counts:
            low, seconds, busy = timed(lambda make=make, k=k: make(K, k))
            error = low.estimate_error(K, samples=SAMPLES)
            approximate, *filtered = timed(lambda low=low: gradient_descent(low, y, STEPS, rate))
            quality = [psnr(clean, z + mean, peak=1) for z in approximate]
            if path is not None:
                filter_error = float(norm(approximate[best] - path[best]) / norm(path[best]))
            found = {
                "method": method,
                "columns": k,
                "rank": low.rank,
                "seconds": seconds,
                "cpu_seconds": busy,
                "filter_seconds": filtered[0],
                "filter_cpu_seconds": filtered[1],
                "trace_error": low.trace_error,
                "frobenius": error.frobenius,
                "standard_error": error.standard_error,
                "spectral_bounds": error.spectral_bounds,
                "filter_error": filter_error,
                "steps": STEPS[int(np.argmax(quality))],
                "psnr": max(quality),
            }
            results.append(common | found)
    return results


def row(r: dict[str, Any]) -> list[str]:
    """Return one line of the table."""
    head, quality = f"{r['network']} {r['size']} {r['method']}", [str(r["steps"]), f"{r['psnr']:.2f}"]
    if r["method"] == "exact":
        filtered = f"({r['products']}) {r['filter_cpu_seconds']:.2f}"
        return [head, "", "", f"{r['seconds']:.2f}", f"{r['cpu_seconds']:.2f}", filtered, "", "", "", *quality]
    error = f"{r['frobenius']:.4f} +- {r['standard_error']:.4f}"
    seconds = [f"{r[key]:.2f}" for key in ("seconds", "cpu_seconds", "filter_cpu_seconds")]
    made = [str(r["columns"]), str(r["rank"]), *seconds]
    filter_error = "" if r["filter_error"] is None else f"{r['filter_error']:.3f}"
    return [head, *made, f"{r['trace_error']:.3f}", error, filter_error, *quality]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128], help="sides of the image")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--columns", type=int, nargs="+", default=[64, 256, 1024], help="numbers of landmarks")
    parser.add_argument("--sketches", type=int, nargs="+", default=[64, 256], help="numbers of random vectors")
    parser.add_argument("--approximate", action="store_true", help="without the exact filter")
    parser.add_argument("--json", type=Path, help="write the results here")
    args = parser.parse_args()
    if min(args.sketches) <= OVERSAMPLING:
        parser.error(f"sketches must be more than {OVERSAMPLING}")

    results = []
    for size in args.sizes:
        for name in args.networks:
            results += measure(name, size, args.columns, args.sketches, exact=not args.approximate)
    head = ["kernel", "k", "rank", "s", "cpu", "filter", "trace", "Frobenius", "z", "t", "PSNR"]
    print(f"{results[0]['threads']} threads; noise of level 25 of 255, {len(STEPS)} times up to {STEPS[-1]} steps")
    print("\n".join(table(head, [row(r) for r in results])))
    if args.json:
        machine.save(args.json, results)


if __name__ == "__main__":
    main()
