"""The fraction done, as the callers of this wing are told it."""

from __future__ import annotations

import math

from .. import _check
from ..engine.program import Progress

__all__ = ["ProductsDone", "TilesDone", "share"]

# Products of a pass after which its progress bar stands at 1 - 1/e; how many there will be is not known beforehand.
TYPICAL_PRODUCTS = 40


def share(progress: Progress | None, n: int, count: int) -> Progress | None:
    """Turn what the n-th of ``count`` equal parts tells of itself into the fraction of the whole."""
    if progress is None or count == 1:
        return progress
    return lambda fraction: progress((n + fraction) / count)


class Done:
    """Tells a caller's ``progress``, if there is one, the fraction done whenever it has grown."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._shown = _check.callback("progress", progress), 0.0

    def show(self, fraction: float) -> None:
        if self._progress is not None and fraction > self._shown:
            self._shown = fraction
            self._progress(fraction)

    def finish(self) -> None:
        self.show(1.0)


class TilesDone(Done):
    """This counts tiles, whose number ``total`` is known."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        super().__init__(progress)
        self._total, self._done = total, 0

    def add(self, tiles: int) -> None:
        self._done += tiles
        self.show(min(1.0, self._done / self._total))


class ProductsDone(Done):
    """This guesses at passes with products whose number is not known, and counts the products."""

    def __init__(self, progress: Progress | None, passes: int) -> None:
        super().__init__(progress)
        self._passes, self._pass, self._in_pass = passes, 0, 0
        self.products = 0

    def within(self, fraction: float) -> None:
        """The fraction of the running product."""
        done = 1.0 - math.exp(-(self._in_pass + fraction) / TYPICAL_PRODUCTS)
        self.show((self._pass + done) / self._passes)

    def count(self) -> None:
        self.products += 1
        self._in_pass += 1
        self.within(0.0)

    def next_pass(self) -> None:
        self._pass, self._in_pass = self._pass + 1, 0
