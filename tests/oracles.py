"""These are slow oracles of the reference: matrices of shifts, quadrature, PyTorch's layers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from hypothesis import assume

from images import axis_of
from ntkfast import reference
from ntkfast.activations import Cos, Sin
from ntkfast.network import AvgPool, Conv, Identity, Skip, Upsample

KERNELS = ("ntk", "nngp")
PADDINGS = ("zeros", "circular")
SLOPES = (0.0, 0.01, 0.1, 0.5, 1.0, 1.5, -0.3, -1.0)
# Where two patches are parallel, rounding of their cosine by 1e-16 turns into an angle of 1e-8.
PARALLEL = 1e-7


def kernel_matrix(network, image, kernel="ntk"):
    """The function that is tested; images are (H, W) or (H, W, C)."""
    return reference.kernel_matrix(network, image, kernel, channel_axis=axis_of(image))


def assert_close(actual, expected, tolerance=1e-12):
    """Compare the maximal error with the maximal value."""
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


def neighbour(row, col, dy, dx, height, width, padding):
    """Return the index of the pixel at (row + dy, col + dx), or None if a convolution sees a zero there."""
    row, col = row + dy, col + dx
    if padding == "circular":
        return (row % height) * width + col % width
    return row * width + col if 0 <= row < height and 0 <= col < width else None


def patches(image, kernel_size, padding):
    """Return all k x k patches, shape (H*W, k*k*C), in the order in which a convolution sees them."""
    height, width, channels = image.shape
    flat, radius = image.reshape(-1, channels), kernel_size // 2
    out = []
    for row, col in itertools.product(range(height), range(width)):
        values = []
        for dy, dx in itertools.product(range(-radius, radius + 1), repeat=2):
            q = neighbour(row, col, dy, dx, height, width, padding)
            values.append(np.zeros(channels) if q is None else flat[q])
        out.append(np.concatenate(values))
    return np.array(out)


def shift_matrices(height, width, kernel_size, padding):
    """Return for every delta the d x d matrix that takes an image to its shifted copy."""
    radius = kernel_size // 2
    for dy, dx in itertools.product(range(-radius, radius + 1), repeat=2):
        shift = np.zeros((height * width, height * width))
        for row, col in itertools.product(range(height), range(width)):
            q = neighbour(row, col, dy, dx, height, width, padding)
            if q is not None:
                shift[row * width + col, q] = 1
        yield shift


def gaussian_mean(s, f, n=48, reach=9.0):
    """Return E[f(u_i) f(u_j)] for u ~ N(0, s), all pairs (i, j), by quadrature in 2-D; f may have a kink at 0.

    u_i = p_i z1,  u_j = p_j (rho z1 + sqrt(1 - rho^2) z2),  z iid N(0, 1).  Gauss-Legendre on pieces that end where
    u_i or u_j changes sign; the nodes in z1 gather at 0, where the integral over z2 turns sharply if |rho| is near 1.
    """
    t, weight = np.polynomial.legendre.leggauss(n)
    t, weight = (1 + t) / 2, weight / 2
    z1 = np.concatenate([-reach * t**3, reach * t**3])
    w1 = np.tile(3 * reach * t**2 * weight, 2) * np.exp(-(z1**2) / 2) / math.sqrt(2 * math.pi)
    p = np.sqrt(np.diagonal(s))
    pp = np.outer(p, p)
    rho = np.clip(s / np.where(pp > 0, pp, 1), -1, 1)
    np.fill_diagonal(rho, 1)
    rho = rho[..., None]
    along = np.maximum(np.sqrt((1 - rho) * (1 + rho)), 1e-100)
    sign_change = np.clip(-rho * z1 / along, -reach, reach)[..., None]
    total = np.zeros(s.shape)
    for start, stop in ((-reach, sign_change), (sign_change, reach)):
        z2 = start + (stop - start) * t
        w2 = (stop - start) * weight * np.exp(-(z2**2) / 2) / math.sqrt(2 * math.pi)
        v = p[None, :, None, None] * (rho[..., None] * z1[:, None] + along[..., None] * z2)
        total += ((f(v) * w2).sum(axis=-1) * f(p[:, None, None] * z1) * w1).sum(axis=-1)
    return total


def torch_matrix(layer, height, width, padding):
    """Return the d' x d matrix of a pool or upsampling: what PyTorch makes of every basis image.

    PyTorch has no bilinear upsampling that wraps: it is what happens in the middle of 3 x 3 copies of the image.
    """
    basis = torch.eye(height * width, dtype=torch.float64).reshape(-1, 1, height, width)
    if isinstance(layer, AvgPool):
        out = torch.nn.functional.avg_pool2d(basis, 2)
    else:
        options = {"align_corners": False} if layer.mode == "bilinear" else {}
        copies = basis.tile(1, 1, 3, 3) if padding == "circular" else basis
        out = torch.nn.functional.interpolate(copies, scale_factor=2, mode=layer.mode, **options)
        if padding == "circular":
            out = out[:, :, 2 * height : 4 * height, 2 * width : 4 * width]
    return out.reshape(height * width, -1).T.numpy(), out.shape[2:]


def explicit_path(layers, q, t, shape, padding):
    """Return covariance, tangent kernel and shape after ``layers``, from the definitions alone."""
    for layer in layers:
        if isinstance(layer, Conv):
            shifts = list(shift_matrices(*shape, layer.kernel_size, padding))
            keep = np.arange(shape[0] * shape[1]).reshape(shape)[:: layer.stride, :: layer.stride]
            shape = keep.shape
            shifts = [a[keep.ravel()] for a in shifts]
            scale = layer.weight_var / len(shifts)
            q = scale * sum(a @ q @ a.T for a in shifts) + layer.bias_var
            t = scale * sum(a @ t @ a.T for a in shifts) + (q if layer.trainable else 0)
        elif isinstance(layer, (AvgPool, Upsample)):
            a, shape = torch_matrix(layer, *shape, padding)
            q, t = a @ q @ a.T, a @ t @ a.T
        elif isinstance(layer, Skip):
            q1, t1, _ = explicit_path(layer.shortcut, q, t, shape, padding)
            q2, t2, shape = explicit_path(layer.layers, q, t, shape, padding)
            a, b = (1, 1) if layer.merge == "add" else (1 - layer.share, layer.share)
            q, t = a * q1 + b * q2, a * t1 + b * t2
        elif not isinstance(layer, Identity):
            if isinstance(layer, (Sin, Cos)):
                assume(q.max() < 9)  # the quadrature resolves no more oscillations
            t = t * gaussian_mean(q, layer.derivative)
            q = gaussian_mean(q, layer.function)
    return q, t, shape


def explicit_kernels(network, image):
    """Return the kernels (ntk, nngp) by shift matrices, PyTorch's pools and quadrature."""
    height, width, channels = image.shape
    flat = image.reshape(-1, channels)
    q = sum(np.outer(flat[:, c], flat[:, c]) for c in range(channels)) / channels
    q, t, _ = explicit_path(network.layers, q, np.zeros_like(q), (height, width), network.padding)
    return t, q
