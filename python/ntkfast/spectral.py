"""Functions of the kernel, f(Theta) y, by one block Lanczos run that serves every f at once.

The block Krylov space of Theta and Y = [y_1 ... y_n] is spanned by an orthonormal basis Q = [Q_0 ... Q_m], in which Theta
is the block tridiagonal matrix T = Q^T Theta Q.  With Y = Q_0 R,

    f(Theta) Y  ~  Q f(T) E_1 R,        E_1 = [I 0 ... 0]^T

(Saad, SIAM J. Numer. Anal. 29, 1992; block form: Frommer, Lund, Szyld, SIAM J. Matrix Anal. 41, 2020).  Everything works
on a stack of independent problems: arrays are (batch, d, n).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["BlockLanczos", "Evaluation"]

# A stack of values of the eigenvalues -> the function's values there.
Function = Callable[[np.ndarray], np.ndarray]
Product = Callable[[np.ndarray], np.ndarray]

BLOCKS_PER_SLAB = 8


@dataclass(frozen=True)
class Evaluation:
    """f(Theta) Y for several f, in the coordinates of the basis.

    Attributes
    ----------
    coefficients : ndarray, shape (functions, batch, size, n)
        Coordinates of each result in the basis.
    """

    coefficients: np.ndarray

    def distance(self, earlier: Evaluation | None) -> float:
        """Largest change since an evaluation in a smaller basis, relative to the largest result; inf without one.

        The bases are nested and orthonormal, so that this is the distance of the results themselves.
        """
        if earlier is None:
            return float("inf")
        shared = earlier.coefficients.shape[2]
        change = self.coefficients.copy()
        change[:, :, :shared] -= earlier.coefficients
        scale = float(np.sqrt((self.coefficients**2).sum(axis=(2, 3)).max(initial=0.0)))
        return float(np.sqrt((change**2).sum(axis=(2, 3)).max(initial=0.0))) / scale if scale else 0.0


class BlockLanczos:
    """Block Lanczos with full reorthogonalisation, grown one block at a time.

    Parameters
    ----------
    product : callable
        Theta V for V of shape (batch, d, n), of the dtype of ``start``.
    start : ndarray, shape (batch, d, n), float32 or float64
        Y.  Dependent or zero columns are allowed: directions that are not there are left out.

    Attributes
    ----------
    products : int
        Calls of ``product`` so far.
    exhausted : bool
        Whether the space has stopped growing: results are then exact up to rounding.
    """

    def __init__(self, product: Product, start: np.ndarray) -> None:
        self._product = product
        self._eps = float(np.finfo(start.dtype).eps)
        self._n = start.shape[2]
        first, self._start_factor = _orthonormal(start, 10 * self._eps * _norm(start))
        self._slabs: list[np.ndarray] = []  # the basis Q_0 Q_1 ..., several blocks an array: few and long matrix products
        self._newest = first
        self._append(first)
        self._projected = np.zeros((start.shape[0], 0, 0))
        self._link = np.zeros((start.shape[0], self._n, self._n))  # couples the newest block to the one before
        self.products = 0
        self.exhausted = not first.any()

    def step(self) -> None:
        """Add one block: one product, then orthogonalisation against all blocks, twice."""
        newest = self._newest
        image = self._product(newest)
        self.products += 1
        own = np.swapaxes(newest, 1, 2) @ image
        self._grow((own + np.swapaxes(own, 1, 2)) / 2)
        for _ in range(2):  # one pass leaves what cancellation hides; the second removes it
            for slab in self._slabs:
                image = image - slab @ (np.swapaxes(slab, 1, 2) @ image)
        scale = np.abs(self._projected).max(axis=(1, 2))
        block, self._link = _orthonormal(image, 100 * self._eps * scale)
        self._newest = block
        self._append(block)
        self.exhausted = not block.any()

    def _append(self, block: np.ndarray) -> None:
        if self._slabs and self._slabs[-1].shape[2] < BLOCKS_PER_SLAB * self._n:
            self._slabs[-1] = np.concatenate([self._slabs[-1], block], axis=2)
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

    def eigenvalues(self) -> np.ndarray:
        """Ritz values, ascending, shape (batch, size): the largest approaches that of Theta from below."""
        return np.maximum(np.linalg.eigvalsh(self._projected), 0.0)

    def evaluate(self, functions: Sequence[Function], items: slice = slice(None)) -> Evaluation:
        """f(T) E_1 R for each function, and each problem of the stack or those in ``items``; after at least one step."""
        values, vectors = np.linalg.eigh(self._projected[items])
        values = np.maximum(values, 0.0)  # Theta is positive semi-definite
        first = np.swapaxes(vectors[:, : self._n], 1, 2) @ self._start_factor[items].astype(np.float64)
        return Evaluation(np.stack([vectors @ (f(values)[:, :, None] * first) for f in functions]))

    def assemble(self, evaluation: Evaluation, columns: int | None = None) -> np.ndarray:
        """Results in pixels, shape (functions, batch, d, columns); by default all n columns."""
        out = 0.0
        start, size = 0, evaluation.coefficients.shape[2]
        for slab in self._slabs:
            stop = min(start + slab.shape[2], size)
            part = evaluation.coefficients[:, :, start:stop, :columns].astype(slab.dtype)
            out = out + slab[:, :, : stop - start] @ part
            start = stop
        return np.asarray(out)


def _norm(v: np.ndarray) -> np.ndarray:
    """Frobenius norm of each item, shape (batch,)."""
    return np.asarray(np.sqrt((v.astype(np.float64) ** 2).sum(axis=(1, 2))))


def _orthonormal(v: np.ndarray, threshold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """V = Q R with orthonormal columns Q, save that directions below ``threshold`` (batch,) become zero columns.

    A singular value decomposition of the triangular factor turns the columns so that what is missing is whole columns; plain
    QR would fill them with arbitrary vectors that need not be orthogonal to the earlier blocks.
    """
    q, r = np.linalg.qr(v)
    u, s, vt = np.linalg.svd(r, full_matrices=False)
    kept = s > threshold[:, None]
    q = (q @ (u * kept[:, None, :])).astype(v.dtype)
    r = (s * kept)[:, :, None] * vt
    missing = v.shape[2] - q.shape[2]  # fewer pixels than columns
    if missing > 0:
        q = np.pad(q, ((0, 0), (0, 0), (0, missing)))
        r = np.pad(r, ((0, 0), (0, missing), (0, 0)))
    return q, r
