"""Operations of PyTorch as layers: what each function, method and module does to features, or what to use instead."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx

from ..activations import ACTIVATIONS, Activation, TorchFunction
from ..network import AvgPool, Layer, Upsample
from .modules import NTKConv2d

__all__ = ["FUNCTIONS_BY_NAME", "METHODS", "MODULES", "PLACES", "Found", "RefusedError", "advice", "same"]


@dataclass
class Found:
    """One operation of the traced module does this.

    Attributes
    ----------
    inputs : list
        The traced nodes with the features that it takes.
    layers : sequence of layers
        What it does to its one input.
    merge : "concat", "add" or ""
        How it merges several inputs.
    shares : tuple of float
        Shares of a concat; empty: by the numbers of channels.
    conv : module or None
        The convolution behind ``layers``.
    padding : str
        What it sees outside the image: "zeros", "circular", or "clamp"; empty where it does not look there.
    repeats : bool
        Whether a sum repeats the channels of its summands where their numbers differ.
    """

    inputs: list[Any]
    layers: Sequence[Layer] = ()
    merge: str = ""
    shares: tuple[float, ...] = ()
    conv: torch.nn.Conv2d | NTKConv2d | None = None
    padding: str = ""
    repeats: bool = False


class RefusedError(Exception):
    """One operation has no counterpart; the message says why, and what to use instead."""


# --- Readers, with the arguments that torch's functions have ------------------------------------------------------


def _activation(kind: type[Activation]) -> Callable[..., Found]:
    """The reader of the functions of an activation: they take the features, its own arguments, and ``inplace``."""
    spec = kind.in_torch
    arguments = (("input", inspect.Parameter.empty), *spec.arguments, *spec.fixed, ("inplace", False))
    signature = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value) for name, value in arguments]
    )

    def read(*args: Any, **kwargs: Any) -> Found:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        for name, value in spec.fixed:
            if given[name] != value:
                raise RefusedError(f"{name}={given[name]!r} has no closed form: use {name}={value!r}")
        return Found([given["input"]], [kind(*(given[name] for name, _ in spec.arguments))])

    return read


def _short_names(spec: TorchFunction) -> list[str]:
    return [name.rpartition(".")[2] for name in spec.names]


def _dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Found:
    if training and p > 0:
        raise RefusedError("is random while training: call module.eval() first, or remove it")
    return Found([input])


def same(value: Any) -> Any:
    """The number n of n or (n, n), or ``value`` itself."""
    if isinstance(value, (tuple, list)) and len(value) == 2 and value[0] == value[1]:
        return value[0]
    return value


def _halvings(factor: Any) -> int:
    """n for the factor 2^n, n >= 1; else 0."""
    if isinstance(factor, (int, float)) and factor >= 2 and float(factor).is_integer():
        n = int(factor).bit_length() - 1
        return n if factor == 2**n else 0
    return 0


def _avg_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Found:
    size, step = same(kernel_size), same(kernel_size if stride is None or stride == [] else stride)
    levels = _halvings(size)
    if not levels or step != size or same(padding) != 0 or ceil_mode or divisor_override is not None:
        raise RefusedError(
            "must average over cells of 2, 4, 8, ... pixels, with stride = kernel_size, got "
            f"kernel_size={kernel_size}, stride={stride}, padding={padding}, ceil_mode={ceil_mode}, "
            f"divisor_override={divisor_override}"
        )
    return Found([input], levels * [AvgPool()])


def _interpolate(
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Found:
    if size is not None:
        raise RefusedError("must have a scale_factor and no size: use scale_factor=2")
    levels = _halvings(same(scale_factor))
    if mode in ("nearest", "nearest-exact") and levels:
        return Found([input], levels * [Upsample(mode="nearest")])
    if mode == "bilinear" and levels == 1:
        if align_corners:
            raise RefusedError("must have align_corners=False, got True")
        return Found([input], [Upsample(mode="bilinear")], padding="clamp")
    raise RefusedError(
        "must have mode='bilinear' and scale_factor=2, or mode='nearest' and scale_factor=2, 4, 8, ..., got "
        f"mode={mode!r} and scale_factor={scale_factor}"
    )


def _cat(tensors: Any, dim: int = 0) -> Found:
    if dim not in (1, -3):
        raise RefusedError(f"must be along the channels, dim=1, got dim={dim}")
    return Found(list(tensors), merge="concat")


def _add(input: Any, other: Any, *, alpha: float = 1) -> Found:
    if not all(isinstance(part, torch.fx.Node) for part in (input, other)) or alpha != 1:
        raise RefusedError("must be the sum of two features, without constants or factors")
    return Found([input, other], merge="add")


# By the name that the function has in torch or torch.nn.functional, and the method of a tensor.  Those of IN_PLACE have
# a version in place, with an underscore behind the name.
IN_PLACE: dict[str, Callable[..., Found]] = {
    **{name: _activation(kind) for kind in ACTIVATIONS for name in _short_names(kind.in_torch)},
    "add": _add,
}
FUNCTIONS_BY_NAME: dict[str, Callable[..., Found]] = {
    **IN_PLACE,
    **{f"{name}_": function for name, function in IN_PLACE.items()},
    "dropout": _dropout,
    "dropout2d": _dropout,
    "avg_pool2d": _avg_pool2d,
    "interpolate": _interpolate,
    "cat": _cat,
    "concat": _cat,
    "concatenate": _cat,
}
METHODS = frozenset(name for name in FUNCTIONS_BY_NAME if hasattr(torch.Tensor, name))
PLACES = (torch, torch.nn.functional, operator)


def _attributes(function: str, names: Sequence[str]) -> Callable[[Any], tuple[str, dict[str, Any]]]:
    """The function of a module, with those of its attributes that are the function's arguments."""
    return lambda module: (function, {name: getattr(module, name) for name in names})


# By type, the name of the function, and its arguments from a module.
MODULES: dict[type, Callable[[Any], tuple[str, dict[str, Any]]]] = {
    **{
        getattr(torch.nn, spec.module): _attributes(
            _short_names(spec)[0], [name for name, _ in (*spec.arguments, *spec.fixed)]
        )
        for spec in (kind.in_torch for kind in ACTIVATIONS)
        if spec.module
    },
    **dict.fromkeys((torch.nn.Dropout, torch.nn.Dropout2d), _attributes("dropout", ("p", "training"))),
    torch.nn.AvgPool2d: _attributes(
        "avg_pool2d",
        ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    ),
    **dict.fromkeys(
        (torch.nn.Upsample, torch.nn.UpsamplingNearest2d, torch.nn.UpsamplingBilinear2d),
        _attributes("interpolate", ("size", "scale_factor", "mode", "align_corners")),
    ),
}

# This is to be used instead, by names without case and underscores, so that they fit modules, functions and methods.
_POOL = "has no closed form: use AvgPool2d(2), or a Conv2d with stride=2"
_NORM = "depends on all pixels at once, and has no closed form: remove it"
_SIGMOID = "has no closed form: use torch.erf, or GELU"
_SMOOTH = "has no closed form: use GELU, ReLU or LeakyReLU"
_FLAT = "does not keep an image: use Conv2d with kernel_size=1"
ADVICE = {
    **dict.fromkeys(("maxpool2d", "adaptivemaxpool2d", "fractionalmaxpool2d", "lppool2d", "adaptiveavgpool2d"), _POOL),
    **dict.fromkeys(("groupnorm", "instancenorm2d", "layernorm", "rmsnorm", "localresponsenorm"), _NORM),
    **dict.fromkeys(("batchnorm2d", "batchnorm"), f"{_NORM} (it cannot be folded: weights are not read)"),
    **dict.fromkeys(("tanh", "sigmoid", "softsign", "hardtanh", "hardsigmoid", "logsigmoid", "clamp"), _SIGMOID),
    **dict.fromkeys(("silu", "elu", "celu", "selu", "mish", "softplus", "hardswish", "relu6", "exp"), _SMOOTH),
    "prelu": "has a slope that is trained: use LeakyReLU",
    "linear": _FLAT,
    "flatten": _FLAT,
    **dict.fromkeys(
        ("convtranspose2d", "pixelshuffle", "pixelunshuffle"),
        "has no counterpart: use Upsample(scale_factor=2) and a Conv2d, or a Conv2d with stride=2",
    ),
    **dict.fromkeys(("alphadropout", "featurealphadropout"), "has no counterpart: remove it"),
    "conv2d": "must be a torch.nn.Conv2d module, whose initialisation can be named",
    **dict.fromkeys(
        ("sub", "subtract"), "has no counterpart: use +, a random network with -f in place of f is the same"
    ),
    **dict.fromkeys(
        ("mul", "multiply", "div", "truediv"), "has no counterpart: put the factor into weight_var by init"
    ),
    **dict.fromkeys(
        ("pad", "zeropad2d", "circularpad2d", "reflectionpad2d", "replicationpad2d"),
        "has no counterpart: use padding of Conv2d",
    ),
}
_NAMED = [kind.in_torch.module or kind.in_torch.names[0] for kind in ACTIVATIONS if kind.in_torch.names]
COUNTERPARTS = f"has no counterpart: use Conv2d, {', '.join(_NAMED)}, AvgPool2d, Upsample, torch.cat or +"


def advice(name: str) -> str:
    """Say what to use in place of an operation that has no counterpart."""
    return ADVICE.get(name.lower().replace("_", ""), COUNTERPARTS)
