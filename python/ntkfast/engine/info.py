"""This tells what of ntkfast was compiled, and what it runs on."""

from __future__ import annotations

import os
import platform
from typing import Any

import numpy as np

from .. import _core
from .backend import kinds

__version__: str = _core.__version__


def info() -> dict[str, Any]:
    """Tell what was compiled and what will run, for bug reports.

    Returns
    -------
    dict
        Version, Python, NumPy, machine, threads, instruction sets (compiled, supported, active), compiler and flags;
        devices, and of CUDA the architectures compiled in, compiler, driver and ``cuda_cards``: for each card, in the
        order of "cuda:0", "cuda:1" and so on, a dict with its ``name``, compute ``capability`` (such as "9.0"),
        ``multiprocessors`` and the ``bytes`` of its memory.  Without one ``cuda_missing`` says what is missing; else it
        is None.

    Examples
    --------
    >>> found = nf.info()
    >>> found["version"] == nf.__version__, found["devices"][0], found["isa_active"] in found["isa_supported"]
    (True, 'cpu', True)
    """
    host, *others = kinds()
    found: dict[str, Any] = {
        "version": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        **host.info(),
        "devices": [name for kind in (host, *others) for name in kind.names()],
    }
    for kind in others:
        found |= kind.info()
    return found
