"""Option objects of the denoiser and of ``restore_ntk``: each is checked when it is made, and never changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any

import numpy as np

from .. import _check
from .._choices import PASSES, RULES, SIZE
from ..engine.backend import parsed
from ..engine.cpu import threads_of
from ..engine.program import Problem, Progress
from ..images import next_multiple
from ..kernel import STORAGES
from ..network import Network, as_network, vanilla_cnn
from ..spectral.filters import MAX_PRODUCTS
from ..spectral.filters import METHODS as SOLVERS

__all__ = ["Compute", "Landweber", "Passes", "Tiles", "WholeImage", "problem_of"]

NETWORK = vanilla_cnn(1, 5)  # the denoiser's default
CHROMA_TIME = 1 / 3

# Bound on the error of A z, relative to A z, at which Lanczos stops: below one gray level of 256.
LANDWEBER_TOLERANCE = 1e-3


class Options:
    """An option object, which is printed with what differs from its defaults alone."""

    def __repr__(self) -> str:
        said = [(f.name, getattr(self, f.name), f.default) for f in fields(self)]  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={v!r}' for name, v, default in said if v != default)})"

    def _set(self, name: str, value: Any) -> None:
        """Replace a field, while the object is made, by its checked value."""
        object.__setattr__(self, name, value)


@dataclass(frozen=True, repr=False)
class Compute(Options):
    """Where kernels are computed, in which precision, by how many threads, and who is told how far it is.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:N"}
        The CPU takes many tiles at a time, a card one after the other: it gains with large tiles, and "auto" judges by
        the size of one.
    dtype : {"float32", "float64"}
        Type of the engine's arithmetic; it is kept by its name.
    threads : int, optional
        Threads on the CPU, 1024 at most; by default all cores, or OMP_NUM_THREADS.
    progress : callable, optional
        It is called with the fraction done, 0 to 1.  An exception that it raises stops the work and is passed on.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.  Whether there is a device of that
        name shows when it is used.

    Examples
    --------
    >>> nf.Compute(dtype=np.float64, threads=2)
    Compute(dtype='float64', threads=2)
    >>> fractions = []
    >>> out = nf.denoise_ntk(np.eye(16), 0.1, compute=nf.Compute(progress=fractions.append))
    >>> fractions[-1]
    1.0
    """

    device: str = "auto"
    dtype: Any = "float32"
    threads: int | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        parsed(self.device)
        self._set("dtype", _check.float_dtype(self.dtype).name)
        if self.threads is not None:
            self._set("threads", threads_of(self.threads))
        _check.callback("progress", self.progress)

    @property
    def precision(self) -> np.dtype[Any]:
        """``dtype`` as NumPy's."""
        dtype: np.dtype[Any] = np.dtype(self.dtype)
        return dtype


def problem_of(compute: Compute, network: Network, shape: tuple[int, ...]) -> Problem:
    """The kernels of images or tiles (n, H, W, C)."""
    count, height, width, channels = shape
    return Problem(network, (count, height, width, channels), compute.precision, threads_of(compute.threads))


@dataclass(frozen=True, repr=False)
class Passes(Options):
    """The methods of the denoiser have these in common: the network, the passes, and when each stops."""

    network: Network | None = None
    _: KW_ONLY
    passes: int = PASSES
    stopping: str = "sure"
    steps: int | Sequence[int] | None = None
    chroma_time: float = CHROMA_TIME

    def __post_init__(self) -> None:
        if self.network is not None:
            as_network(self.network, trainable=True)
        self._set("passes", _check.at_least("passes", self.passes, 1))
        _check.choice("stopping", self.stopping, tuple(RULES))
        if self.steps is not None:
            self._set("steps", _steps_of_passes(self.steps, self.passes))
        self._set("chroma_time", _check.positive("chroma_time", self.chroma_time))

    @property
    def given_steps(self) -> tuple[int, ...] | None:
        """The steps of each pass; None where ``stopping`` is to choose them."""
        return None if self.steps is None else _steps_of_passes(self.steps, self.passes)

    @property
    def trained_network(self) -> Network:
        """The network, or the default one."""
        return NETWORK if self.network is None else self.network


def _steps_of_passes(steps: Any, passes: int) -> tuple[int, ...]:
    if isinstance(steps, (str, bytes)):
        raise TypeError(f"steps must be an integer or a sequence of them, got {steps!r}")
    numbers = [steps] * passes if np.ndim(steps) == 0 else list(steps)
    if len(numbers) != passes:
        raise ValueError(f"steps must be one integer or {passes}, one for each pass, got {len(numbers)}")
    return tuple(_check.steps("steps", number) for number in numbers)


@dataclass(frozen=True, repr=False)
class Tiles(Passes):
    """Method of :func:`denoise_ntk`: the picture is cut into small overlapping tiles, each with a kernel of its own.

    Parameters
    ----------
    network : Network, optional
        Default ``vanilla_cnn(1, 5)``.
    size : int
        Side of the tiles in pixels.  For a network of several resolutions it is rounded up to a multiple of
        ``network.multiple``, and an image smaller than a tile is mirrored up to one.
    overlap : int, optional
        Overlap of neighbouring tiles in pixels, below ``size``; by default min(10, size - 1).
    passes : int
        Passes in all, >= 1.  Each filters the noisy picture, the first with the kernel of that picture and each other
        one with the kernel of the result so far.
    stopping : {"sure", "recorrupted", "held_out", "calibrated"}
        Rule that chooses the steps: see the notes of :func:`denoise_ntk`.  "calibrated" takes no time, but is right
        only for photographs, with the default network and tiles.
    steps : int or sequence of int, optional
        Steps of gradient descent, for every pass or for each.  By default ``stopping`` chooses them, for which the
        noise level is needed; where they are given only a map of the level matters.
    chroma_time : float
        Training time of the differences between the channels, relative to that of their mean, > 0: colours are smoother
        than brightness, and are trained for less time.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.

    Examples
    --------
    >>> nf.Tiles(size=12, passes=1)
    Tiles(passes=1, size=12)
    >>> noisy = np.random.default_rng(0).normal(100, 5, (24, 24))
    >>> denoised = nf.denoise_ntk(noisy, 5, method=nf.Tiles(size=12, passes=1))
    >>> bool(denoised.std() < 2)
    True
    """

    size: int = SIZE
    overlap: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("size", _check.at_least("size", self.size, 1))
        if self.overlap is not None:
            self._set("overlap", _check.at_least("overlap", self.overlap, 0))
            size = next_multiple(self.size, self.trained_network.multiple)
            if self.overlap >= size:
                raise ValueError(f"overlap must be below size = {size}, got {self.overlap}")


@dataclass(frozen=True, repr=False)
class WholeImage(Passes):
    """Method of :func:`denoise_ntk`: one kernel over all pairs of the picture's pixels, exact or of low rank.

    It lacks the locality of tiles.  The exact kernel takes many minutes on a large picture.

    Parameters
    ----------
    network : Network, optional
        Default ``vanilla_cnn(1, 5)``.
    landmarks : int, optional
        Pixels on which the Nystrom approximation of the kernel rests (:func:`nystrom`); by default the kernel is exact.
        Time grows with their square; they pay where they are a few percent of the pixels or fewer, and from a quarter
        of the pixels on the exact kernel, which is faster then, takes their place.
    passes, stopping, steps, chroma_time
        As for :class:`Tiles`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.

    Examples
    --------
    >>> noisy = np.random.default_rng(0).normal(100, 5, (16, 16))
    >>> out, info = nf.denoise_ntk(noisy, 5, method=nf.WholeImage(landmarks=20), return_info=True)
    >>> info.tiles, info.method.landmarks
    (1, 20)
    """

    landmarks: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.landmarks is not None:
            self._set("landmarks", _check.at_least("landmarks", self.landmarks, 1))


@dataclass(frozen=True, repr=False)
class Landweber(Options):
    """How :func:`restore_ntk` descends: the network, the steps, the passes, and how the descent is computed.

    Parameters
    ----------
    network : Network, optional
        Default ``vanilla_cnn(1, 11)`` for :class:`Inpainting`, else ``autoencoder(2)``.
    steps : int or sequence of int, optional
        Steps of gradient descent of every pass; a sequence gives the whole path of the last pass, and the passes before
        take its longest.  By default the discrepancy principle chooses them (notes of :func:`restore_ntk`).
    learning_rate : float, optional
        eta > 0, in units of one over those of A Theta A^T; default 1/lambda_max(A Theta A^T).
    passes : int
        Passes in all, >= 1; each after the first with the kernel of the result so far.
    tau : float
        Factor of the discrepancy principle, > 0.
    storage : {"auto", "stream", "coarse", "dense"}
        What the kernel keeps between products, as for :class:`NTK`.
    solver : {"lanczos", "iteration"}
        "iteration" takes every step as it is written in :func:`restore_ntk`, one product each: slow, and the oracle of
        the other.
    tolerance : float
        Bound on the relative error of A z at which Lanczos stops.
    max_products : int
        Bound on the products of Lanczos in each pass; a RuntimeWarning says if the tolerance was not reached.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.

    Examples
    --------
    >>> nf.Landweber(nf.vanilla_cnn(1, 5), steps=[10, 100])
    Landweber(network=Network([Conv(5), ReLU(), Conv(1)], padding='zeros'), steps=(10, 100))
    """

    network: Network | None = None
    steps: int | Sequence[int] | None = None
    learning_rate: float | None = None
    _: KW_ONLY
    passes: int = 1
    tau: float = 1.0
    storage: str = "auto"
    solver: str = "lanczos"
    tolerance: float = LANDWEBER_TOLERANCE
    max_products: int = MAX_PRODUCTS

    def __post_init__(self) -> None:
        if self.network is not None:
            as_network(self.network, trainable=True)
        if self.steps is not None:
            times, single = _check.one_or_more("steps", self.steps, _check.steps)
            self._set("steps", times[0] if single else tuple(times))
        if self.learning_rate is not None:
            self._set("learning_rate", _check.positive("learning_rate", self.learning_rate))
        self._set("passes", _check.at_least("passes", self.passes, 1))
        self._set("tau", _check.positive("tau", self.tau))
        _check.choice("storage", self.storage, STORAGES)
        _check.choice("solver", self.solver, SOLVERS)
        self._set("tolerance", _check.positive("tolerance", self.tolerance))
        self._set("max_products", _check.at_least("max_products", self.max_products, 1))

    @property
    def times(self) -> list[int] | None:
        """The steps after which a result is wanted; None for the discrepancy principle."""
        return None if self.steps is None else _check.one_or_more("steps", self.steps, _check.steps)[0]

    @property
    def is_path(self) -> bool:
        """Tell whether a sequence of results is wanted, and not one."""
        return isinstance(self.steps, Sequence)
