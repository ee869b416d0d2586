"""The specification: every kernel as dense float64 NumPy, short and slow.  All fast paths are tested against this file.

One pair of d x d fields travels through the network: the covariance of the features (S before an activation, Q after)
and the tangent kernel (T before, T' after).  Memory is several d x d matrices: use it below about 64 x 64 pixels.
"""

from __future__ import annotations

import numpy as np

from .network import Conv, LeakyReLU, Network, ReLU

__all__ = ["kernel_matrix"]


def kernel_matrix(network: Network, image: np.ndarray, kernel: str = "ntk") -> np.ndarray:
    """Dense kernel over all pairs of pixels.

    Parameters
    ----------
    network : Network
    image : ndarray, shape (H, W) or (H, W, C)
    kernel : {"ntk", "nngp"}

    Returns
    -------
    ndarray, shape (H*W, H*W), float64
        Entry (i, j) is Theta (or the NNGP covariance) of the pixels i = row*W + col and j.
    """
    x = np.asarray(image, dtype=np.float64)
    height, width = x.shape[:2]
    x = x.reshape(height * width, -1)

    # Input:  Q(i,j) = (1/C) sum_c x_c(i) x_c(j),  T' = 0
    q = x @ x.T / x.shape[1]
    t = np.zeros_like(q)
    for layer in network.layers:
        if isinstance(layer, Conv):
            q, t = _conv(layer, q, t, (height, width), network.padding)
        else:
            q, t = _leaky_relu(layer, q, t)
    return q if kernel == "nngp" else t


def _conv(
    layer: Conv, q: np.ndarray, t: np.ndarray, shape: tuple[int, int], padding: str
) -> tuple[np.ndarray, np.ndarray]:
    # S(i,j) = w/k^2 sum_delta Q(i+delta, j+delta) + b
    # T(i,j) = [trainable] S(i,j) + w/k^2 sum_delta T'(i+delta, j+delta)
    scale = layer.weight_var / layer.kernel_size**2
    s = scale * _box(q, layer.radius, shape, padding) + layer.bias_var
    t = layer.trainable * s + scale * _box(t, layer.radius, shape, padding)
    return s, t


def _box(field: np.ndarray, radius: int, shape: tuple[int, int], padding: str) -> np.ndarray:
    """Sum over delta of field(i+delta, j+delta), the same delta on both sides of the pair."""
    height, width = shape
    mode = {"zeros": "constant", "circular": "wrap"}[padding]
    f = field.reshape(height, width, height, width)
    f = np.pad(f, radius, mode=mode)  # type: ignore[call-overload]
    total = np.zeros((height, width, height, width))
    for dy in range(2 * radius + 1):
        for dx in range(2 * radius + 1):
            total += f[dy : dy + height, dx : dx + width, dy : dy + height, dx : dx + width]
    return total.reshape(field.shape)


def _leaky_relu(layer: ReLU | LeakyReLU, s: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # p_i = sqrt(S(i,i)),  cos th = S(i,j) / (p_i p_j)
    # ReLU (Cho & Saul, 2009):  Q  = p_i p_j (sin th + (pi - th) cos th) / (2 pi),   Q' = (pi - th) / (2 pi)
    # slope a, as max(x, ax) = a x + (1-a) relu(x):  Q = a S + (1-a)^2 Q_relu,       Q' = a + (1-a)^2 Q'_relu
    # T' = Q' T.  Where p = 0 (a patch of zeros) the row and the column are 0.
    a = layer.slope
    p = np.sqrt(np.diagonal(s))
    pp = np.outer(p, p)
    alive = pp > 0
    cos = np.clip(np.divide(s, pp, out=np.ones_like(s), where=alive), -1.0, 1.0)
    np.fill_diagonal(cos, 1.0)
    theta = np.arccos(cos)
    q_relu = pp * (np.sin(theta) + (np.pi - theta) * cos) / (2 * np.pi)
    dq_relu = (np.pi - theta) / (2 * np.pi)
    q = a * s + (1 - a) ** 2 * q_relu
    dq = a + (1 - a) ** 2 * dq_relu
    return np.where(alive, q, 0.0), np.where(alive, dq * t, 0.0)
