"""What degrades an image, as linear operators A that know the shapes of the image and of the data.

Each acts on one channel's pixels, row by row; columns are channels.  A^T is exact: <A u, v> = <u, A^T v> up to
rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import signal, sparse
from scipy.sparse.linalg import LinearOperator

from .. import _check
from ..images import as_size

__all__ = ["ImageOperator", "blurring", "downsampling", "inpainting"]

# How an image goes on outside, in the words of scipy.ndimage -> those of numpy.pad.
BOUNDARIES = {"reflect": "symmetric", "mirror": "reflect", "nearest": "edge", "wrap": "wrap", "constant": "constant"}

Map = Callable[[np.ndarray], np.ndarray]


class ImageOperator(LinearOperator):  # type: ignore[misc]
    """A linear map of images, pixel ``row*W + col``, to data; float64.

    Parameters
    ----------
    image_shape : (int, int)
        (H, W); the operator has d = H*W columns.
    data_shape : tuple of int
        Shape of the data of one channel; the operator has n = prod(data_shape) rows.
    forward, adjoint : callable
        A: (H, W, k) to (*data_shape, k), and A^T: back again.
    known : ndarray of bool, shape (H, W), optional
        For :func:`inpainting`, the mask.
    """

    def __init__(
        self,
        image_shape: tuple[int, int],
        data_shape: tuple[int, ...],
        forward: Map,
        adjoint: Map,
        known: np.ndarray | None = None,
    ) -> None:
        self.image_shape, self.data_shape, self.known = image_shape, data_shape, known
        self._forward, self._backward = forward, adjoint
        super().__init__(np.dtype(np.float64), (int(np.prod(data_shape)), image_shape[0] * image_shape[1]))

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        return self._apply(self._forward, V, self.image_shape)

    def _rmatmat(self, V: np.ndarray) -> np.ndarray:
        return self._apply(self._backward, V, self.data_shape)

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self._matmat(v.reshape(-1, 1))

    def _rmatvec(self, v: np.ndarray) -> np.ndarray:
        return self._rmatmat(v.reshape(-1, 1))

    @staticmethod
    def _apply(linear: Map, V: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        _check.real_vectors("the operator", V.dtype)
        columns = V.shape[1]
        return linear(V.astype(np.float64).reshape(*shape, columns)).reshape(-1, columns)


def inpainting(mask: Any) -> ImageOperator:
    """Picks the pixels that are known.

    Parameters
    ----------
    mask : array_like of bool, shape (H, W)
        True (or 1) where the pixel is known, False (or 0) where it is missing.  scikit-image's inpainting takes the
        opposite.

    Returns
    -------
    ImageOperator, shape (n, H*W)
        n is the number of known pixels, in the order of the image's rows.

    Raises
    ------
    TypeError, ValueError
        If the mask has not two dimensions, holds anything but 0 and 1, or no known pixel.
    """
    array = _check.real_array("mask", mask)
    if array.ndim != 2:
        raise ValueError(f"mask must have 2 dimensions, got shape {array.shape}")
    if not np.isin(array, (0, 1)).all():
        raise ValueError("mask must be True or 1 where pixels are known and False or 0 where they are missing")
    known = array.astype(bool)
    if not known.any():
        raise ValueError("mask must have at least one known pixel, got none")

    def adjoint(data: np.ndarray) -> np.ndarray:
        image = np.zeros((*known.shape, data.shape[-1]))
        image[known] = data
        return image

    return ImageOperator(known.shape, (int(known.sum()),), lambda image: image[known], adjoint, known)


def blurring(kernel: Any, shape: tuple[int, int], boundary: str = "reflect") -> ImageOperator:
    """Convolution with a kernel, the same as ``scipy.ndimage.convolve(image, kernel, mode=boundary)``.

    (A x)(p) = sum_q kernel(q) x(p + c - q), with the centre c = (kh//2, kw//2) and x continued outside.

    Parameters
    ----------
    kernel : array_like, shape (kh, kw), real
        The point spread function; any size, also larger than the image.  Not normalised here.
    shape : (int, int)
        (H, W) of the image.
    boundary : {"reflect", "mirror", "nearest", "wrap", "constant"}
        How the image goes on outside; "constant" is 0.

    Returns
    -------
    ImageOperator, shape (H*W, H*W)

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.
    """
    psf = _check.real_array("kernel", kernel).astype(np.float64)
    if psf.ndim != 2:
        raise ValueError(f"kernel must have 2 dimensions, got shape {psf.shape}")
    height, width = as_size(shape)
    mode = BOUNDARIES[_check.choice("boundary", boundary, tuple(BOUNDARIES))]
    rows, cols = (_padding(n, k, mode) for n, k in zip((height, width), psf.shape, strict=True))
    psf = psf[:, :, None]
    flipped = psf[::-1, ::-1]

    def forward(image: np.ndarray) -> np.ndarray:
        return np.asarray(signal.fftconvolve(_separable(rows, cols, image), psf, mode="valid", axes=(0, 1)))

    def adjoint(data: np.ndarray) -> np.ndarray:
        return _separable(rows.T, cols.T, signal.fftconvolve(data, flipped, mode="full", axes=(0, 1)))

    return ImageOperator((height, width), (height, width), forward, adjoint)


def downsampling(shape: tuple[int, int], factor: int) -> ImageOperator:
    """Means of blocks of ``factor`` x ``factor`` pixels, as the larger pixels of a coarser sensor see them.

    Parameters
    ----------
    shape : (int, int)
        (H, W) of the fine image, multiples of ``factor``.
    factor : int
        At least 1.

    Returns
    -------
    ImageOperator, shape (H*W/factor^2, H*W)

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.
    """
    height, width = as_size(shape)
    number = _check.integer("factor", factor)
    if number < 1:
        raise ValueError(f"factor must be at least 1, got {number}")
    if height % number or width % number:
        raise ValueError(f"shape must have multiples of factor = {number}, got {(height, width)}")
    rows, cols = (_means(n // number, number) for n in (height, width))
    return ImageOperator(
        (height, width),
        (height // number, width // number),
        lambda image: _separable(rows, cols, image),
        lambda data: _separable(rows.T, cols.T, data),
    )


def _padding(length: int, kernel: int, mode: str) -> sparse.csr_matrix:
    """What continues a line of pixels, by k - 1 - k//2 before it and k//2 behind it: (length + kernel - 1, length)."""
    width = kernel - 1 - kernel // 2, kernel // 2
    if mode == "constant":
        return sparse.csr_matrix(sparse.eye(length + kernel - 1, length, -width[0]))
    source = np.pad(np.arange(length), width, mode=mode)  # type: ignore[call-overload]
    return sparse.csr_matrix((np.ones(len(source)), (np.arange(len(source)), source)), (len(source), length))


def _means(length: int, factor: int) -> sparse.csr_matrix:
    """Means of ``factor`` neighbours: (length, length*factor)."""
    return sparse.csr_matrix(sparse.kron(sparse.eye(length), np.full((1, factor), 1.0 / factor)))


def _separable(rows: sparse.csr_matrix, cols: sparse.csr_matrix, image: np.ndarray) -> np.ndarray:
    """``rows`` times each column of the image and ``cols`` times each row: (H, W, k) to (H', W', k)."""
    height, width, k = image.shape
    tall = (rows @ image.reshape(height, width * k)).reshape(-1, width, k)
    wide = cols @ tall.transpose(1, 0, 2).reshape(width, -1)
    return np.asarray(wide.reshape(cols.shape[0], -1, k).transpose(1, 0, 2))
