"""Arguments of the denoiser and of ``restore``, checked, in groups of what belongs together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _check
from .._choices import RULES
from ..engine.cpu import threads_of
from ..engine.program import Problem
from ..network import Network, as_network, vanilla_cnn
from ..spectral.filters import METHODS, Settings

__all__ = ["Areas", "Compute", "Descents", "Training"]

NETWORK = vanilla_cnn(1, 5)  # of the denoiser
CHROMA_TIME = 1 / 3
LANDMARKS = 256

RULE_STREAM = 0x6E746B  # keeps the rule's noise apart from a picture's that was made with the same small seed


@dataclass(frozen=True)
class Compute:
    """Where and how kernels are computed.

    Attributes
    ----------
    device : str
        As the caller named it; which one it is depends on the kernel's size.
    dtype : numpy dtype
        Of the engine's arithmetic.
    threads : int
    """

    device: Any
    dtype: np.dtype[Any]
    threads: int

    @classmethod
    def of(cls, device: Any, dtype: Any, threads: Any) -> Compute:
        """From the arguments of the same names."""
        return cls(device, _check.float_dtype(dtype), threads_of(threads))

    def problem(self, network: Network, shape: tuple[int, ...]) -> Problem:
        """The kernels of images or tiles (n, H, W, C)."""
        count, height, width, channels = shape
        return Problem(network, (count, height, width, channels), self.dtype, self.threads)


@dataclass(frozen=True)
class Areas:
    """What of the picture has a kernel of its own: each method of the denoiser reads its part.

    Attributes
    ----------
    size : int
        Of tiles, in pixels.
    overlap : int or None
        Of tiles; None for what suits their size.
    landmarks : int
        Of the Nystrom approximation.
    """

    size: int
    overlap: int | None
    landmarks: int

    @classmethod
    def of(cls, size: Any, overlap: Any, landmarks: Any) -> Areas:
        """From ``tile_size``, ``tile_overlap`` and ``landmarks``."""
        return cls(
            _check.at_least("tile_size", size, 1),
            None if overlap is None else _check.at_least("tile_overlap", overlap, 0),
            _check.at_least("landmarks", landmarks, 1),
        )


@dataclass(frozen=True)
class Training:
    """What the denoiser trains, and when it stops.

    Attributes
    ----------
    network : Network
    chroma_time : float
        Training time of the differences between the channels, relative to that of their mean.
    passes : int
    steps : list of int, or None
        Of each pass; None if ``rule`` is to choose them.
    rule : str
        Its name.
    seed : list of int
        Of the noise that rules add.
    """

    network: Network
    chroma_time: float
    passes: int
    steps: list[int] | None
    rule: str
    seed: list[int]

    @classmethod
    def of(cls, network: Any, chroma_time: Any, refine: Any, steps: Any, stopping: Any, seed: Any) -> Training:
        """From the arguments of the same names."""
        passes = 1 + _check.at_least("refine", refine, 0)
        return cls(
            as_network(NETWORK if network is None else network, trainable=True),
            _check.positive("chroma_time", chroma_time),
            passes,
            None if steps is None else _steps_of_passes(steps, passes),
            _check.choice("stopping", stopping, RULES),
            [RULE_STREAM, _check.at_least("seed", seed, 0)],
        )


def _steps_of_passes(steps: Any, passes: int) -> list[int]:
    if isinstance(steps, (str, bytes)):
        raise TypeError(f"steps must be an integer or a sequence of them, got {steps!r}")
    numbers = [steps] * passes if np.ndim(steps) == 0 else list(steps)
    if len(numbers) != passes:
        raise ValueError(f"steps must be one integer or {passes}, one for each pass, got {len(numbers)}")
    return [_check.steps("steps", number) for number in numbers]


@dataclass(frozen=True)
class Descents:
    """The descents of ``restore``, one a pass.

    Attributes
    ----------
    passes : int
    times : list of int, or None
        Steps after which the result is wanted; None for the discrepancy principle.
    single : bool
        Whether one image is wanted, and not a path.
    learning_rate : float or None
        None for one over the largest eigenvalue.
    tau : float
        Factor of the discrepancy principle.
    method : {"lanczos", "iteration"}
    settings : Settings
        Of Lanczos.
    """

    passes: int
    times: list[int] | None
    single: bool
    learning_rate: float | None
    tau: float
    method: str
    settings: Settings

    @classmethod
    def of(
        cls, refine: Any, steps: int | Sequence[int] | None, learning_rate: Any, tau: Any,
        method: Any, tolerance: Any, max_products: Any,
    ) -> Descents:  # fmt: skip
        """From the arguments of the same names."""
        times, single = (None, True) if steps is None else _check.one_or_more("steps", steps, _check.steps)
        return cls(
            1 + _check.at_least("refine", refine, 0),
            times,
            single,
            None if learning_rate is None else _check.positive("learning_rate", learning_rate),
            _check.positive("tau", tau),
            _check.choice("method", method, METHODS),
            Settings(_check.positive("tolerance", tolerance), _check.at_least("max_products", max_products, 1)),
        )
