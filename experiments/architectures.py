"""The networks of the paper's experiments, what they are shown as input, and how both are called and drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

import ntkfast as nf

if TYPE_CHECKING:
    import torch

    from experiments.data import Problem

# Two hidden layers at the least, so that there are hidden weights with c channels on both sides.  The autoencoder goes
# down once only and up by nearest neighbours: with the crops' few pixels a second level leaves next to no detail, which
# then takes a thousand steps to fit.
ARCHITECTURES: dict[str, nf.Network] = {
    "vanilla": nf.vanilla_cnn(depth=2, kernel_size=3),
    "autoencoder": nf.autoencoder(levels=1, kernel_size=3, upsample="nearest"),
    "unet": nf.unet(levels=2, kernel_size=3),
}

# Networks for a whole picture of one's own have one hidden layer with large kernels, or two halvings.
CALLS: dict[str, tuple[Callable[..., nf.Network], dict[str, int]]] = {
    "vanilla": (nf.vanilla_cnn, {"depth": 1, "kernel_size": 11}),
    "autoencoder": (nf.autoencoder, {"levels": 2, "kernel_size": 3}),
}
OF_PICTURES = {name: call(**arguments) for name, (call, arguments) in CALLS.items()}

LABELS = {"vanilla": "vanilla CNN", "autoencoder": "autoencoder", "unet": "U-Net"}

INPUTS = ("image", "noise")
INPUT_LABELS = {"image": "noisy image", "noise": "iid noise"}
NOISE_CHANNELS = 32  # those that noise has as the input of a finite network

# Learning rate of Adam times the width: every effective weight moves by about rate / width in a step.  Of 0.001, 0.003,
# 0.006, 0.01, 0.03, 0.1 and 0.3 that with the best results within 300 steps on two pictures of the tuning set (china,
# flower), over all architectures and inputs; with larger rates all of them follow the noise sooner.
ADAM_RATE = 0.003
FAST_ADAM_RATE = 0.1  # with which the kernel moves far; of the order in common use at widths near 100

# Colours that all kinds of colour vision tell apart (Okabe & Ito), and a marker for each architecture.
BLUE, ORANGE, GREEN, PURPLE, GRAY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7F7F7F"
COLOURS = {"vanilla": BLUE, "autoencoder": ORANGE, "unet": GREEN}
MARKERS = {"vanilla": "o", "autoencoder": "s", "unet": "^"}
INPUT_COLOURS = {"image": BLUE, "noise": ORANGE}

DESCRIPTION = """\
- vanilla CNN: `vanilla_cnn(depth=2, kernel_size=3)`, two hidden layers at full resolution;
- autoencoder: `autoencoder(levels=1, kernel_size=3, upsample="nearest")`, one halving, no skip;
- U-Net: `unet(levels=2, kernel_size=3)`, two halvings, each with a skip."""


def adam_steps(rate: float) -> str:
    """Say what a rate of Adam, times the width c, means: :func:`ntkfast.finite.train` divides by all channels."""
    return f"{rate:g}/c for the effective weights, or half of it in the U-Net, whose concats have 2c channels"


def call_of(name: str) -> str:
    """Write down the call that makes one of :data:`OF_PICTURES`."""
    call, arguments = CALLS[name]
    return f"{call.__name__}({', '.join(f'{key}={value}' for key, value in arguments.items())})"


def network(name: str, padding: str = "zeros") -> nf.Network:
    """One of :data:`ARCHITECTURES`, with zero or circular padding."""
    return replace(ARCHITECTURES[name], padding=padding)


def finite_network(
    network: nf.Network, width: int, seed: int, device: str, *, in_channels: int = 1, out_channels: int = 1
) -> torch.nn.Module:
    """The network at a finite width, in float32; a (width, seed) names the same one on every device.

    No two widths share random numbers, so that networks of all widths and seeds are independent.
    """
    import torch

    from ntkfast.finite import to_torch

    # Convolutions with the 10 bits of TF32, which torch takes for float32 on a card, would be off by 1e-3.
    torch.backends.cudnn.allow_tf32 = False
    weights = 1_000_000 * width + seed
    module = to_torch(network, width, in_channels, weights, torch.float32, out_channels=out_channels)
    module.to(device)
    return module


def kernel_device(device: str) -> str:
    """Where the exact kernel is computed if the finite networks are on a device of PyTorch."""
    return "cpu" if device == "cpu" else "auto"


def noise_channels(side: int, channels: int, seed: int, *, width: int | None = None) -> np.ndarray:
    """Iid noise of unit variance as the input of a finite network: (side, width, channels), by default a square."""
    columns = side if width is None else width
    return np.random.default_rng([seed, channels, side]).standard_normal((side, columns, channels))


def limit_input(name: str, problem: Problem) -> np.ndarray | nf.NoiseInput:
    """One of :data:`INPUTS` for an infinitely wide network: the noisy image, or noise of infinitely many channels."""
    return problem.noisy if name == "image" else nf.NoiseInput(problem.noisy.shape[:2])
