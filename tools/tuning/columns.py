"""This measures what a pair costs in a column against one in a sweep: why ``kernel.COLUMN_PAIR`` is what it is.

``python -m tools.tuning.columns`` takes the column of the pixel in the middle and a product with one vector, in seconds
of the processor on one thread; the column's pairs are those of ``NTK._column_cost`` without the factor.  Columns are
computed in double precision by one code for every processor, sweeps by the row kernels of each instruction set
(``NTKFAST_ISA``).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench import machine
from bench.networks import picture, table

from ntkfast import NTK, Network, autoencoder, unet, vanilla_cnn
from ntkfast.engine.cpu import isa
from ntkfast.kernel import COLUMN_PAIR

NETWORKS: dict[str, Network] = {
    "vanilla_cnn(3, 5)": vanilla_cnn(3, 5),
    "vanilla_cnn(5, 11)": vanilla_cnn(5, 11),
    "unet(1)": unet(1),
    "unet(2)": unet(2),
    "unet(3)": unet(3),
    "autoencoder(3)": autoencoder(3),
}


def cpu_seconds(call: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def measure(name: str, size: int, rounds: int) -> dict[str, Any]:
    """Return the least processor seconds of a column and of a product; they take turns."""
    operator = NTK(NETWORKS[name], picture(size), storage="stream", threads=1, channel_axis=-1)
    pixel = size // 2 * size + size // 2
    unit = np.zeros(size**2, np.float32)
    unit[pixel] = 1
    operator.columns([0])  # makes the fields in double, which are kept
    column = product = float("inf")
    for _ in range(rounds):
        seconds, one = cpu_seconds(lambda: operator.columns([pixel])[:, 0])
        column = min(column, seconds)
        seconds, other = cpu_seconds(lambda: operator @ unit)
        product = min(product, seconds)
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(one).max())
    pairs = operator._column_cost() / COLUMN_PAIR
    return {
        "network": name,
        "size": size,
        "isa": isa(),
        "column_seconds": column,
        "product_seconds": product,
        "pair_in_column_over_pair_in_sweep": (column / pairs) / (product / operator._sweep_cost()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="side of the image")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the results here")
    args = parser.parse_args()

    results = [measure(name, args.size, args.rounds) for name in args.networks]
    rows = [
        [
            r["network"],
            f"{r['column_seconds']:.3f}",
            f"{r['product_seconds']:.3f}",
            f"{r['pair_in_column_over_pair_in_sweep']:.2f}",
        ]
        for r in results
    ]
    print(f"{args.size} x {args.size}, {isa()}; COLUMN_PAIR = {COLUMN_PAIR}")
    print("\n".join(table(["network", "column s", "product s", "ratio of a pair"], rows)))
    if args.json:
        machine.save(args.json, results)


if __name__ == "__main__":
    main()
