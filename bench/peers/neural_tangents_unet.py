"""This finds how large a picture ``neural_tangents`` 0.6.5 can take through a U-Net, beside ``NTK.dense()``.

``python -m bench.peers.neural_tangents_unet`` uses the environment of ``bench.peers.neural_tangents`` and makes it if
it is not there.  Sizes grow until the next one would take more memory than there is, or too long, both extrapolated as
a + b * size^4, or until the peer fails.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from bench import machine
from bench.networks import table
from bench.peers._neural_tangents import add_environment, interpreter_of, measure
from bench.peers.environments import PeerError
from bench.resident import mb
from ntkfast import unet

TOLERANCE = 1e-4  # between the two in float32, over the largest entry; what the peer's covariances may lose
FREE_SHARE = 0.9  # share of the free memory; the rest is left to the interpreter and to others


def predict(sizes: Sequence[int], values: Sequence[float], size: int) -> float:
    """Return a + b size^4 through the last two points, a >= 0 and b >= 0; with one point, a = 0."""
    fourth = [float(side) ** 4 for side in sizes[-2:]]
    slope, offset = values[-1] / fourth[-1], 0.0
    if len(fourth) == 2:
        # At small sizes the offset is the cost of tracing; without it, large ones would seem too large.
        slope = min(slope, max(0.0, (values[-1] - values[-2]) / (fourth[-1] - fourth[-2])))
        offset = values[-1] - slope * fourth[-1]
    return offset + slope * float(size) ** 4


def row(result: dict[str, Any]) -> list[str]:
    """Return one line of the table."""
    size = str(result["size"])
    if "stopped" in result:
        expected = result["predicted"]
        return [size, f"({expected['seconds']:.0f})", "", "", f"({mb(expected['peak_bytes'])})", "", "", "", ""]
    theirs, ours = result["neural_tangents"], result["ntkfast"]
    seconds = theirs["first_seconds"], ours["seconds"][0]
    return [
        size,
        f"{seconds[0]:.2f}",
        f"{seconds[1]:.3f}",
        f"{seconds[0] / seconds[1]:.0f}",
        mb(theirs["peak_bytes_above_import"]),
        mb(ours["peak_bytes_above_import"]),
        f"{result['error_between']:.1e}",
        f"{result['error_neural_tangents']:.1e}",
        f"{result['error_ntkfast']:.1e}",
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32, 48, 64, 80, 96, 112, 128], help="ascending")
    parser.add_argument("--levels", type=int, default=2, help="halvings of the U-Net")
    parser.add_argument("--memory-gb", type=float, help="of the peer (10^9 bytes); default: 0.9 of what is free")
    parser.add_argument("--seconds", type=float, default=600, help="of one evaluation of the peer")
    add_environment(parser)
    parser.add_argument("--json", type=Path, help="write the results here")
    args = parser.parse_args()
    if sorted(set(args.sizes)) != args.sizes or any(size % 2**args.levels for size in args.sizes):
        parser.error(f"--sizes must be ascending multiples of {2**args.levels}, got {args.sizes}")
    return args


def main() -> int:
    args = arguments()
    interpreter = interpreter_of(args)
    network = unet(args.levels)
    results: list[dict[str, Any]] = []
    for size in args.sizes:
        free = psutil.virtual_memory().available
        memory = int(FREE_SHARE * free if args.memory_gb is None else min(1e9 * args.memory_gb, free))
        predicted = None
        if results:
            sizes = [result["size"] for result in results]
            peers = [result["neural_tangents"] for result in results]
            predicted = {
                "seconds": predict(sizes, [peer["first_seconds"] for peer in peers], size),
                "peak_bytes": int(predict(sizes, [peer["peak_bytes_above_import"] for peer in peers], size)),
            }
            if predicted["peak_bytes"] > memory or predicted["seconds"] > args.seconds:
                why = f"not run: the limits are {mb(memory)} and {args.seconds:.0f} s"
                results.append({"size": size, "stopped": why, "predicted": predicted})
                break
        with tempfile.TemporaryDirectory() as folder:
            try:
                result = measure(
                    network, size, interpreter, Path(folder), rounds=1, seconds=args.seconds, memory_bytes=memory
                )
            except PeerError as failure:
                if predicted is None:
                    raise
                results.append({"size": size, "stopped": str(failure), "predicted": predicted})
                break
        results.append(result)
        print(f"{size}: done", file=sys.stderr, flush=True)
    head = ["size", "peer s", "ntkfast s", "ratio", "peer's peak", "ntkfast's peak"]
    head += ["peer - ntkfast", "peer's error", "ntkfast's error"]
    print(repr(network))
    print("\n".join(table(head, [row(result) for result in results])))
    print("one call each, in float32; peaks are above the import; errors over max|Theta|; (predicted)")
    if "stopped" in results[-1]:
        print(f"{results[-1]['size']}: {results[-1]['stopped']}")
    if args.json:
        machine.save(args.json, results)
    wrong = [str(r["size"]) for r in results if "stopped" not in r and not r["error_between"] <= TOLERANCE]
    if wrong:
        print(f"results differ by more than {TOLERANCE:g} at sizes {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
