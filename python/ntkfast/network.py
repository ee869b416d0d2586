"""Networks as data: the one description that every execution (NumPy, C++, and later CUDA and torch) reads.

A :class:`Network` is a tuple of layers.  It holds no weights: the neural tangent kernel describes the limit of infinite
width, where only the architecture and the variances of the weights matter.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["Conv", "LeakyReLU", "Network", "ReLU", "vanilla_cnn"]

PADDINGS = ("zeros", "circular")


def _real(name: str, value: Any) -> float:
    """Return ``value`` as a finite float, or raise naming the argument."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number!r}")
    return number


def _integer(name: str, value: Any) -> int:
    """Return ``value`` as an int, or raise naming the argument."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    return int(value)


class _Layer:
    """What all layers share: a ``repr`` that leaves out arguments at their default."""

    def __repr__(self) -> str:
        shown = []
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if not (f.kw_only and value == f.default):
                shown.append(f"{f.name}={value!r}" if f.kw_only else repr(value))
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, repr=False)
class Conv(_Layer):
    """Convolution with a square kernel, in the NTK parametrisation ``a = sqrt(w/(c k^2)) W * h + sqrt(b) beta``.

    Parameters
    ----------
    kernel_size : int
        Side k of the kernel in pixels; odd and at least 1.
    weight_var : float
        Weight variance w > 0.  The default, 2, keeps the energy of a ReLU network constant over depth (He).
    bias_var : float
        Bias variance b >= 0, in squared units of the image.
    trainable : bool
        A frozen convolution (``False``) transports the tangent kernel but does not add to it.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """

    kernel_size: int
    weight_var: float = field(default=2.0, kw_only=True)
    bias_var: float = field(default=0.0, kw_only=True)
    trainable: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        k = _integer("kernel_size", self.kernel_size)
        if k < 1 or k % 2 == 0:
            raise ValueError(f"kernel_size must be an odd integer >= 1, got {k}")
        w, b = _real("weight_var", self.weight_var), _real("bias_var", self.bias_var)
        if w <= 0:
            raise ValueError(f"weight_var must be positive, got {w!r}")
        if b < 0:
            raise ValueError(f"bias_var must be >= 0, got {b!r}")
        if not isinstance(self.trainable, bool):
            raise TypeError(f"trainable must be True or False, got {self.trainable!r}")
        object.__setattr__(self, "kernel_size", k)
        object.__setattr__(self, "weight_var", w)
        object.__setattr__(self, "bias_var", b)

    @property
    def radius(self) -> int:
        """Half the kernel, k // 2, in pixels."""
        return self.kernel_size // 2


@dataclass(frozen=True, repr=False)
class LeakyReLU(_Layer):
    """Pointwise ``max(x, 0) + slope * min(x, 0)``; any finite slope (``-1`` is the absolute value).

    Parameters
    ----------
    slope : float
        Slope of the negative half, dimensionless.
    """

    slope: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "slope", _real("slope", self.slope))


@dataclass(frozen=True, repr=False)
class ReLU(_Layer):
    """Pointwise ``max(x, 0)``."""

    @property
    def slope(self) -> float:
        """Slope of the negative half: 0.  A ReLU is a leaky ReLU with this slope."""
        return 0.0


Layer = Conv | ReLU | LeakyReLU
Activation = (ReLU, LeakyReLU)


@dataclass(frozen=True)
class Stage:
    """A convolution with the activation that follows it (``None``: none); the unit that the engine pipelines."""

    conv: Conv
    activation: ReLU | LeakyReLU | None


@dataclass(frozen=True, repr=False)
class Network:
    """A convolutional network of infinite width: layers from the input image to its one output field.

    Parameters
    ----------
    layers : iterable of layers
        Starts and ends with a :class:`Conv`; every activation directly follows a :class:`Conv`, since the closed forms
        need Gaussian pre-activations.
    padding : {"zeros", "circular"}
        What convolutions see outside the image.

    Raises
    ------
    TypeError, ValueError
        If a layer is not one of ours, or stands where its closed form does not hold.

    Examples
    --------
    >>> Network([Conv(5), ReLU(), Conv(1)])
    Network([Conv(5), ReLU(), Conv(1)], padding='zeros')
    """

    layers: tuple[Layer, ...]
    padding: str = "zeros"

    def __init__(self, layers: Iterable[Layer], padding: str = "zeros") -> None:
        if isinstance(layers, (str, bytes)) or not isinstance(layers, Iterable):
            raise TypeError(f"layers must be a sequence of layers, got {layers!r}")
        layers = tuple(layers)
        for n, layer in enumerate(layers):
            if not isinstance(layer, (Conv, *Activation)):
                hint = " (write it with parentheses)" if isinstance(layer, type) else ""
                raise TypeError(f"layers[{n}] must be a Conv, ReLU or LeakyReLU, got {layer!r}{hint}")
        if not layers:
            raise ValueError("layers must hold at least one Conv, got none")
        for n, end in ((0, "start"), (len(layers) - 1, "end")):
            if not isinstance(layers[n], Conv):
                raise ValueError(f"layers must {end} with a Conv, got {layers[n]!r} at layers[{n}]")
        for n in range(1, len(layers)):
            if isinstance(layers[n], Activation) and not isinstance(layers[n - 1], Conv):
                raise ValueError(
                    f"layers[{n}], {layers[n]!r}, must follow a Conv, got {layers[n - 1]!r} before it: "
                    "the closed form needs Gaussian pre-activations"
                )
        if not isinstance(padding, str):
            raise TypeError(f"padding must be one of {PADDINGS}, got {padding!r}")
        if padding not in PADDINGS:
            raise ValueError(f"padding must be one of {PADDINGS}, got {padding!r}")
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "padding", padding)

    @property
    def convs(self) -> tuple[Conv, ...]:
        """The convolutions, in order."""
        return tuple(layer for layer in self.layers if isinstance(layer, Conv))

    @property
    def depth(self) -> int:
        """Number of hidden layers: the activations."""
        return len(self.layers) - len(self.convs)

    @property
    def receptive_field(self) -> int:
        """Side in pixels of the input patch that one output pixel sees."""
        return 1 + 2 * sum(conv.radius for conv in self.convs)

    @property
    def trainable(self) -> bool:
        """Whether any convolution is trained; if not, the tangent kernel is zero."""
        return any(conv.trainable for conv in self.convs)

    def stages(self) -> tuple[Stage, ...]:
        """The network as (convolution, activation or None) pairs, in order."""
        followed = (*self.layers[1:], None)
        return tuple(
            Stage(layer, nxt if isinstance(nxt, Activation) else None)
            for layer, nxt in zip(self.layers, followed, strict=True)
            if isinstance(layer, Conv)
        )

    def __repr__(self) -> str:
        return f"Network([{', '.join(map(repr, self.layers))}], padding={self.padding!r})"


def vanilla_cnn(depth: int = 1, kernel_size: int = 5, *, padding: str = "zeros") -> Network:
    """Plain denoising CNN: ``depth`` times (Conv(kernel_size), ReLU), then Conv(1).

    Parameters
    ----------
    depth : int
        Number of hidden layers, at least 1.
    kernel_size : int
        Side of the hidden kernels in pixels, odd.
    padding : {"zeros", "circular"}
        What convolutions see outside the image.

    Returns
    -------
    Network
        The "vanilla CNN" of Tachella, Tang, Davies, CVPR 2021 (section 5), with He variances.
    """
    depth = _integer("depth", depth)
    if depth < 1:
        raise ValueError(f"depth must be an integer >= 1, got {depth}")
    layers: list[Layer] = []
    for _ in range(depth):
        layers += [Conv(kernel_size), ReLU()]
    return Network([*layers, Conv(1)], padding=padding)
