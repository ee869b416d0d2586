"""Networks from PyTorch modules: reads the architecture of an ``nn.Module`` and never its weights.  Needs ``torch``.

The module is traced symbolically (``torch.fx``).  Walking back from the output, each operation becomes a step: some
layers on one input, or a merge of several.  Steps form a directed acyclic graph, and :class:`~ntkfast.network.Skip`
describes those that are series-parallel: the two paths of a merge begin where they last had everything in common, at
the merge's immediate dominator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.fx

from ..network import Conv, Network, Upsample
from .modules import CircularUpsample, NTKAdd, NTKConcat, NTKConv2d, Pointwise
from .nesting import Nesting, Step, check_weights, padding_of
from .operations import FUNCTIONS_BY_NAME, METHODS, MODULES, PLACES, Found, RefusedError, advice, same

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

    References
    ----------
    He, Zhang, Ren, Sun, ICCV 2015, and LeCun, Bottou, Orr, Mueller, 1998, have the two variances; Yang, NeurIPS 2019,
    shows that the limit exists for such graphs.

    Examples
    --------
    >>> import torch
    >>> layers = torch.nn.Conv2d(1, 8, 5, padding=2, bias=False), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 1, bias=False)
    >>> nf.from_torch(torch.nn.Sequential(*layers), init="he")
    Network([Conv(5), ReLU(), Conv(1)], padding='zeros')
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {module!r}")
    if not callable(init):
        if not isinstance(init, str):
            raise TypeError(f"init must be one of {INITS} or a callable, got {init!r}")
        if init not in INITS:
            raise ValueError(f"init must be one of {INITS} or a callable, got {init!r}")
    steps = _Translation(module, init).steps()
    check_weights(steps)
    padding = padding_of(steps)
    layers = Nesting(steps).path(len(steps) - 1, 0)
    try:
        return Network(layers, padding)
    except ValueError as error:
        raise ValueError(f"module has no kernel in closed form. As layers it is {layers!r}, where {error}") from error


# --- From traced nodes to steps -----------------------------------------------------------------------------------


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

    def steps(self) -> list[Step]:
        """All operations that the output needs, in the order of the module's code."""
        (result,) = self.nodes[-1].args
        if not isinstance(result, torch.fx.Node):
            raise ValueError(f"module must return one tensor, got {result}")
        found: dict[torch.fx.Node, Found] = {}
        problems: list[str] = []
        needed = {result}
        for node in reversed(self.nodes):
            if node not in needed:
                continue
            try:
                found[node] = self.translate(node)
            except RefusedError as refused:
                problems.append(f"{self.place(node)} {refused}")
                # Go on where the features most likely come from, to name every problem at once.
                found[node] = Found([part for part in node.args[:1] if isinstance(part, torch.fx.Node)])
            needed.update(found[node].inputs)
        if problems:
            raise ValueError("module has what ntkfast cannot describe: " + "; ".join(reversed(problems)))
        return self.number(found)

    def number(self, found: dict[torch.fx.Node, Found]) -> list[Step]:
        images = [node for node in self.nodes if node.op == "placeholder" and node in found]
        if len(images) != 1:
            names = ", ".join(node.name for node in images) or "none"
            raise ValueError(f"module must compute its output from one input, got {names}")
        steps = [Step("the input", found[images[0]], ())]
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
                    steps.append(Step(self.place(node), found[node], inputs))
        self.check_in_place(found, index)
        return steps

    def check_in_place(self, found: dict[torch.fx.Node, Found], index: dict[torch.fx.Node, int]) -> None:
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

    def translate(self, node: torch.fx.Node) -> Found:
        if node.op == "placeholder":
            return Found([])
        args, kwargs = node.args, dict(node.kwargs)
        if node.op == "call_module":
            module = self.root.get_submodule(str(node.target))
            inputs = [part for part in (*args, *kwargs.values()) if isinstance(part, torch.fx.Node)]
            if type(module) is torch.nn.Conv2d or type(module) is NTKConv2d:
                return self.conv(module, str(node.target), inputs)
            if isinstance(module, NTKConcat):
                return Found(inputs, merge="concat", shares=module.shares)
            if isinstance(module, NTKAdd):
                return Found(inputs, merge="add", repeats=True)
            if isinstance(module, CircularUpsample):
                return Found(inputs, [Upsample(module.factor, mode="bilinear")], padding="circular")
            if isinstance(module, Pointwise):
                return Found(inputs, [module.layer])
            if isinstance(module, torch.nn.Identity):
                return Found(inputs[:1])
            name = type(module).__name__
            if type(module) not in MODULES:
                raise RefusedError(advice(name))
            name, kwargs = MODULES[type(module)](module)
            args = tuple(inputs)
        elif node.op == "call_function":
            name = str(getattr(node.target, "__name__", node.target))
            if all(getattr(place, name, None) is not node.target for place in PLACES):
                raise RefusedError(advice(name))
        else:
            name = str(node.target)
            if node.op != "call_method" or name not in METHODS:
                raise RefusedError(advice(name))
        if name not in FUNCTIONS_BY_NAME:
            raise RefusedError(advice(name))
        try:
            found = FUNCTIONS_BY_NAME[name](*args, **kwargs)
        except (TypeError, ValueError) as error:
            raise RefusedError(f"must have constants for its arguments beside the features: {error}") from error
        if not all(isinstance(part, torch.fx.Node) for part in found.inputs):
            raise RefusedError(f"must take features only, got {found.inputs}")
        return found

    def conv(self, module: torch.nn.Conv2d | NTKConv2d, name: str, inputs: list[Any]) -> Found:
        if isinstance(module, NTKConv2d):
            mode = module.padding if module.layer.kernel_size > 1 else ""
            return Found(inputs, [module.layer], conv=module, padding=mode)
        k, stride = same(module.kernel_size), same(module.stride)
        if not isinstance(k, int) or k % 2 == 0:
            raise RefusedError(f"must have an odd square kernel, got kernel_size={module.kernel_size}")
        if stride not in (1, 2):
            raise RefusedError(f"must have stride 1 or 2, got stride={module.stride}")
        if module.groups != 1 or same(module.dilation) != 1:
            raise RefusedError(
                f"must have groups=1 and dilation=1, got groups={module.groups}, dilation={module.dilation}: use a "
                "larger kernel, whose size costs little, or several layers"
            )
        if "weight" not in dict(module.named_parameters(recurse=False)):
            raise RefusedError("must have its weight as a parameter, without weight_norm, spectral_norm and the like")
        if module.padding not in ("same", "valid" if k == 1 else "same") and same(module.padding) != k // 2:
            raise RefusedError(f"must keep the size of its input, padding={k // 2}, got padding={module.padding}")
        if k > 1 and module.padding_mode not in ("zeros", "circular"):
            raise RefusedError(f"must have padding_mode 'zeros' or 'circular', got {module.padding_mode!r}")
        w, b = self.variances(module, name)
        trainable = module.weight.requires_grad
        if module.bias is not None and b > 0 and module.bias.requires_grad != trainable:
            raise RefusedError(
                "must train both weight and bias or none, got requires_grad="
                f"{trainable} of the weight and {module.bias.requires_grad} of the bias"
            )
        try:
            layer = Conv(k, stride=stride, weight_var=w, bias_var=b, trainable=trainable)
        except (TypeError, ValueError) as error:
            raise RefusedError(f"must have variances of weights and biases from init: {error}") from error
        return Found(inputs, [layer], conv=module, padding=module.padding_mode if k > 1 else "")

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
