"""Kernels and filters are measured: their place in space and frequency, and how they fit a picture.

A matrix A over the pixels of an image of shape (H, W), d = H*W, is a kernel Theta or a filter f(Theta); its row i holds
the weights with which the pixels j enter pixel i.  With e_f(j) = exp(2 pi i f.j), frequencies f in cycles a pixel:

    gain of pixel i at f:    g_i(f) = sum_j A(i,j) e_f(j - i)
    transfer function:       g(f) = 1/d sum_i g_i(f) = e_f^H A e_f / d

A plain convolution has g_i = g for all i.  Then the e_f are its eigenvectors and the g(f) its eigenvalues.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from scipy.sparse.linalg import LinearOperator

from ntkfast import gradient_descent

__all__ = [
    "Spectrum",
    "alignment",
    "by_displacement",
    "closed_form",
    "crossing",
    "found",
    "geometric_mean",
    "in_gray",
    "kernel_alignment",
    "largest_eigenvalue",
    "pixel_gains",
    "radial_frequency",
    "radial_mean",
    "radial_profile",
    "relative_changes",
    "relative_distance",
    "share_beyond",
    "share_not_stationary",
    "times",
    "transfer_function",
]

Found = TypeVar("Found")

TOLERANCE = 1e-3  # relative error of closed forms that are judged by their PSNR: far below the noise that is left
RADIUS = 4  # side of the neighbourhood: the square of side 9 around a pixel
PIXELS_AT_ONCE = 256  # rows whose gains are computed together: some 100 MB for 128 x 128 pixels


def by_displacement(matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Mean weight at each displacement: the convolution that is nearest to a matrix in the Frobenius norm.

    Parameters
    ----------
    matrix : ndarray, shape (d, d)
    shape : (int, int)
        (H, W), d = H*W.

    Returns
    -------
    ndarray, shape (H, W)
        Entry (a, b) is the mean of A(i, j) over the pixels i = (r, c), j = (r + a, c + b), indices modulo H and W.
    """
    height, width = shape
    blocks = matrix.reshape(height, width, height, width)
    mean = np.zeros(shape)
    for row in range(height):
        for col in range(width):
            mean += np.roll(blocks[row, col], (-row, -col), axis=(0, 1))
    return mean / (height * width)


def share_not_stationary(matrix: np.ndarray, shape: tuple[int, int]) -> float:
    """Share of the sum of squares that no convolution has: 1 - |nearest convolution|_F^2 / |A|_F^2, 0 to 1.

    Parameters
    ----------
    matrix : ndarray, shape (d, d)
    shape : (int, int)
    """
    mean = by_displacement(matrix, shape)
    return max(0.0, 1.0 - mean.size * float(np.sum(mean**2)) / float(np.sum(matrix**2)))


def share_beyond(matrix: np.ndarray, shape: tuple[int, int], radius: int) -> float:
    """Share of the sum of squares that belongs to pairs of pixels further apart than a neighbourhood reaches.

    Parameters
    ----------
    matrix : ndarray, shape (d, d)
    shape : (int, int)
    radius : int
        The neighbourhood of a pixel is the square of side ``2 radius + 1`` around it, wrapped at the border.

    Returns
    -------
    float
        sum of A(i,j)^2 over the pairs outside / sum over all, 0 to 1.
    """
    height, width = shape
    energy = by_displacement(matrix**2, shape)
    rows, cols = (np.minimum(np.arange(n), n - np.arange(n)) for n in (height, width))
    outside = np.maximum(rows[:, None], cols) > radius
    return float(energy[outside].sum() / energy.sum())


def transfer_function(matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """g(f), the gain at each frequency, mean over the pixels.

    Parameters
    ----------
    matrix : ndarray, shape (d, d), symmetric
    shape : (int, int)

    Returns
    -------
    ndarray, shape (H, W)
        At the frequencies of ``np.fft.fftfreq``; real, as A is symmetric.  For a convolution, its eigenvalues.
    """
    # g(f) = sum_D mean(D) e_f(D), and mean(-D) = mean(D) makes the sign of f immaterial
    return np.asarray(np.fft.fft2(by_displacement(matrix, shape)).real)


def radial_frequency(shape: tuple[int, int]) -> np.ndarray:
    """|f| in cycles a pixel at the frequencies of :func:`transfer_function`, shape (H, W)."""
    rows, cols = (np.fft.fftfreq(n) for n in shape)
    return np.asarray(np.hypot(rows[:, None], cols))


def _rings(shape: tuple[int, int], bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the rings, and each frequency's ring, -1 outside all.

    The first ring is the frequency 0 alone, the others have equal widths up to 1/2, the highest frequency along an
    axis.
    """
    frequency = radial_frequency(shape)
    edges = np.linspace(0.0, 0.5, bins + 1)
    ring = np.digitize(frequency, edges[1:], right=True) + 1
    ring[frequency == 0] = 0
    ring[ring > bins] = -1
    return np.concatenate([[0.0], (edges[1:] + edges[:-1]) / 2]), ring


def radial_profile(gain: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and standard deviation of a transfer function over rings of equal |f|.

    Parameters
    ----------
    gain : ndarray, shape (H, W)
    bins : int
        Rings between the frequency 0, which is a ring of its own, and 1/2.

    Returns
    -------
    frequencies, mean, deviation : ndarray, shape (bins + 1,)
        Cycles a pixel; nan where no frequency falls into a ring.
    """
    frequencies, ring = _rings(gain.shape, bins)
    inside = [gain[ring == n] for n in range(bins + 1)]
    mean = np.array([values.mean() if values.size else np.nan for values in inside])
    deviation = np.array([values.std() if values.size else np.nan for values in inside])
    return frequencies, mean, deviation


def radial_mean(gains: np.ndarray, bins: int) -> np.ndarray:
    """Means over the rings of :func:`radial_profile`, for many transfer functions: (n, H, W) to (n, bins + 1)."""
    _, ring = _rings(gains.shape[1:], bins)
    inside = [gains[:, ring == n] for n in range(bins + 1)]
    return np.stack([g.mean(axis=1) if g.size else np.full(len(gains), np.nan) for g in inside], axis=1)


def pixel_gains(matrix: np.ndarray, shape: tuple[int, int], bins: int) -> np.ndarray:
    """Real part of g_i(f), the gain that pixel i alone has, mean over the rings of :func:`radial_profile`.

    Parameters
    ----------
    matrix : ndarray, shape (d, d)
    shape : (int, int)
    bins : int

    Returns
    -------
    ndarray, shape (d, bins + 1)
        For a convolution all rows are the same.
    """
    height, width = shape
    d = height * width
    profiles = []
    for start in range(0, d, PIXELS_AT_ONCE):
        pixels = range(start, min(start + PIXELS_AT_ONCE, d))
        rows = [np.roll(matrix[i].reshape(shape), (-(i // width), -(i % width)), axis=(0, 1)) for i in pixels]
        profiles.append(radial_mean(np.fft.fft2(np.stack(rows)).real, bins))
    return np.concatenate(profiles)


class Spectrum:
    """Eigenpairs of a dense kernel, and the filters of gradient descent made of them.

    Parameters
    ----------
    matrix : ndarray, shape (d, d), symmetric positive semi-definite

    Attributes
    ----------
    values : ndarray, shape (d,)
        Eigenvalues, ascending, none below 0.
    vectors : ndarray, shape (d, d)
        Eigenvectors in the columns.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        values, self.vectors = scipy.linalg.eigh(matrix)
        self.values = np.maximum(values, 0.0)

    def gains(self, steps: np.ndarray) -> np.ndarray:
        """1 - (1 - eta lambda)^t with eta = 1/lambda_max, shape (number of steps, d)."""
        relative = self.values / self.values[-1]
        return np.asarray(1.0 - (1.0 - relative) ** np.asarray(steps, dtype=np.float64)[:, None])

    def filtered(self, y: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """z_t = (I - (I - eta Theta)^t) y for y of shape (d, n), all steps: (number of steps, d, n)."""
        inside = self.vectors.T @ y
        return np.stack([self.vectors @ (gain[:, None] * inside) for gain in self.gains(steps)])

    def filter_matrix(self, steps: int) -> np.ndarray:
        """I - (I - eta Theta)^t, shape (d, d)."""
        return np.asarray((self.vectors * self.gains(np.array([steps]))[0]) @ self.vectors.T)


def times(most: int, count: int) -> np.ndarray:
    """Numbers of steps, at most ``count``, growing geometrically from 1 to ``most``: integers without repetition."""
    return np.unique(np.round(np.geomspace(1, most, count)).astype(int))


def closed_form(kernel: LinearOperator, y: np.ndarray, steps: Iterable[int]) -> np.ndarray:
    """Gradient descent with a kernel, z_t for each number of steps t, up to :data:`TOLERANCE`: (n, *y.shape)."""
    return np.asarray(gradient_descent(kernel, y, [int(t) for t in steps], tolerance=TOLERANCE))


def found(value: Found | None) -> Found:
    """Return a value that was asked for and so is there: a recorded curve, an eigenvalue that a filter has found."""
    assert value is not None
    return value


def relative_distance(a: np.ndarray, reference: np.ndarray) -> float:
    """|a - reference| / |reference| in the Euclidean (for matrices: the Frobenius) norm."""
    return float(np.linalg.norm(a - reference) / np.linalg.norm(reference))


def alignment(vectors: np.ndarray, x: np.ndarray) -> float:
    """cos^2 of the angle between x and the span of vectors: |V^T x|^2 / |x|^2, 0 to 1.

    Parameters
    ----------
    vectors : ndarray, shape (d, k)
        Orthonormal columns.
    x : ndarray, shape (d,) or (d, n)
        With several columns, their sums of squares are added: V^T x and x in the Frobenius norm.
    """
    return float(np.sum((vectors.T @ x) ** 2) / np.sum(x**2))


def kernel_alignment(kernel: np.ndarray | LinearOperator, x: np.ndarray, frobenius: float) -> float:
    """Kernel-target alignment x^T Theta x / (|x|^2 |Theta|_F), at most 1; 1 where Theta = x x^T.

    Source: Cristianini, Shawe-Taylor, Elisseeff, Kandola, NIPS 2001.

    Parameters
    ----------
    kernel : ndarray or LinearOperator, shape (d, d)
    x : ndarray, shape (d,)
    frobenius : float
        |Theta|_F.
    """
    return float(x @ (kernel @ x) / (x @ x * frobenius))


def in_gray(kernel: LinearOperator, colours: int) -> LinearOperator:
    """Part of a kernel over pixels and colours that belongs to gray: B^T Theta B, B v = v (x) (1, ..., 1)/sqrt(C).

    Parameters
    ----------
    kernel : LinearOperator, shape (d colours, d colours)
        The colours of a pixel together.
    colours : int
        C.

    Returns
    -------
    LinearOperator, shape (d, d)
    """
    d = kernel.shape[0] // colours

    def product(v: np.ndarray) -> np.ndarray:
        columns = np.asarray(v).reshape(d, -1)
        coloured = np.repeat(columns, colours, axis=0) / np.sqrt(colours)
        out = (kernel @ coloured).reshape(d, colours, -1).sum(axis=1) / np.sqrt(colours)
        return np.asarray(out.reshape(np.shape(v)))

    return LinearOperator((d, d), matvec=product, matmat=product, rmatvec=product, dtype=kernel.dtype)


def relative_changes(actions: np.ndarray) -> np.ndarray:
    """|Theta_t - Theta_0|_F / |Theta_0|_F, estimated from products with the same probes.

    With probes p of iid standard normal entries, E |A p|^2 = |A|_F^2.

    Parameters
    ----------
    actions : ndarray, shape (times, d, n)
        Theta_t times n probes, the first at t = 0.

    Returns
    -------
    ndarray, shape (times,)
    """
    return np.asarray(np.linalg.norm(actions - actions[0], axis=(1, 2)) / np.linalg.norm(actions[0]))


def largest_eigenvalue(kernel: LinearOperator, tolerance: float, vectors: int | None = None) -> float:
    """lambda_max of a symmetric positive semi-definite operator, to a relative tolerance, by Lanczos.

    ``vectors`` are kept between its restarts, 20 by default; few of them take fewer products where little is asked.
    """
    start = np.random.default_rng(0).standard_normal(kernel.shape[0]).astype(kernel.dtype)
    options = {"v0": start, "tol": tolerance, "ncv": vectors, "return_eigenvectors": False}
    (value,) = scipy.sparse.linalg.eigsh(kernel, 1, **options)
    return float(value)


def geometric_mean(values: np.ndarray) -> float:
    """exp of the mean of the logarithms of positive values."""
    return float(np.exp(np.mean(np.log(values))))


def crossing(loss: Sequence[float] | np.ndarray, level: float) -> float | None:
    """Place at which the loss first falls to ``level``, linearly between two; None if it does not.

    With the loss of every step that is the step.
    """
    losses = np.asarray(loss)
    below = np.flatnonzero(losses <= level)
    if not len(below):
        return None
    n = int(below[0])
    return 0.0 if n == 0 else float(n - 1 + (losses[n - 1] - level) / (losses[n - 1] - losses[n]))
