"""This runs in the peer's own environment, without ntkfast: it times one network and saves its kernel.

The command is ``python -I _neural_tangents_worker.py JOB RESULT``, both JSON files.  ``-I`` keeps this folder off the
front of the module path, where the file ``neural_tangents.py`` would be taken for the package.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.append(str(Path(__file__).parent))  # last, so that neural_tangents is the package and not the file here

from _memory import status_bytes
from _stax import as_matrix, build, versions


def timed(call: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call().block_until_ready()
    return time.perf_counter() - start, result


def main() -> None:
    job_path, result_path = map(Path, sys.argv[1:])
    job = json.loads(job_path.read_text())
    before = status_bytes("VmRSS")
    x = jax.numpy.asarray(np.load(job["picture"])[None], dtype=job["dtype"])
    (_, _, kernel_fn), *_ = build(job["layers"], job["padding"], *x.shape[1:3])
    is_reversed = jax.eval_shape(kernel_fn, x).is_reversed  # which way the axes will stand: shapes only, no numbers
    if job["jit"]:
        kernel_fn = jax.jit(kernel_fn, static_argnums=2)
    if job["memory_bytes"] is not None:
        import resource  # not on Windows

        limit = status_bytes("VmSize") + job["memory_bytes"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    first, kernel = timed(lambda: kernel_fn(x, None, "ntk"))  # traces and compiles
    warm = []
    for _ in range(job["repeats"]):
        seconds, kernel = timed(lambda: kernel_fn(x, None, "ntk"))
        warm.append(seconds)
    peak = status_bytes("VmHWM")
    np.save(job["kernel"], as_matrix(np.asarray(kernel), is_reversed))
    result = {
        "first_seconds": first,
        "warm_seconds": warm,
        "peak_bytes": peak,
        "peak_bytes_above_import": peak - before,
        "devices": [device.platform for device in jax.devices()],
        "versions": versions(),
    }
    result_path.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
