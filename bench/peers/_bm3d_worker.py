"""This runs in the peer's own environment, without ntkfast: CBM3D on one picture.

The command is ``python -I _bm3d_worker.py JOB RESULT``, both JSON files.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from pathlib import Path

import bm3d
import numpy as np

sys.path.append(str(Path(__file__).parent))

from _memory import status_bytes


def main() -> None:
    job_path, result_path = map(Path, sys.argv[1:])
    job = json.loads(job_path.read_text())
    before = status_bytes("VmRSS")
    noisy = np.load(job["noisy"])
    profile = bm3d.BM3DProfile()  # the default, "np"
    if job["threads"] is not None:
        profile.num_threads = job["threads"]
    start = time.perf_counter()
    denoised = bm3d.bm3d_rgb(noisy, job["sigma"], profile)
    seconds = time.perf_counter() - start
    result = {
        "seconds": seconds,
        "peak_bytes_above_import": status_bytes("VmHWM") - before,
        "versions": {name: importlib.metadata.version(name) for name in ("bm3d", "bm4d", "numpy")},
    }
    np.save(job["denoised"], denoised)
    result_path.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
