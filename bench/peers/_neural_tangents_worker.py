"""Runs in the peer's own environment, without ntkfast: times ``neural_tangents`` on one network and saves its kernel.

``python -I _neural_tangents_worker.py JOB RESULT``, both JSON files.  ``-I`` keeps this folder off the module path,
where the file ``neural_tangents.py`` would be taken for the package.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jaxlib
import neural_tangents
import numpy as np
from neural_tangents import stax


def status_bytes(key: str) -> int:
    """VmRSS (resident now) or VmHWM (its peak) of this process; 0 where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)


def build(stages: list[list[Any]], padding: str) -> Any:
    """The kernel function of a list of (kernel_size, weight_var, bias_var, has ReLU)."""
    layers = []
    for kernel_size, weight_var, bias_var, relu in stages:
        layers.append(
            stax.Conv(
                1,  # channels: the kernel is that of infinitely many
                (kernel_size, kernel_size),
                strides=(1, 1),
                padding=padding,
                W_std=weight_var**0.5,
                b_std=bias_var**0.5,
            )
        )
        if relu:
            layers.append(stax.Relu())
    return stax.serial(*layers)[2]


def as_matrix(kernel: np.ndarray, convs: int) -> np.ndarray:
    """(1, 1, H, H, W, W) as (d, d); each conv swaps the spatial axes: an odd number gives (1, 1, W, W, H, H)."""
    field = kernel[0, 0].transpose(0, 2, 1, 3) if convs % 2 == 0 else kernel[0, 0].transpose(2, 0, 3, 1)
    d = field.shape[0] * field.shape[1]
    return np.ascontiguousarray(field).reshape(d, d)


def timed(call: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call().block_until_ready()
    return time.perf_counter() - start, result


def main() -> None:
    job_path, result_path = map(Path, sys.argv[1:])
    job = json.loads(job_path.read_text())
    kernel_fn = build(job["stages"], job["padding"])
    if job["jit"]:
        kernel_fn = jax.jit(kernel_fn, static_argnums=2)
    before = status_bytes("VmRSS")
    x = jax.numpy.asarray(np.load(job["picture"])[None], dtype=job["dtype"])

    first, _ = timed(lambda: kernel_fn(x, None, "ntk"))  # traces and compiles
    warm = []
    for _ in range(job["repeats"]):
        seconds, kernel = timed(lambda: kernel_fn(x, None, "ntk"))
        warm.append(seconds)
    peak = status_bytes("VmHWM")
    np.save(job["kernel"], as_matrix(np.asarray(kernel), len(job["stages"])))
    result = {
        "first_seconds": first,
        "warm_seconds": warm,
        "peak_bytes": peak,
        "peak_bytes_above_import": peak - before,
        "devices": [device.platform for device in jax.devices()],
        "versions": {
            "neural-tangents": neural_tangents.__version__,
            "jax": jax.__version__,
            "jaxlib": jaxlib.__version__,
            "numpy": np.__version__,
        },
    }
    result_path.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
