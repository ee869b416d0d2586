"""What of ntkfast was compiled, and what it runs on."""

from __future__ import annotations

import os
import platform
from typing import Any

import numpy as np

from . import _core
from .engine import cpu as _engine
from .engine import cuda as _cuda

__version__: str = _core.__version__


def info() -> dict[str, Any]:
    """What was compiled and what will run, for bug reports.

    Returns
    -------
    dict
        Version, Python, NumPy, machine, instruction sets (compiled, supported, active), threads, compiler and flags;
        devices, and of CUDA the architectures compiled in, compiler, driver and cards, or what is missing.
    """
    return {
        "version": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": _engine.threads(None),
        "openmp": _core.openmp,
        "isa_compiled": _core.compiled_isas(),
        "isa_supported": _core.supported_isas(),
        "isa_active": _engine.isa(),
        "isa_override": f"environment variable {_engine.ISA_VARIABLE}",
        "compiler": _core.compiler,
        "float_flags": _core.float_flags,
        **_cuda.info(),
    }
