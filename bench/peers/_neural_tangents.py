"""The scripts on ``neural_tangents`` share this: its environment, its processes, the translation of our layers."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

import ntkfast as nf
from bench.networks import picture
from bench.peers import environments
from bench.resident import in_fresh_process, peak, resident

REQUIREMENTS = ("neural-tangents==0.6.5", "jax==0.4.25", "jaxlib==0.4.25", "numpy<2", "scipy<1.13")
TIMING_WORKER = Path(__file__).with_name("_neural_tangents_worker.py")
ENVIRONMENT = environments.FOLDER / "neural_tangents-0.6.5"
PADDINGS = {"zeros": "SAME", "circular": "CIRCULAR"}
CHANNELS = 4  # all layers have them but the ends of concatenated branches

# The peer carries covariances, which lose half of the digits where patches are alike (docs/math.md).
TOLERANCE = {"float32": 1e-3, "float64": 1e-6}
# Our call is repeated so often and for so long, but no longer than the last: ten calls of 20 ms would fall into one
# slow second of a shared machine, where a call of the peer's is an average over 20 s.
OUR_ROUNDS, OUR_LEAST_SECONDS, OUR_SECONDS = 10, 5.0, 20.0


def add_environment(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``interpreter_of`` reads."""
    parser.add_argument("--environment", type=Path, default=ENVIRONMENT, help="folder of the peer's environment")
    parser.add_argument("--python", default=sys.executable, help="interpreter to make it with, 3.9 to 3.12")


def interpreter_of(args: argparse.Namespace) -> Path:
    """Return the interpreter of the peer's environment, which is made if it is not there or holds something else."""
    return environments.make_environment(args.environment.resolve(), args.python, REQUIREMENTS)


def run_peer(
    interpreter: Path, job: dict[str, Any], folder: Path, worker: Path = TIMING_WORKER, seconds: float | None = None
) -> dict[str, Any]:
    """Run one job in a process of its own, stopped after ``seconds``."""
    variables = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    variables["JAX_ENABLE_X64"] = str(int(job["dtype"] == "float64"))
    return environments.run_worker(
        "neural_tangents", interpreter, worker, job, folder, variables=variables, seconds=seconds
    )


def run_ours(network: nf.Network, picture_path: str, dtype: str, kernel_path: str, rounds: int) -> dict[str, Any]:
    """Call ``dense()`` in a fresh process with all threads.

    It is called ``rounds`` times or more, for ``OUR_LEAST_SECONDS`` to ``OUR_SECONDS``; once if ``rounds`` is 1.
    """
    before = resident()
    image = np.load(picture_path)
    seconds: list[float] = []
    kernel = np.empty(0)
    while not seconds or (
        rounds > 1 and (len(seconds) < rounds or sum(seconds) < OUR_LEAST_SECONDS) and sum(seconds) < OUR_SECONDS
    ):
        kernel = np.empty(0)  # not two of them at a time
        start = time.perf_counter()
        operator = nf.NTK(
            network, image, dtype=dtype, storage="stream", channel_axis=-1
        )  # counted: it prepares the fields
        kernel = operator.dense()
        seconds.append(time.perf_counter() - start)
    result = {"seconds": seconds, "threads": operator.threads, "peak_bytes_above_import": peak() - before}
    np.save(kernel_path, kernel)
    return result


def error(got: np.ndarray, want: np.ndarray) -> float:
    """Return the largest error over the largest entry."""
    return float(np.abs(got - want).max() / np.abs(want).max())


def translate(layers: Sequence[Any], channels: int = CHANNELS) -> list[list[Any]]:
    """Return layers as [name, arguments] for the worker; the last convolution gets ``channels`` of them."""
    last = max((n for n, layer in enumerate(layers) if isinstance(layer, nf.Conv)), default=-1)
    found: list[list[Any]] = []
    for n, layer in enumerate(layers):
        name, args = type(layer).__name__, {}
        if isinstance(layer, nf.Conv):
            args = {key: getattr(layer, key) for key in ("kernel_size", "stride", "weight_var", "bias_var")}
            args["channels"] = channels if n == last else CHANNELS
        elif isinstance(layer, nf.LeakyReLU):
            args = {"alpha": layer.slope}
        elif isinstance(layer, nf.Upsample):
            args = {"mode": layer.mode}
        elif isinstance(layer, nf.Skip):
            share = Fraction(layer.share).limit_denominator(100)
            wanted = CHANNELS * share / (1 - share) if layer.merge == "concat" else Fraction(CHANNELS)
            if wanted.denominator != 1:
                raise ValueError(f"share must give a whole number of channels beside {CHANNELS}, got {layer.share}")
            name = layer.merge
            args = {"branch": translate(layer.layers, int(wanted)), "shortcut": translate(layer.shortcut)}
        found.append([name, args])
    return found


def measure(
    network: nf.Network,
    size: int,
    interpreter: Path,
    folder: Path,
    *,
    dtype: str = "float32",
    jit: bool = False,
    repeats: int = 0,
    rounds: int = OUR_ROUNDS,
    seconds: float | None = None,
    memory_bytes: int | None = None,
) -> dict[str, Any]:
    """Measure the peer on one picture, then ours, then compare their kernels with each other and with ours in float64.

    ``repeats`` warm calls of the peer follow the first; ours has ``rounds`` or more.  The peer fails (``PeerError``)
    after ``seconds``, or when it asks for more than ``memory_bytes`` of address space above its import.
    """
    picture_path, ours_path, peer_path = (folder / f"{part}.npy" for part in ("picture", "ours", "peer"))
    x = picture(size)
    np.save(picture_path, x)
    job = {
        "layers": translate(network.layers),
        "padding": PADDINGS[network.padding],
        "dtype": dtype,
        "jit": jit,
        "repeats": repeats,
        "picture": str(picture_path),
        "kernel": str(peer_path),
        "memory_bytes": memory_bytes,
    }
    theirs = run_peer(interpreter, job, folder, seconds=seconds)
    ours = in_fresh_process(run_ours, network, str(picture_path), dtype, str(ours_path), rounds)
    exact = nf.NTK(network, x, dtype="float64", storage="stream", channel_axis=-1).dense()
    kernel, peer_kernel = np.load(ours_path), np.load(peer_path)
    return {
        "layers": repr(network),
        "size": size,
        "dtype": dtype,
        "neural_tangents": theirs,
        "ntkfast": ours,
        "error_between": error(kernel, peer_kernel),
        "error_neural_tangents": error(peer_kernel, exact),
        "error_ntkfast": error(kernel, exact),
    }
