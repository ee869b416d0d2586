"""These linear operators A degrade an image, and know its shape and that of the data.

Each acts on one channel's pixels, row by row; columns are channels.  A^T is exact: <A u, v> = <u, A^T v> up to
rounding.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from scipy import signal, sparse
from scipy.sparse.linalg import LinearOperator

from .. import _check
from ..images import as_size

__all__ = ["Blur", "Downsampling", "ImageOperator", "Inpainting"]

# How an image goes on outside, in the words of scipy.ndimage -> those of numpy.pad.
BOUNDARIES = {"reflect": "symmetric", "mirror": "reflect", "nearest": "edge", "wrap": "wrap", "constant": "constant"}


class ImageOperator(LinearOperator):  # type: ignore[misc]
    """A linear map of images, pixel ``row*W + col``, to data; float64.

    Attributes
    ----------
    image_shape : (int, int)
        (H, W); the operator has d = H*W columns.
    data_shape : tuple of int
        Shape of the data of one channel; the operator has n = prod(data_shape) rows.
    known : ndarray of bool, shape (H, W), or None
        Of :class:`Inpainting` the mask.
    """

    known: np.ndarray | None = None

    def __init__(self, image_shape: tuple[int, int], data_shape: tuple[int, ...]) -> None:
        self.image_shape, self.data_shape = image_shape, data_shape
        super().__init__(np.dtype(np.float64), (int(np.prod(data_shape)), image_shape[0] * image_shape[1]))

    @abstractmethod
    def _forward(self, image: np.ndarray) -> np.ndarray:
        """A of images (H, W, k): (*data_shape, k)."""

    @abstractmethod
    def _backward(self, data: np.ndarray) -> np.ndarray:
        """A^T of data (*data_shape, k): (H, W, k)."""

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        return self._apply(self._forward, V, self.image_shape)

    def _rmatmat(self, V: np.ndarray) -> np.ndarray:
        return self._apply(self._backward, V, self.data_shape)

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self._matmat(v.reshape(-1, 1))

    def _rmatvec(self, v: np.ndarray) -> np.ndarray:
        return self._rmatmat(v.reshape(-1, 1))

    @staticmethod
    def _apply(linear: Callable[[np.ndarray], np.ndarray], V: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if V.dtype.kind not in "fiubc":
            raise TypeError(f"the operator applies to real and complex arrays, got dtype {V.dtype}")
        dtype = np.complex128 if V.dtype.kind == "c" else np.float64
        columns = V.shape[1]
        return linear(V.astype(dtype).reshape(*shape, columns)).reshape(-1, columns)

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} is an operator and no array: use A @ v for a product, or A @ np.eye(A.shape[1]) "
            "for the whole matrix"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.image_shape[0]} x {self.image_shape[1]} pixels, shape {self.shape}>"


class Inpainting(ImageOperator):
    """Picks the pixels that are known: a LinearOperator of shape (n, H*W), n of them, in the order of the image's rows.

    Parameters
    ----------
    known : array_like of bool, shape (H, W)
        True (or 1) where the pixel is known, False (or 0) where it is missing.  scikit-image's inpainting takes the
        opposite.

    Raises
    ------
    TypeError, ValueError
        If ``known`` has not two dimensions, holds anything but 0 and 1, or no known pixel.

    Examples
    --------
    >>> A = nf.Inpainting([[True, False], [True, True]])
    >>> A
    <Inpainting of 2 x 2 pixels, shape (3, 4)>
    >>> A @ np.array([1.0, 2.0, 3.0, 4.0])
    array([1., 3., 4.])
    """

    def __init__(self, known: Any) -> None:
        array = _check.real_array("known", known)
        if array.ndim != 2:
            raise ValueError(f"known must have 2 dimensions, got shape {array.shape}")
        if not np.isin(array, (0, 1)).all():
            raise ValueError("known must be True or 1 where pixels are known and False or 0 where they are missing")
        mask = array.astype(bool)
        if not mask.any():
            raise ValueError("known must have at least one known pixel, got none")
        self.known = mask
        super().__init__(mask.shape, (int(mask.sum()),))

    def _forward(self, image: np.ndarray) -> np.ndarray:
        return np.asarray(image[self.known])

    def _backward(self, data: np.ndarray) -> np.ndarray:
        image = np.zeros((*self.image_shape, data.shape[-1]), data.dtype)
        image[self.known] = data
        return image


class Blur(ImageOperator):
    """Convolution with a kernel, the same as ``scipy.ndimage.convolve(image, kernel, mode=boundary)``: (H*W, H*W).

    (A x)(p) = sum_q kernel(q) x(p + c - q), with the centre c = (kh//2, kw//2) and x continued outside.

    Parameters
    ----------
    shape : (int, int)
        (H, W) of the image.
    kernel : array_like, shape (kh, kw), real
        The point spread function; any size, also larger than the image.  Not normalised here.
    boundary : {"reflect", "mirror", "nearest", "wrap", "constant"}
        How the image goes on outside; "constant" is 0.

    Attributes
    ----------
    kernel : ndarray of float64, shape (kh, kw)
    boundary : str

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.

    Examples
    --------
    >>> A = nf.Blur((8, 8), np.full((3, 3), 1 / 9))
    >>> blurred = (A @ np.eye(8).ravel()).reshape(8, 8)
    >>> print(blurred[4].round(2))
    [0.   0.   0.11 0.22 0.33 0.22 0.11 0.  ]
    """

    def __init__(self, shape: tuple[int, int], kernel: Any, boundary: str = "reflect") -> None:
        size = as_size(shape)
        psf = _check.real_array("kernel", kernel).astype(np.float64)
        if psf.ndim != 2:
            raise ValueError(f"kernel must have 2 dimensions, got shape {psf.shape}")
        self.kernel, self.boundary = psf, boundary
        mode = BOUNDARIES[_check.choice("boundary", boundary, tuple(BOUNDARIES))]
        self._rows, self._cols = (_padding(n, k, mode) for n, k in zip(size, psf.shape, strict=True))
        self._psf = psf[:, :, None]
        super().__init__(size, size)

    def _forward(self, image: np.ndarray) -> np.ndarray:
        padded = _separable(self._rows, self._cols, image)
        return np.asarray(signal.fftconvolve(padded, self._psf, mode="valid", axes=(0, 1)))

    def _backward(self, data: np.ndarray) -> np.ndarray:
        spread = signal.fftconvolve(data, self._psf[::-1, ::-1], mode="full", axes=(0, 1))
        return _separable(self._rows.T, self._cols.T, spread)


class Downsampling(ImageOperator):
    """Means of blocks of ``factor`` x ``factor`` pixels, as the larger pixels of a coarser sensor see them.

    A LinearOperator of shape (H*W/factor^2, H*W).

    Parameters
    ----------
    shape : (int, int)
        (H, W) of the fine image, multiples of ``factor``.
    factor : int
        At least 1.

    Attributes
    ----------
    factor : int

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.

    Examples
    --------
    >>> nf.Downsampling((4, 4), 2) @ np.arange(16.0)
    array([ 2.5,  4.5, 10.5, 12.5])
    """

    def __init__(self, shape: tuple[int, int], factor: int) -> None:
        height, width = as_size(shape)
        number = _check.at_least("factor", factor, 1)
        if height % number or width % number:
            raise ValueError(f"shape must have multiples of factor = {number}, got {(height, width)}")
        self.factor = number
        self._rows, self._cols = (_means(n // number, number) for n in (height, width))
        super().__init__((height, width), (height // number, width // number))

    def _forward(self, image: np.ndarray) -> np.ndarray:
        return _separable(self._rows, self._cols, image)

    def _backward(self, data: np.ndarray) -> np.ndarray:
        return _separable(self._rows.T, self._cols.T, data)


def _padding(length: int, kernel: int, mode: str) -> sparse.csr_matrix:
    """Return what continues a line by k - 1 - k//2 pixels before and k//2 behind: (length + kernel - 1, length)."""
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
