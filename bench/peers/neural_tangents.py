"""This times ``neural_tangents`` 0.6.5 beside ``NTK.dense()`` on the same picture and networks.

It checks that they agree.

``python -m bench.peers.neural_tangents`` makes an environment for the peer under build/peers/ on its first run, since
the versions of JAX, NumPy and SciPy that it works with are older than those of this project.  That takes 2.6 GB on
disk, most of it the TensorFlow that the peer asks for.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import machine
from bench.networks import NETWORKS, table
from bench.peers._neural_tangents import PADDINGS, TOLERANCE, add_environment, interpreter_of, measure
from bench.resident import mb

TIMES_FASTER = {("three3x3", 64): 300.0, ("conv11", 64): 1000.0}  # targets, for the plain call in float32


def compare(name: str, mode: str, args: argparse.Namespace, interpreter: Path, folder: Path) -> dict[str, Any]:
    """Return one line of the table."""
    network = type(NETWORKS[name])(NETWORKS[name].layers, padding=args.padding)
    jit = mode == "jit"
    found = measure(network, args.size, interpreter, folder, dtype=args.dtype, jit=jit, repeats=args.repeats)
    found["times_faster"] = min(found["neural_tangents"]["warm_seconds"]) / min(found["ntkfast"]["seconds"])
    return {"network": name, "mode": mode, **found}


def row(result: dict[str, Any]) -> list[str]:
    """Return one line of the table."""
    theirs, ours = result["neural_tangents"], result["ntkfast"]
    target = None
    if result["mode"] == "plain" and result["dtype"] == "float32":
        target = TIMES_FASTER.get((result["network"], result["size"]))
    missed = target is not None and result["times_faster"] < target
    return [
        f"{result['network']} {result['size']}",
        result["mode"],
        f"{min(theirs['warm_seconds']):.3f}",
        f"{min(ours['seconds']):.4f}",
        f"{result['times_faster']:.0f}{'*' if missed else ' '}",
        "" if target is None else f"{target:.0f}",
        mb(theirs["peak_bytes_above_import"]),
        mb(ours["peak_bytes_above_import"]),
        f"{result['error_between']:.1e}",
        f"{result['error_neural_tangents']:.1e}",
        f"{result['error_ntkfast']:.1e}",
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--size", type=int, default=64, help="side of the image; the peer's memory grows as its 4th power"
    )
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=["three3x3", "conv11"])
    parser.add_argument("--modes", nargs="+", choices=["plain", "jit"], default=["plain", "jit"], help="jit: jax.jit")
    parser.add_argument("--padding", choices=list(PADDINGS), default="zeros")
    parser.add_argument("--dtype", choices=list(TOLERANCE), default="float32", help="of both")
    parser.add_argument("--repeats", type=int, default=2, help="warm calls of the peer; the best counts")
    add_environment(parser)
    parser.add_argument("--json", type=Path, help="write the results here")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    interpreter = interpreter_of(args)
    results = []
    for name in args.networks:
        for mode in args.modes:
            with tempfile.TemporaryDirectory() as folder:
                results.append(compare(name, mode, args, interpreter, Path(folder)))
    head = ["network", "peer's mode", "peer s", "ntkfast s", "ratio", "target", "peer's peak", "ntkfast's peak"]
    head += ["peer - ntkfast", "peer's error", "ntkfast's error"]
    print("\n".join(table(head, [row(result) for result in results])))
    print("best times; peaks are above the import; errors over max|Theta|; * misses its target")
    if args.json:
        machine.save(args.json, results)
    tolerance = TOLERANCE[args.dtype]
    wrong = [f"{r['network']} ({r['mode']})" for r in results if not r["error_between"] <= tolerance]
    if wrong:
        print(f"results differ by more than {tolerance:g}: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
