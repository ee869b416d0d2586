"""Inputs of a network other than an image."""

from __future__ import annotations

from dataclasses import dataclass

from . import _check

__all__ = ["NoiseInput"]


@dataclass(frozen=True)
class NoiseInput:
    """Iid noise as the input, in the limit of many channels: the setting of the deep image prior.

    The covariance of the pixels is ``Q(i,j) = 1`` for i = j, else 0: the mean over the channels of products of noise of
    unit variance.  The kernel then knows the size of the image, and nothing of its content.

    Parameters
    ----------
    shape : tuple of int
        (H, W) in pixels, each at least 1.

    Raises
    ------
    TypeError, ValueError
        If shape is not a pair of positive integers.

    References
    ----------
    Ulyanov, Vedaldi, Lempitsky, CVPR 2018 (deep image prior); Tachella, Tang, Davies, CVPR 2021 (its kernel).

    Examples
    --------
    >>> K = nf.NTK(nf.autoencoder(1), nf.NoiseInput((8, 8)))
    >>> K.shape
    (64, 64)
    """

    shape: tuple[int, int]

    def __post_init__(self) -> None:
        if not isinstance(self.shape, (tuple, list)) or len(self.shape) != 2:
            raise TypeError(f"shape must be a pair (H, W) of integers, got {self.shape!r}")
        shape = tuple(_check.integer(f"shape[{n}]", side) for n, side in enumerate(self.shape))
        if min(shape) < 1:
            raise ValueError(f"shape must hold integers >= 1, got {shape}")
        object.__setattr__(self, "shape", shape)
