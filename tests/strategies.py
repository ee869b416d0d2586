"""All tests share these strategies of Hypothesis, random networks and image shapes, and the settings of its runs."""

from __future__ import annotations

import dataclasses

from hypothesis import settings
from hypothesis import strategies as st

from ntkfast.activations import ACTIVATIONS, Abs, Activation, LeakyReLU, Rectifier, ReLU
from ntkfast.network import AvgPool, Conv, Identity, Layer, Network, Skip, Upsample

SMOOTH = tuple(kind() for kind in ACTIVATIONS if not issubclass(kind, Rectifier))


def deterministic(max_examples: int) -> settings:
    """Draw the same examples in every run, without a deadline: a busy machine is no error."""
    return settings(deadline=None, derandomize=True, max_examples=max_examples)


def rectifiers() -> st.SearchStrategy[Rectifier]:
    """Draw ReLU, Abs, or a leaky ReLU of any character: nearly a ReLU, linear (1), the absolute value (-1), steep."""
    slopes = (0.01, 0.1, 0.5, -0.3, -1.0, 1.0, 1.5)
    return st.sampled_from((ReLU(), Abs())) | st.sampled_from(slopes).map(LeakyReLU)


def activations() -> st.SearchStrategy[Activation]:
    """Draw any activation."""
    return st.sampled_from(SMOOTH) | rectifiers()


def convs(max_kernel: int = 7, trainable: bool | None = None, stride: int = 1) -> st.SearchStrategy[Conv]:
    """Draw convolutions with kernels up to ``max_kernel``, weight variance 0.5 to 4, bias variance 0 or 0.01 to 1."""
    return st.builds(
        Conv,
        st.integers(0, (max_kernel - 1) // 2).map(lambda radius: 2 * radius + 1),
        stride=st.just(stride),
        weight_var=st.floats(0.5, 4.0),
        bias_var=st.just(0.0) | st.floats(0.01, 1.0),
        trainable=st.booleans() if trainable is None else st.just(trainable),
    )


def paddings() -> st.SearchStrategy[str]:
    """Draw either padding."""
    return st.sampled_from(("zeros", "circular"))


@st.composite
def chains(draw: st.DrawFn, max_depth: int = 4, max_kernel: int = 7) -> Network:
    """Draw chains at one resolution: up to ``max_depth`` hidden convolutions, with or without a rectifier, and a last.

    At least one convolution is trainable, so that the tangent kernel is not zero.
    """
    hidden = draw(st.integers(0, max_depth))
    trained = draw(st.integers(0, hidden))
    layers: list[Layer] = []
    for n in range(hidden + 1):
        layers.append(draw(convs(max_kernel, trainable=True if n == trained else None)))
        if n < hidden:
            layers += draw(st.lists(rectifiers(), max_size=1))
    return Network(layers, padding=draw(paddings()))


@dataclasses.dataclass(frozen=True)
class _Features:
    """This says what the layers so far lead to: the level, may an activation follow, is it the bare image."""

    level: int = 0
    gaussian: bool = False
    image: bool = True


class _Drawer:
    """This draws paths layer by layer, each layer one that is allowed where it stands."""

    def __init__(self, draw: st.DrawFn, max_levels: int, max_kernel: int) -> None:
        self.draw, self.max_levels, self.max_kernel = draw, max_levels, max_kernel

    def path(self, at: _Features, nesting: int, max_length: int) -> tuple[list[Layer], _Features]:
        layers: list[Layer] = []
        for _ in range(self.draw(st.integers(1, max_length))):
            kinds = ["conv", "conv"]
            kinds += 2 * ["activation"] if at.gaussian else []
            kinds += ["down"] if at.level < self.max_levels else []
            kinds += ["up"] if at.level > 0 else []
            kinds += ["concat", "add"] if nesting else ["identity"]
            more, at = self.layer(self.draw(st.sampled_from(kinds)), at, nesting)
            layers += more
        return layers, at

    def layer(self, kind: str, at: _Features, nesting: int) -> tuple[list[Layer], _Features]:
        if kind == "conv":
            return [self.draw(convs(self.max_kernel))], _Features(at.level, True, False)
        if kind == "activation":
            return [self.draw(activations())], _Features(at.level, False, False)
        if kind == "down":
            return self.to_level(at.level + 1, at)
        if kind == "up":
            return self.to_level(at.level - 1, at)
        if kind == "identity":
            return [Identity()], at
        return self.skip(kind, at, nesting)

    def to_level(self, level: int, at: _Features) -> tuple[list[Layer], _Features]:
        layers: list[Layer] = []
        while at.level != level:
            if at.level > level:
                layers.append(Upsample(mode=self.draw(st.sampled_from(("bilinear", "nearest")))))
                at = dataclasses.replace(at, level=at.level - 1)
            elif self.draw(st.booleans()):
                layers.append(AvgPool())
                at = dataclasses.replace(at, level=at.level + 1)
            else:
                layers.append(self.draw(convs(self.max_kernel, stride=2)))
                at = _Features(at.level + 1, True, False)
        return layers, at

    def skip(self, merge: str, at: _Features, nesting: int) -> tuple[list[Layer], _Features]:
        branch, end = self.path(at, nesting - 1, 3)
        shortcut: list[Layer] = []
        other = at
        if merge == "add":
            # A convolution at the end of one path makes it independent of the other, and centred; odd maps keep that.
            branch.append(self.draw(convs(self.max_kernel)))
            end = _Features(end.level, True, False)
            if self.draw(st.booleans()):
                branch.append(self.draw(st.sampled_from([layer for layer in SMOOTH if layer.is_odd()])))
                end = _Features(end.level, False, False)
            if at.image:
                shortcut.append(self.draw(convs(self.max_kernel)))
                other = _Features(at.level, True, False)
        if self.draw(st.booleans()):
            more, other = self.path(other, nesting - 1, 2)
            shortcut += more
        more, end = self.to_level(other.level, end)
        branch += more
        if merge == "add":
            if self.draw(st.booleans()) and shortcut:
                branch, shortcut = shortcut, branch
            gaussian = end.gaussian and other.gaussian
            return [Skip(branch, merge="add", shortcut=shortcut)], _Features(other.level, gaussian, False)
        share = self.draw(st.sampled_from((0.5, 0.25, 0.9)))
        image = end.image or other.image
        return [Skip(branch, share=share, shortcut=shortcut)], _Features(other.level, False, image)


@st.composite
def networks(draw: st.DrawFn, max_levels: int = 2, max_kernel: int = 5, max_nesting: int = 2) -> Network:
    """Draw networks with every kind of layer, skips nested ``max_nesting`` deep and up to ``max_levels`` halvings.

    The last convolution is trainable, so that the tangent kernel is not zero.
    """
    drawer = _Drawer(draw, max_levels, max_kernel)
    layers, at = drawer.path(_Features(), max_nesting, 6)
    up, _ = drawer.to_level(0, at)
    return Network([*layers, *up, draw(convs(max_kernel, trainable=True))], padding=draw(paddings()))


def image_shapes(max_side: int = 9, max_channels: int = 4, multiple: int = 1) -> st.SearchStrategy[tuple[int, ...]]:
    """Draw shapes (H, W) of grey and (H, W, C) of colour images, down to a single pixel.

    Sides are multiples of ``multiple`` up to ``max_side``, or of one multiple where that is more.
    """
    side = st.integers(1, max(1, max_side // multiple)).map(lambda n: n * multiple)
    return st.tuples(side, side) | st.tuples(side, side, st.integers(1, max_channels))
