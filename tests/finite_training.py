"""Tests of training share these: a network that is linear in its parameters, outputs, and effective weights."""

from __future__ import annotations

from functools import partial

import torch

from images import noise
from ntkfast import finite
from ntkfast.finite import NTKConv2d, empirical_ntk, to_torch
from ntkfast.network import Conv, Network

# Inputs and targets here have a channel axis, but where a test says otherwise.
train = partial(finite.train, channel_axis=-1)


def output(module, x):
    """Return f(x) as (H, W, C_out)."""
    with torch.no_grad():
        return module(torch.from_numpy(x).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()


def effective(module):
    """Return the effective weights of each convolution."""
    return {
        name: m.weight_scale * m.weight.detach().numpy().copy()
        for name, m in module.named_modules()
        if isinstance(m, NTKConv2d)
    }


def linear(out_channels=1, conv=None, padding="zeros"):
    """Return a network that is linear in its parameters, its input, its target and its kernel."""
    module = to_torch(Network([conv or Conv(3, bias_var=0.4)], padding), 1, 2, rng=1, out_channels=out_channels)
    x, y = noise(5, 4, 2, seed=2), noise(5, 4, out_channels, seed=3)
    return module, x, y, empirical_ntk(module, x, channel_axis=-1)
