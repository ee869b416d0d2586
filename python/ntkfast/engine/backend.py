"""Devices are objects: all that differs between them is in these, so that nobody above asks which one it is.

``choose`` makes a :class:`Backend` of the caller's argument ``device``.  A kind of device is one module with a
:class:`Devices`, and a line in ``engine/__init__.py`` that registers it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import HOST, Arrays, register_memory
from .memory import Budget, peaks, require_memory
from .program import Problem

__all__ = [
    "Backend",
    "Devices",
    "TileEngine",
    "Tiles",
    "at",
    "backend_of",
    "budget_of",
    "choose",
    "filter_arrays",
    "has_backend",
    "kinds",
    "parsed",
    "register",
]


class TileEngine(ABC):
    """A TileEngine has the kernels of a batch of tiles, all divided by its ``scale``, a power of 2."""

    scale = 1.0

    @abstractmethod
    def diagonal(self) -> np.ndarray:
        """Return Theta(i, i) of every tile, float64 (d, count)."""

    @abstractmethod
    def store(self) -> None:
        """Keep the kernels for the products to come."""

    @abstractmethod
    def product(self, arrays: Arrays, v: Any) -> Any:
        """Return Theta V of every tile, for V (count, d, n) of the engine's dtype: an array like it, of ``arrays``."""

    def dense(self) -> np.ndarray:
        """Return Theta of every tile, (count, d, d), where ``Tiles.has_dense``."""
        raise NotImplementedError


class Tiles(ABC):
    """This says how the tiles of an image are filtered on a device.

    Attributes
    ----------
    has_dense : bool
        True where its engines give whole matrices.
    """

    has_dense: bool

    @abstractmethod
    def engine(self, problem: Problem, tiles: np.ndarray) -> TileEngine:
        """Make engines of a batch of tiles, float64 of shape (count, h, w, C)."""

    @abstractmethod
    def at_once(self, problem: Problem, columns: int, most: int) -> int:
        """Return how many tiles may be on the device at a time, up to ``most``; ``problem`` is that of one tile.

        Raises
        ------
        MemoryError
            If not one fits on a device with memory of its own.
        """

    @abstractmethod
    def on_host(self, at_once: int) -> int:
        """Return how many of so many tiles at a time have engines that take the host's memory."""

    @abstractmethod
    def host_bytes(self, problem: Problem, columns: int) -> int:
        """Return the bytes of the host that engines of a batch and their products take, up to ``on_host`` tiles."""

    @abstractmethod
    def shares(self, threads: int) -> tuple[int, int]:
        """Return how many batches are in work at a time, and the threads of each."""


class Backend(ABC):
    """A backend is a device.

    Attributes
    ----------
    name : str
        "cpu" or "cuda:0", say; that of the arrays in its memory is the same.
    where : str
        The place as refusals for want of memory name it; nothing for the host.
    elsewhere : str
        What their hints offer besides: ", or device='cpu'".
    has_columns : bool
        True where its engines give some columns of the kernel; if not, another's do, in double: ``columns_engine``.
    has_fourier : bool
        True where a kernel that repeats itself may be a filter in the Fourier domain of NumPy's arrays.
    tiles : Tiles
    """

    name: str
    where: str
    elsewhere: str
    has_columns: bool
    has_fourier: bool
    tiles: Tiles

    @abstractmethod
    def free(self) -> int:
        """Return the free bytes of its memory."""

    @abstractmethod
    def estimate(self, problem: Problem, columns: int) -> dict[str, int]:
        """Return the bytes of its memory that an engine and products of so many columns take, by part.

        See MemoryEstimate in csrc/plan/engine.h.
        """

    @abstractmethod
    def make(self, problem: Problem, images: np.ndarray) -> Any:
        """Make the compiled engine for ``images``, float64 of shape (batch, H, W, C)."""

    @abstractmethod
    def columns_engine(self, problem: Problem, images: np.ndarray) -> Callable[[Any], Any]:
        """Make of an operator's own engine that for its columns: the same, or one beside it from the first call on."""

    @abstractmethod
    def arrays(self, own: Arrays) -> Arrays:
        """Return where a filter keeps its own arrays, the right-hand side being ``own``."""

    @abstractmethod
    def host_bytes(self, count: int) -> int:
        """Return how many of the bytes that an engine takes are in the host's memory."""

    @abstractmethod
    def require_fields(self, problem: Problem) -> None:
        """Refuse fields that do not fit on the host, if those of an engine elsewhere are made there."""

    def holds(self, arrays: Arrays) -> bool:
        """Tell whether arrays of a kind lie in its memory."""
        return arrays.device == self.name

    def peaks(self, problem: Problem, columns: int) -> dict[str, int]:
        """Return the most bytes of its memory that construction and products take, by storage."""
        return peaks(self.estimate(problem, columns))

    def budget(self) -> Budget:
        """Return its memory."""
        return Budget(self.free(), self.where)

    def require(self, what: str, needed: int, hint: str) -> None:
        """Refuse what will not fit in its memory; see :meth:`Budget.require`."""
        self.budget().require(what, hint, needed)

    def require_result(self, what: str, needed: int, hint: str) -> None:
        """Refuse a result of the host that will not fit there, or not where it is computed."""
        require_memory(what, needed, hint)

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Devices(ABC):
    """These are all devices of one kind.

    Attributes
    ----------
    kind : str
        The first word of their names.
    spellings : tuple of str
        What callers may write for them: the kind, and "kind:N" where they are numbered.
    """

    kind: str
    spellings: tuple[str, ...]

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of the devices that can be used."""

    @abstractmethod
    def at(self, number: int) -> Backend:
        """Return a device that is there."""

    @abstractmethod
    def choose(self, asked: str, number: int | None, near: str) -> Backend:
        """Return the device with a number, or the one for all that ask for none; see :func:`choose`."""

    @abstractmethod
    def worthwhile(self, problem: Problem) -> Backend | None:
        """Return the device for device="auto": one that gains with the problem, which fits there."""

    @abstractmethod
    def holding(self, kind: int, number: int) -> str | None:
        """Return the name of the device with memory of its own that DLPack calls so; see dlpack.h."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """Say what the build and the machine have of them, for bug reports."""


AUTO = "auto"

_kinds: dict[str, Devices] = {}


def register(devices: Devices) -> None:
    """Offer devices of a kind; "auto" asks those that were registered last first."""
    _kinds[devices.kind] = devices
    register_memory(devices.holding)


def kinds() -> list[Devices]:
    """Return all kinds of devices, that of the host first."""
    return list(_kinds.values())


def at(name: str) -> Backend:
    """Return the device of this name, which is there."""
    kind, _, number = name.partition(":")
    return _kinds[kind].at(int(number or 0))


def parsed(device: Any) -> tuple[str, int | None]:
    """Return the kind and the number, if it has one, of the argument ``device``, or say in an error what it may be."""
    spellings = [AUTO, *(spelling for devices in kinds() for spelling in devices.spellings)]
    *most, last = map(repr, spellings)
    wanted = f"device must be {', '.join(most)} or {last}, got {device!r}"
    if not isinstance(device, str):
        raise TypeError(wanted)
    match = re.fullmatch(r"([a-z]+)(?::(\d+))?", device)
    if match is None or (match[1] if match[2] is None else f"{match[1]}:N") not in spellings:
        raise ValueError(wanted)
    return match[1], None if match[2] is None else int(match[2])


def choose(device: Any, problem: Problem, near: str = HOST) -> Backend:
    """Return the device that the argument ``device`` stands for.

    Parameters
    ----------
    device : str or Backend
        "auto", "cpu", "cuda" or "cuda:N"; a device that has been chosen already stays what it is.
    problem : Problem
    near : str
        The device that holds the caller's image: "cuda" is that one, and "auto" too, since the arrays that the kernel
        is applied to will lie there.  Otherwise "cuda" is the first one.

    Raises
    ------
    TypeError, ValueError
        If ``device`` is none of these, or N is no device.
    RuntimeError
        If there is none: with what is missing.
    """
    if isinstance(device, Backend):
        return device
    kind, number = parsed(device)
    if kind == AUTO:
        if near != HOST:
            return at(near)
        worthwhile = (devices.worthwhile(problem) for devices in reversed(kinds()))
        return next(backend for backend in worthwhile if backend is not None)  # the host's always is
    return _kinds[kind].choose(device, number, near)


def has_backend(operator: Any) -> bool:
    """Tell whether an operator has chosen a device, as kernels do; others may mean another thing by the word."""
    return isinstance(getattr(operator, "backend", None), Backend)


def backend_of(operator: Any) -> Backend:
    """Return where an operator computes: on the host, but for a kernel on a device."""
    return operator.backend if has_backend(operator) else at(HOST)


def budget_of(arrays: Arrays) -> Budget:
    """Return the memory that arrays of a kind take, with what their library holds free for them."""
    backend = at(arrays.device)
    return Budget(backend.free() + arrays.reusable(), backend.where)


def filter_arrays(operator: Any, own: Arrays) -> Arrays:
    """Return where a filter of an operator keeps its own arrays, the right-hand side being ``own``."""
    return backend_of(operator).arrays(own)
