"""Finite networks in torch tend to the kernel as one over the root of the width."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch

from finite_networks import LIMITS, as_batch, distance, each_limit, tangent_kernel
from images import noise
from ntkfast.finite import to_torch
from ntkfast.reference import kernel_matrix

pytestmark = pytest.mark.usefixtures("one_torch_thread")

# An entry is width: number of seeds; wide networks are slow, and their kernels vary less.
SEEDS = {12: 80, 36: 100, 72: 40}


@cache
def limit_samples(name: str, width: int) -> np.ndarray:
    """Return empirical kernels over the seeds, shape (seeds, d, d)."""
    network, shape = LIMITS[name]
    image = noise(*shape, seed=0)
    modules = (to_torch(network, width, shape[-1], seed) for seed in range(SEEDS[width]))
    return np.array([tangent_kernel(module, image).dense() for module in modules])


def limit(name: str) -> np.ndarray:
    network, shape = LIMITS[name]
    return kernel_matrix(network, noise(*shape, seed=0), channel_axis=-1)


@each_limit
def test_empirical_kernels_tend_to_the_kernel_as_one_over_the_root_of_the_width(name):
    theta = limit(name)
    errors = [np.sqrt(np.mean([distance(s, theta) ** 2 for s in limit_samples(name, width)])) for width in SEEDS]
    slope = np.polyfit(np.log(list(SEEDS)), np.log(errors), 1)[0]
    assert -0.65 <= slope <= -0.35
    assert errors[-1] < 0.5


@each_limit
@pytest.mark.parametrize("width", [36, 72])
def test_empirical_kernels_have_the_kernel_as_their_mean(name, width):
    theta, samples = limit(name), limit_samples(name, width)
    spread = np.sqrt(np.mean([distance(s, theta) ** 2 for s in samples]))
    # The bar is the random error of the mean, and a bias of order 1/width (none with one hidden layer).
    allowed = 2 * spread / math.sqrt(len(samples)) + 0.5 / width
    assert distance(samples.mean(axis=0), theta) <= allowed
    # The bar is low enough to tell the kernel from its neighbours.
    assert allowed < 0.12


@pytest.mark.parametrize(
    "name",
    [
        *("one hidden", "two hidden, circular", "biases", "leaky", "Erf and Sin", "GELU and Cos", "Abs"),
        *("stride 2", "residual", "autoencoder", "U-Net, circular", "sum of concats"),
    ],
)
def test_outputs_have_mean_zero_and_the_nngp_covariance(name):
    network, shape = LIMITS[name]
    image = noise(*shape, seed=0)
    expected = kernel_matrix(network, image, "nngp", channel_axis=-1)
    with torch.no_grad():
        outputs = [to_torch(network, 32, shape[-1], seed)(as_batch(image)).numpy().ravel() for seed in range(1000)]
    products = np.array([np.outer(z, z) for z in outputs])
    spread = np.sqrt(np.mean([distance(p, expected) ** 2 for p in products]))
    assert distance(products.mean(axis=0), expected) <= 2.5 * spread / math.sqrt(1000) + 0.5 / 32
    # The mean of n outputs has the covariance S / n, hence the mean square trace(S) / n.
    mean = np.mean(outputs, axis=0)
    assert mean @ mean <= 2.5**2 * np.trace(expected) / 1000


def test_the_authors_closed_form_is_the_limit_of_training_the_last_layer():
    # The kernel is |y_i||y_j|/pi (sin t + (pi - t) cos t) at w = 2, with y the patch times sqrt(w / (k^2 C)).
    shape = LIMITS["only last"][1]
    padded = np.pad(noise(*shape, seed=0), ((2, 2), (2, 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(0, 1))
    y = windows.reshape(16, 50) * math.sqrt(2 / 50)
    norm = np.linalg.norm(y, axis=1)
    cos = np.clip(y @ y.T / np.outer(norm, norm), -1, 1)
    t = np.arccos(cos)
    formula = np.outer(norm, norm) / math.pi * (np.sin(t) + (math.pi - t) * cos)
    assert distance(limit("only last"), formula) < 1e-12
    samples = limit_samples("only last", 72)
    spread = np.sqrt(np.mean([distance(s, formula) ** 2 for s in samples]))
    assert distance(samples.mean(axis=0), formula) <= 2.5 * spread / math.sqrt(len(samples))
