"""Modules of finite width for each layer of a network, in the NTK parametrisation."""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch

from .. import _check
from .._choices import PADDINGS
from ..activations import Activation
from ..engine.memory import require_memory
from ..network import Add, AvgPool, Concat, Conv, Network, Node, Upsample, as_network

__all__ = ["NTKConv2d", "NTKGraph", "to_torch"]

# Parameters are drawn in it whatever their dtype, so that a seed names the same network in every precision.
DRAWN = torch.float64

# PyTorch's generators take seeds below it.
SEEDS = 2**63

Rng = int | np.random.Generator | torch.Generator | None


class NTKConv2d(torch.nn.Module):
    """Convolution ``a = sqrt(w/(c k^2)) W * h + sqrt(b) beta`` with W, beta iid N(0, 1) at the start.

    The factors stand outside the parameters, so that one learning rate suits every width (the NTK parametrisation).

    Parameters
    ----------
    layer : Conv
        Kernel size k, variances w and b; where it is not trainable, the parameters have ``requires_grad=False``.
    in_channels, out_channels : int
        Numbers of channels c of the input h and of the output a.
    padding : {"zeros", "circular"}
        What the convolution sees outside the image.
    rng : int, numpy.random.Generator, torch.Generator or None
        Source of W and then beta, as in :func:`to_torch`.
    dtype : torch.dtype
        Floating-point type of the parameters.

    Attributes
    ----------
    weight : Parameter, shape (out_channels, in_channels, k, k)
        W, without a unit.
    bias : Parameter, shape (out_channels,), or None
        beta; None where b = 0.
    weight_scale, bias_scale : float
        The factors sqrt(w/(c k^2)) and sqrt(b).

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    References
    ----------
    Jacot, Gabriel, Hongler, NeurIPS 2018, has the parametrisation.

    Examples
    --------
    >>> import torch
    >>> import ntkfast as nf
    >>> conv = nf.finite.NTKConv2d(nf.Conv(3), in_channels=8, out_channels=4)
    >>> tuple(conv(torch.zeros(1, 8, 5, 6, dtype=torch.float64)).shape)
    (1, 4, 5, 6)
    >>> round(conv.weight_scale**2 * 8 * 3 * 3, 12)  # w, 2 by default
    2.0
    """

    def __init__(
        self,
        layer: Conv,
        in_channels: int,
        out_channels: int,
        padding: str = "zeros",
        rng: Rng = 0,
        dtype: torch.dtype = DRAWN,
    ) -> None:
        super().__init__()
        if not isinstance(layer, Conv):
            raise TypeError(f"layer must be a Conv, got {layer!r}")
        in_channels, out_channels = _channel_numbers(in_channels, out_channels)
        _check.choice("padding", padding, PADDINGS)
        _require_floating_point(dtype)
        generator = generator_of("rng", rng)

        def normal(*shape: int) -> torch.nn.Parameter:
            values = torch.randn(*shape, generator=generator, dtype=DRAWN)
            return torch.nn.Parameter(values.to(dtype), requires_grad=layer.trainable)

        weight, *bias = _shapes(layer, in_channels, out_channels)
        self.layer = layer
        self.in_channels = in_channels
        self.padding = padding
        self.weight = normal(*weight)
        self.bias = normal(*bias[0]) if bias else None
        self.weight_scale = math.sqrt(layer.weight_var / math.prod(weight[1:]))
        self.bias_scale = math.sqrt(layer.bias_var)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Map features to those of the next layer.

        Parameters
        ----------
        h : Tensor, shape (N, in_channels, H, W)
            In the type of the parameters.

        Returns
        -------
        Tensor, shape (N, out_channels, H, W)
            H and W are halved, rounded up, with stride 2.

        Raises
        ------
        ValueError
            If h has another shape.

        Examples
        --------
        >>> import torch
        >>> conv = nf.finite.NTKConv2d(nf.Conv(3, stride=2), in_channels=2, out_channels=4)
        >>> tuple(conv(torch.zeros(1, 2, 5, 6, dtype=torch.float64)).shape)
        (1, 4, 3, 3)
        """
        if h.ndim != 4 or h.shape[1] != self.in_channels:
            raise ValueError(f"input must have shape (N, {self.in_channels}, H, W), got {tuple(h.shape)}")
        radius = self.layer.radius
        if self.padding == "circular":
            h, radius = _wrap(h, radius), 0
        bias = None if self.bias is None else self.bias_scale * self.bias
        stride = self.layer.stride
        return torch.nn.functional.conv2d(h, self.weight_scale * self.weight, bias, stride, radius)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the parentheses.

        Returns
        -------
        str

        Examples
        --------
        >>> nf.finite.NTKConv2d(nf.Conv(3), in_channels=2, out_channels=4)
        NTKConv2d(Conv(3), 2, 4, padding='zeros')
        """
        return f"{self.layer!r}, {self.in_channels}, {self.weight.shape[0]}, padding={self.padding!r}"


def _shapes(layer: Conv, in_channels: int, out_channels: int) -> list[tuple[int, ...]]:
    """Return the shapes of the weights and, where there is one, of the bias."""
    weight = (out_channels, in_channels, layer.kernel_size, layer.kernel_size)
    return [weight, (out_channels,)] if layer.bias_var > 0 else [weight]


def _wrap(h: torch.Tensor, radius: int) -> torch.Tensor:
    """Pad the two last axes by ``radius`` on every side, periodically.

    By index, since torch's own circular padding refuses to wrap around more than once.
    """
    for axis in (-2, -1):
        size = h.shape[axis]
        h = h.index_select(axis, torch.arange(-radius, size + radius, device=h.device) % size)
    return h


class Pointwise(torch.nn.Module):
    """An activation that PyTorch has as a function, or not at all.

    Parameters
    ----------
    layer : Activation
    """

    def __init__(self, layer: Activation) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Map features of shape (N, c, H, W) to the same shape."""
        names = self.layer.in_torch.names
        if not names:
            return self.layer.on_tensor(h)
        function: Any = functools.reduce(getattr, names[0].split(".")[1:], torch)
        return cast(torch.Tensor, function(h, **torch_arguments(self.layer)))

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the parentheses."""
        return repr(self.layer)


def torch_arguments(layer: Activation) -> dict[str, Any]:
    """Return the arguments of PyTorch's function or module beside the features."""
    spec = layer.in_torch
    values = (getattr(layer, field.name) for field in dataclasses.fields(layer))  # type: ignore[arg-type]
    return {name: value for (name, _), value in zip(spec.arguments, values, strict=True)} | dict(spec.fixed)


class CircularUpsample(torch.nn.Module):
    """Bilinear upsampling that wraps around: out[2a] = 3/4 in[a] + 1/4 in[a-1], out[2a+1] with in[a+1].

    Parameters
    ----------
    factor : int
        How many times the resolution.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Map features of shape (N, c, H, W) to (N, c, factor H, factor W)."""
        # torch clamps at the border: give it one more pixel on every side, and cut off what that makes.
        f = self.factor
        return torch.nn.functional.interpolate(_wrap(h, 1), scale_factor=f, mode="bilinear")[..., f:-f, f:-f]


class NTKConcat(torch.nn.Module):
    """Channels side by side, scaled so that their mean square is the mean of the parts' weighted by the shares.

    A part with c_p of the c channels gets the factor ``sqrt(share_p c / c_p)``: then
    ``1/c sum_channels Q = sum_p share_p (1/c_p sum_(channels of p) Q)`` whatever the c_p are.

    Parameters
    ----------
    shares : (float, float)
        Their sum is 1.
    """

    def __init__(self, shares: tuple[float, float]) -> None:
        super().__init__()
        self.shares = shares

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        """Map (N, c_1, H, W) and (N, c_2, H, W) to (N, c_1 + c_2, H, W)."""
        channels = sum(part.shape[1] for part in parts)
        scaled = (
            math.sqrt(share * channels / part.shape[1]) * part for share, part in zip(self.shares, parts, strict=True)
        )
        return torch.cat(tuple(scaled), dim=1)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the parentheses."""
        return repr(self.shares)


class NTKAdd(torch.nn.Module):
    """Sum of two features.

    Where their numbers of channels differ, which only concats inside a path make, both are repeated up to the least
    common multiple: each repetition has the same mean over the channels.
    """

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Map (N, c_1, H, W) and (N, c_2, H, W) to (N, lcm(c_1, c_2), H, W)."""
        channels = math.lcm(a.shape[1], b.shape[1])
        a, b = (h.repeat(1, channels // h.shape[1], 1, 1) for h in (a, b))
        return a + b


class NTKGraph(torch.nn.Module):
    """A network that branches: the nodes of ``Network.graph()`` one after the other.

    Parameters
    ----------
    modules : sequence of Module
        That of node n >= 1 stands at n - 1 and is the attribute of the name ``str(n - 1)``.
    inputs : sequence of tuple of int
        The nodes that each of them takes; node 0 is the input.

    Raises
    ------
    ValueError
        If ``inputs`` are not as many as the modules.

    Examples
    --------
    :func:`to_torch` makes it of a network that branches:

    >>> import torch
    >>> import ntkfast as nf
    >>> module = nf.finite.to_torch(nf.unet(levels=1), width=4, in_channels=3)
    >>> type(module).__name__
    'NTKGraph'
    >>> tuple(module(torch.zeros(2, 3, 6, 8, dtype=torch.float64)).shape)
    (2, 1, 6, 8)
    """

    def __init__(self, modules: Sequence[torch.nn.Module], inputs: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        if len(inputs) != len(modules):
            raise ValueError(f"inputs must have one entry for each of {len(modules)} modules, got {len(inputs)}")
        for n, module in enumerate(modules):
            self.add_module(str(n), module)
        self.inputs = tuple(inputs)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Apply one node after the other, and keep features no longer than they are needed.

        Parameters
        ----------
        h : Tensor, shape (N, C, H, W)
            The input of the network.

        Returns
        -------
        Tensor, shape (N, C_out, H, W)

        Examples
        --------
        >>> import torch
        >>> module = nf.finite.to_torch(nf.unet(levels=1), width=4, in_channels=1, out_channels=3)
        >>> tuple(module(torch.zeros(1, 1, 4, 6, dtype=torch.float64)).shape)
        (1, 3, 4, 6)
        """
        last_use = {m: n for n, inputs in enumerate(self.inputs) for m in inputs}
        features: dict[int, torch.Tensor] = {0: h}
        for n, (module, inputs) in enumerate(zip(self.children(), self.inputs, strict=True)):
            features[n + 1] = module(*(features[m] for m in inputs))
            for m in inputs:
                if last_use[m] == n:
                    features.pop(m, None)  # not kept longer than needed
        return features[len(self.inputs)]


def to_torch(
    network: Network,
    width: int,
    in_channels: int,
    rng: Rng = 0,
    dtype: torch.dtype = DRAWN,
    *,
    out_channels: int = 1,
) -> torch.nn.Sequential | NTKGraph:
    """Random network of finite width, in the NTK parametrisation.

    Parameters
    ----------
    network : Network
        The architecture; see :func:`ntkfast.vanilla_cnn`.
    width : int
        Output channels of every convolution but the last, at least 1.
    in_channels : int
        Channels C of the input image, at least 1.
    rng : int, numpy.random.Generator, torch.Generator or None
        Source of the random weights.  An integer, at least 0 and less than 2**63, names the same weights in every call
        and every ``dtype``; a generator goes on where it is, and one of PyTorch must be on the CPU; None draws fresh
        ones.
    dtype : torch.dtype
        Floating-point type of the parameters.
    out_channels : int
        Output channels of the last convolution, at least 1.

    Returns
    -------
    torch.nn.Sequential or NTKGraph
        Maps (N, C, H, W) to (N, out_channels, H, W), H and W multiples of ``network.multiple``.  A Sequential unless
        the network branches.  Frozen convolutions have parameters with ``requires_grad=False``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    MemoryError
        If the parameters do not fit in memory.

    References
    ----------
    Jacot, Gabriel, Hongler, NeurIPS 2018, has the parametrisation, in which the kernel has a limit.

    Examples
    --------
    >>> import torch
    >>> import ntkfast as nf
    >>> module = nf.finite.to_torch(nf.vanilla_cnn(depth=1, kernel_size=3), width=16, in_channels=3)
    >>> sum(p.numel() for p in module.parameters())  # 16 x 3 x 3 x 3, and 16
    448
    >>> tuple(module(torch.zeros(1, 3, 6, 8, dtype=torch.float64)).shape)
    (1, 1, 6, 8)
    """
    as_network(network)
    width = _check.at_least("width", width, 1)
    in_channels, out_channels = _channel_numbers(in_channels, out_channels)
    _require_floating_point(dtype)
    nodes = network.graph()
    channels = _channels(nodes, width, in_channels, out_channels)
    generator = generator_of("rng", rng)
    what = f"a network with width = {width}, in_channels = {in_channels} and out_channels = {out_channels}"
    require_memory(what, _bytes(nodes, channels, dtype), "use fewer channels")
    modules: list[torch.nn.Module] = []
    for n, node in enumerate(nodes[1:], start=1):
        if isinstance(node.layer, Conv):
            c_in, c_out = channels[node.inputs[0]], channels[n]
            modules.append(NTKConv2d(node.layer, c_in, c_out, network.padding, generator, dtype))
        else:
            modules.append(_without_weights(node.layer, network.padding))
    inputs = [node.inputs for node in nodes[1:]]
    if inputs == [(n,) for n in range(len(inputs))]:
        return torch.nn.Sequential(*modules)
    return NTKGraph(modules, inputs)


def generator_of(name: str, rng: Rng) -> torch.Generator:
    """PyTorch's generator for an argument ``rng``: an integer is its seed, NumPy's generator draws the seed."""
    if isinstance(rng, torch.Generator):
        if rng.device.type != "cpu":
            raise ValueError(f"{name} must be a generator on the CPU, got one on {rng.device}")
        return rng
    if isinstance(rng, numbers.Integral) and not isinstance(rng, bool):
        seed = _check.at_least(name, rng, 0)
        if seed >= SEEDS:
            raise ValueError(f"{name} must be less than 2**63, got {seed}")
    else:
        seed = int(_check.generator(name, rng).integers(SEEDS))
    return torch.Generator().manual_seed(seed)


def _channel_numbers(in_channels: int, out_channels: int) -> tuple[int, int]:
    return _check.at_least("in_channels", in_channels, 1), _check.at_least("out_channels", out_channels, 1)


def _require_floating_point(dtype: torch.dtype) -> None:
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating-point torch.dtype, got {dtype!r}")


def _channels(nodes: Sequence[Node], width: int, in_channels: int, out_channels: int) -> list[int]:
    """Number of channels at the output of each node."""
    channels = [in_channels]
    for node in nodes[1:]:
        taken = [channels[m] for m in node.inputs]
        if isinstance(node.layer, Conv):
            channels.append(width if len(channels) < len(nodes) - 1 else out_channels)
        elif isinstance(node.layer, Concat):
            channels.append(sum(taken))
        else:
            channels.append(math.lcm(*taken))  # one input, or those of a sum
    return channels


def _bytes(nodes: Sequence[Node], channels: Sequence[int], dtype: torch.dtype) -> int:
    """Most bytes while the parameters are drawn: those so far and, where it is of another type, one draw."""
    kept = most = 0
    for n, node in enumerate(nodes):
        if isinstance(node.layer, Conv):
            for shape in _shapes(node.layer, channels[node.inputs[0]], channels[n]):
                numbers = math.prod(shape)
                kept += numbers * dtype.itemsize
                most = max(most, kept if dtype == DRAWN else kept + numbers * DRAWN.itemsize)
    return most


def _without_weights(layer: Any, padding: str) -> torch.nn.Module:
    """The module of an activation, a pool, an upsampling or a merge."""
    if isinstance(layer, Concat):
        return NTKConcat(layer.shares)
    if isinstance(layer, Add):
        return NTKAdd()
    if isinstance(layer, AvgPool):
        return torch.nn.AvgPool2d(layer.factor)
    if isinstance(layer, Upsample):
        if layer.mode == "bilinear" and padding == "circular":
            return CircularUpsample(layer.factor)
        return torch.nn.Upsample(scale_factor=layer.factor, mode=layer.mode)
    if layer.in_torch.module:
        return cast(torch.nn.Module, getattr(torch.nn, layer.in_torch.module)(**torch_arguments(layer)))
    return Pointwise(layer)
