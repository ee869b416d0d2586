"""Functions of the kernel, f(Theta) y, by one block Lanczos run that serves every f at once.

The block Krylov space of Theta and Y = [y_1 ... y_n] is spanned by an orthonormal basis Q = [Q_0 ... Q_m], in which
Theta is the block tridiagonal matrix T = Q^T Theta Q.  With Y = Q_0 R,

    f(Theta) Y  ~  Q f(T) E_1 R,        E_1 = [I 0 ... 0]^T

(Saad, SIAM J. Numer. Anal. 29, 1992; block form: Frommer, Lund, Szyld, SIAM J. Matrix Anal. 41, 2020).  Everything
works on a stack of independent problems: arrays are (batch, d, n).  Those with d rows may lie on a GPU
(engine/arrays.py); what is small, n or a few hundred a side, is NumPy's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..engine.arrays import NUMPY, Arrays

__all__ = [
    "BlockLanczos",
    "Filter",
    "gradient_descent_filter",
    "gradient_flow_filter",
    "lanczos_bytes",
    "landweber_filter",
    "ridge_filter",
]

# A stack of eigenvalues -> the function's values there.
Function = Callable[[np.ndarray], np.ndarray]
Product = Callable[[Any], Any]

BLOCKS_PER_SLAB = 8

# Beside the basis: blocks of a slab that is copied to take one more, and the vectors of a step; copies of the results
# while they are assembled; matrices of the projected problem's size, with LAPACK's.
WORK_BLOCKS = BLOCKS_PER_SLAB + 6
RESULT_COPIES = 3
SMALL_MATRICES = 6

# Below it eta x loses digits by underflow.
TINY = 1e-290


@dataclass(frozen=True)
class Filter:
    """f(Theta) Y, and what bounds the error of its Lanczos approximation.

    The error of each filter here is an integral (or a sum) of residuals over its path.  With B_m the coupling to the
    block that comes next, and since no residual grows on the way,

        |f(Theta) Y - Q f(T) E_1 R|  <=  sum_k weights_k |B_m E_m^T nodes_k(T) E_1 R|

    up to the quadrature, in exact arithmetic.

    Attributes
    ----------
    value : callable
        f.
    nodes : tuple of callables
    weights : tuple of float
    measured : callable, optional
        g, where the error that is bounded is that of g(Theta) Y and relative to it; f itself by default.
    """

    value: Function
    nodes: tuple[Function, ...]
    weights: tuple[float, ...]
    measured: Function | None = None


def gradient_descent_filter(steps: int, learning_rate: float) -> Filter:
    """f(x) = 1 - (1 - eta x)^t.

    The residual y - z of Lanczos obeys the iteration up to eta Q_{m+1} B_m E_m^T (I - eta T)^k E_1 R at step k, and
    |I - eta Theta| <= 1: the error is at most eta times the sum over k < t of those norms, here by the trapezoidal
    rule.
    """
    k = np.unique(np.concatenate([np.arange(min(steps, 10) + 1), _geometric(10, steps)]).astype(np.int64))
    weights = learning_rate * _trapezoid(k.astype(float))

    def power(n: int) -> Function:
        return lambda x: (1.0 - learning_rate * x) ** n

    return Filter(lambda x: 1.0 - power(steps)(x), tuple(power(int(n)) for n in k), tuple(weights))


def landweber_filter(steps: int, learning_rate: float) -> Filter:
    """f(x) = (1 - (1 - eta x)^t)/x = eta sum_{k < t} (1 - eta x)^k, eta t at x = 0.

    For Theta f(Theta) Y = g(Theta) Y, g = 1 - (1 - eta x)^t.  Theta times the approximation of f(Theta) Y is
    Q g(T) E_1 R + Q_{m+1} B_m E_m^T f(T) E_1 R: its error is at most that of gradient descent and the last term.
    """
    descent = gradient_descent_filter(steps, learning_rate)

    def value(x: np.ndarray) -> np.ndarray:
        step = learning_rate * x
        # 1 - (1 - s)^t cancels where t s is small.
        small = -np.expm1(steps * np.log1p(-np.minimum(step, 0.5)))
        grown = np.where(step < 0.5, small, descent.value(x))
        return np.asarray(np.divide(grown, x, out=np.full_like(x, learning_rate * steps), where=step > TINY))

    return Filter(value, (*descent.nodes, value), (*descent.weights, 1.0), measured=descent.value)


def gradient_flow_filter(t: float) -> Filter:
    """f(x) = 1 - exp(-t x); the error is at most the integral of |B_m E_m^T exp(-s T) E_1 R| over 0 <= s <= t."""
    s = t * np.concatenate([[0.0], np.geomspace(1e-8, 1.0, 80)])

    def decay(time: float) -> Function:
        return lambda x: np.asarray(np.exp(_exponent(time, x)))

    def value(x: np.ndarray) -> np.ndarray:
        return np.asarray(-np.expm1(_exponent(t, x)))

    return Filter(value, tuple(decay(float(time)) for time in s), tuple(_trapezoid(s)))


def _exponent(time: float, x: np.ndarray) -> np.ndarray:
    """-time x, which may be -inf: the exponential is then 0."""
    with np.errstate(over="ignore"):
        return np.asarray(-time * x)


def ridge_filter(noise_var: float) -> Filter:
    """f(x) = x/(x + v); the error is at most that of v (Theta + v)^-1, |B_m E_m^T (T + v)^-1 E_1 R|."""
    return Filter(lambda x: x / (x + noise_var), (lambda x: 1.0 / (x + noise_var),), (1.0,))


def _geometric(start: int, stop: int) -> np.ndarray:
    """Integers from ``start`` to ``stop``, each about a quarter more than the one before; empty if stop < start."""
    if stop < start:
        return np.zeros(0)
    return np.round(np.geomspace(start, stop, 2 + int(np.log(stop / start) / np.log(1.25))))


def _trapezoid(nodes: np.ndarray) -> np.ndarray:
    """Weights of the trapezoidal rule on increasing nodes."""
    gaps = np.diff(nodes)
    return np.asarray((np.append(gaps, 0.0) + np.insert(gaps, 0, 0.0)) / 2)


def lanczos_bytes(d: int, n: int, products: int, results: int, itemsize: int) -> int:
    """Bytes that a run of ``products`` with n columns takes at the most, and ``results`` vectors assembled from it."""
    vectors = (products + 1 + WORK_BLOCKS) * n + RESULT_COPIES * results
    return itemsize * d * vectors + 8 * SMALL_MATRICES * (products * n) ** 2


class BlockLanczos:
    """Block Lanczos with full reorthogonalisation, grown one block at a time.

    Parameters
    ----------
    product : callable
        Theta V for V of shape (batch, d, n), of the dtype of ``start``.
    start : ndarray, shape (batch, d, n), float32 or float64
        Y.  Dependent or zero columns are allowed: directions that are not there are left out.
    arrays : Arrays
        What ``start`` and the products are; NumPy's by default.

    Attributes
    ----------
    products : int
        Calls of ``product`` so far.
    exhausted : bool
        Whether the space has stopped growing: results are then exact up to rounding.
    """

    def __init__(self, product: Product, start: Any, arrays: Arrays = NUMPY) -> None:
        self._product, self._arrays = product, arrays
        self._n = start.shape[2]
        first, self._start_factor = _orthonormal(arrays, start, lambda eps: 10 * eps * np.sqrt(arrays.squares(start)))
        self._dtype = self._start_factor.dtype
        self._eps = float(np.finfo(self._dtype).eps)
        self._slabs: list[Any] = []  # the basis Q_0 Q_1 ..., several blocks an array: few and long matrix products
        self._newest = first
        self._append(first)
        self._projected = np.zeros((start.shape[0], 0, 0))
        self._link = np.zeros((start.shape[0], self._n, self._n))  # couples the newest block to the one before
        self.products = 0
        self.exhausted = not self._start_factor.any()

    def step(self) -> None:
        """Add one block: one product, then orthogonalisation against all blocks, twice."""
        arrays, newest = self._arrays, self._newest
        image = self._product(newest)
        self.products += 1
        own = arrays.to_host(arrays.transposed(newest) @ image)
        self._grow((own + np.swapaxes(own, 1, 2)) / 2)
        for _ in range(2):  # one pass leaves what cancellation hides; the second removes it
            for slab in self._slabs:
                image = image - slab @ (arrays.transposed(slab) @ image)
        scale = np.abs(self._projected).max(axis=(1, 2))
        self._newest, self._link = _orthonormal(arrays, image, lambda eps: 100 * eps * scale)
        self._append(self._newest)
        self.exhausted = not self._link.any()

    def _append(self, block: Any) -> None:
        if self._slabs and self._slabs[-1].shape[2] < BLOCKS_PER_SLAB * self._n:
            self._slabs[-1] = self._arrays.concatenate([self._slabs[-1], block], axis=2)
        else:
            self._slabs.append(block)

    def _grow(self, diagonal: np.ndarray) -> None:
        """Append the newest block's row and column to T."""
        size, n = self._projected.shape[1], self._n
        grown = np.zeros((self._projected.shape[0], size + n, size + n))
        grown[:, :size, :size] = self._projected
        grown[:, size:, size:] = diagonal
        if size:
            grown[:, size:, size - n : size] = self._link
            grown[:, size - n : size, size:] = np.swapaxes(self._link, 1, 2)
        self._projected = grown

    def solve(self, items: slice = slice(None)) -> Solution:
        """Diagonalise T, for each problem of the stack or those in ``items``; call after at least one step."""
        values, vectors = np.linalg.eigh(self._projected[items])
        return Solution(
            lowest=values[:, 0],
            values=np.maximum(values, 0.0),  # Theta is positive semi-definite
            vectors=vectors,
            first=np.swapaxes(vectors[:, : self._n], 1, 2) @ self._start_factor[items].astype(np.float64),
            coupling=self._link[items].astype(np.float64) @ vectors[:, -self._n :],
        )

    def lowest_quotient(self, solution: Solution) -> float:
        """Return x^T Theta x / x^T x of the smallest Ritz pair of all problems, by one more product.

        Where rounding has cost the basis its orthogonality, as behind the last direction that Theta sees, Ritz values
        lie outside of the spectrum; a quotient never does.
        """
        item = int(solution.lowest.argmin())
        coordinates = np.zeros((len(solution.lowest), solution.vectors.shape[1], self._n))
        coordinates[item, :, 0] = solution.vectors[item, :, 0]
        x = self._combined(coordinates.astype(self._dtype))
        image = self._product(x)
        x, image = (self._arrays.to_host(v)[item, :, 0].astype(np.float64) for v in (x, image))
        return float(x @ image / (x @ x))

    def assemble(self, solution: Solution, filters: Sequence[Filter], columns: int | None = None) -> Any:
        """f(Theta) Y in pixels, for a solution of all items: (filters, batch, d, columns); by default all n columns."""
        # All filters side by side, (batch, size, filters * columns): one product of matrices a slab.
        each = [solution.coefficients(f.value)[:, :, :columns] for f in filters]
        out = self._combined(np.concatenate(each, axis=2).astype(self._dtype))
        n = each[0].shape[2]
        return self._arrays.stack([out[:, :, k * n : (k + 1) * n] for k in range(len(each))])

    def _combined(self, coefficients: np.ndarray) -> Any:
        """Return combinations of the basis in pixels, (batch, d, n), for coefficients (batch, size, n)."""
        out: Any = 0.0
        start, size = 0, coefficients.shape[1]
        for slab in self._slabs:
            stop = min(start + slab.shape[2], size)
            part = self._arrays.asarray(coefficients[:, start:stop], self._dtype)
            out = out + slab[:, :, : stop - start] @ part
            start = stop
        return out


@dataclass(frozen=True)
class Solution:
    """The projected problem, diagonalised: T = V diag(values) V^T.

    Attributes
    ----------
    lowest : ndarray, shape (batch,)
        The smallest Ritz value.  Below zero by more than rounding it raises the suspicion that Theta is not positive
        semi-definite; see :meth:`BlockLanczos.lowest_quotient`.
    values : ndarray, shape (batch, size)
        Ritz values, ascending, those below zero taken for zero: the largest approaches that of Theta from below.
    vectors : ndarray, shape (batch, size, size)
        V.
    first : ndarray, shape (batch, size, n)
        V^T E_1 R.
    coupling : ndarray, shape (batch, n, size)
        B_m E_m^T V: how each Ritz vector leaks into the block that comes next; 0 once the space is exhausted.
    """

    lowest: np.ndarray
    values: np.ndarray
    vectors: np.ndarray
    first: np.ndarray
    coupling: np.ndarray

    def coefficients(self, f: Function) -> np.ndarray:
        """f(T) E_1 R, shape (batch, size, n): the result's coordinates in the basis."""
        return np.asarray(self.vectors @ (f(self.values)[:, :, None] * self.first))

    def of_columns(self, n: int) -> Solution:
        """The same for the first n columns of Y alone."""
        return replace(self, first=self.first[:, :, :n])

    def error(self, filters: Sequence[Filter]) -> float:
        """Bound on the error of the filters, relative to the norm of each result; the largest of all."""
        worst = 0.0
        for f in filters:
            size = _norm(self.first * (f.measured or f.value)(self.values)[:, :, None])
            residuals = [_norm(self.coupling @ (node(self.values)[:, :, None] * self.first)) for node in f.nodes]
            bound = np.einsum("k,kb->b", f.weights, np.stack(residuals))
            worst = max(worst, float(np.divide(bound, size, out=np.zeros_like(bound), where=size > 0).max()))
        return worst

    def top_residual(self) -> float:
        """|Theta v - theta v| of the largest Ritz pair, relative to theta; the error of theta is about its square."""
        top = self.values[:, -1]
        leak = np.sqrt((self.coupling[:, :, -1] ** 2).sum(axis=1))
        return float(np.divide(leak, top, out=np.zeros_like(leak), where=top > 0).max())


def _norm(v: np.ndarray) -> np.ndarray:
    """Frobenius norm of each item, shape (batch,)."""
    return np.asarray(np.sqrt(NUMPY.squares(v)))


def _orthonormal(arrays: Arrays, v: Any, threshold: Callable[[float], np.ndarray]) -> tuple[Any, np.ndarray]:
    """V = Q R with orthonormal columns Q, save that directions below a threshold become zero columns.

    A singular value decomposition of the triangular factor turns the columns so that what is missing is whole columns;
    plain QR would fill them with arbitrary vectors that need not be orthogonal to the earlier blocks.

    Parameters
    ----------
    arrays : Arrays
        What ``v`` is.
    v : shape (batch, d, n)
    threshold : callable
        The rounding unit of the dtype -> the threshold of each item, (batch,).

    Returns
    -------
    Q, like v; R : ndarray, shape (batch, n, n)
    """
    q, triangle = arrays.qr(v)
    r = arrays.to_host(triangle)
    u, s, vt = np.linalg.svd(r, full_matrices=False)
    kept = s > threshold(float(np.finfo(r.dtype).eps))[:, None]
    q = q @ arrays.asarray(u * kept[:, None, :], r.dtype)
    r = (s * kept)[:, :, None] * vt
    missing = v.shape[2] - q.shape[2]  # fewer pixels than columns
    if missing > 0:
        q = arrays.concatenate([q, arrays.zeros((*q.shape[:2], missing), r.dtype)], axis=2)
        r = np.pad(r, ((0, 0), (0, missing), (0, 0)))
    return q, r
