"""Tests of restoration share these: operators with their data, and the dense float64 formula of what is restored."""

import numpy as np
from scipy.sparse.linalg import LinearOperator

import ntkfast as nf
from images import IMAGES
from ntkfast.reference import kernel_matrix

SHAPE = (12, 10)


NETWORK = nf.vanilla_cnn(1, 5)


DOUBLE = nf.Compute(dtype="float64")


KERNEL = np.outer([1.0, 3.0, 2.0], [1.0, 2.0, 1.0, 0.5]) / 27.0


def known(shape, share=0.5, seed=0):
    mask = np.random.default_rng(seed).random(shape) < share
    mask[0, 0] = True
    return mask


OPERATORS = {
    "inpainting": lambda: nf.Inpainting(known(SHAPE)),
    "blurring": lambda: nf.Blur(SHAPE, KERNEL),
    "downsampling": lambda: nf.Downsampling(SHAPE, 2),
}


def dense(A):
    return A.matmat(np.eye(A.shape[1]))


def problem(name, channels=3, noise=0.0):
    """Return an operator, its matrix, data of shape (n, C), and a guide."""
    A = OPERATORS[name]()
    clean = IMAGES["natural"](*SHAPE, channels, 0)
    y = A.matmat(clean.reshape(-1, channels))
    y = y + noise * np.random.default_rng(1).standard_normal(y.shape)
    return A, dense(A), y, IMAGES["natural"](*SHAPE, channels, 5)


def closed_form(matrix, guide, y, times, share=1.0, network=NETWORK):
    """Return m + Theta A^T f_t(A Theta A^T) (y - A m) by an eigendecomposition in float64, and eta."""
    theta = kernel_matrix(network, guide - guide.mean(axis=(0, 1)), channel_axis=-1)
    ones = matrix.sum(axis=1)
    mean = (ones @ y) / (ones @ ones)
    values, vectors = np.linalg.eigh(matrix @ theta @ matrix.T)
    values = np.maximum(values, 0)
    eta = share / values[-1]
    coordinates = vectors.T @ (y - ones[:, None] * mean)
    out = []
    for t in times:
        x = eta * values
        with np.errstate(invalid="ignore", divide="ignore"):
            f = np.where(x * t > 1e-6, (1 - (1 - x) ** t) / values, eta * t)
        out.append(mean + theta @ matrix.T @ (vectors @ (f[:, None] * coordinates)))
    return np.array(out), eta


def assert_close(got, wanted, tolerance):
    assert got.shape == wanted.shape
    assert np.linalg.norm(got - wanted) <= tolerance * np.linalg.norm(wanted)


def masked(forward, backward=None, dtype=float, shape=(120, 120)):
    """Return an operator on 120 pixels that claims ``backward``, by default ``forward``, as its adjoint."""
    return LinearOperator(shape, matvec=forward, rmatvec=backward or forward, dtype=dtype)
