"""The host is a device too: this has instruction set, threads and lanes of its engine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _check, _core
from .._choices import MOST_THREADS
from . import memory
from .arrays import HOST, Arrays
from .backend import Backend, Devices, TileEngine, Tiles
from .program import Problem

ISA_VARIABLE = "NTKFAST_ISA"

# So many displacements are swept together (tools/tuning/lanes.py). At 256 x 256 the right-hand sides no longer fit in
# the L2 cache, and 32 lanes read them half as often as 16; between 16 and 32 the time differs by 8% at most, either
# way.
LANES = 32


# A forked child, as multiprocessing makes them, has none of the engine's threads and would wait for them for ever.
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_core.release_threads)


def isa() -> str:
    """Return the instruction-set level to use: the best that this CPU has, or the one that NTKFAST_ISA names.

    Raises
    ------
    ValueError
        If NTKFAST_ISA names no level, or one that was not compiled or that this CPU lacks.
    """
    supported = _core.supported_isas()
    wanted = os.environ.get(ISA_VARIABLE, "").strip()
    if not wanted:
        return str(supported[-1])
    if wanted not in supported:
        raise ValueError(f"environment variable {ISA_VARIABLE} must be one of {supported} here, got {wanted!r}")
    return wanted


def threads_of(value: Any) -> int:
    """Return the number of threads: ``value``, or as many as there are cores, or OMP_NUM_THREADS."""
    if value is None:
        return min(int(_core.default_threads()), MOST_THREADS)
    number = _check.at_least("threads", value, 1)
    if number > MOST_THREADS:
        raise ValueError(f"threads must be at most {MOST_THREADS}, got {number}")
    return number


def _lanes(shape: tuple[int, ...]) -> int:
    row = shape[2] * shape[0]  # rows hold the whole batch: the longer, the fewer lanes fit in the cache
    return max(1, min(LANES, LANES * 256 // row))


class BatchEngine(TileEngine):
    """One engine serves a whole batch, interleaved."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.scale = 2.0**engine.exponent

    def diagonal(self) -> np.ndarray:
        return np.asarray(self._engine.diagonal())

    def store(self) -> None:
        self._engine.store()

    def product(self, arrays: Arrays, v: Any) -> Any:
        interleaved = np.ascontiguousarray(v.transpose(1, 2, 0))
        return np.asarray(self._engine.product(interleaved).transpose(2, 0, 1))

    def dense(self) -> np.ndarray:
        return np.asarray(self._engine.dense())


class BatchedTiles(Tiles):
    """Batches are dealt to workers, each with an engine of one thread."""

    has_dense = True

    def engine(self, problem: Problem, tiles: np.ndarray) -> BatchEngine:
        return BatchEngine(CPU.make(problem, tiles))

    def at_once(self, problem: Problem, columns: int, most: int) -> int:
        return most  # it is known once the images are, if they do not fit

    def on_host(self, at_once: int) -> int:
        return at_once

    def host_bytes(self, problem: Problem, columns: int) -> int:
        return CPU.peaks(problem, columns)["dense"]

    def shares(self, threads: int) -> tuple[int, int]:
        return threads, 1


class CpuBackend(Backend):
    """This backend is the host."""

    name, where, elsewhere = HOST, "", ""
    has_columns = has_fourier = True
    tiles = BatchedTiles()

    def free(self) -> int:
        return memory.available_memory()

    def estimate(self, problem: Problem, columns: int) -> dict[str, int]:
        function = _core.estimate_float32 if problem.dtype == np.float32 else _core.estimate_float64
        return function(*problem.program, problem.shape, columns, problem.threads, _lanes(problem.shape))

    def make(self, problem: Problem, images: np.ndarray) -> Any:
        engine = _core.CpuEngineFloat32 if problem.dtype == np.float32 else _core.CpuEngineFloat64
        return engine(
            *problem.program,
            np.ascontiguousarray(images, dtype=np.float64),
            problem.noise,
            isa=isa(),
            threads=problem.threads,
            lanes=_lanes(images.shape),
        )

    def columns_engine(self, problem: Problem, images: np.ndarray) -> Callable[[Any], Any]:
        return lambda own: own

    def arrays(self, own: Arrays) -> Arrays:
        return own

    def host_bytes(self, count: int) -> int:
        return count

    def require_fields(self, problem: Problem) -> None:
        """Refuse nothing: the fields are part of the engine's own estimate."""


CPU = CpuBackend()


class Beside:
    """An engine of the host serves one of a device for the columns: it is made when it is first wanted.

    Parameters
    ----------
    device : Backend
    problem : Problem
    images : ndarray, shape (batch, H, W, C)
        Kept until the engine is made.
    """

    def __init__(self, device: Backend, problem: Problem, images: np.ndarray) -> None:
        self._device, self._problem = device, problem
        self._images: np.ndarray | None = images
        self._lock = threading.Lock()

    def __call__(self, own: Any) -> Any:
        with self._lock:
            if self._images is not None:
                self._device.require_fields(self._problem)
                self._engine, self._images = CPU.make(self._problem, self._images), None
        return self._engine


class Host(Devices):
    """This is the one device that is always there."""

    kind, spellings = HOST, (HOST,)

    def names(self) -> list[str]:
        return [HOST]

    def at(self, number: int) -> Backend:
        return CPU

    def choose(self, asked: str, number: int | None, near: str) -> Backend:
        return CPU

    def worthwhile(self, problem: Problem) -> Backend:
        return CPU

    def holding(self, kind: int, number: int) -> None:
        """Return nothing: the host's memory is no device's own."""

    def info(self) -> dict[str, Any]:
        return {
            "threads": threads_of(None),
            "threads_by": _core.threads_by,
            "isa_compiled": _core.compiled_isas(),
            "isa_supported": _core.supported_isas(),
            "isa_active": isa(),
            "isa_override": f"environment variable {ISA_VARIABLE}",
            "compiler": _core.compiler,
            "float_flags": _core.float_flags,
        }
