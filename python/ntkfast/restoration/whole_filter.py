"""The NTK filter of whole images, with the exact kernel or a low-rank one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from ..engine.memory import Budget, peaks
from ..images import next_multiple, without_mean
from ..kernel import NTK
from ..spectral.filters import USUAL_PRODUCTS, Settings, descend
from ..spectral.lanczos import lanczos_bytes
from ..spectral.lowrank import LowRank, from_landmarks, landmark_bytes, lattice
from .image_filter import TOLERANCE, Advance, ImageFilter, Method, Phases, centred, transposed_centring
from .options import Compute, WholeImage
from .tiles import Tiling

__all__ = ["WholeFilter", "WholeMethod"]

LANCZOS = Settings(TOLERANCE, 200, hint="use method=Tiles(), or WholeImage with landmarks")

# From this share of the pixels on, the factorisation of landmarks takes longer than the products of the exact kernel.
EXACT_FROM = 1 / 4


@dataclass(frozen=True)
class WholeMethod(Method):
    """The whole picture as one tile.

    Attributes
    ----------
    landmarks : int or None
        Of the Nystrom approximation; None for the exact kernel.
    """

    landmarks: int | None = None

    @classmethod
    def of(cls, asked: WholeImage, compute: Compute, shape: tuple[int, ...]) -> WholeMethod:
        """For a picture (1, H, W, C): with its exact kernel where landmarks would take longer."""
        size = next_multiple(max(shape[1:3]), asked.trained_network.multiple)
        method = cls.placed(size, 0, asked, compute, shape)
        many = asked.landmarks is None or asked.landmarks >= EXACT_FROM * shape[1] * shape[2]
        return method if many else replace(method, landmarks=asked.landmarks)

    def used(self, asked: WholeImage) -> WholeImage:
        return replace(asked, network=self.network, landmarks=self.landmarks)

    def filter(
        self, tiling: Tiling, guide: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
    ) -> WholeFilter:
        return WholeFilter(self, tiling, guide, target, weights)

    def fitted(self, phases: Phases, channels: int, arrays: int) -> WholeMethod:
        def needed(landmarks: int | None) -> int:
            method = replace(self, landmarks=landmarks)
            return max(whole_bytes(method, (*tiling.shape, channels), times) for tiling, times in phases)

        budget, (height, width) = Budget().state(arrays), phases[0][0].shape[1:]
        fewer = math.ceil(EXACT_FROM * height * width)
        what, hint = "method=WholeImage()", f"use method=Tiles(), or WholeImage with landmarks below {fewer}"
        if self.landmarks is not None:
            fit = budget.most(self.landmarks, needed)
            what = f"method=WholeImage(landmarks={self.landmarks})"
            hint = f"landmarks = {fit} would fit" if fit else "use method=Tiles()"
        budget.require(f"{what} on {height} x {width} pixels", hint, needed(self.landmarks))
        return self


def whole_bytes(method: WholeMethod, shape: tuple[int, ...], times: int) -> int:
    """Bytes that the filter of whole images (n, H, W, C) takes in the host's memory beside the images."""
    count, height, width, channels = shape
    d, n, item = height * width, channels + 1, method.dtype.itemsize  # with the direction that finds lambda_max
    results = channels * times * (2 if channels > 1 else 1)
    parts = method.backend.estimate(method.problem((1, height, width, channels)), n)
    work = method.backend.host_bytes((count - 1) * parts["fields"] + peaks(parts)["stream"])
    if method.landmarks is None:
        return work + lanczos_bytes(d, n, min(USUAL_PRODUCTS, d + 1), results, item)
    return work + landmark_bytes(d, min(method.landmarks, d), item) + item * d * (results + 2)


class WholeFilter(ImageFilter):
    """The filter of whole images, one after the other: exact, or with landmarks in place of all pixels."""

    _method: WholeMethod

    @cached_property
    def _operators(self) -> list[NTK]:
        m = self._method
        images = [without_mean(image) for image in self._guide]
        make = partial(NTK, m.network, channel_axis=-1, device=m.backend, dtype=m.dtype, threads=m.threads)
        return [make(image) for image in images]

    def _largest_trace(self) -> float:
        weights = np.ones((len(self._guide), 1), np.int8)  # integers leave float32 what it is
        if self._weights is not None:
            weights = self._weights.reshape(len(self._guide), -1)
        pairs = zip(weights, self._operators, strict=True)
        traces = [float((weight * K.scaled.diagonal()).sum()) * K.scale for weight, K in pairs]
        return max(traces)

    def path(self, steps: Sequence[int], advance: Advance) -> list[np.ndarray]:
        """Images (n, H, W, C) after each number of steps."""
        target, means = centred(self._target, self._weights)
        return list(self._filtered(target, steps, advance) + means)

    def transposed(self, gradient: np.ndarray, steps: int) -> np.ndarray:
        def descend(images: np.ndarray) -> np.ndarray:
            return np.asarray(self._filtered(images, [steps], lambda _: None)[0])

        return transposed_centring(gradient, self._weights, descend)

    def _filtered(self, images: np.ndarray, steps: Sequence[int], advance: Advance) -> np.ndarray:
        """z_t of all images (n, H, W, C) for each t: (times, n, H, W, C)."""
        out = np.empty((len(steps), *images.shape))
        for n, K in enumerate(self._operators):
            operator = K.scaled
            if self._method.landmarks is not None:
                operator = self._low_rank(operator, self._method.landmarks)
            weights = None if self._weights is None else self._weights[n]
            out[:, n] = self._descend(operator, self.learning_rate * K.scale, images[n], weights, steps)
            advance(1)
        return out

    def _low_rank(self, K: NTK, landmarks: int) -> LowRank:
        return from_landmarks(K, lattice(K.image_shape, min(landmarks, K.shape[0])), "landmarks")

    def _descend(
        self, operator: Any, rate: float, y: np.ndarray, weights: np.ndarray | None, steps: Sequence[int]
    ) -> np.ndarray:
        """z_t of one image (H, W, C) with steps of size ``rate``: (times, H, W, C)."""
        columns = y.reshape(-1, y.shape[2])
        root = None if weights is None else np.sqrt(weights).reshape(-1, 1)
        if root is not None:
            operator, columns = _weighted(operator, root), root * columns

        # Both parts of the columns share the run: times for the differences beside those for the mean.
        wanted = sorted({*steps, *self._steps_of_differences(steps)})
        path, _ = descend(operator, columns, wanted, rate, LANCZOS)
        z = np.stack([path[wanted.index(t)] for t in steps])
        if y.shape[2] > 1:
            z[..., 1:] = np.stack([path[wanted.index(t)] for t in self._steps_of_differences(steps)])[..., 1:]
        return np.asarray((z if root is None else z / root).reshape(len(steps), *y.shape))


def _weighted(operator: Any, root: np.ndarray) -> LinearOperator:
    """W^1/2 Theta W^1/2 for W^1/2 = diag(root), root of shape (d, 1)."""
    scale = root.astype(operator.dtype)

    def matmat(v: np.ndarray) -> np.ndarray:
        return np.asarray(scale * operator.matmat(scale * v.reshape(len(scale), -1)))

    return LinearOperator(operator.shape, matvec=matmat, matmat=matmat, dtype=operator.dtype)
