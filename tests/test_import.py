"""These test what the import takes, and what the package says of itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import ntkfast
from ntkfast import _core
from operators import run_python


def test_import_is_quick():
    # Nothing is imported before it is used: not even NumPy, and SciPy's linear operators, 0.2 s and more, with NTK.
    def seconds(code):
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
        after = os.times()
        return sum(after[2:4]) - sum(before[2:4])  # seconds of the processor, so that a busy machine does not count

    codes = ("pass", "import ntkfast", "import numpy", "import ntkfast; ntkfast.vanilla_cnn(), ntkfast.info()")
    python, imported, numpy, used = (min(times) for times in zip(*[map(seconds, codes) for _ in range(5)], strict=True))
    assert imported - python < 0.05
    assert used - numpy < 0.15


def test_import_loads_no_heavy_package():
    loaded = run_python("import sys, json, ntkfast; print(json.dumps(list(sys.modules)))")
    assert [name for name in loaded if name.startswith("ntkfast")] == ["ntkfast"]
    assert "numpy" not in loaded
    loaded = run_python("import sys, json, ntkfast; ntkfast.NTK; print(json.dumps(list(sys.modules)))")
    heavy = {"torch", "cupy", "matplotlib", "skimage", "imagecodecs", "tifffile", "tqdm", "PIL"}
    assert not heavy & set(loaded)


def test_info_names_the_build():
    info = ntkfast.info()
    assert info["isa_active"] in info["isa_supported"]
    assert set(info["isa_supported"]) <= set(info["isa_compiled"])
    assert info["threads"] >= 1
    assert info["devices"][0] == "cpu"
    assert len(info["devices"]) == 1 + len(_core.cuda_devices())
    assert json.dumps(info)
