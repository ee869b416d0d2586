"""Tests of finite networks share these: networks with their images, kernels, tensors, and a measure of distance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ntkfast.activations import GELU, Abs, Cos, Erf, LeakyReLU, ReLU, Sin
from ntkfast.finite import empirical_ntk
from ntkfast.network import Conv, Network, Skip, Upsample, autoencoder, unet, vanilla_cnn


def distance(a, b):
    """Return the Frobenius norm of the difference over that of ``b``."""
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def tangent_kernel(module, image):
    """Return the network's own kernel on an image, whose channels are on the last axis if it has three."""
    return empirical_ntk(module, image, channel_axis=-1 if np.ndim(image) == 3 else None)


def as_batch(image):
    """Return a (1, C, H, W) tensor of an (H, W, C) image."""
    return torch.from_numpy(image).permute(2, 0, 1)[None]


# An entry is name: (network, image shape).
LIMITS = {
    "one hidden": (vanilla_cnn(1, 3), (4, 4, 1)),
    "one hidden, circular": (vanilla_cnn(1, 7, padding="circular"), (4, 3, 2)),
    "two hidden": (vanilla_cnn(2, 3), (4, 4, 3)),
    "two hidden, circular": (vanilla_cnn(2, 3, padding="circular"), (5, 3, 1)),
    "biases": (
        Network([Conv(3, bias_var=0.5), ReLU(), Conv(3, weight_var=1, bias_var=1), ReLU(), Conv(1, bias_var=0.3)]),
        (3, 4, 2),
    ),
    "frozen first": (Network([Conv(3, bias_var=0.5, trainable=False), ReLU(), Conv(3), ReLU(), Conv(1)]), (4, 4, 2)),
    "only last": (Network([Conv(5, trainable=False), ReLU(), Conv(1)]), (4, 4, 2)),
    "only first": (
        Network([Conv(3), ReLU(), Conv(3, trainable=False), ReLU(), Conv(1, trainable=False)], "circular"),
        (4, 3, 1),
    ),
    "leaky": (Network([Conv(3), LeakyReLU(0.1), Conv(3), LeakyReLU(0.1), Conv(3)], "circular"), (4, 3, 2)),
    "absolute": (Network([Conv(3, weight_var=1), LeakyReLU(-1), Conv(1, weight_var=1)]), (4, 4, 1)),
    "no activation": (Network([Conv(3, weight_var=1), Conv(3, weight_var=1), ReLU(), Conv(1)]), (4, 3, 2)),
    "Erf and Sin": (Network([Conv(3, weight_var=1), Erf(), Conv(1, bias_var=0.5), Sin(), Conv(1)]), (4, 3, 2)),
    "GELU and Cos": (Network([Conv(3, weight_var=1), GELU(), Conv(1, bias_var=0.5), Cos(), Conv(1)]), (4, 3, 2)),
    "Abs": (Network([Conv(3, weight_var=1), Abs(), Conv(3, weight_var=1)], "circular"), (4, 3, 1)),
    "autoencoder": (autoencoder(1), (4, 4, 1)),
    "stride 2": (
        Network([Conv(3, stride=2), ReLU(), Upsample(mode="nearest"), Conv(3, bias_var=0.3)], "circular"),
        (4, 6, 2),
    ),
    "U-Net": (unet(1, share=0.3), (4, 4, 1)),
    "U-Net, circular": (unet(1, padding="circular"), (4, 4, 2)),
    "residual": (
        Network([Conv(3), Skip([ReLU(), Conv(3, weight_var=1)], merge="add"), ReLU(), Conv(1)]),
        (4, 3, 2),
    ),
    "concat with the image": (
        Network([Skip([Conv(3), ReLU()], share=0.7), Conv(3), ReLU(), Conv(1)], "circular"),
        (4, 3, 2),
    ),
    # These are twice and three times the width: the sum repeats both up to six times.
    "sum of concats": (
        Network(
            [
                *(Conv(3), ReLU()),
                Skip(
                    [Conv(1), Erf(), Skip([Conv(1)]), Skip([Conv(1)], share=0.8)],
                    merge="add",
                    shortcut=[Skip([Conv(1)], share=0.4)],
                ),
                Conv(1),
            ]
        ),
        (3, 4, 1),
    ),
}


each_limit = pytest.mark.parametrize("name", LIMITS)
