"""This measures what a tile costs the denoiser: operations and bytes by formula, seconds predicted and measured.

``python -m tools.tuning.cost`` filters a picture once, a given number of steps, for each tile size and number of
channels, on one thread.  A tile of d pixels and C channels takes, with the p products that Lanczos needed,

- d (d + 1)/2 pair-layers a hidden layer, for its kernel, which is stored;
- p d^2 C multiply-adds for the products, 2 d C^2 p (p + 1) for orthogonalising twice against all blocks before, and
  d p C^2 for the result;
- the bytes of a batch (``ntkfast.restoration.tile_filter.batch_bytes``) over its tiles.

Seconds are those of the processor.  Predicted, they are the kernel's by the roofline, the speed of the inner loops by
themselves, and Lanczos' p (a d^2 + b d C), for reading the stored kernel and for work on vectors; a and b are fitted to
the cases of one tile size, the middle one, and all others are predicted from them.
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
from scipy.optimize import nnls

from ntkfast import Compute, Tiles, denoise_ntk, roofline
from ntkfast.engine.cpu import CPU
from ntkfast.restoration import tile_filter
from ntkfast.restoration.options import CHROMA_TIME, NETWORK
from ntkfast.restoration.tile_filter import TILES_PER_BATCH, TileMethod, batch_bytes
from ntkfast.spectral.lanczos import BlockLanczos
from tools.tuning.channels import mixtures

SIGMA = 25.0
STEPS = 200


def operations(size: int, channels: int, products: float) -> tuple[float, float]:
    """Count pair-layers, and multiply-adds of Lanczos, of a tile of size x size pixels."""
    d = size**2
    pair_layers = d * (d + 1) / 2 * NETWORK.depth
    return pair_layers, d * channels * (products * d + 2 * channels * products * (products + 1) + products * channels)


def tile_bytes(size: int, channels: int) -> float:
    """Return the bytes of a tile of a full batch."""
    method = TileMethod(
        network=NETWORK,
        size=size,
        overlap=0,
        dtype=np.dtype(np.float32),
        backend=CPU,
        threads=1,
        chroma_time=CHROMA_TIME,
    )
    return batch_bytes(method, (size, size, channels), TILES_PER_BATCH, 1) / TILES_PER_BATCH


def measure(size: int, channels: int, side: int) -> dict[str, Any]:
    """Run one pass over a picture of side x side, by Lanczos whatever the channels."""
    clean = mixtures(side, channels)
    noisy = clean + SIGMA * np.random.default_rng(0).standard_normal(clean.shape)
    runs: list[BlockLanczos] = []

    class Counted(BlockLanczos):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            runs.append(self)

    with (
        mock.patch.object(tile_filter, "BlockLanczos", Counted),
        mock.patch.object(tile_filter, "EIGENVECTORS_FROM", np.inf),
    ):
        start = time.process_time()
        method = Tiles(size=size, steps=STEPS, passes=1)
        _, info = denoise_ntk(
            noisy, SIGMA, channel_axis=-1, method=method, compute=Compute(threads=1), return_info=True
        )
        seconds = time.process_time() - start
    products = float(np.mean([run.products for run in runs]))
    pair_layers, multiply_adds = operations(size, channels, products)
    return {
        "size": size,
        "channels": channels,
        "tiles": info.tiles,
        "products": products,
        "pair_layers": pair_layers,
        "multiply_adds": multiply_adds,
        "bytes": tile_bytes(size, channels),
        "kernel_seconds": pair_layers / NETWORK.depth * roofline(NETWORK, channels=channels, columns=0, threads=1),
        "seconds": seconds / info.tiles,
    }


def predict(results: list[dict[str, Any]]) -> None:
    """Add ``predicted`` seconds a tile: the kernel's by the roofline, the others by the rates a and b."""

    def work(r: dict[str, Any]) -> np.ndarray:
        d = r["size"] ** 2
        return np.array([r["products"] * d**2, r["products"] * d * r["channels"]])

    sizes = sorted({r["size"] for r in results})
    known = [r for r in results if r["size"] == sizes[len(sizes) // 2]]
    rest = [r["seconds"] - r["kernel_seconds"] for r in known]
    rates, _ = nnls(np.array([work(r) for r in known]), np.maximum(rest, 0.0))
    for r in results:
        r["fitted"] = r["size"] == known[0]["size"]
        r["predicted"] = r["kernel_seconds"] + float(work(r) @ rates)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.tuning.cost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiles", type=int, nargs="+", default=[8, 16, 24], help="sides of the tiles")
    parser.add_argument("--channels", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--side", type=int, default=96, help="of the picture (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the results here")
    args = parser.parse_args(argv)
    results = [measure(size, channels, args.side) for size in args.tiles for channels in args.channels]
    predict(results)
    rows = [
        [
            f"{r['size']} x {r['size']} x {r['channels']}",
            str(r["tiles"]),
            f"{r['products']:.1f}",
            f"{r['pair_layers'] / 1e3:.1f}",
            f"{r['multiply_adds'] / 1e3:.0f}",
            f"{r['bytes'] / 1e3:.0f}",
            *(f"{1e3 * r[key]:.3f}" for key in ("kernel_seconds", "predicted", "seconds")),
            f"{r['predicted'] / r['seconds']:.2f}" + ("*" if r["fitted"] else " "),
        ]
        for r in results
    ]
    head = ["tile", "tiles", "products", "1e3 pair-layers", "1e3 multiply-adds", "kB"]
    print("\n".join(table([*head, "kernel, ms", "predicted, ms", "measured, ms", "ratio"], rows)))
    print("* a and b come from these")
    if args.json:
        machine.save(args.json, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
