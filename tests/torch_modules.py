"""These are small modules of PyTorch for the tests of from_torch."""

from __future__ import annotations

from torch import nn

from ntkfast import (
    Network,
    from_torch,
)


def conv(c_in: int, c_out: int, k: int = 3, **options) -> nn.Conv2d:
    """Return a convolution without bias that keeps the size."""
    return nn.Conv2d(c_in, c_out, k, **{"padding": k // 2, "bias": False, **options})


class Function(nn.Module):
    """This is ``forward`` of a module with some children, as a function of the module and its input."""

    def __init__(self, forward, **children):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)
        self.function = forward

    def forward(self, x):
        return self.function(self, x)


def described(forward, **children) -> Network:
    return from_torch(Function(forward, **children), init="he")
