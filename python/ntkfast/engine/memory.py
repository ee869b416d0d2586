"""Memory is counted here: what is free, what is stated to be taken of it, and refusals before any work.

Whoever takes memory predicts its own bytes from the sizes, beside the code that takes them, and states them to a
:class:`Budget`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["Budget", "available_memory", "peaks", "readable", "require_memory"]

# Control groups, version 2 and 1, have these: their folder, the files with their limit and what they have taken, and
# the line of memory.stat with what the kernel keeps of files and drops when memory is wanted.
CONTROL_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class Budget:
    """A budget is the bytes that are free in one memory, read once, and those that are stated to be taken of them.

    Parameters
    ----------
    free : int, optional
        Bytes; by default those of the host.
    where : str
        The place as refusals name it, " on cuda:0" say; nothing for the host.
    """

    def __init__(self, free: int | None = None, where: str = "") -> None:
        self.free = available_memory() if free is None else free
        self._where = where
        self._stated = 0

    def state(self, count: int) -> Budget:
        """Count so many bytes more, and return the budget itself."""
        self._stated += count
        return self

    @property
    def left(self) -> int:
        """Return the bytes that are free beside what is stated, below 0 where it does not fit."""
        return self.free - self._stated

    def fits(self, more: int = 0) -> bool:
        """Tell whether what is stated and so many bytes more fit."""
        return more <= self.left

    def most(self, count: int, needed: Callable[[int], int]) -> int:
        """Return how many of 1 to ``count`` things fit, where n take ``needed(n)`` bytes more; 0 if not one does."""
        return bisect_right(range(1, count + 1), self.left, key=needed)

    def require(self, what: str, hint: str, more: int = 0) -> None:
        """Refuse, before any work, what is stated and so many bytes more, if they do not fit.

        Parameters
        ----------
        what, hint : str
            What is refused, and the option that would fit.

        Raises
        ------
        MemoryError
            With the bytes needed, the place, those available, and the option that would fit.
        """
        if not self.fits(more):
            raise MemoryError(
                f"{what} needs {readable(self._stated + more)}{self._where}, but only {readable(self.free)} are "
                f"available: {hint}"
            )


def require_memory(what: str, needed: int, hint: str) -> None:
    """Refuse what will not fit in the host's memory; see :meth:`Budget.require`."""
    Budget().require(what, hint, needed)


def peaks(parts: dict[str, int]) -> dict[str, int]:
    """Return the most bytes that construction and products take by storage, from the parts of an engine's estimate."""
    during = {
        "stream": parts["product"] + parts["bands"],
        "coarse": parts["product"] + parts["coarse"],
        "dense": parts["product"] + parts["bands"] + parts["store"],
    }
    return {storage: parts["fields"] + max(parts["building"], most) for storage, most in during.items()}


def available_memory() -> int:
    """Return the bytes that can still be taken: the machine's free memory, or what a control group leaves if less."""
    return min([_free_memory(), *(left for group in CONTROL_GROUPS if (left := _left_by_group(*group)) is not None)])


def _left_by_group(folder: str, limit: str, usage: str, droppable: str) -> int | None:
    """Return the bytes that a control group leaves; None without a limit, or without a group of this kind."""
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
    """Return the number behind ``name`` in a file that has one on each line."""
    for line in path.read_text().splitlines():
        words = line.split()
        if words[:1] == [name]:
            return int(words[1])
    raise OSError(f"{path} has no line {name}")


def readable(count: int) -> str:
    """Write bytes for people, such as ``1.5 GiB (1610612736 bytes)``."""
    size, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{count} bytes" if unit == "bytes" else f"{size:.1f} {unit} ({count} bytes)"
