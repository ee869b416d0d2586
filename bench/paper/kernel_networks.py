"""The three architectures of the experiments on kernels, and what they are shown as input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.paper.data import Problem
from ntkfast import Network, NoiseInput, autoencoder, unet, vanilla_cnn

if TYPE_CHECKING:
    import torch

NETWORKS = ("vanilla", "autoencoder", "unet")
INPUTS = ("image", "noise")

TITLES = {"vanilla": "vanilla CNN", "autoencoder": "autoencoder", "unet": "U-Net"}
INPUT_TITLES = {"image": "noisy image", "noise": "iid noise"}

NOISE_CHANNELS = 32  # of noise as the input of a finite network

# Learning rates of Adam times the width: every effective weight moves by about rate / width in a step.  Of 0.003, 0.01,
# 0.03 and 0.1 those with the best results on two pictures of the tuning set, or as good with fewer steps.
ADAM_RATES = {"vanilla": 0.1, "autoencoder": 0.1, "unet": 0.01}

# Colours that all kinds of colour vision tell apart (Okabe & Ito).
BLUE, ORANGE, GREEN, PURPLE, GRAY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7F7F7F"
INPUT_COLOURS = {"image": BLUE, "noise": ORANGE}

DESCRIPTION = """\
The networks: *vanilla CNN*, one hidden layer of 5 x 5; *autoencoder*, two halvings of the resolution, 3 x 3, no skips;
*U-Net*, the same two halvings with skips (`vanilla_cnn(1, 5)`, `autoencoder(2)`, `unet(2)`)."""


def network(name: str, padding: str = "zeros") -> Network:
    """One of :data:`NETWORKS`."""
    if name == "vanilla":
        return vanilla_cnn(1, 5, padding=padding)
    return {"autoencoder": autoencoder, "unet": unet}[name](2, padding=padding)


def finite_network(name: str, width: int, channels: tuple[int, int], seed: int, device: str) -> torch.nn.Module:
    """The network at a finite width, in float32, with these numbers of input and output channels."""
    import torch

    from ntkfast.finite import to_torch

    # Convolutions with the 10 bits of TF32, which torch takes for float32 on a card, would be off by 1e-3.
    torch.backends.cudnn.allow_tf32 = False
    module = to_torch(network(name), width, channels[0], seed, torch.float32, out_channels=channels[1])
    return module.to(device=device, memory_format=torch.channels_last)


def kernel_device(device: str) -> str:
    """Where the exact kernel is computed if the finite networks are on a device of PyTorch."""
    return "cpu" if device == "cpu" else "auto"


def noise_channels(side: int, channels: int, seed: int) -> np.ndarray:
    """Iid noise of unit variance as the input of a finite network, (side, side, channels)."""
    return np.random.default_rng([seed, channels, side]).standard_normal((side, side, channels))


def limit_input(name: str, problem: Problem) -> np.ndarray | NoiseInput:
    """One of :data:`INPUTS` for an infinitely wide network: the noisy image, or noise of infinitely many channels."""
    return problem.noisy if name == "image" else NoiseInput(problem.noisy.shape[:2])
