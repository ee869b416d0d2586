"""Networks of finite width in PyTorch: what the kernels describe the limit of.  Needs ``torch``.

Use them to watch real training next to the closed form, and to check the closed form: as the width grows, the
empirical tangent kernel of :func:`to_torch`'s network tends to the kernel of the :class:`~ntkfast.network.Network`,
with a random error that falls as one over the square root of the width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

try:
    import torch
except ImportError as error:  # pragma: no cover - depends on the installation
    raise ImportError("ntkfast.finite needs PyTorch: install it with `pip install torch`") from error

from . import _check
from .network import (
    GELU,
    Abs,
    Add,
    AvgPool,
    Concat,
    Conv,
    Cos,
    Erf,
    LeakyReLU,
    Network,
    Node,
    ReLU,
    Sin,
    Upsample,
)

__all__ = ["NTKConv2d", "NTKGraph", "empirical_ntk", "to_torch"]


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
    generator : torch.Generator
        Source of W and then beta, on the CPU.
    dtype : torch.dtype
        Type of the parameters.

    Attributes
    ----------
    weight : Parameter, shape (out_channels, in_channels, k, k)
    bias : Parameter, shape (out_channels,), or None
        beta; None where b = 0.
    """

    def __init__(
        self,
        layer: Conv,
        in_channels: int,
        out_channels: int,
        padding: str,
        generator: torch.Generator,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()

        def normal(*shape: int) -> torch.nn.Parameter:
            # Drawn in float64 whatever the dtype, so that a seed names the same network in every precision.
            values = torch.randn(*shape, generator=generator, dtype=torch.float64)
            return torch.nn.Parameter(values.to(dtype), requires_grad=layer.trainable)

        k = layer.kernel_size
        self.layer = layer
        self.in_channels = in_channels
        self.padding = padding
        self.weight = normal(out_channels, in_channels, k, k)
        self.bias = normal(out_channels) if layer.bias_var > 0 else None
        self.weight_scale = math.sqrt(layer.weight_var / (in_channels * k * k))
        self.bias_scale = math.sqrt(layer.bias_var)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Map features of shape (N, in_channels, H, W) to (N, out_channels, H, W)."""
        if h.ndim != 4 or h.shape[1] != self.in_channels:
            raise ValueError(f"input must have shape (N, {self.in_channels}, H, W), got {tuple(h.shape)}")
        radius = self.layer.radius
        if self.padding == "circular":
            h, radius = _wrap(h, radius), 0
        bias = None if self.bias is None else self.bias_scale * self.bias
        stride = self.layer.stride
        return torch.nn.functional.conv2d(h, self.weight_scale * self.weight, bias, stride, radius)

    def extra_repr(self) -> str:
        """What ``repr`` shows between the parentheses."""
        return f"{self.layer!r}, {self.in_channels}, {self.weight.shape[0]}, padding={self.padding!r}"


def _wrap(h: torch.Tensor, radius: int) -> torch.Tensor:
    """Pad the two last axes by ``radius`` on every side, periodically.

    By index, since torch's own circular padding refuses to wrap around more than once.
    """
    for axis in (-2, -1):
        size = h.shape[axis]
        h = h.index_select(axis, torch.arange(-radius, size + radius, device=h.device) % size)
    return h


class Pointwise(torch.nn.Module):
    """A function of one tensor as a module.

    Parameters
    ----------
    function : callable
        Maps a tensor to one of the same shape.
    """

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Map features of shape (N, c, H, W) to the same shape."""
        return self.function(h)

    def extra_repr(self) -> str:
        """What ``repr`` shows between the parentheses."""
        return self.function.__name__


class CircularUpsample(torch.nn.Module):
    """Bilinear upsampling by 2 that wraps around: out[2a] = 3/4 in[a] + 1/4 in[a-1], out[2a+1] with in[a+1]."""

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Map features of shape (N, c, H, W) to (N, c, 2H, 2W)."""
        # torch clamps at the border: give it one more pixel on every side, and cut off what that makes.
        return torch.nn.functional.interpolate(_wrap(h, 1), scale_factor=2, mode="bilinear")[..., 2:-2, 2:-2]


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
        """What ``repr`` shows between the parentheses."""
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
    """

    def __init__(self, modules: Sequence[torch.nn.Module], inputs: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        for n, module in enumerate(modules):
            self.add_module(str(n), module)
        self.inputs = tuple(inputs)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to (N, 1, H, W)."""
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
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> torch.nn.Sequential | NTKGraph:
    """Random network of finite width, in the NTK parametrisation.

    Parameters
    ----------
    network : Network
    width : int
        Output channels of every convolution but the last, at least 1.
    in_channels : int
        Channels C of the input image, at least 1.
    seed : int
        Non-negative seed of the random weights; it names the same weights in every ``dtype``.
    dtype : torch.dtype
        Floating-point type of the parameters.

    Returns
    -------
    torch.nn.Sequential or NTKGraph
        Maps (N, C, H, W) to (N, 1, H, W), H and W multiples of ``network.multiple``.  A Sequential unless the network
        branches.  Frozen convolutions have parameters with ``requires_grad=False``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """
    if not isinstance(network, Network):
        raise TypeError(f"network must be a Network, got {network!r}")
    width, in_channels = _at_least("width", width, 1), _at_least("in_channels", in_channels, 1)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating-point torch.dtype, got {dtype!r}")
    generator = torch.Generator().manual_seed(_at_least("seed", seed, 0))
    nodes = network.graph()
    channels = _channels(nodes, width, in_channels)
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


def _channels(nodes: Sequence[Node], width: int, in_channels: int) -> list[int]:
    """Number of channels at the output of each node."""
    channels = [in_channels]
    for node in nodes[1:]:
        taken = [channels[m] for m in node.inputs]
        if isinstance(node.layer, Conv):
            channels.append(width if len(channels) < len(nodes) - 1 else 1)
        elif isinstance(node.layer, Concat):
            channels.append(sum(taken))
        else:
            channels.append(math.lcm(*taken))  # one input, or those of a sum
    return channels


# One module for each pointwise layer; ntkfast.convert reads the same functions back.
FUNCTIONS: dict[type, Callable[[torch.Tensor], torch.Tensor]] = {
    Abs: torch.abs,
    Erf: torch.erf,
    Sin: torch.sin,
    Cos: torch.cos,
}


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
            return CircularUpsample()
        return torch.nn.Upsample(scale_factor=layer.factor, mode=layer.mode)
    if isinstance(layer, ReLU):
        return torch.nn.ReLU()
    if isinstance(layer, LeakyReLU):
        return torch.nn.LeakyReLU(layer.slope)
    if isinstance(layer, GELU):
        return torch.nn.GELU()
    return Pointwise(FUNCTIONS[type(layer)])


def _at_least(name: str, value: Any, least: int) -> int:
    """Return ``value`` as an int of at least ``least``, or raise naming the argument."""
    number = _check.integer(name, value)
    if not least <= number < 2**63:
        raise ValueError(f"{name} must be at least {least} and less than 2**63, got {number}")
    return number


def empirical_ntk(module: torch.nn.Module, image: np.ndarray) -> np.ndarray:
    """Tangent kernel J J^T of a finite network at its present weights.

    Parameters
    ----------
    module : torch.nn.Module
        Maps (1, C, H, W) to (1, 1, H, W).
    image : ndarray, shape (H, W) or (H, W, C)
        Cast to the type of the module's parameters.

    Returns
    -------
    ndarray, shape (H*W, H*W)
        Entry (i, j) is the sum over the parameters q with ``requires_grad`` of d z_i/d q * d z_j/d q, where z is the
        output and i = row*W + col; in the type of the module's parameters.

    Raises
    ------
    TypeError, ValueError
        If ``module`` is no torch module with parameters, or ``image`` no finite image; if the output has another shape.

    Notes
    -----
    The Jacobian J is held in memory: H*W numbers for every trained parameter.
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {module!r}")
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    if not parameters:
        raise ValueError(f"module must have parameters, got {module!r}")
    trained = {name: parameters[name] for name, p in module.named_parameters() if p.requires_grad}
    x = _to_tensor(image, next(iter(parameters.values())))
    height, width = x.shape[2:]

    def output(values: dict[str, torch.Tensor]) -> torch.Tensor:
        z: torch.Tensor = torch.func.functional_call(module, {**parameters, **values}, (x,))
        if z.shape != (1, 1, height, width):
            raise ValueError(f"module must map to shape (1, 1, {height}, {width}), got {tuple(z.shape)}")
        return z.reshape(-1)

    theta = x.new_zeros(height * width, height * width)
    jacobian = torch.func.jacrev(output)(trained) if trained else {}
    for block in jacobian.values():
        rows = block.reshape(height * width, -1)
        theta += rows @ rows.T
    return theta.cpu().numpy()


def _to_tensor(image: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """Return ``image`` as a (1, C, H, W) tensor of the type and on the device of ``like``."""
    x = np.asarray(image)
    if x.dtype.kind not in "fiub":
        raise TypeError(f"image must be an array of real numbers, got dtype {x.dtype}")
    if x.ndim not in (2, 3) or x.size == 0:
        raise ValueError(f"image must have shape (H, W) or (H, W, C) and at least one pixel, got shape {x.shape}")
    x = np.atleast_3d(x).astype(np.float64)
    if not np.isfinite(x).all():
        raise ValueError("image must be finite, got NaN or infinity")
    return torch.from_numpy(x).permute(2, 0, 1)[None].to(like)
