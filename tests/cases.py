"""The tests of all engines share these: networks, kernels, bars, and the measures of error."""

from __future__ import annotations

import numpy as np
import pytest

from images import HARD, NATURAL
from ntkfast import NNGP, NTK
from ntkfast.activations import GELU, Abs, Cos, Erf, LeakyReLU, ReLU, Sin
from ntkfast.network import AvgPool, Conv, Skip, Upsample, autoencoder, unet

OPERATORS = {"ntk": NTK, "nngp": NNGP}
KERNELS = tuple(OPERATORS)
PADDINGS = ("zeros", "circular")
DTYPES = ("float32", "float64")

# The bar is on the largest error of an entry over the largest entry.  In double precision the reference sets the limit:
# where patches are parallel, rounding of its cosine by 1e-16 turns into an angle of 1e-8.
BARS = {
    "float32": dict.fromkeys(NATURAL, 1e-6) | dict.fromkeys(HARD, 1e-5),
    "float64": dict.fromkeys(NATURAL, 2e-12) | dict.fromkeys(HARD, 5e-8),
}
PARALLEL = 5e-8

NETS = {
    "one conv": [Conv(5, bias_var=0.3)],
    "1": [Conv(1), ReLU(), Conv(1)],
    "3": [Conv(3), ReLU(), Conv(1)],
    "11": [Conv(11), ReLU(), Conv(1)],
    "deep 1": [*[Conv(1), ReLU()] * 5, Conv(1)],
    "deep 3": [*[Conv(3), ReLU()] * 5, Conv(1)],
    "7 9": [Conv(7), LeakyReLU(0.1), Conv(9), LeakyReLU(-0.3), Conv(5)],
    "13 15": [Conv(13), ReLU(), Conv(15), ReLU(), Conv(3)],
    "linear": [Conv(5), Conv(3), ReLU(), Conv(3), Conv(1)],
    "frozen": [Conv(3, trainable=False), LeakyReLU(1.5), Conv(3), LeakyReLU(0.5), Conv(1, trainable=False)],
    "biases": [Conv(3, bias_var=0.3), ReLU(), Conv(3, weight_var=1.2, bias_var=0.1), ReLU(), Conv(1, bias_var=0.2)],
    "magnitude": [Conv(7), LeakyReLU(-1.0), Conv(9), ReLU(), Conv(1)],
}

GRAPHS = {
    "unet 1 nearest": unet(1, upsample="nearest").layers,
    "unet 2": unet(2).layers,
    "autoencoder 1 nearest": autoencoder(1, upsample="nearest").layers,
    "autoencoder 2": autoencoder(2).layers,
    "strides": [
        Conv(3, stride=2, bias_var=0.1),
        ReLU(),
        Conv(5, stride=2),
        LeakyReLU(0.2),
        *[Upsample(), Upsample(mode="nearest"), Conv(3)],
    ],
    "smooth": [
        *[Conv(3, weight_var=1.2), Erf(), Conv(3, weight_var=1.5, bias_var=0.1), GELU(), AvgPool()],
        *[Conv(3, weight_var=0.8), Sin(), Upsample(), Conv(3), Cos(), Conv(1)],
    ],
    "residual": [
        Conv(3),
        Skip([ReLU(), Conv(5, weight_var=1.5, bias_var=0.2)], merge="add"),
        Abs(),
        Conv(3),
        Skip([Conv(3, trainable=False), GELU(), AvgPool(), Conv(1), Upsample()], merge="add"),
        ReLU(),
        Conv(1),
    ],
    "nested": [
        Conv(3),
        ReLU(),
        Skip(
            [AvgPool(), Skip([Conv(3, stride=2), ReLU(), Upsample(mode="nearest")], share=0.25), Conv(3), Upsample()],
            shortcut=[Conv(5), LeakyReLU(-0.5)],
            share=0.7,
        ),
        Conv(3),
    ],
    "image beside": [Skip([Conv(3), ReLU(), AvgPool(), Upsample()], share=0.6), Conv(3), ReLU(), Conv(1)],
}
HOMOGENEOUS = ("unet 1 nearest", "unet 2", "autoencoder 1 nearest", "autoencoder 2", "nested", "image beside")
GRAPH_BARS = {"float32": 1e-6, "float64": 2e-12}

each_kernel = pytest.mark.parametrize("kernel", KERNELS)
each_padding = pytest.mark.parametrize("padding", PADDINGS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_net = pytest.mark.parametrize("net", NETS)
each_graph = pytest.mark.parametrize("graph", GRAPHS)


def error_of(actual, expected, scale=None):
    """Return the largest error over ``scale``, by default the largest entry; the error itself if all is zero."""
    assert actual.shape == expected.shape
    scale = np.abs(expected).max(initial=0.0) if scale is None else scale
    return np.abs(actual - expected).max(initial=0.0) / (scale or 1.0)


def bar_of(dtype, name, net):
    """Return the bar; the reference sets it in double where patches are single pixels, parallel on gray images."""
    single_pixels = net.layers[0].kernel_size == 1
    return PARALLEL if single_pixels and dtype == "float64" else BARS[dtype][name]


def product_error(K, theta, v):
    """Return the error of K @ v, over what it is if each entry of the kernel is off by max|T|."""
    scale = np.abs(theta).max() * np.abs(v).reshape(len(v), -1).sum(axis=0).max()
    return error_of(K @ v, theta @ v.astype(K.dtype).astype(np.float64), scale)
