"""Times ``neural_tangents`` 0.6.5 beside ``NTK.dense()`` on the same picture and networks, and checks that they agree.

``python -m bench.peers.neural_tangents`` makes an environment for the peer under build/peers/ on its first run, since
the versions of JAX, NumPy and SciPy that it works with are older than those of this project.  That takes 2.6 GB on
disk, most of it the TensorFlow that the peer asks for.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.networks import NETWORKS, picture, table
from bench.resident import in_fresh_process, mb, peak, resident
from ntkfast import NTK

REQUIREMENTS = ("neural-tangents==0.6.5", "jax==0.4.25", "jaxlib==0.4.25", "numpy<2", "scipy<1.13")
WORKER = Path(__file__).with_name("_neural_tangents_worker.py")
ENVIRONMENT = machine.ROOT / "build" / "peers" / "neural_tangents-0.6.5"
PADDINGS = {"zeros": "SAME", "circular": "CIRCULAR"}
TIMES_FASTER = {("three3x3", 64): 300.0, ("conv11", 64): 1000.0}  # targets, for the plain call in float32

# The peer carries covariances, which lose half of the digits where patches are alike (docs/math.md).
TOLERANCE = {"float32": 1e-3, "float64": 1e-6}
OUR_ROUNDS, OUR_SECONDS = 10, 20.0  # at most so many matrices, or so long


def make_environment(folder: Path, python: str) -> Path:
    """Interpreter of the peer's environment, which is made if it is not there or holds something else."""
    interpreter = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    marker = folder / "requirements.json"  # written last: without it, an installation was cut short
    if marker.exists() and json.loads(marker.read_text()) == list(REQUIREMENTS):
        return interpreter
    print(f"installing {', '.join(REQUIREMENTS)} into an environment of their own", flush=True)
    subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
    subprocess.run([str(interpreter), "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    marker.write_text(json.dumps(REQUIREMENTS))
    return interpreter


def run_peer(interpreter: Path, job: dict[str, Any], folder: Path, worker: Path = WORKER) -> dict[str, Any]:
    """One job in a process of its own, so that its peak of memory is its own too."""
    job_path, result_path = folder / "job.json", folder / "result.json"
    job_path.write_text(json.dumps(job))
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["JAX_ENABLE_X64"] = str(int(job["dtype"] == "float64"))
    command = [str(interpreter), "-I", str(worker), str(job_path), str(result_path)]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"neural_tangents failed with status {done.returncode}:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(result_path.read_text())
    return result


def run_ours(name: str, picture_path: str, dtype: str, padding: str, kernel_path: str) -> dict[str, Any]:
    """Runs in a fresh process: ``dense()`` with all threads, several times over."""
    before = resident()
    image = np.load(picture_path)
    network = type(NETWORKS[name])(NETWORKS[name].layers, padding=padding)
    seconds: list[float] = []
    kernel = np.empty(0)
    while not seconds or (len(seconds) < OUR_ROUNDS and sum(seconds) < OUR_SECONDS):
        kernel = np.empty(0)  # not two of them at a time
        start = time.perf_counter()
        operator = NTK(network, image, dtype=dtype, storage="stream")  # counted: it prepares the fields
        kernel = operator.dense()
        seconds.append(time.perf_counter() - start)
    result = {"seconds": seconds, "threads": operator.threads, "peak_bytes_above_import": peak() - before}
    np.save(kernel_path, kernel)
    return result


def error(got: np.ndarray, want: np.ndarray) -> float:
    """Largest error over the largest entry."""
    return float(np.abs(got - want).max() / np.abs(want).max())


def compare(name: str, mode: str, args: argparse.Namespace, interpreter: Path, folder: Path) -> dict[str, Any]:
    """One line of the table: the peer, then ours, then their kernels against each other and against float64."""
    picture_path, ours_path, peer_path = (folder / f"{part}.npy" for part in ("picture", "ours", "peer"))
    x = picture(args.size)
    np.save(picture_path, x)
    network = type(NETWORKS[name])(NETWORKS[name].layers, padding=args.padding)
    stages = [
        [stage.conv.kernel_size, stage.conv.weight_var, stage.conv.bias_var, stage.activation is not None]
        for stage in network.stages()
    ]
    job = {
        "stages": stages,
        "padding": PADDINGS[args.padding],
        "dtype": args.dtype,
        "jit": mode == "jit",
        "repeats": args.repeats,
        "picture": str(picture_path),
        "kernel": str(peer_path),
    }
    theirs = run_peer(interpreter, job, folder)
    ours = in_fresh_process(run_ours, name, str(picture_path), args.dtype, args.padding, str(ours_path))
    exact = NTK(network, x, dtype="float64", storage="stream").dense()
    kernel, peer_kernel = np.load(ours_path), np.load(peer_path)
    return {
        "network": name,
        "layers": repr(network),
        "size": args.size,
        "dtype": args.dtype,
        "mode": mode,
        "neural_tangents": theirs,
        "ntkfast": ours,
        "times_faster": min(theirs["warm_seconds"]) / min(ours["seconds"]),
        "error_between": error(kernel, peer_kernel),
        "error_neural_tangents": error(peer_kernel, exact),
        "error_ntkfast": error(kernel, exact),
    }


def row(result: dict[str, Any]) -> list[str]:
    """One line of the table."""
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
    parser.add_argument("--environment", type=Path, default=ENVIRONMENT, help="folder of the peer's environment")
    parser.add_argument("--python", default=sys.executable, help="interpreter to make it with, 3.9 to 3.12")
    parser.add_argument("--json", type=Path, help="write the results here")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    interpreter = make_environment(args.environment.resolve(), args.python)
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
