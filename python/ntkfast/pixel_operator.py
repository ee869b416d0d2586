"""Symmetric operators over the pixels of an image: what the exact kernels and their approximations have in common."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol, TypeVar, cast, overload

import numpy as np
from scipy.sparse.linalg import LinearOperator

from . import _check
from .engine.arrays import Arrays
from .images import AnyArray, as_columns, as_factors

__all__ = ["PixelOperator", "over_scale", "require_operator", "with_signature"]

Class = TypeVar("Class", bound=type)
Own = TypeVar("Own", bound="PixelOperator")


def with_signature(operator: Class) -> Class:
    """Let ``help`` show how a LinearOperator is made, in place of the arguments (*args, **kwargs) of SciPy's class."""
    own = inspect.signature(operator.__init__)  # type: ignore[misc]
    operator.__signature__ = own.replace(parameters=list(own.parameters.values())[1:])  # type: ignore[attr-defined]
    return operator


class Operator(Protocol):
    """A LinearOperator, to type checkers, which know nothing of SciPy's: else any argument could be one."""

    def matvec(self, x: Any, /) -> Any: ...


class PixelOperator(LinearOperator):  # type: ignore[misc]
    """Symmetric operator over the pixels of an image.

    A subclass has ``_matmat`` for NumPy's arrays, ``columns``, ``diagonal``, ``dense`` and ``image_shape``, and
    ``_times`` if it also works elsewhere.
    """

    image_shape: tuple[int, int]
    scale: float = 1.0  # a power of 2: 1 but where the entries leave the range of the dtype
    _scaled: Any = None

    @property
    def scaled(self: Own) -> Own:
        """The same operator divided by ``scale``, so that the dtype holds its entries; itself where scale is 1."""
        if self.scale == 1.0:
            return self
        if self._scaled is None:
            self._scaled = self._over(self.scale)
        return cast("Own", self._scaled)

    def _over(self: Own, scale: float) -> Own:
        """Return the same operator divided by a number, with a scale of 1."""
        raise NotImplementedError

    def _in_units(self, what: str, arrays: Arrays, numbers: Any) -> Any:
        """Return numbers of ``scaled`` times ``scale``; refuse those that the dtype does not hold."""
        limits = np.finfo(self.dtype)
        largest = float(arrays.largest(numbers)) * self.scale
        if largest > float(limits.max) or 0 < largest < float(limits.tiny):
            raise ValueError(
                f"{what} has entries up to {largest:.3g}, which {self.dtype} does not hold: use dtype='float64', "
                f"or K.scaled, the kernel divided by K.scale = {self.scale:.6g}"
            )
        root = 2.0 ** (math.frexp(self.scale)[1] // 2)  # the scale itself may lie outside the dtype's range
        return numbers * root * (self.scale / root)

    def columns(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return some columns, shape (d, m)."""
        raise NotImplementedError

    def diagonal(self) -> np.ndarray:
        """Return the diagonal, shape (d,)."""
        raise NotImplementedError

    def dense(self) -> np.ndarray:
        """Return the whole matrix, shape (d, d)."""
        raise NotImplementedError

    def _times(self, arrays: Arrays, V: Any) -> Any:
        """Return the product with V (d, n), a real array of the kind ``arrays``; it is of the same kind."""
        return self._matmat(V)

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return np.asarray(self._matmat(np.asarray(v).reshape(-1, 1)))

    def _adjoint(self) -> PixelOperator:
        return self  # symmetric

    _transpose = _adjoint

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} is an operator and no array: use K @ V for a product, K.columns(indices) for some "
            "columns, or K.dense() for the whole matrix"
        )

    # SciPy's methods make NumPy's arrays of what they are given, which these do not; and they take batches from SciPy
    # 1.18 on alone, real numbers or complex ones as ``_matmat`` does.

    @overload
    def matvec(self, x: np.ndarray | Sequence[Any]) -> np.ndarray: ...

    @overload
    def matvec(self, x: AnyArray) -> AnyArray: ...

    def matvec(self, x: Any) -> Any:
        """Multiply with vectors.

        Parameters
        ----------
        x : array_like, shape (..., d) or (d, 1), real or complex
            One vector, or a batch of them.

        Returns
        -------
        ndarray, or what x is
            Of the same shape; of the operator's dtype, or its complex counterpart.

        Raises
        ------
        TypeError, ValueError
            If x is not numeric, or has another shape, or lies on another device than the operator.

        Examples
        --------
        >>> K = nf.NTK(nf.vanilla_cnn(1, 3), np.eye(8))
        >>> K.matvec(np.ones((5, 64))).shape
        (5, 64)
        """
        factors = as_factors(self, x, vectors=True)
        return factors.restored(self._times(factors.arrays, factors.values))

    @overload
    def matmat(self, X: np.ndarray | Sequence[Any]) -> np.ndarray: ...

    @overload
    def matmat(self, X: AnyArray) -> AnyArray: ...

    def matmat(self, X: Any) -> Any:
        """Multiply with matrices.

        Parameters
        ----------
        X : array_like, shape (..., d, n), real or complex
            One matrix, or a batch of them.

        Returns
        -------
        ndarray, or what X is
            Of the same shape; of the operator's dtype, or its complex counterpart.

        Raises
        ------
        TypeError, ValueError
            If X is not numeric, or has another shape, or lies on another device than the operator.

        Examples
        --------
        >>> K = nf.NTK(nf.vanilla_cnn(1, 3), np.eye(8))
        >>> K.matmat(np.ones((2, 64, 3))).shape
        (2, 64, 3)
        """
        factors = as_factors(self, X, vectors=False)
        if len(factors.shape) < 2:
            raise ValueError(f"expected an array of two dimensions or more, got shape {factors.shape}")
        return factors.restored(self._times(factors.arrays, factors.values))

    @overload
    def dot(self, x: np.ndarray | Sequence[Any]) -> np.ndarray: ...

    @overload
    def dot(self, x: Operator | complex) -> LinearOperator: ...

    @overload
    def dot(self, x: AnyArray) -> AnyArray: ...

    def dot(self, x: Any) -> Any:
        """Multiply with anything: ``K @ x``, and ``K * x``.

        Parameters
        ----------
        x : array_like, shape (d,) or (..., d, n), real or complex; LinearOperator; or number
            A vector, a matrix or a batch of matrices; for a batch of vectors see :meth:`matvec`.

        Returns
        -------
        ndarray, or what x is
            Of the same shape; of the operator's dtype, or its complex counterpart.  The product of two operators, and
            the multiple of one, are LinearOperators.

        Raises
        ------
        TypeError, ValueError
            If x is not numeric, or has another shape, or lies on another device than the operator.

        Examples
        --------
        >>> K = nf.NTK(nf.vanilla_cnn(1, 3), np.eye(8))
        >>> (K @ np.ones(64)).shape, (K @ np.ones((64, 3))).shape, (2 * K).shape
        ((64,), (64, 3), (64, 64))
        """
        if isinstance(x, LinearOperator) or np.isscalar(x) or (isinstance(x, np.ndarray) and x.ndim == 0):
            return super().dot(x)
        factors = as_factors(self, x, vectors=False)
        return factors.restored(self._times(factors.arrays, factors.values))

    rmatvec, rmatmat = matvec, matmat  # symmetric

    @overload
    def apply(self, image: np.ndarray | Sequence[Any]) -> np.ndarray: ...

    @overload
    def apply(self, image: AnyArray) -> AnyArray: ...

    def apply(self, image: Any) -> Any:
        """Multiply with an image, channel by channel.

        Parameters
        ----------
        image : array_like, shape (H, W), (H, W, n), (d,) or (d, n), real or complex
            Need not have as many channels as the kernel's own image.

        Returns
        -------
        ndarray, or what the image is
            Of the same shape; of the operator's dtype, or its complex counterpart.

        Raises
        ------
        TypeError, ValueError
            If the image has another shape, is not numeric and finite, or is out of the range of the operator's dtype.

        Examples
        --------
        >>> K = nf.NTK(nf.vanilla_cnn(1, 3), np.eye(8))
        >>> K.apply(np.ones((8, 8, 3))).shape
        (8, 8, 3)
        """
        columns = as_columns(self, "image", image)
        return columns.restored(self.matmat(columns.values))

    def affinity(self, row: int, col: int) -> np.ndarray:
        """Return the filter weights of one pixel: its row of the kernel, laid out as an image.

        Parameters
        ----------
        row, col : int
            The pixel, 0 <= row < H and 0 <= col < W.

        Returns
        -------
        ndarray, shape (H, W)
            Entry (r, c) is Theta((row, col), (r, c)): how much the pixel learns from pixel (r, c) in one step.

        Raises
        ------
        TypeError, ValueError
            If row or col is no integer, or lies outside of the image.

        Examples
        --------
        >>> K = nf.NTK(nf.vanilla_cnn(1, 3), np.eye(8))
        >>> weights = K.affinity(2, 2)
        >>> weights.shape, bool(weights[2, 2] >= weights[2, 5])
        ((8, 8), True)
        """
        place = []
        for name, value, size in (("row", row, self.image_shape[0]), ("col", col, self.image_shape[1])):
            number = _check.integer(name, value)
            if not 0 <= number < size:
                raise ValueError(f"{name} must lie between 0 and {size - 1}, got {number}")
            place.append(number)
        return self.columns([place[0] * self.image_shape[1] + place[1]]).reshape(self.image_shape)


def over_scale(K: LinearOperator) -> tuple[LinearOperator, float]:
    """Return an operator whose entries its dtype holds, and the number by which it is to be multiplied to be K."""
    return getattr(K, "scaled", K), float(getattr(K, "scale", 1.0))


def require_operator(name: str, operator: Any) -> None:
    """Refuse what no filter can work with."""
    if not isinstance(operator, LinearOperator):
        raise TypeError(
            f"{name} must be a LinearOperator, such as an NTK, got {type(operator).__name__}: "
            "scipy.sparse.linalg.aslinearoperator makes one of a matrix"
        )
    if operator.shape[0] != operator.shape[1]:
        raise ValueError(f"{name} must be square, got shape {operator.shape}")
    if operator.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must be of dtype float32 or float64, got {operator.dtype}")
