"""This puts networks of several resolutions beside one of a single resolution.

It takes times in turns, and compares peak memory with its estimate.

``python -m bench.resolutions`` times streaming products of ``unet(2)``, ``autoencoder(2)`` and a chain with as many
hidden layers at full resolution as the U-Net, two of 3x3; then one product of each in a process of its own gives the
peak memory above the import, which is put beside ``NTK.memory_estimate``.  ``--networks unet --sizes 512 --rounds 0``
measures a single product, ``--networks unet --storage coarse`` one and a second, which finds the coarse fields.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.networks import picture, table
from bench.resident import in_fresh_process, mb, peak, resident
from ntkfast import NTK, Conv, Network, ReLU, autoencoder, unet

COLUMNS = 3
TOLERANCE = 1e-5
CHAIN = "chain"
NETWORKS: dict[str, Network] = {
    CHAIN: Network([Conv(3), ReLU(), Conv(3), ReLU(), Conv(1)]),
    "unet": unet(2),
    "autoencoder": autoencoder(2),
}


def times(size: int, names: list[str], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of streaming products; the networks take turns, since the clock of the machine drifts."""
    x = picture(size)
    v = x.reshape(-1, COLUMNS).astype(np.float32)
    operators = {name: NTK(NETWORKS[name], x, storage="stream", channel_axis=-1) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, operator in operators.items():
            start = time.perf_counter()
            out = operator @ v
            seconds[name].append(time.perf_counter() - start)
            pixels = [0, size // 2, size * size // 2 + size // 2]
            want = operator.columns(pixels).astype(np.float64).T @ v
            assert np.abs(out[pixels] - want).max() <= TOLERANCE * np.abs(want).max()
    return seconds


def measure(path: str, name: str, storage: str) -> dict[str, Any]:
    """Measure memory and time of one product, in a process that has imported ntkfast and nothing heavier."""
    start_bytes = resident()
    image = np.load(path)
    operator = NTK(NETWORKS[name], image, storage=storage, channel_axis=-1)
    v = image.reshape(-1, COLUMNS).astype(np.float32)
    seconds = []
    for _ in range(1 if storage == "stream" else 2):  # the second finds what the first has kept
        start = time.perf_counter()
        operator @ v
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": seconds,
        "peak_bytes_above_import": peak() - start_bytes,
        "input_and_result_bytes": image.nbytes + 3 * v.nbytes,
        "estimate_bytes": operator.memory_estimate(COLUMNS)[storage],
        "threads": operator.threads,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 192], help="sides of the image, multiples of 4")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--storage", choices=["stream", "coarse"], default="stream", help="for the memory")
    parser.add_argument("--rounds", type=int, default=3, help="products of each network that are timed in turns")
    parser.add_argument("--json", type=Path, help="write the results here")
    args = parser.parse_args()

    results: list[dict[str, Any]] = []
    for size in args.sizes:
        seconds = times(size, args.networks, args.rounds) if args.rounds else {}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "picture.npy")
            np.save(path, picture(size))
            for name in args.networks:
                result = {"network": name, "size": size, "storage": args.storage, "rounds": seconds.get(name, [])}
                result |= in_fresh_process(measure, str(path), name, args.storage)
                if CHAIN in seconds:
                    ratios = [a / b for a, b in zip(seconds[name], seconds[CHAIN], strict=True)]
                    result["times_the_chain"] = statistics.median(ratios)
                results.append(result)
    rows = [
        [
            f"{r['network']} {r['size']}",
            f"{statistics.median(r['rounds']):.3f}" if r["rounds"] else "",
            f"{r['times_the_chain']:.2f}" if "times_the_chain" in r else "",
            " then ".join(f"{seconds:.3f}" for seconds in r["seconds"]),
            mb(r["peak_bytes_above_import"]),
            mb(r["estimate_bytes"]),
            mb(r["input_and_result_bytes"]),
        ]
        for r in results
    ]
    print(f"{results[0]['threads']} threads, {COLUMNS} columns, storage={args.storage!r}")
    head = ["network, size", "median s", "of the chain", "alone s", "peak", "estimate", "input and result"]
    print("\n".join(table(head, rows)))
    if args.json:
        machine.save(args.json, results)


if __name__ == "__main__":
    main()
