"""This times a streaming product against the number of displacements swept together: why ``LANES`` is what it is.

``python -m tools.tuning.lanes`` prints nanoseconds a pair-layer and core for each network and size, the best in
brackets.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench import machine
from bench.networks import NETWORKS, pairs, picture, table

from ntkfast import _core
from ntkfast.engine import cpu
from ntkfast.engine.program import nodes

LANES = (1, 2, 4, 8, 16, 32)


def measure(name: str, size: int, rounds: int, threads: int) -> dict[str, Any]:
    """Return the best seconds of a product with three columns by number of lanes, which take turns in every round."""
    network, x = NETWORKS[name], picture(size)
    v = np.ascontiguousarray(x.reshape(-1, 3, 1), dtype=np.float32)
    engines = {
        lanes: _core.CpuEngineFloat32(
            nodes(network), False, False, x[None], False, isa=cpu.isa(), threads=threads, lanes=lanes
        )
        for lanes in LANES
        if lanes <= _core.max_lanes
    }
    best = dict.fromkeys(engines, float("inf"))
    expected = None
    for _ in range(rounds):
        for lanes, engine in engines.items():
            start = time.perf_counter()
            out = engine.product(v)
            best[lanes] = min(best[lanes], time.perf_counter() - start)
            expected = out if expected is None else expected
            np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    work = pairs(size) * network.depth / threads
    return {
        "network": name,
        "size": size,
        "threads": threads,
        "seconds": best,
        "ns_per_pair_layer": {lanes: 1e9 * seconds / work for lanes, seconds in best.items()},
    }


def row(result: dict[str, Any]) -> list[str]:
    """Return one line of the table."""
    ns = result["ns_per_pair_layer"]
    least = min(ns.values())
    cells = [f"[{ns[n]:.3f}]" if ns.get(n) == least else f"{ns[n]:.3f} " if n in ns else "- " for n in LANES]
    return [result["network"], str(result["size"]), *cells]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256], help="sides of the image")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=3, help="products for each number of lanes; the best counts")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", type=Path, help="write the results here")
    args = parser.parse_args()

    threads = cpu.threads_of(args.threads)
    results = [measure(name, size, args.rounds, threads) for size in args.sizes for name in args.networks]
    print(f"ns a pair-layer and core, {cpu.isa()}, {threads} threads; LANES = {cpu.LANES}")
    print("\n".join(table(["network", "size", *[f"{n} " for n in LANES]], [row(r) for r in results])))
    if args.json:
        machine.save(args.json, results)


if __name__ == "__main__":
    main()
