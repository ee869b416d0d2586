"""Between Python and the compiled engine: argument checks, choice of instruction set and threads, memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .. import _check, _core
from .._choices import MOST_THREADS
from ..activations import Activation
from ..network import Add, AvgPool, Concat, Conv, Input, Network, Upsample

Progress = Callable[[float], None]

ISA_VARIABLE = "NTKFAST_ISA"

# Displacements swept together (tools/tuning/lanes.py).  At 256 x 256 the right-hand sides no longer fit in the L2
# cache, and 32 lanes read them half as often as 16; 8% at most between 16 and 32, either way.
LANES = 32


# A forked child, as multiprocessing makes them, has none of the engine's threads and would wait for them for ever.
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_core.release_threads)


def isa() -> str:
    """Instruction-set level to use: the best that this CPU has, or what the environment variable NTKFAST_ISA names.

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


def threads(value: Any) -> int:
    """Number of threads: ``value``, or what OpenMP would take (all cores, or OMP_NUM_THREADS)."""
    if value is None:
        return min(int(_core.default_threads()), MOST_THREADS)
    number = _check.at_least("threads", value, 1)
    if number > MOST_THREADS:
        raise ValueError(f"threads must be at most {MOST_THREADS}, got {number}")
    return number


NodeTuple = tuple[str, list[int], int, list[float]]


def nodes(network: Network) -> list[NodeTuple]:
    """The graph as the engine takes it: operation, inputs, level, numbers; see csrc/bindings.cpp."""
    return [
        (name, list(node.inputs), node.level, numbers)
        for node in network.graph()
        for name, numbers in (_operation(node.layer),)
    ]


def _operation(layer: Any) -> tuple[str, list[float]]:
    if isinstance(layer, Conv):
        return "conv", [layer.kernel_size, layer.stride, layer.weight_var, layer.bias_var, float(layer.trainable)]
    if isinstance(layer, Activation):
        return layer.operation, layer.numbers()
    if isinstance(layer, Upsample):
        return "upsample", [float(layer.mode == "bilinear")]
    if isinstance(layer, Concat):
        return "concat", list(layer.shares)
    return OPERATIONS[type(layer)], []


# Operations without numbers.
OPERATIONS = {Input: "input", AvgPool: "avg_pool", Add: "add"}


def problem(network: Network, kernel: str) -> tuple[list[NodeTuple], bool, bool]:
    """The first arguments of all engines and estimates: nodes, whether the padding is circular, whether it is NNGP."""
    return nodes(network), network.padding == "circular", kernel == "nngp"


def make(
    network: Network, images: np.ndarray, *, noise: bool = False, kernel: str, dtype: np.dtype[Any], threads: int
) -> Any:
    """Compiled engine for ``images``, float64 of shape (batch, H, W, C); of noise only the shape is read."""
    engine = _core.EngineFloat32 if dtype == np.float32 else _core.EngineFloat64
    return engine(
        *problem(network, kernel),
        np.ascontiguousarray(images, dtype=np.float64),
        noise,
        isa=isa(),
        threads=threads,
        lanes=_lanes(images.shape),
    )


def _lanes(shape: tuple[int, ...]) -> int:
    row = shape[2] * shape[0]  # rows hold the whole batch: the longer, the fewer lanes fit in the cache
    return max(1, min(LANES, LANES * 256 // row))


def estimate(
    network: Network,
    shape: tuple[int, int, int, int],
    *,
    kernel: str,
    columns: int,
    dtype: np.dtype[Any],
    threads: int,
) -> dict[str, int]:
    """Bytes for images of ``shape`` (batch, H, W, C), by part: see MemoryEstimate in csrc/plan/engine.h."""
    function = _core.estimate_float32 if dtype == np.float32 else _core.estimate_float64
    return named_parts(function(*problem(network, kernel), shape, columns, threads, _lanes(shape)))


def named_parts(parts: list[int]) -> dict[str, int]:
    """What the compiled estimates return, by name: see MemoryEstimate in csrc/plan/engine.h."""
    return dict(zip(("fields", "building", "product", "bands", "coarse", "store"), parts, strict=True))


def peaks(parts: dict[str, int]) -> dict[str, int]:
    """The most bytes that construction and products take with each storage, from the parts of an estimate."""
    during = {
        "stream": parts["product"] + parts["bands"],
        "coarse": parts["product"] + parts["coarse"],
        "dense": parts["product"] + parts["bands"] + parts["store"],
    }
    return {storage: parts["fields"] + max(parts["building"], most) for storage, most in during.items()}


# Of control groups, version 2 and 1: their folder, the files with their limit and what they have taken, and the line of
# memory.stat with what the kernel keeps of files and drops when memory is wanted.
CONTROL_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory() -> int:
    """Bytes that can still be taken: the machine's free memory, or what a control group leaves if that is less."""
    return min([_free_memory(), *(left for group in CONTROL_GROUPS if (left := _left_by_group(*group)) is not None)])


def _left_by_group(folder: str, limit: str, usage: str, droppable: str) -> int | None:
    """Bytes that a control group leaves; None without a limit, or where there is no group of this kind."""
    try:
        most = int(Path(folder, limit).read_text())
        taken = int(Path(folder, usage).read_text())
    except (OSError, ValueError):  # "max" is no number
        return None
    with suppress(OSError):
        taken -= _number(Path(folder, "memory.stat"), droppable)
    return max(0, most - max(0, taken))


def _free_memory() -> int:
    try:
        return 1024 * _number(Path("/proc/meminfo"), "MemAvailable:")
    except OSError:  # not Linux
        import psutil

        return int(psutil.virtual_memory().available)


def _number(path: Path, name: str) -> int:
    """The number behind ``name`` in a file that has one on each line."""
    for line in path.read_text().splitlines():
        words = line.split()
        if words[:1] == [name]:
            return int(words[1])
    raise OSError(f"{path} has no line {name}")


def require_memory(what: str, needed: int, hint: str, *, available: int | None = None, where: str = "") -> None:
    """Refuse, before any work, what will not fit.

    Parameters
    ----------
    what, hint : str
        What is refused, and the option that would fit.
    needed : int
        Bytes.
    available : int, optional
        Bytes free; by default those of the host.
    where : str
        " on cuda:0", say.

    Raises
    ------
    MemoryError
        With the bytes needed, those available, and the option that would fit.
    """
    available = available_memory() if available is None else available
    if needed > available:
        raise MemoryError(
            f"{what} needs {readable(needed)}{where}, but only {readable(available)} are available: {hint}"
        )


def readable(count: int) -> str:
    """Bytes for people, such as ``1.5 GiB (1610612736 bytes)``."""
    size, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{count} bytes" if unit == "bytes" else f"{size:.1f} {unit} ({count} bytes)"
