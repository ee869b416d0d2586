"""These are kernels and approximations for the tests of low-rank kernels."""

from __future__ import annotations

import numpy as np
import pytest

import ntkfast as nf
from images import IMAGES
from ntkfast.reference import kernel_matrix

NETS = {
    "vanilla": nf.vanilla_cnn(1, 5),
    "deep circular": nf.vanilla_cnn(2, 3, padding="circular"),
    "autoencoder": nf.autoencoder(1),
    "unet circular": nf.unet(1, padding="circular"),
}
SHAPE = (12, 10)
D = 120

# This bounds the largest error of an entry over the largest entry, of approximations that are exact but for rounding.
EXACT = {"float32": 2e-6, "float64": 1e-11}

METHODS = {
    "lattice": lambda K, k: nf.nystrom(K, k),
    "random": lambda K, k: nf.nystrom(K, k, landmarks="random", rng=3),
    "one sweep": lambda K, k: nf.randomized_low_rank(K, k),
    "two sweeps": lambda K, k: nf.randomized_low_rank(K, k, sweeps=2),
}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def problem(net="vanilla", channels=3, dtype="float64", image="centred", shape=SHAPE):
    """Return a kernel, and its dense float64 matrix."""
    x = IMAGES[image](*shape, channels, 0)
    return nf.NTK(NETS[net], x, dtype=dtype, channel_axis=-1), kernel_matrix(NETS[net], x, channel_axis=-1)


def dense(low):
    """Return the approximation in double precision, from its eigenpairs."""
    U = low.eigenvectors.astype(np.float64)
    return U * low.eigenvalues @ U.T


def entry_error(actual, expected):
    assert np.shape(actual) == np.shape(expected)
    return np.abs(actual - expected).max() / np.abs(expected).max()
