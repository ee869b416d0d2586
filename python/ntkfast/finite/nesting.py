"""From a directed acyclic graph of operations to nested layers, and the checks of all of them together."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..activations import Activation
from ..network import AvgPool, Identity, Layer, Skip, Upsample
from .operations import Found

__all__ = ["Nesting", "Step", "check_weights", "padding_of"]


@dataclass(frozen=True)
class Step:
    """One operation, its inputs being indices of earlier steps; step 0 is the image."""

    place: str
    found: Found
    inputs: tuple[int, ...]


def check_weights(steps: Sequence[Step]) -> None:
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


def padding_of(steps: Sequence[Step]) -> str:
    """Return what the network's convolutions see outside the image; "zeros" where none looks there."""
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


def channels_of(steps: Sequence[Step]) -> list[int]:
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


class Nesting:
    """Describes a directed acyclic graph as nested :class:`Skip` layers."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self.channels = channels_of(steps)
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
        # A part of a merge is a step, layers behind it, and their share of the whole.
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
