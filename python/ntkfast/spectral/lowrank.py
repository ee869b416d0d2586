"""Low-rank approximations of the kernel, from some of its columns or from products with random vectors.

All are Nystrom approximations.  With a test matrix Omega of shape (d, k), Y = Theta Omega and the core W = Omega^T Y,

    Theta~ = Y W^+ Y^T

- :func:`nystrom`: Omega picks k pixels, the landmarks, so that Y are columns of Theta and W is its part on the
  landmarks (Williams & Seeger, NeurIPS 2001); the approximation of Tachella, Tang, Davies, CVPR 2021.
- :func:`randomized_low_rank`: Omega is a random orthonormal basis (Tropp, Yurtsever, Udell, Cevher, NeurIPS 2017), or
  one that products with Theta have turned towards its top eigenvectors (Halko, Martinsson, Tropp, SIAM Review 53,
  2011).

Theta is positive semi-definite, and so is the residual Theta - Theta~, whatever Omega: Theta~ never adds what is not
there, its eigenvalues lie below those of Theta, and the trace of the residual is its nuclear norm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_limits

from .. import _check
from .._check import Random
from ..engine.arrays import NUMPY
from ..engine.memory import Budget, require_memory
from ..images import as_pixels
from ..kernel import Kernel
from ..pixel_operator import PixelOperator, with_signature
from .lanczos import Function

__all__ = ["ErrorEstimate", "LowRank", "nystrom", "randomized_low_rank"]

LANDMARKS = ("lattice", "random")

# Columns of a sketch beyond the rank: Halko, Martinsson, Tropp 2011, section 4.2, take 5 or 10.
OVERSAMPLING = 10

# Share of the sampled columns that are drawn from all pixels alike.  The others are drawn where the residual's diagonal
# is large, which near an exact approximation is rounding.
UNIFORM_SHARE = 0.1

# Numbers of the products in double precision of what is stored in float32, at a time: 8 MB.
BLOCK_NUMBERS = 2**20

# Matrices of k x k numbers in double precision that the factorisation takes: the core, its eigenvectors and LAPACK's
# work space, then the triangular factor, its singular vectors and the same again.
SMALL_MATRICES = 8


@dataclass(frozen=True)
class ErrorEstimate:
    """How far a low-rank approximation is from the exact kernel; see :meth:`LowRank.estimate_error`.

    Attributes
    ----------
    frobenius : float
        Estimate of |Theta - Theta~|_F / |Theta|_F.
    standard_error : float
        Its standard error, itself estimated from the sampled columns.
    spectral_bounds : (float, float)
        Bounds on |Theta - Theta~| / |Theta| in the spectral norm.  They hold with certainty, up to rounding.  The lower
        one is the largest eigenvalue of the residual's own Nystrom approximation from the sampled columns, over
        lambda~ + itself; the upper one is the residual's trace over lambda~, with lambda~ the largest eigenvalue of
        Theta~.
    samples : int
        Columns drawn.

    Examples
    --------
    >>> K = nf.NTK(nf.vanilla_cnn(1, 3), np.random.default_rng(0).standard_normal((8, 8)))
    >>> estimate = nf.nystrom(K, 16).estimate_error(K, samples=32)
    >>> estimate.samples, 0 < estimate.frobenius < 1
    (32, True)
    """

    frobenius: float
    standard_error: float
    spectral_bounds: tuple[float, float]
    samples: int


@with_signature
class LowRank(PixelOperator):
    """Theta~ = U diag(values) U^T, symmetric and positive semi-definite of low rank, with its eigenpairs.

    A ``scipy.sparse.linalg.LinearOperator`` of shape (d, d) in the host's memory, as :func:`nystrom` and
    :func:`randomized_low_rank` return it.  :func:`ntkfast.gradient_descent` and the other filters take it in place of
    the exact kernel.  No Lanczos run is needed then, and no products: f(Theta~) y = U f(values) U^T y, as f(0) = 0.

    Parameters
    ----------
    eigenvalues : array_like, shape (r,)
        Positive, descending; kept in double precision.  r = 0 is the zero operator.
    eigenvectors : ndarray, shape (d, r), float32 or float64
        U, orthonormal columns.  Its dtype is that of the operator.
    image_shape : (int, int)
        (H, W), d = H*W.
    trace : float
        Of the exact kernel, for :attr:`trace_error`.
    landmarks : ndarray of int, shape (m,), optional
        The pixels whose columns it was made from.

    Attributes
    ----------
    eigenvalues, eigenvectors : ndarray
        As above, read-only.
    image_shape, landmarks
        As above.
    rank : int
        r.
    lambda_max : float
        Largest eigenvalue, 0 of rank 0.
    trace_error : float
        Relative error in the trace, 1 - trace(Theta~)/trace(Theta).

    Raises
    ------
    ValueError
        If the eigenpairs do not fit together.

    Examples
    --------
    >>> y = np.random.default_rng(0).standard_normal((8, 8))
    >>> low = nf.nystrom(nf.NTK(nf.vanilla_cnn(1, 3), y), 16)
    >>> low.rank, low.eigenvectors.shape, (low @ y.ravel()).shape
    (16, (64, 16), (64,))
    """

    def __init__(
        self,
        eigenvalues: Any,
        eigenvectors: np.ndarray,
        *,
        image_shape: tuple[int, int],
        trace: float,
        landmarks: np.ndarray | None = None,
    ) -> None:
        """Check that the eigenpairs fit together; the class describes the parameters."""
        values, vectors = np.array(eigenvalues, dtype=np.float64), np.asarray(eigenvectors).view()
        d = image_shape[0] * image_shape[1]
        if values.ndim != 1 or vectors.shape != (d, len(values)):
            raise ValueError(
                f"eigenvectors must have shape ({d}, r) for eigenvalues of shape (r,), "
                f"got shapes {vectors.shape} and {values.shape}"
            )
        if not (np.all(values > 0) and np.all(np.diff(values) <= 0)):
            raise ValueError(f"eigenvalues must be positive and descending, got {values!r}")
        if vectors.dtype not in (np.float32, np.float64):
            raise ValueError(f"eigenvectors must be float32 or float64, got {vectors.dtype}")
        values.flags.writeable = vectors.flags.writeable = False
        self.eigenvalues, self.eigenvectors = values, vectors
        self.image_shape = image_shape
        self.landmarks = landmarks
        self._trace = trace
        self.scale = _scale_of(self.lambda_max, vectors.dtype)
        super().__init__(vectors.dtype, (d, d))

    def _over(self, scale: float) -> LowRank:
        values, trace = self.eigenvalues / scale, self._trace / scale
        return LowRank(values, self.eigenvectors, image_shape=self.image_shape, trace=trace, landmarks=self.landmarks)

    @property
    def rank(self) -> int:
        """Number of eigenpairs."""
        return len(self.eigenvalues)

    @property
    def lambda_max(self) -> float:
        """Largest eigenvalue, in the kernel's units; 0 of rank 0.  It is at most that of the exact kernel."""
        return float(self.eigenvalues[0]) if self.rank else 0.0

    @property
    def trace_error(self) -> float:
        """Relative error in the trace, 1 - trace(Theta~)/trace(Theta), from 0 (exact) to 1; 0 of a zero kernel.

        The residual is positive semi-definite, so that this is also its relative nuclear norm |Theta - Theta~|_* /
        |Theta|_*, and it is exact, not an estimate, up to the rounding of the kernel: 1e-6 in float32.
        """
        return max(0.0, 1.0 - float(self.eigenvalues.sum()) / self._trace) if self._trace > 0 else 0.0

    def estimate_error(self, K: Kernel, *, samples: int = 64, rng: Random = 0) -> ErrorEstimate:
        """Compare with columns of the exact kernel at random pixels.

        With the residual R = Theta - Theta~ and pixels j drawn independently with the probabilities p_j,

            |R|_F^2 = E[|R_j|^2 / p_j],    |Theta|_F^2 = |Theta~|_F^2 + E[2 Theta~_j . R_j / p_j] + |R|_F^2

        Pixels are drawn nearly in proportion to R(j,j).  Since R is positive semi-definite, |R_j|^2 <= |R| R(j,j), and
        no column then weighs more than |R| trace(R).

        Parameters
        ----------
        K : NTK
            The kernel that was approximated.
        samples : int
            Columns drawn, at least 2; one that is drawn twice is computed once.
        rng : int, numpy.random.Generator or None
            What draws the columns: the same ones every time by default; None draws others each time.

        Returns
        -------
        ErrorEstimate

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range.
        MemoryError
            Before any work, if the columns do not fit.

        Examples
        --------
        >>> K = nf.NTK(nf.vanilla_cnn(1, 3), np.random.default_rng(0).standard_normal((8, 8)))
        >>> rough, better = (nf.nystrom(K, m).estimate_error(K) for m in (8, 32))
        >>> better.frobenius < rough.frobenius
        True
        """
        _require_kernel(K)
        if K.image_shape != self.image_shape:
            raise ValueError(f"K must be the kernel of an image of {self.image_shape} pixels, got {K.image_shape}")
        count, random = _check.at_least("samples", samples, 2), _check.generator("rng", rng)
        d = self.shape[0]
        _require_memory("samples", min(count, d), K, doubles=3)
        if K.scaled is not K:
            return self._over(K.scale).estimate_error(K.scaled, samples=samples, rng=rng)
        if self._trace <= 0:
            return ErrorEstimate(0.0, 0.0, (0.0, 0.0), count)

        diagonal = K.diagonal().astype(np.float64)
        missing = np.maximum(diagonal - self._diagonal(), 0.0)
        p = np.full(d, 1.0 / d)
        if missing.any():
            p = UNIFORM_SHARE * p + (1 - UNIFORM_SHARE) * missing / missing.sum()
        pixels, drawn = np.unique(random.choice(d, count, p=p), return_inverse=True)
        approximate = self._columns(pixels)
        residual = K.columns(pixels) - approximate
        a = np.einsum("ij,ij->j", residual, residual) / p[pixels]
        b = 2 * np.einsum("ij,ij->j", approximate, residual) / p[pixels]
        frobenius, standard_error = _ratio(float((self.eigenvalues**2).sum()), a[drawn], b[drawn])

        rounding = float(np.finfo(self.dtype).eps) * len(pixels) * float(diagonal.max())
        values, _ = _eigenpairs(residual, residual[pixels], np.dtype(np.float64), cutoff=rounding)
        lower = float(values[0]) if len(values) else 0.0
        lower /= self.lambda_max + lower or 1.0
        upper = min(1.0, self.trace_error * self._trace / self.lambda_max) if self.rank else 1.0
        return ErrorEstimate(frobenius, standard_error, (lower, max(lower, upper)), count)

    def spectral_filter(self, functions: Sequence[Function], y: np.ndarray) -> np.ndarray:
        """f(Theta~) y = U (f(values) - f(0)) U^T y + f(0) y, without any product with Theta~.

        Parameters
        ----------
        functions : sequence of callables
            Each f takes an array of eigenvalues.
        y : ndarray, shape (d, n), real

        Returns
        -------
        ndarray, shape (len(functions), d, n), of the operator's dtype

        Examples
        --------
        >>> y = np.random.default_rng(0).standard_normal((64, 1))
        >>> low = nf.nystrom(nf.NTK(nf.vanilla_cnn(1, 3), y.reshape(8, 8)), 16)
        >>> low.spectral_filter([lambda x: x, lambda x: x**2], y).shape
        (2, 64, 1)
        """
        y = np.asarray(y, dtype=self.dtype)
        coordinates = self.eigenvectors.T @ y
        out = np.empty((len(functions), *y.shape), dtype=self.dtype)
        for n, f in enumerate(functions):
            at_zero = float(f(np.zeros(1))[0])
            weights = (f(self.eigenvalues) - at_zero).astype(self.dtype)
            np.matmul(self.eigenvectors, weights[:, None] * coordinates, out=out[n])
            if at_zero:
                out[n] += self.dtype.type(at_zero) * y
        return out

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        """Theta~ V for V of shape (d, n), any real dtype; result (d, n) of the operator's dtype."""
        if self.scaled is not self:
            return np.asarray(self._in_units("the product", NUMPY, self.scaled._matmat(V)))
        return np.asarray(self.spectral_filter([lambda x: x], V)[0])

    def diagonal(self) -> np.ndarray:
        """Theta~(i, i) of every pixel, shape (d,); computed in double precision.

        Examples
        --------
        >>> low = nf.nystrom(nf.NTK(nf.vanilla_cnn(1, 3), np.eye(8)), 16)
        >>> low.diagonal().shape
        (64,)
        """
        if self.scaled is not self:
            return np.asarray(self._in_units("the diagonal", NUMPY, self.scaled.diagonal()))
        return self._diagonal().astype(self.dtype)

    def _diagonal(self) -> np.ndarray:
        U = self.eigenvectors
        return np.asarray(np.einsum("ir,ir,r->i", U, U, self.eigenvalues, dtype=np.float64))

    def columns(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Some columns of Theta~, shape (d, m), for m pixels ``row*W + col``; computed in double precision.

        Examples
        --------
        >>> low = nf.nystrom(nf.NTK(nf.vanilla_cnn(1, 3), np.eye(8)), 16)
        >>> low.columns([0, 9]).shape
        (64, 2)
        """
        pixels = as_pixels("indices", indices, self.shape[0])
        needed = (8 + self.dtype.itemsize) * self.shape[0] * pixels.size
        require_memory(f"{pixels.size} columns", needed, "ask for fewer columns at a time")
        if self.scaled is not self:
            return np.asarray(self._in_units("a column", NUMPY, self.scaled.columns(pixels)))
        return np.ascontiguousarray(self._columns(pixels), dtype=self.dtype)

    def _columns(self, pixels: np.ndarray) -> np.ndarray:
        return _product(self.eigenvectors, self.eigenvalues[:, None] * self.eigenvectors[pixels].T)

    def dense(self) -> np.ndarray:
        """Return the whole matrix, shape (d, d); computed in double precision.

        Raises
        ------
        MemoryError
            Before any work, if d*d numbers do not fit.

        Examples
        --------
        >>> K = nf.NTK(nf.vanilla_cnn(1, 3), np.random.default_rng(0).standard_normal((8, 8)), dtype="float64")
        >>> bool(np.allclose(nf.nystrom(K, 64).dense(), K.dense()))  # every pixel is a landmark
        True
        """
        return self.columns(np.arange(self.shape[0]))

    def __reduce__(self) -> tuple[Any, ...]:
        parts = self.eigenvalues, self.eigenvectors, self.image_shape, self._trace, self.landmarks
        return _made_anew, (type(self), *parts)

    def __repr__(self) -> str:
        height, width = self.image_shape
        return f"<{height}x{width} low-rank kernel of rank {self.rank}, dtype={self.dtype}>"


def _made_anew(
    kind: type[LowRank], values: np.ndarray, vectors: np.ndarray, shape: tuple[int, int], trace: float, landmarks: Any
) -> LowRank:
    """Return the operator that was pickled."""
    return kind(values, vectors, image_shape=shape, trace=trace, landmarks=landmarks)


def nystrom(
    K: Kernel,
    m: int | None = None,
    *,
    landmarks: str | Sequence[int] | np.ndarray = "lattice",
    rng: Random = 0,
) -> LowRank:
    """Nystrom approximation of the kernel from its columns at some pixels, the landmarks.

    With the columns C = Theta(:, landmarks) and W = Theta(landmarks, landmarks), Theta~ = C W^+ C^T: the landmarks'
    rows and columns are exact, the others follow from how like the landmarks their pixels are.  Columns cost the window
    that each pixel sees (:meth:`NTK.columns`), or that of one sweep where this is less.

    Parameters
    ----------
    K : NTK
        On any device; the columns and the result are the host's.
    m : int, optional
        Landmarks, 1 to d.  May be left out where ``landmarks`` is an array.
    landmarks : {"lattice", "random"} or sequence of int
        "lattice" is the regular lattice of at most m pixels that leaves no pixel far from all of them, see
        :func:`lattice`; "random" draws m pixels without replacement; an array names them, ``row*W + col``, each once.
    rng : int, numpy.random.Generator or None
        What draws the landmarks with landmarks="random": the same ones every time by default; None draws others each
        time.

    Returns
    -------
    LowRank
        Of rank m, or less where columns depend on each other; ``landmarks`` are its pixels, ascending unless they were
        given.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.
    MemoryError
        Before any work, if m columns do not fit: with the bytes needed and the m that would fit.

    Notes
    -----
    It pays beside the exact kernel where m is a few percent of the d pixels or less, or where many images are filtered
    with one kernel: the factorisation takes O(d m^2), a filter of the exact kernel 10 to 20 products of O(d^2).  At
    128 x 128 with ``vanilla_cnn(1, 5)``, m = 256 takes a fifth of the exact filter's processor time, and m = 1024 twice
    as much as that filter; bench/README.md has the errors.

    Computed in double precision; eigenvalues of W below the rounding of the columns are left out.  Source: Williams &
    Seeger, NeurIPS 2001; Tachella, Tang, Davies, CVPR 2021 (arXiv 2006.02379).

    Networks of several resolutions tell pixels apart by their place modulo ``network.multiple``, and a lattice sees few
    of these places: random landmarks are the better ones there.  For ``autoencoder(1)`` on 64 x 64 pixels and m = 1024,
    the filter's error was 0.107 with the lattice and 0.025 at random; with one resolution, the two are alike
    (bench/lowrank.py).

    Examples
    --------
    >>> y = np.random.default_rng(0).standard_normal((8, 8))
    >>> low = nf.nystrom(nf.NTK(nf.vanilla_cnn(1, 3), y), 16)
    >>> low.rank, nf.gradient_descent(low, y, steps=[10, 100]).shape
    (16, (2, 8, 8))
    """
    _require_kernel(K)
    random = _check.generator("rng", rng)
    return from_landmarks(K, _landmarks(landmarks, m, K.image_shape, random), "m")


def from_landmarks(K: Kernel, pixels: np.ndarray, name: str) -> LowRank:
    """:func:`nystrom` from the columns at ``pixels``; ``name`` is the caller's argument that says how many they are."""
    _require_memory(name, len(pixels), K)
    columns = K.scaled.columns(pixels)
    values, vectors = _eigenpairs(columns, columns[pixels], K.dtype)
    return _low_rank(K, values, vectors, pixels)


def randomized_low_rank(
    K: Kernel, rank: int, *, sweeps: int = 1, oversampling: int = OVERSAMPLING, rng: Random = 0
) -> LowRank:
    """Low-rank approximation of the kernel from products with random vectors.

    Parameters
    ----------
    K : NTK
        On any device; the result is the host's.
    rank : int
        Largest rank of the result, 1 to d.
    sweeps : int
        Products with ``rank + oversampling`` vectors at a time, each a sweep over all pairs for every 64 vectors.  1 is
        a sketch with random vectors in a single pass (Tropp et al., NeurIPS 2017).  With 2, the first product finds a
        basis that holds most of the range (Halko, Martinsson, Tropp 2011), and the second gives the approximation from
        it, which is far closer to the best one of this rank.  More are power iterations.
    oversampling : int
        Vectors beyond the rank, which the truncation to ``rank`` drops.
    rng : int, numpy.random.Generator or None
        What draws the vectors: the same ones every time by default; None draws others each time.

    Returns
    -------
    LowRank

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.
    MemoryError
        Before any work, if the vectors do not fit: with the bytes needed and the rank that would fit.

    Notes
    -----
    Tropp et al. shift Theta by its rounding error, which is then taken off the eigenvalues, so that W has a Cholesky
    factor.  Here eigenvalues of W below the rounding error are left out instead: it cannot fail where single precision
    makes W indefinite by more than the shift, and measured errors are the same or, on nearly flat images, a few times
    smaller.

    Examples
    --------
    >>> y = np.random.default_rng(0).standard_normal((8, 8))
    >>> K = nf.NTK(nf.vanilla_cnn(1, 3), y)
    >>> rough, better = (nf.randomized_low_rank(K, 8, sweeps=sweeps) for sweeps in (1, 2))
    >>> better.trace_error < rough.trace_error
    True
    """
    _require_kernel(K)
    d = K.shape[0]
    kept = _between("rank", rank, d)
    count, extra = _check.at_least("sweeps", sweeps, 1), _check.at_least("oversampling", oversampling, 0)
    random = _check.generator("rng", rng)
    k = min(kept + extra, d)
    _require_memory("rank + oversampling", k, K, doubles=2, products=True)

    kernel = K.scaled
    basis = _orthonormal(random.standard_normal((k, d)).T)
    for _ in range(count - 1):
        basis = _orthonormal(np.array(kernel.matmat(basis), dtype=np.float64, order="F"))
    image = kernel.matmat(basis)
    values, vectors = _eigenpairs(image, basis.T @ image, K.dtype, rank=kept)
    return _low_rank(K, values, vectors, None)


def lattice(shape: tuple[int, int], m: int) -> np.ndarray:
    """A regular lattice of at most m pixels in the middle of a x b equal cells of the image.

    Of all a x b <= m it has the smallest cells across, (H/a)^2 + (W/b)^2: no pixel is then far from the lattice, and
    steps along rows and columns are about equal, whatever the shape of the image.

    Parameters
    ----------
    shape : (int, int)
        (H, W).
    m : int
        1 to H*W.

    Returns
    -------
    ndarray of int64, shape (a*b,), ascending
    """
    height, width = shape
    sides = [(a, min(width, m // a)) for a in range(1, min(height, m) + 1)]
    a, b = min(sides, key=lambda side: (height / side[0]) ** 2 + (width / side[1]) ** 2)
    rows, cols = ((2 * np.arange(n, dtype=np.int64) + 1) * length // (2 * n) for n, length in ((a, height), (b, width)))
    return np.asarray((rows[:, None] * width + cols).ravel())


def _landmarks(landmarks: Any, m: Any, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    d = shape[0] * shape[1]
    if isinstance(landmarks, str):
        kind = _check.choice("landmarks", landmarks, LANDMARKS)
        if m is None:
            raise ValueError(f"m must be given with landmarks={kind!r}")
        count = _between("m", m, d)
        return lattice(shape, count) if kind == "lattice" else np.sort(rng.choice(d, count, replace=False))
    pixels = as_pixels("landmarks", landmarks, d)
    if not pixels.size:
        raise ValueError("landmarks must not be empty")
    ordered = np.sort(pixels)
    twice = ordered[1:][np.diff(ordered) == 0]
    if twice.size:
        raise ValueError(f"landmarks must be distinct, got {int(twice[0])} more than once")
    if m is not None and _check.integer("m", m) != len(pixels):
        raise ValueError(f"m must be the number of landmarks, {len(pixels)}, or None, got {m}")
    return pixels


def _eigenpairs(
    Y: np.ndarray, core: np.ndarray, dtype: np.dtype[Any], *, rank: int | None = None, cutoff: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Eigenpairs of Y W^+ Y^T, largest first.

    With W = V diag(s) V^T and B = Y V diag(s)^(-1/2) over the s that count, Y W^+ Y^T = B B^T, and the singular values
    and left singular vectors of B are the roots and the eigenvectors wanted.

    An s counts if it is above ``cutoff``, above the rounding of W in Y's own precision and above that of the
    eigenvalues in double precision.  What is left out is as if Omega had fewer columns, Omega V: the rest is still a
    Nystrom approximation.

    Parameters
    ----------
    Y : ndarray, shape (d, k)
        Theta Omega.
    core : ndarray, shape (k, k)
        W = Omega^T Y.
    dtype : float32 or float64
        Of the eigenvectors.
    rank : int, optional
        The most that are returned.

    Returns
    -------
    values : float64, shape (r,), positive
    vectors : shape (d, r)
    """
    core = core.astype(np.float64)
    with _one_blas_thread():
        s, V = np.linalg.eigh((core + core.T) / 2)
    rounding = max(float(np.finfo(Y.dtype).eps), len(s) * float(np.finfo(np.float64).eps)) * s[-1]
    counts = s > max(cutoff, rounding)
    B = _product(Y, V[:, counts] / np.sqrt(s[counts]))
    if not counts.any():
        return np.zeros(0), B.astype(dtype)
    with _one_blas_thread():
        Q, R = scipy.linalg.qr(B, mode="economic", overwrite_a=True, check_finite=False)
        u, roots, _ = np.linalg.svd(R)
    r = min(int((roots > 0).sum()), len(roots) if rank is None else rank)
    return roots[:r] ** 2, _product(Q, u[:, :r], dtype)


def _orthonormal(V: np.ndarray) -> np.ndarray:
    """An orthonormal basis in place of the columns of V, float64 (d, k) in Fortran's order, which is overwritten."""
    with _one_blas_thread():
        Q, _ = scipy.linalg.qr(V, mode="economic", overwrite_a=True, check_finite=False)
    return np.asarray(Q)


def _one_blas_thread() -> threadpool_limits:
    """Around factorisations only, which wait for every thread at every column: on a busy machine many times as long.

    Products, which wait once, lose nothing by more threads.
    """
    return threadpool_limits(1, user_api="blas")


def _product(A: np.ndarray, B: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
    """A B in double precision, a few rows of A at a time; of ``dtype`` and in Fortran's order, as LAPACK takes it."""
    B = B.astype(np.float64)
    out = np.empty((len(A), B.shape[1]), dtype=dtype, order="F")
    rows = max(1, BLOCK_NUMBERS // max(1, len(B)))
    for start in range(0, len(A), rows):
        part = slice(start, start + rows)
        out[part] = A[part].astype(np.float64) @ B
    return out


def _ratio(square: float, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """|R|_F/|Theta|_F and its standard error.

    From ``square`` = |Theta~|_F^2 and samples a of |R|_F^2 and b of 2 <Theta~, R>.  With their means A and B and
    D = |Theta~|_F^2 + A + B, the error is sqrt(A/D), and in the first order

        d sqrt(A/D) = ((D - A) dA - A dB) / (2 sqrt(A/D) D^2)
    """
    A, B = float(a.mean()), float(b.mean())
    D = square + A + B
    if A <= 0 or D <= 0:
        return 0.0, 0.0
    error = float(np.sqrt(A / D))
    influence = ((D - A) * a - A * b) / (2 * error * D**2)
    return error, float(influence.std(ddof=1) / np.sqrt(len(a)))


def _scale_of(largest: float, dtype: np.dtype) -> float:
    """Return a power of 4 near a number, or 1 where the dtype holds it with room for the sums of products."""
    exponent = math.frexp(largest)[1]
    return 1.0 if abs(exponent) <= int(np.finfo(dtype).maxexp) // 2 else 2.0 ** (exponent // 2 * 2)


def _low_rank(K: Kernel, values: np.ndarray, vectors: np.ndarray, landmarks: np.ndarray | None) -> LowRank:
    """Return the approximation with the eigenpairs of that of ``K.scaled``."""
    trace = float(K.scaled.diagonal().sum(dtype=np.float64)) * K.scale
    return LowRank(values * K.scale, vectors, image_shape=K.image_shape, trace=trace, landmarks=landmarks)


def _peak_bytes(d: int, k: int, itemsize: int, doubles: int) -> int:
    """Columns or products and a copy of them, ``doubles`` matrices like them in double precision, and small ones.

    Beside these some rows in double precision, and what becomes of them in a product.
    """
    return (2 * itemsize + 8 * doubles) * d * k + 2 * 8 * min(BLOCK_NUMBERS, d * k) + 8 * SMALL_MATRICES * k**2


def landmark_bytes(d: int, m: int, itemsize: int) -> int:
    """Bytes that :func:`nystrom` takes from the m columns on, and its eigenvectors."""
    return _peak_bytes(d, m, itemsize, 1) + itemsize * d * m


def _require_memory(what: str, k: int, K: Kernel, *, doubles: int = 1, products: bool = False) -> None:
    """Refuse k columns or vectors that will not fit, with how many would."""
    d, item = K.shape[0], K.dtype.itemsize
    budget = Budget().state(K.host_bytes(1) if products else K.columns_bytes(k))

    def needed(n: int) -> int:
        return _peak_bytes(d, n, item, doubles)

    fits = budget.most(k, needed)
    budget.require(f"{what} = {k}", f"{what} = {fits} would fit" if fits else "use a smaller image", needed(k))


def _require_kernel(K: Any) -> None:
    if not isinstance(K, Kernel):
        raise TypeError(f"K must be an ntkfast.NTK or an ntkfast.NNGP, got {K!r}")


def _between(name: str, value: Any, d: int) -> int:
    number = _check.integer(name, value)
    if not 1 <= number <= d:
        raise ValueError(f"{name} must lie between 1 and {d}, the number of pixels, got {number}")
    return number
