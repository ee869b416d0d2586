"""This says what an engine is to compute, as all of them take it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..activations import Activation
from ..network import Add, AvgPool, Concat, Conv, Input, Network, Upsample

Progress = Callable[[float], None]

NodeTuple = tuple[str, list[int], int, list[float]]


def nodes(network: Network) -> list[NodeTuple]:
    """Return the graph as the engines take it: operation, inputs, level, numbers; see csrc/bindings.cpp."""
    return [
        (name, list(node.inputs), node.level, numbers)
        for node in network.graph()
        for name, numbers in (_operation(node.layer),)
    ]


def _operation(layer: Any) -> tuple[str, list[float]]:
    if isinstance(layer, Conv):
        return "conv", [layer.kernel_size, layer.stride, layer.weight_var, layer.bias_var, float(layer.trainable)]
    if isinstance(layer, Activation):
        return layer.operation, layer.numbers()
    if isinstance(layer, Upsample):
        return "upsample", [layer.factor, float(layer.mode == "bilinear")]
    if isinstance(layer, AvgPool):
        return "avg_pool", [layer.factor]
    if isinstance(layer, Concat):
        return "concat", list(layer.shares)
    return OPERATIONS[type(layer)], []


# These operations have no numbers.
OPERATIONS = {Input: "input", Add: "add"}


@dataclass(frozen=True)
class Problem:
    """A problem is a kernel of images of one size: all but their values.

    Attributes
    ----------
    network : Network
    shape : (batch, H, W, C)
    dtype : float32 or float64
        That of the engine's arithmetic.
    threads : int
        Those on the host.
    kernel : {"ntk", "nngp"}
    noise : bool
        True where the images are iid noise, of which only the shape is read.
    """

    network: Network
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    threads: int
    kernel: str = "ntk"
    noise: bool = False

    @property
    def program(self) -> tuple[list[NodeTuple], bool, bool]:
        """Return the first arguments of engines and estimates: nodes, is the padding circular, is it the NNGP."""
        return nodes(self.network), self.network.padding == "circular", self.kernel == "nngp"
