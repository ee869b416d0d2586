"""The smoothest image that explains data: what the kernel of a restoration is first made of."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, cg, splu

__all__ = ["first_guess"]

# Weights of the smoothness term, relative to the largest eigenvalue of A^T A, from smooth to rough.
GUESS_WEIGHTS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
GUESS_ITERATIONS, GUESS_TOLERANCE = 100, 1e-4


def first_guess(A: LinearOperator, y: np.ndarray, shape: tuple[int, int], sigma: float) -> np.ndarray:
    """The smoothest image that explains the data: argmin |A x - y|^2 + mu |L x|^2, L the Laplacian of the pixel grid.

    Parameters
    ----------
    A : LinearOperator, shape (n, H*W)
    y : ndarray, shape (n, C)
    shape : (int, int)
        (H, W).
    sigma : float
        Noise level of y; mu is the largest of ``GUESS_WEIGHTS`` (relative to |A|^2) that fits so well.

    Returns
    -------
    ndarray, shape (H, W, C)
    """
    lines = (_second_differences(n) for n in shape)
    laplacian = sparse.kronsum(*reversed(list(lines)), format="csr")
    smoothness = (laplacian @ laplacian).tocsr()
    known = getattr(A, "known", None)
    if known is not None and sigma == 0:
        return _biharmonic(smoothness, known, y)
    d, channels = A.shape[1], y.shape[1]
    backprojected = A.rmatmat(y)
    scale = _squared_norm(A)
    x = np.zeros(d * channels)
    if scale == 0 or not y.any():
        return x.reshape(*shape, channels)
    for weight in GUESS_WEIGHTS if sigma > 0 else GUESS_WEIGHTS[-1:]:
        mu = weight * scale

        def normal(v: np.ndarray, mu: float = mu) -> np.ndarray:
            columns = v.reshape(d, channels)
            return np.asarray(A.rmatmat(A.matmat(columns)) + mu * (smoothness @ columns)).ravel()

        system = LinearOperator((x.size, x.size), matvec=normal, dtype=np.float64)
        x, _ = cg(system, backprojected.ravel(), x0=x, maxiter=GUESS_ITERATIONS, rtol=GUESS_TOLERANCE)
        if ((A.matmat(x.reshape(d, channels)) - y) ** 2).sum() <= y.size * sigma**2:
            break
    return x.reshape(*shape, channels)


def _biharmonic(smoothness: sparse.csr_matrix, known: np.ndarray, y: np.ndarray) -> np.ndarray:
    """mu -> 0: the known pixels as they are, the others u from  B_uu x_u = -B_uk y,  B = L^T L."""
    flat = known.ravel()
    x = np.zeros((flat.size, y.shape[1]))
    x[flat] = y
    if not flat.all():
        rows = smoothness[~flat]
        # Positive definite: only constant images have no second differences, and a pixel at least is known.
        x[~flat] = splu(rows[:, ~flat].tocsc()).solve(-(rows[:, flat] @ y))
    return x.reshape(*known.shape, -1)


def _second_differences(length: int) -> sparse.csr_matrix:
    """Return those of a line of pixels mirrored at its ends: (length, length), negative semi-definite."""
    gradient = sparse.eye(length - 1, length, 1) - sparse.eye(length - 1, length)
    return sparse.csr_matrix(-(gradient.T @ gradient))


def _squared_norm(A: LinearOperator) -> float:
    """|A|^2, the largest eigenvalue of A^T A, by the power method to some percent."""
    v = 1.0 + np.random.default_rng(0).random(A.shape[1])
    size = 0.0
    for _ in range(10):
        v = A.rmatvec(A.matvec(v / np.linalg.norm(v)))
        size = float(np.linalg.norm(v))
        if size == 0:
            break
    return size
