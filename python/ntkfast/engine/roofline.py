"""The roofline is the floor of the CPU engine: the time of its inner loops by themselves."""

from __future__ import annotations

from typing import Any

from .. import _check, _core
from ..network import Network
from .cpu import isa, threads_of

__all__ = ["roofline"]

MOST_AT_ONCE = 8  # channels, columns: as many as the loops that are timed take
LENGTH = 256  # pairs in a row: all rows of a loop stay in the first-level cache
REPEATS = 50  # each loop is timed so often; the best counts


def roofline(network: Network, *, channels: int = 3, columns: int = 3, threads: int | None = None) -> float:
    """Return the seconds that the CPU engine's inner loops take for a pair of pixels, the floor of a product.

    Each loop that a float32 product ``K @ v`` with the tangent kernel runs is timed alone on rows of 256 pairs, which
    stay in the first-level cache, on all threads at once; the times are added up.  It is not the peak of the processor,
    but what these loops would take if nothing else cost time: no buffers to move, no borders, no cache misses.  A
    product on d pixels visits d (d - 1)/2 pairs, so that ``roofline(network) * d * (d - 1) / 2 / threads`` is the least
    time it could take on this machine, in seconds.

    Parameters
    ----------
    network : Network
        A chain of Conv of stride 1 and ReLU, LeakyReLU or Abs.
    channels : int
        Channels of the image, 1 to 8.
    columns : int
        Columns of v, 0 to 8; 0 stands for computing a matrix.
    threads : int, optional
        How many run the loops at the same time: cores that share units or a clock are slower together than one alone.
        By default as many as a product takes.

    Returns
    -------
    float
        Seconds a pair and thread.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what is said here.

    Examples
    --------
    >>> 0 < nf.roofline(nf.vanilla_cnn(1, 3), threads=1) < 1e-6
    True
    """
    if not isinstance(network, Network):
        raise TypeError(f"network must be a Network, got {network!r}")
    channels = _at_most("channels", _check.at_least("channels", channels, 1))
    columns = _at_most("columns", _check.at_least("columns", columns, 0))
    running = threads_of(threads)
    return float(_core.roofline(_stages(network), channels, columns, isa(), LENGTH, REPEATS, running))


def _at_most(name: str, count: int) -> int:
    if count > MOST_AT_ONCE:
        raise ValueError(f"{name} must be at most {MOST_AT_ONCE}, got {count}")
    return count


def _stages(network: Network) -> list[tuple[int, float, float, bool, bool, float]]:
    """Return a chain as the engine takes it: kernel size, variances, trainable, has an activation, its slope."""

    def stage(conv: Any, activation: Any) -> tuple[int, float, float, bool, bool, float]:
        slope = 1.0 if activation is None else activation.slope
        return conv.kernel_size, conv.weight_var, conv.bias_var, conv.trainable, activation is not None, slope

    return [stage(pair.conv, pair.activation) for pair in network.stages()]
