"""Hypothesis strategies shared by all tests: random networks and image shapes."""

from __future__ import annotations

from hypothesis import strategies as st

from ntkfast.network import Conv, LeakyReLU, Network, ReLU


def activations() -> st.SearchStrategy[ReLU | LeakyReLU]:
    """ReLU, or a leaky ReLU of any character: nearly a ReLU, linear (1), the absolute value (-1), steeper than one."""
    return st.just(ReLU()) | st.sampled_from((0.01, 0.1, 0.5, -0.3, -1.0, 1.0, 1.5)).map(LeakyReLU)


def convs(max_kernel: int = 7, trainable: bool | None = None) -> st.SearchStrategy[Conv]:
    """Convolutions with kernels up to ``max_kernel``, weight variance 0.5 to 4, bias variance 0 or 0.01 to 1."""
    return st.builds(
        Conv,
        st.integers(0, (max_kernel - 1) // 2).map(lambda radius: 2 * radius + 1),
        weight_var=st.floats(0.5, 4.0),
        bias_var=st.just(0.0) | st.floats(0.01, 1.0),
        trainable=st.booleans() if trainable is None else st.just(trainable),
    )


@st.composite
def networks(draw: st.DrawFn, max_depth: int = 4, max_kernel: int = 7) -> Network:
    """Networks of up to ``max_depth`` hidden convolutions, each with or without an activation, and a last one.

    At least one convolution is trainable, so that the tangent kernel is not zero.
    """
    hidden = draw(st.integers(0, max_depth))
    trained = draw(st.integers(0, hidden))
    layers: list[Conv | ReLU | LeakyReLU] = []
    for n in range(hidden + 1):
        layers.append(draw(convs(max_kernel, trainable=True if n == trained else None)))
        if n < hidden:
            layers += draw(st.lists(activations(), max_size=1))
    return Network(layers, padding=draw(st.sampled_from(("zeros", "circular"))))


def image_shapes(max_side: int = 9, max_channels: int = 4) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes (H, W) of grey and (H, W, C) of colour images, down to a single pixel."""
    side = st.integers(1, max_side)
    return st.tuples(side, side) | st.tuples(side, side, st.integers(1, max_channels))
