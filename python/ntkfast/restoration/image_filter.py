"""This is the interface of a method of the denoiser, and one pass of it: the NTK filter of a picture.

With weights w(p), one over the noise's variance up to a factor, gradient descent on sum_p w(p) (z(p) - y(p))^2/2 gives

    z_{t+1} = z_t + eta Theta W (y - z_t)   =>   z_t = W^-1/2 f_t(W^1/2 Theta W^1/2) W^1/2 y,
    f_t(x) = 1 - (1 - eta x)^t,  W = diag(w)

so that weights only surround the product with Theta.  Channels come as their mean and their differences (an orthonormal
transform, docs/math.md), and the differences are trained for a share of the time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ..engine.backend import Backend, choose
from ..engine.program import Problem
from ..images import next_multiple
from ..network import Network
from .options import Compute, Passes, problem_of
from .tiles import Tiling

__all__ = ["Advance", "ImageFilter", "Method", "Phases", "array_bytes", "centred", "transposed_centring"]

TOLERANCE = 1e-3  # Lanczos stops there: far below the noise that is left (one gray level of 256 is 4e-3 of the range)
MAX_STEPS = 10**9  # eigenvalues below 1e-9 of the trace are rounding errors: more steps fit nothing but these
IMAGE_COPIES = 6  # a pass holds these images: the guide, the target, both less their means, and what becomes of them

Advance = Callable[[int], None]  # told how many tiles are done
Phases = Sequence[tuple[Tiling, int]]  # these will be filtered, with so many numbers of steps at once


Own = TypeVar("Own", bound="Method")


@dataclass(frozen=True)
class Method(ABC):
    """A way to filter pictures of one size on one device: what all passes of one denoising share.

    Attributes
    ----------
    network : Network
    size, overlap : int
        Of the tiles, in pixels; a whole picture is one of them.
    dtype : numpy dtype
        Of the engine's arithmetic.
    backend : Backend
        The device.
    threads : int
        Of one engine.
    chroma_time : float
        Training time of the differences between the channels, relative to that of their mean.
    """

    network: Network
    size: int
    overlap: int
    dtype: np.dtype[Any]
    backend: Backend
    threads: int
    chroma_time: float

    # Tell whether a pixel's result depends on its surroundings alone, so that crops tell what becomes of the picture.
    local = False

    @abstractmethod
    def used(self, asked: Any) -> Any:
        """The caller's option object with what was chosen for this picture in place of what was left open."""

    @abstractmethod
    def filter(
        self, tiling: Tiling, guide: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
    ) -> ImageFilter:
        """One pass: see :class:`ImageFilter`."""

    @abstractmethod
    def fitted(self, phases: Phases, channels: int, arrays: int) -> Method:
        """The same with less at a time where memory is short, beside ``arrays`` bytes; the first phase is the picture.

        Raises
        ------
        MemoryError
            If not even the least fits: with the bytes needed and the option that would fit.
        """

    @classmethod
    def placed(
        cls: type[Own], size: int, overlap: int, passes: Passes, compute: Compute, shape: tuple[int, ...]
    ) -> Own:
        """For a picture (1, H, W, C), on the device for its tiles."""
        network = passes.trained_network
        tile = problem_of(compute, network, tile_of(network, size, shape))
        return cls(network, size, overlap, tile.dtype, choose(compute.device, tile), tile.threads, passes.chroma_time)

    def tiling(self, shape: tuple[int, int, int]) -> Tiling:
        """The tiles of images (n, H, W)."""
        return Tiling(shape, self.size, self.overlap)

    def problem(self, shape: tuple[int, ...]) -> Problem:
        """The kernels of images or tiles (n, H, W, C)."""
        count, height, width, channels = shape
        return Problem(self.network, (count, height, width, channels), self.dtype, self.threads)


def tile_of(network: Network, size: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one tile of a picture (1, H, W, C), which is mirrored up to lengths that the network can halve."""
    return (1, *(min(size, next_multiple(side, network.multiple)) for side in shape[1:3]), shape[3])


class ImageFilter(ABC):
    """One pass: Theta from ``guide``, applied to ``target``; both (n, H, W, C), with weights (n, H, W, 1) or None.

    Attributes
    ----------
    learning_rate : float
        eta, one for all tiles: 1/trace, which bounds 1/lambda_max from below and costs O(d).
    """

    learning_rate: float

    def __init__(
        self, method: Method, tiling: Tiling, guide: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
    ) -> None:
        self._method, self._tiling = method, tiling
        self._guide, self._target, self._weights = guide, target, weights
        largest = self._largest_trace()
        self.learning_rate = 1.0 / largest if largest > 0 else 1.0

    def steps(self, time: float) -> int:
        """Steps that take about this training time, no more than do anything."""
        return max(1, round(min(time / self.learning_rate, MAX_STEPS)))

    @abstractmethod
    def path(self, steps: Sequence[int], advance: Advance) -> list[np.ndarray]:
        """Blended images (n, H, W, C) after each number of steps."""

    @abstractmethod
    def transposed(self, gradient: np.ndarray, steps: int) -> np.ndarray:
        """L^T g, where L is what makes the image after ``steps`` steps from the target: (n, H, W, C).

        With Theta held fixed L is linear, and it is symmetric but for the weights and the blending of tiles.
        """

    @abstractmethod
    def _largest_trace(self) -> float: ...

    def _steps_of_differences(self, steps: Sequence[int]) -> list[int]:
        return [max(min(1, t), round(self._method.chroma_time * t)) for t in steps]


def centred(values: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Tiles or images (n, h, w, C) less their (weighted) means, and these."""
    if weights is None:
        means = values.mean(axis=(1, 2), keepdims=True)
    else:
        means = (weights * values).sum(axis=(1, 2), keepdims=True) / weights.sum(axis=(1, 2), keepdims=True)
    return values - means, means


def transposed_centring(
    gradient: np.ndarray, weights: np.ndarray | None, descend: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """The transpose of filtering tiles or images (n, h, w, C) less their (weighted) means, which are added again.

    With J = 1 w^T / (1^T w), which takes the mean, and F = W^-1/2 f(W^1/2 Theta W^1/2) W^1/2, which ``descend``
    applies, z = F (I - J) y + J y.  Since F^T = W F W^-1,

        L^T g = (I - J^T) q + J^T g,  q = W F W^-1 g,  J^T v = w (1^T v) / (1^T w)
    """
    if weights is None:
        filtered, share = descend(gradient), np.asarray(1 / np.prod(gradient.shape[1:3]))
    else:
        filtered = weights * descend(gradient / weights)
        share = weights / weights.sum(axis=(1, 2), keepdims=True)
    return np.asarray(filtered + share * (gradient - filtered).sum(axis=(1, 2), keepdims=True))


def array_bytes(shape: tuple[int, ...], times: int) -> int:
    """Bytes of the images (n, H, W, C) of a pass that keeps ``times`` of them: sums of tiles and their quotients."""
    pixels, channels = int(np.prod(shape[:3])), shape[3]
    return 8 * pixels * ((2 * channels + 1) * times + IMAGE_COPIES * channels)
