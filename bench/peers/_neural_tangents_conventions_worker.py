"""This runs in the peer's own environment, without ntkfast: it computes kernels for a list of networks.

The command is ``python -I _neural_tangents_conventions_worker.py JOB RESULT``, both JSON files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import numpy as np

sys.path.append(str(Path(__file__).parent))  # last, so that neural_tangents is the package and not the file here

from _stax import as_matrix, build, versions


def main() -> None:
    job_path, result_path = map(Path, sys.argv[1:])
    job = json.loads(job_path.read_text())
    image = np.array(job["image"], dtype=job["dtype"])
    kernels = {}
    for name, case in job["cases"].items():
        # See "stride 2" in neural_tangents_conventions.py.
        x = image[::-1, ::-1] if case["flip"] else image
        layer, height, width = build(case["layers"], case["padding"], *image.shape[:2])
        if (height, width) != image.shape[:2]:
            raise ValueError(f"{name} must end at {image.shape[:2]}, got {(height, width)}")
        kernel = layer[2](jax.numpy.asarray(x[None]), None)
        step = -1 if case["flip"] else 1
        kernels[name] = {
            kind: as_matrix(np.asarray(getattr(kernel, kind)), kernel.is_reversed)[::step, ::step].tolist()
            for kind in ("ntk", "nngp")
        }
    result_path.write_text(json.dumps({"kernels": kernels, "versions": versions()}))


if __name__ == "__main__":
    main()
