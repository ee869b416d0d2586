"""The specification: every kernel as dense float64 NumPy, short and slow.  All fast paths are tested against this file.

One pair of d x d fields travels through the network: the covariance of the features (S before an activation, Q after)
and the tangent kernel (T before, T' after).  Memory is several d x d matrices: use it below about 64 x 64 pixels.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import scipy.sparse

from . import _check
from .inputs import NoiseInput
from .network import Add, AvgPool, Concat, Conv, Input, Network, Upsample

__all__ = ["kernel_matrix"]

Field = np.ndarray  # d x d, float64, symmetric


def kernel_matrix(
    network: Network, image: np.ndarray | NoiseInput, kernel: str = "ntk", *, channel_axis: int | None = None
) -> np.ndarray:
    """Dense kernel over all pairs of pixels.

    Parameters
    ----------
    network : Network
    image : ndarray, shape (H, W) or with a channel axis, or NoiseInput
        H and W must be multiples of ``network.multiple``.
    kernel : {"ntk", "nngp"}
        The tangent kernel Theta, or the covariance S of the random network's output.
    channel_axis : int, optional
        Axis of the channels of an image of three dimensions; None is an image (H, W).

    Returns
    -------
    ndarray, shape (H*W, H*W), float64
        Entry (i, j) is Theta (or the NNGP covariance) of the pixels i = row*W + col and j.

    Raises
    ------
    ValueError
        If the image has NaN or infinite values, or a size that the network cannot halve as often as it must.

    Examples
    --------
    >>> image = np.random.default_rng(0).standard_normal((6, 5))
    >>> theta = nf.reference.kernel_matrix(nf.vanilla_cnn(1, 3), image)
    >>> theta.shape, bool(np.allclose(theta, nf.NTK(nf.vanilla_cnn(1, 3), image, dtype="float64").dense()))
    ((30, 30), True)
    """
    q, (height, width) = _input(image, channel_axis)
    network.check_size(height, width)
    graph = network.graph()
    last_use = {m: n for n, node in enumerate(graph) for m in node.inputs}
    kept: dict[int, tuple[Field, Field]] = {}
    for n, node in enumerate(graph):
        inputs = [kept[m] for m in node.inputs]
        if isinstance(node.layer, Input):
            kept[n] = q, np.zeros_like(q)
        elif isinstance(node.layer, (Conv, AvgPool, Upsample)):
            scale = graph[node.inputs[0]].scale
            shape = height // scale, width // scale
            kept[n] = _linear(node.layer, *inputs[0], shape, network.padding)
        elif isinstance(node.layer, (Concat, Add)):
            # Concat of shares a + b = 1:  a Q_1 + b Q_2.  Sum of independent paths:  Q_1 + Q_2.  The same for T'.
            a, b = node.layer.shares if isinstance(node.layer, Concat) else (1.0, 1.0)
            (q1, t1), (q2, t2) = inputs
            kept[n] = a * q1 + b * q2, a * t1 + b * t2
        else:
            # T' = Q' T
            s, t = inputs[0]
            diagonal = np.diagonal(s)
            q, dq = node.layer.dual(s, diagonal[:, None], diagonal[None, :])
            kept[n] = q, dq * t
        for m in node.inputs:
            if last_use[m] == n:
                kept.pop(m, None)
    return kept[len(graph) - 1][0 if kernel == "nngp" else 1]


def _input(image: np.ndarray | NoiseInput, channel_axis: int | None) -> tuple[Field, tuple[int, int]]:
    """Covariance of the input, and its shape."""
    if isinstance(image, NoiseInput):
        # Many iid channels of unit variance:  Q(i,j) = [i = j]
        return np.eye(image.shape[0] * image.shape[1]), image.shape
    # Q(i,j) = (1/C) sum_c x_c(i) x_c(j)
    x = _check.real_array("image", image).astype(np.float64)
    axis = _check.channel_axis("image", x.shape, channel_axis)
    x = x[:, :, None] if axis is None else np.moveaxis(x, axis, -1)
    height, width = x.shape[:2]
    x = x.reshape(height * width, -1)
    return x @ x.T / x.shape[1], (height, width)


# --- Linear layers ------------------------------------------------------------------------------------------------


def _linear(
    layer: Conv | AvgPool | Upsample, q: Field, t: Field, shape: tuple[int, int], padding: str
) -> tuple[Field, Field]:
    q, t = (_both_sides(layer, field, shape, padding) for field in (q, t))
    if isinstance(layer, Conv):
        # S = w/k^2 sum_delta P_delta Q P_delta^T + b,    T = [trainable] S + w/k^2 sum_delta P_delta T' P_delta^T
        scale = layer.weight_var / layer.kernel_size**2
        q = scale * q + layer.bias_var
        t = layer.trainable * q + scale * t
    return q, t  # pools and upsampling:  A Q A^T,  A T' A^T


def _both_sides(layer: Conv | AvgPool | Upsample, field: Field, shape: tuple[int, int], padding: str) -> Field:
    """Sum of M F M^T over the layer's matrices M = A (x) B, which act on images in row-major order.

    A acts on rows and B on columns.  A Conv has the k^2 matrices of all pairs (A, B), other layers have one.
    """
    # M F M^T takes F[(r, c), (r', c')] to sum of A[s, r] A[s', r'] B[e, c] B[e', c'] F: a matrix for the pair of rows
    # (r, r'), sum_A A (x) A, and one for the pair of columns.
    height, width = shape
    pairs = field.reshape(height, width, height, width).swapaxes(1, 2).reshape(height**2, width**2)
    rows, columns = (_pairs(layer, n, padding) for n in shape)
    out = (columns @ (rows @ pairs).T).T
    height, width = (math.isqrt(n) for n in out.shape)
    out = out.reshape(height, height, width, width).swapaxes(1, 2).reshape(height * width, -1)
    return np.asarray((out + out.T) / 2)  # angles of parallel patches would amplify what rounding left of F - F^T


@lru_cache(maxsize=256)
def _pairs(layer: Conv | AvgPool | Upsample, n: int, padding: str) -> scipy.sparse.csr_matrix:
    """Sum of A (x) A over the layer's matrices A along one axis of n pixels."""
    return sum(scipy.sparse.kron(a, a, "csr") for a in _axis(layer, n, padding))


def _axis(layer: Conv | AvgPool | Upsample, n: int, padding: str) -> list[np.ndarray]:
    """The layer along one axis of n pixels: matrices of shape (pixels out, n), one for every delta of a Conv."""
    if isinstance(layer, Conv):
        # P_delta: out[i] = in[stride i + delta], zero or wrapped outside
        deltas = range(-layer.radius, layer.radius + 1)
        return [_rows([[(layer.stride * i + d, 1.0)] for i in range(n // layer.stride)], n, padding) for d in deltas]
    if isinstance(layer, AvgPool):
        # With f the factor:  out[i] = (in[f i] + ... + in[f i + f - 1]) / f
        f = layer.factor
        return [_rows([[(f * i + k, 1 / f) for k in range(f)] for i in range(n // f)], n, padding)]
    # Upsample.reads has the formulas.
    taps = [layer.reads(i) for i in range(layer.factor * n)]
    if padding == "zeros":
        taps = [[(min(max(j, 0), n - 1), weight) for j, weight in row] for row in taps]  # the border's own pixel
    return [_rows(taps, n, padding)]


def _rows(taps: list[list[tuple[int, float]]], n: int, padding: str) -> np.ndarray:
    """Matrix with ``taps`` (index, weight) in its rows; an index outside 0 ... n-1 wraps, or is left out."""
    matrix = np.zeros((len(taps), n))
    for i, row in enumerate(taps):
        for j, weight in row:
            if padding == "circular" or 0 <= j < n:
                matrix[i, j % n] += weight
    return matrix
