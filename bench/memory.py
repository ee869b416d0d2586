"""This compares the peak memory of a streaming product with what ``NTK.memory_estimate`` predicts.

The memory counts above that of ``import ntkfast``.

``python -m bench.memory`` stops the product after a few seconds: the fields, the line buffers and the sums are all
taken at the start, and only the pages of the result are touched at the end; those are added.  ``--full`` runs to the
end.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.networks import picture, table
from bench.resident import in_fresh_process, mb, peak, resident
from ntkfast import NTK, vanilla_cnn

LIMIT = 300_000_000  # target for 512 x 512
COLUMNS = 3


class Enough(Exception):  # noqa: N818 - a signal, not an error
    """The progress callback raises this to stop the product."""


def measure(path: str, depth: int, kernel_size: int, seconds: float | None) -> dict[str, Any]:
    """Run in a process that has imported ntkfast and nothing heavier; ``seconds=None`` runs the whole product."""
    start_bytes = resident()
    image = np.load(path)
    end = time.monotonic() + (float("inf") if seconds is None else seconds)
    reached = 0.0

    def progress(fraction: float) -> None:
        nonlocal reached
        reached = fraction
        if time.monotonic() > end:
            raise Enough

    operator = NTK(vanilla_cnn(depth, kernel_size), image, storage="stream", progress=progress, channel_axis=-1)
    v = image.reshape(-1, COLUMNS).astype(np.float32)
    unwritten = 0
    try:
        operator @ v
    except Enough:
        unwritten = 2 * v.nbytes  # the engine's result and the operator's
    return {
        "size": len(image),
        "network": repr(operator.network),
        "threads": operator.threads,
        "fraction_done": reached,
        "import_bytes": start_bytes,
        "peak_bytes_above_import": peak() - start_bytes + unwritten,
        "input_and_result_bytes": image.nbytes + 3 * v.nbytes,
        "estimate_bytes": operator.memory_estimate(COLUMNS)["stream"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512], help="sides of the image, up to 512")
    parser.add_argument("--depth", type=int, default=1, help="hidden layers")
    parser.add_argument("--kernel-size", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="stop the product after this time")
    parser.add_argument("--full", action="store_true", help="run the whole product: minutes for 512 x 512")
    parser.add_argument("--json", type=Path, help="write the results here")
    args = parser.parse_args()

    results = []
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "picture.npy")
            np.save(path, picture(size))
            seconds = None if args.full else args.seconds
            results.append(in_fresh_process(measure, str(path), args.depth, args.kernel_size, seconds))
    rows = [
        [
            f"{r['size']}x{r['size']}",
            mb(r["import_bytes"]),
            mb(r["peak_bytes_above_import"]),
            mb(r["estimate_bytes"]),
            mb(r["input_and_result_bytes"]),
            f"{100 * r['fraction_done']:.1f} %",
        ]
        for r in results
    ]
    print(results[0]["network"], f"{results[0]['threads']} threads, {COLUMNS} columns, target {mb(LIMIT)} above import")
    head = ["size", "import", "peak above import", "estimate", "input and result", "product done"]
    print("\n".join(table(head, rows)))
    if args.json:
        machine.save(args.json, results)


if __name__ == "__main__":
    main()
