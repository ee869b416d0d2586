"""Networks from PyTorch modules: reads the architecture of an ``nn.Module`` and never its weights.  Needs ``torch``.

The module is traced symbolically (``torch.fx``).  Walking back from the output, each operation becomes a step: some
layers on one input, or a merge of several.  Steps form a directed acyclic graph, and :class:`~ntkfast.network.Skip`
describes those that are series-parallel: the two paths of a merge begin where they last had everything in common, at
the merge's immediate dominator.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

try:
    import torch
except ImportError as error:  # pragma: no cover - depends on the installation
    raise ImportError("ntkfast.from_torch needs PyTorch: install it with `pip install torch`") from error

import torch.fx

from ..activations import ACTIVATIONS, Activation, TorchFunction
from ..network import AvgPool, Conv, Identity, Layer, Network, Skip, Upsample
from .modules import CircularUpsample, NTKAdd, NTKConcat, NTKConv2d, Pointwise

__all__ = ["from_torch"]

Init = str | Callable[[torch.nn.Conv2d, str], tuple[float, float]]
INITS = ("he", "lecun", "torch")


def from_torch(module: torch.nn.Module, *, init: Init) -> Network:
    """Network of infinite width with the architecture of a PyTorch module.

    Parameters
    ----------
    module : torch.nn.Module
        Maps (N, C, H, W) to (N, 1, H, W) or (N, C, H, W).  It may hold and call, as modules, functions or methods:

        - ``Conv2d`` with an odd square kernel k, stride 1 or 2, ``padding=k//2`` or ``"same"``, ``padding_mode``
          "zeros" or "circular" (the same in all), groups and dilation 1.  Where ``weight.requires_grad`` is False it
          becomes ``Conv(trainable=False)``;
        - ``ReLU``, ``LeakyReLU``, ``GELU`` (exact), ``torch.abs``, ``erf``, ``sin``, ``cos``;
        - ``AvgPool2d`` over cells of 2, 4, 8, ... pixels;
        - ``Upsample`` and ``interpolate`` with ``scale_factor`` 2, "bilinear" with ``align_corners=False`` (only
          without circular padding: PyTorch clamps where :class:`Upsample` then wraps), or 2, 4, 8, ..., "nearest";
        - ``torch.cat`` along the channels and ``+``;
        - ``Identity``, and ``Dropout`` in evaluation mode;
        - what :func:`ntkfast.finite.to_torch` makes.
    init : {"he", "lecun", "torch"} or callable
        Variances of the weights (w) and of the biases (b), which PyTorch modules do not tell.  A weight has the
        variance ``w/(c k^2)`` for c input channels.

        - "he": w = 2, b = 0 (He et al. 2015).
        - "lecun": w = 1, b = 0 (LeCun et al. 1998).
        - "torch": what ``Conv2d`` draws by itself: uniform weights and biases within ``1/sqrt(c k^2)``, that is
          w = 1/3, and b = 1/(3 c k^2) with the c of the module, where it has a bias.
        - ``init(conv, name)`` returns (w, b) for a ``Conv2d`` and its qualified name.

    Returns
    -------
    Network
        The shares of a concat are those of the channels.  b = 0 means that the kernel is the one without biases, even
        if the module has some that start from zero and are trained.  An activation behind a concat is moved into
        its paths, together with pools and upsampling in between, which is the same function.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind; if the module holds something that has no counterpart here, with its
        place and what to use instead; if it branches in a way that is not series-parallel.

    Notes
    -----
    The kernel is that of the NTK parametrisation, in which one learning rate suits every width (``ntkfast.finite`` has
    such networks).  Training the module as it is, with one learning rate for weights of variance ``w/(c k^2)``, weighs
    the layers by their fan-in and so follows another kernel.

    Numbers of channels matter only as shares of a concat: all are taken to be infinite.  Of the distribution of the
    weights only the variance matters then.
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {module!r}")
    if not callable(init):
        if not isinstance(init, str):
            raise TypeError(f"init must be one of {INITS} or a callable, got {init!r}")
        if init not in INITS:
            raise ValueError(f"init must be one of {INITS} or a callable, got {init!r}")
    steps = _Translation(module, init).steps()
    _check_weights(steps)
    padding = _padding(steps)
    layers = _Nesting(steps).path(len(steps) - 1, 0)
    try:
        return Network(layers, padding)
    except ValueError as error:
        raise ValueError(f"module has no kernel in closed form. As layers it is {layers!r}, where {error}") from error


@dataclass
class _Found:
    """What one operation of the traced module does.

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


class _RefusedError(Exception):
    """What is wrong with one operation, and what to use instead."""


# --- Operations, with the arguments that torch's functions have ---------------------------------------------------


def _activation(kind: type[Activation]) -> Callable[..., _Found]:
    """The reader of the functions of an activation: they take the features, its own arguments, and ``inplace``."""
    spec = kind.in_torch
    arguments = (("input", inspect.Parameter.empty), *spec.arguments, *spec.fixed, ("inplace", False))
    signature = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value) for name, value in arguments]
    )

    def read(*args: Any, **kwargs: Any) -> _Found:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        for name, value in spec.fixed:
            if given[name] != value:
                raise _RefusedError(f"{name}={given[name]!r} has no closed form: use {name}={value!r}")
        return _Found([given["input"]], [kind(*(given[name] for name, _ in spec.arguments))])

    return read


def _short_names(spec: TorchFunction) -> list[str]:
    return [name.rpartition(".")[2] for name in spec.names]


def _dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> _Found:
    if training and p > 0:
        raise _RefusedError("is random while training: call module.eval() first, or remove it")
    return _Found([input])


def _same(value: Any) -> Any:
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
) -> _Found:
    size, step = _same(kernel_size), _same(kernel_size if stride is None or stride == [] else stride)
    levels = _halvings(size)
    if not levels or step != size or _same(padding) != 0 or ceil_mode or divisor_override is not None:
        raise _RefusedError(
            "must average over cells of 2, 4, 8, ... pixels, with stride = kernel_size, got "
            f"kernel_size={kernel_size}, stride={stride}, padding={padding}, ceil_mode={ceil_mode}, "
            f"divisor_override={divisor_override}"
        )
    return _Found([input], levels * [AvgPool()])


def _interpolate(
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> _Found:
    if size is not None:
        raise _RefusedError("must have a scale_factor and no size: use scale_factor=2")
    levels = _halvings(_same(scale_factor))
    if mode in ("nearest", "nearest-exact") and levels:
        return _Found([input], levels * [Upsample(mode="nearest")])
    if mode == "bilinear" and levels == 1:
        if align_corners:
            raise _RefusedError("must have align_corners=False, got True")
        return _Found([input], [Upsample(mode="bilinear")], padding="clamp")
    raise _RefusedError(
        "must have mode='bilinear' and scale_factor=2, or mode='nearest' and scale_factor=2, 4, 8, ..., got "
        f"mode={mode!r} and scale_factor={scale_factor}"
    )


def _cat(tensors: Any, dim: int = 0) -> _Found:
    if dim not in (1, -3):
        raise _RefusedError(f"must be along the channels, dim=1, got dim={dim}")
    return _Found(list(tensors), merge="concat")


def _add(input: Any, other: Any, *, alpha: float = 1) -> _Found:
    if not all(isinstance(part, torch.fx.Node) for part in (input, other)) or alpha != 1:
        raise _RefusedError("must be the sum of two features, without constants or factors")
    return _Found([input, other], merge="add")


# By the name that the function has in torch or torch.nn.functional, and the method of a tensor.  Those of IN_PLACE have
# a version in place, with an underscore behind the name.
IN_PLACE: dict[str, Callable[..., _Found]] = {
    **{name: _activation(kind) for kind in ACTIVATIONS for name in _short_names(kind.in_torch)},
    "add": _add,
}
FUNCTIONS_BY_NAME: dict[str, Callable[..., _Found]] = {
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

# What to use instead; by names without case and underscores, so that they fit modules, functions and methods.
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


# --- From traced nodes to steps -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """One operation, its inputs being indices of earlier steps; step 0 is the image."""

    place: str
    found: _Found
    inputs: tuple[int, ...]


class _Tracer(torch.fx.Tracer):
    """Leaves whole what :func:`ntkfast.finite.to_torch` makes, beside the modules of ``torch.nn``."""

    LEAVES = (NTKConv2d, NTKConcat, NTKAdd, CircularUpsample, Pointwise)

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self.LEAVES) or super().is_leaf_module(m, module_qualified_name)


class _Translation:
    """Turns a module into steps, and collects all that it must refuse."""

    def __init__(self, module: torch.nn.Module, init: Init) -> None:
        self.init = init
        tracer = _Tracer()
        # Tracing a leaf would look inside it.
        self.root = torch.nn.Sequential(module) if tracer.is_leaf_module(module, "") else module
        try:
            self.nodes = list(tracer.trace(self.root).nodes)
        except Exception as error:  # whatever the module's own code raises when it meets a proxy
            raise ValueError(
                "module must be traceable by torch.fx, its forward without branches on values or sizes of tensors, got "
                f"{type(error).__name__}: {error}"
            ) from error

    def steps(self) -> list[_Step]:
        """All operations that the output needs, in the order of the module's code."""
        (result,) = self.nodes[-1].args
        if not isinstance(result, torch.fx.Node):
            raise ValueError(f"module must return one tensor, got {result}")
        found: dict[torch.fx.Node, _Found] = {}
        problems: list[str] = []
        needed = {result}
        for node in reversed(self.nodes):
            if node not in needed:
                continue
            try:
                found[node] = self.translate(node)
            except _RefusedError as refused:
                problems.append(f"{self.place(node)} {refused}")
                # Go on where the features most likely come from, to name every problem at once.
                found[node] = _Found([part for part in node.args[:1] if isinstance(part, torch.fx.Node)])
            needed.update(found[node].inputs)
        if problems:
            raise ValueError("module has what ntkfast cannot describe: " + "; ".join(reversed(problems)))
        return self.number(found)

    def number(self, found: dict[torch.fx.Node, _Found]) -> list[_Step]:
        images = [node for node in self.nodes if node.op == "placeholder" and node in found]
        if len(images) != 1:
            names = ", ".join(node.name for node in images) or "none"
            raise ValueError(f"module must compute its output from one input, got {names}")
        steps = [_Step("the input", found[images[0]], ())]
        index = {images[0]: 0}
        concats: dict[frozenset[int], int] = {}
        for node in self.nodes:
            if node in found and node not in index:
                inputs = tuple(index[part] for part in found[node].inputs)
                parts = frozenset(inputs)
                if found[node].merge == "concat" and not found[node].shares and len(parts) == len(inputs):
                    inputs = _regrouped(inputs, concats)
                    concats.setdefault(parts, len(steps))
                if len(inputs) == 1 and not found[node].layers:  # an identity, or a merge of one
                    index[node] = inputs[0]
                else:
                    index[node] = len(steps)
                    steps.append(_Step(self.place(node), found[node], inputs))
        self.check_in_place(found, index)
        return steps

    def check_in_place(self, found: dict[torch.fx.Node, _Found], index: dict[torch.fx.Node, int]) -> None:
        """Refuse features that are changed in place and used afterwards: tracing does not see the change."""
        for at, node in enumerate(self.nodes):
            source = next(iter(node.all_input_nodes), None)
            if not self.changes_input(node) or source not in index or index.get(node) == index[source]:
                continue
            for other in self.nodes[at + 1 :]:
                if other in found and index[source] in (index[part] for part in found[other].inputs):
                    raise ValueError(
                        "module must not change features in place that it uses afterwards, got "
                        f"{self.place(node)} before {self.place(other)}: use inplace=False"
                    )

    def changes_input(self, node: torch.fx.Node) -> bool:
        if node.op == "call_module":
            return bool(getattr(self.root.get_submodule(str(node.target)), "inplace", False))
        name = str(getattr(node.target, "__name__", node.target))
        called = node.op in ("call_function", "call_method")
        return called and (bool(node.kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__")))

    def place(self, node: torch.fx.Node) -> str:
        """The operation and where it stands in the module, as a person would look for it."""
        if node.op == "call_module":
            return f"{str(node.target)!r} ({type(self.root.get_submodule(str(node.target))).__name__})"
        blocks = [name for name in node.meta.get("nn_module_stack", {}) if name]
        block = f" in {blocks[-1]!r}" if blocks else ""
        return f"{node.name!r} ({node.op.replace('_', ' ')} {getattr(node.target, '__name__', node.target)}){block}"

    def translate(self, node: torch.fx.Node) -> _Found:
        if node.op == "placeholder":
            return _Found([])
        args, kwargs = node.args, dict(node.kwargs)
        if node.op == "call_module":
            module = self.root.get_submodule(str(node.target))
            inputs = [part for part in (*args, *kwargs.values()) if isinstance(part, torch.fx.Node)]
            if type(module) is torch.nn.Conv2d or type(module) is NTKConv2d:
                return self.conv(module, str(node.target), inputs)
            if isinstance(module, NTKConcat):
                return _Found(inputs, merge="concat", shares=module.shares)
            if isinstance(module, NTKAdd):
                return _Found(inputs, merge="add", repeats=True)
            if isinstance(module, CircularUpsample):
                return _Found(inputs, [Upsample(mode="bilinear")], padding="circular")
            if isinstance(module, Pointwise):
                return _Found(inputs, [module.layer])
            if isinstance(module, torch.nn.Identity):
                return _Found(inputs[:1])
            name = type(module).__name__
            if type(module) not in MODULES:
                raise _RefusedError(self.advice(name))
            name, kwargs = MODULES[type(module)](module)
            args = tuple(inputs)
        elif node.op == "call_function":
            name = str(getattr(node.target, "__name__", node.target))
            if all(getattr(place, name, None) is not node.target for place in PLACES):
                raise _RefusedError(self.advice(name))
        else:
            name = str(node.target)
            if node.op != "call_method" or name not in METHODS:
                raise _RefusedError(self.advice(name))
        if name not in FUNCTIONS_BY_NAME:
            raise _RefusedError(self.advice(name))
        try:
            found = FUNCTIONS_BY_NAME[name](*args, **kwargs)
        except (TypeError, ValueError) as error:
            raise _RefusedError(f"must have constants for its arguments beside the features: {error}") from error
        if not all(isinstance(part, torch.fx.Node) for part in found.inputs):
            raise _RefusedError(f"must take features only, got {found.inputs}")
        return found

    @staticmethod
    def advice(name: str) -> str:
        return ADVICE.get(name.lower().replace("_", ""), COUNTERPARTS)

    def conv(self, module: torch.nn.Conv2d | NTKConv2d, name: str, inputs: list[Any]) -> _Found:
        if isinstance(module, NTKConv2d):
            mode = module.padding if module.layer.kernel_size > 1 else ""
            return _Found(inputs, [module.layer], conv=module, padding=mode)
        k, stride = _same(module.kernel_size), _same(module.stride)
        if not isinstance(k, int) or k % 2 == 0:
            raise _RefusedError(f"must have an odd square kernel, got kernel_size={module.kernel_size}")
        if stride not in (1, 2):
            raise _RefusedError(f"must have stride 1 or 2, got stride={module.stride}")
        if module.groups != 1 or _same(module.dilation) != 1:
            raise _RefusedError(
                f"must have groups=1 and dilation=1, got groups={module.groups}, dilation={module.dilation}: use a "
                "larger kernel, whose size costs little, or several layers"
            )
        if "weight" not in dict(module.named_parameters(recurse=False)):
            raise _RefusedError("must have its weight as a parameter, without weight_norm, spectral_norm and the like")
        if module.padding not in ("same", "valid" if k == 1 else "same") and _same(module.padding) != k // 2:
            raise _RefusedError(f"must keep the size of its input, padding={k // 2}, got padding={module.padding}")
        if k > 1 and module.padding_mode not in ("zeros", "circular"):
            raise _RefusedError(f"must have padding_mode 'zeros' or 'circular', got {module.padding_mode!r}")
        w, b = self.variances(module, name)
        trainable = module.weight.requires_grad
        if module.bias is not None and b > 0 and module.bias.requires_grad != trainable:
            raise _RefusedError(
                "must train both weight and bias or none, got requires_grad="
                f"{trainable} of the weight and {module.bias.requires_grad} of the bias"
            )
        try:
            layer = Conv(k, stride=stride, weight_var=w, bias_var=b, trainable=trainable)
        except (TypeError, ValueError) as error:
            raise _RefusedError(f"must have variances of weights and biases from init: {error}") from error
        return _Found(inputs, [layer], conv=module, padding=module.padding_mode if k > 1 else "")

    def variances(self, conv: torch.nn.Conv2d, name: str) -> tuple[float, float]:
        """Weight and bias variance; the number of input channels and k^2 make the fan-in."""
        if callable(self.init):
            values = self.init(conv, name)
            if not isinstance(values, (tuple, list)) or len(values) != 2:
                raise TypeError(f"init must return (weight_var, bias_var), got {values!r} for {name!r}")
            return values[0], values[1]
        if self.init == "torch":
            # U(-r, r) has the variance r^2/3, and r^2 = 1/fan_in for both (kaiming_uniform_ with a = sqrt(5)).
            fan_in = conv.in_channels * conv.kernel_size[0] * conv.kernel_size[1]
            return 1 / 3, 0.0 if conv.bias is None else 1 / (3 * fan_in)
        return {"he": 2.0, "lecun": 1.0}[self.init], 0.0


def _regrouped(inputs: tuple[int, ...], concats: dict[frozenset[int], int]) -> tuple[int, ...]:
    """Inputs of a concat, with those that an earlier one has put together replaced by that one.

    Dense blocks concatenate all features so far again and again: cat(x, f), then cat(x, f, g) with g made of cat(x, f).
    Only as cat(cat(x, f), g) is it series-parallel.
    """
    for known, step in reversed(concats.items()):
        if len(known) > 1 and known <= set(inputs):
            return (step, *(m for m in inputs if m not in known))
    return inputs


# --- Checks of all steps together ---------------------------------------------------------------------------------


def _check_weights(steps: Sequence[_Step]) -> None:
    """Refuse weights that are used twice: the kernel of shared weights is another one."""
    places: dict[int, str] = {}
    for step in steps:
        if step.found.conv is not None:
            weight = id(step.found.conv.weight)
            if weight in places:
                raise ValueError(
                    f"module must use the weights of every Conv2d once, got {step.place} after {places[weight]}: "
                    "use a Conv2d of its own at each place"
                )
            places[weight] = step.place


def _padding(steps: Sequence[_Step]) -> str:
    """What the network's convolutions see outside the image; "zeros" where none looks there."""
    places = {step.found.padding: step.place for step in reversed(steps)}
    if "zeros" in places and "circular" in places:
        raise ValueError(
            f"module must have one padding_mode, got 'zeros' at {places['zeros']} and 'circular' at "
            f"{places['circular']}"
        )
    if "clamp" in places and "circular" in places:
        raise ValueError(
            f"module must not mix circular padding ({places['circular']}) with bilinear upsampling ({places['clamp']}),"
            " which clamps at the border in PyTorch and wraps around in ntkfast: use mode='nearest'"
        )
    return "circular" if "circular" in places else "zeros"


def _channels(steps: Sequence[_Step]) -> list[int]:
    """Number of channels at the output of every step; that of the image is what the first convolution on it takes."""
    image = {0}  # steps with the channels of the image
    channels: list[int] = []
    for n, step in enumerate(steps):
        if step.inputs and step.inputs[0] in image and not step.found.merge:
            if step.found.conv is not None:
                channels = [step.found.conv.in_channels]
                break
            image.add(n)
    if not channels:
        raise ValueError("module must apply a Conv2d to its input, got none")
    for step in steps[1:]:
        taken = [channels[m] for m in step.inputs]
        conv = step.found.conv
        if conv is not None and conv.in_channels != taken[0]:
            raise ValueError(f"module must give {step.place} {conv.in_channels} channels, as it takes, got {taken[0]}")
        if step.found.merge == "add" and len(set(taken)) > 1 and not step.found.repeats:
            raise ValueError(f"module must add features of as many channels, got {taken} at {step.place}")
        if conv is not None:
            channels.append(int(conv.weight.shape[0]))
        else:
            channels.append(sum(taken) if step.found.merge == "concat" else math.lcm(*taken))
    if steps[-1].found.conv is not None and channels[-1] not in (1, channels[0]):
        raise ValueError(
            f"module must return 1 channel, or as many as it takes ({channels[0]}), got {channels[-1]} from "
            f"{steps[-1].place}"
        )
    return channels


# --- From steps to nested layers ----------------------------------------------------------------------------------


class _Nesting:
    """Describes a directed acyclic graph as nested :class:`Skip` layers."""

    def __init__(self, steps: Sequence[_Step]) -> None:
        self.steps = steps
        self.channels = _channels(steps)
        # The immediate dominator: the last step before this one that every way from the input to this one passes.
        self.dominator = [0]
        for step in steps[1:]:
            self.dominator.append(functools.reduce(self.common, step.inputs))
        self.used: set[int] = set()

    def common(self, a: int, b: int) -> int:
        """The last step that every way from the input to ``a`` and to ``b`` passes."""
        while a != b:
            a, b = sorted((a, b))
            b = self.dominator[b]  # the later one does not dominate the earlier one
        return a

    def path(self, end: int, start: int) -> list[Layer]:
        """Layers that lead from step ``start``, which dominates ``end``, to step ``end``."""
        parts: list[Sequence[Layer]] = []
        while end != start:
            step = self.steps[end]
            if step.found.conv is not None:
                if end in self.used:
                    raise ValueError(
                        f"module must be series-parallel, nested paths that begin and end together, got {step.place} "
                        "in two paths that end at different places: merge them where they part, or give each its own "
                        "Conv2d"
                    )
                self.used.add(end)
            parts.append(self.merge(end) if step.found.merge else step.found.layers)
            end = self.dominator[end]
        layers: list[Layer] = []
        for part in reversed(parts):
            for layer in part:
                layers = _appended(layers, layer)
        return layers

    def merge(self, n: int) -> list[Layer]:
        """Layers of a merge, from its dominator on: Skips of two paths each, the last to part being merged first."""
        step = self.steps[n]
        shares = step.found.shares or [float(self.channels[m]) for m in step.inputs]
        # What is merged: a step, layers behind it, and their share of the whole.
        ends: list[tuple[int, list[Layer], float]] = [
            (m, [], share) for m, share in zip(step.inputs, shares, strict=True)
        ]
        while len(ends) > 1:
            fork = max(self.common(a, b) for (a, *_), (b, *_) in itertools.combinations(ends, 2))
            group = [end for end in ends if self.common(end[0], fork) == fork]
            paths = [([*self.path(m, fork), *layers], share) for m, layers, share in group]
            first = ends.index(group[0])
            ends = [end for end in ends if end not in group]
            ends.insert(first, (fork, _skips(paths, step.found.merge), sum(share for _, share in paths)))
        return ends[0][1]


def _skips(paths: Sequence[tuple[list[Layer], float]], merge: str) -> list[Layer]:
    """Merge of paths from one step, each with its share; for more than two, a Skip in the shortcut of the next."""
    # A path that does nothing comes first, as the shortcut.
    (layers, total), *others = sorted(paths, key=lambda path: bool(path[0]))
    for branch, share in others:
        total += share
        if merge == "add":
            layers = [Skip(branch or [Identity()], merge=merge, shortcut=layers)]
        elif branch:  # else: a concat of features with themselves
            layers = [Skip(branch, shortcut=layers, share=share / total)]
    return layers


def _appended(layers: list[Layer], layer: Layer) -> list[Layer]:
    """``layers`` and then ``layer``; an activation goes into the paths of a concat before it.

    It acts on each channel alone, so that f(concat(a, b)) = concat(f(a), f(b)), but only a and b are Gaussian.  So do
    pools and upsampling, which move with it.
    """
    if isinstance(layer, Activation):
        at = len(layers)
        while at > 0 and isinstance(layers[at - 1], (AvgPool, Upsample)):
            at -= 1
        skip = layers[at - 1] if at > 0 else None
        if isinstance(skip, Skip) and skip.merge == "concat":
            branch, shortcut = list(skip.layers), list(skip.shortcut)
            for moved in (*layers[at:], layer):
                branch, shortcut = _appended(branch, moved), _appended(shortcut, moved)
            return [*layers[: at - 1], Skip(branch, share=skip.share, shortcut=shortcut)]
    return [*layers, layer]
