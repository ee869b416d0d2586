"""This reads the resident memory of a process, and starts a fresh process to measure it in."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil


def resident() -> int:
    """Return the bytes resident now."""
    return int(psutil.Process().memory_info().rss)


def peak() -> int:
    """Return the most bytes that were ever resident in this process."""
    # Linux keeps ru_maxrss across exec: in a child it starts at the size of the parent.  VmHWM starts afresh.
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run ``function(*arguments)`` in a new interpreter, so that no earlier peak hides its own."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def mb(count: int) -> str:
    """Write bytes as megabytes (10^6)."""
    return f"{count / 1e6:.1f} MB"
