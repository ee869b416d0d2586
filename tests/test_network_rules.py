"""These test which networks are refused, with the reason and the place."""

from __future__ import annotations

import pytest

from ntkfast.activations import Abs, Cos, Erf, LeakyReLU, ReLU, Sin
from ntkfast.network import (
    Add,
    AvgPool,
    Conv,
    Identity,
    Network,
    Node,
    Skip,
    Upsample,
    vanilla_cnn,
)
from refusals import refused
from strategies import SMOOTH


@pytest.mark.parametrize("layers", [[], (), iter(())])
def test_network_refuses_no_layers(layers):
    with refused(ValueError, "layers must hold at least one Conv", "got none"):
        Network(layers)


@pytest.mark.parametrize("layers", ["Conv(3)", b"Conv(3)", 3, None, Conv(3), Conv, vanilla_cnn()])
def test_network_refuses_what_is_no_sequence(layers):
    with refused(TypeError, "layers must be a sequence of layers", f"got {layers!r}"):
        Network(layers)


@pytest.mark.parametrize("bad", ["ReLU", "Conv(3)", None, 3, [Conv(3)], (ReLU(),), vanilla_cnn(), max])
def test_network_refuses_foreign_layers(bad):
    with refused(TypeError, "layers[1] must be a Conv", f"got {bad!r}") as caught:
        Network([Conv(3), bad, Conv(1)])
    assert "parentheses" not in str(caught.value)


@pytest.mark.parametrize("cls", [ReLU, Conv, LeakyReLU])
def test_network_refuses_classes_and_says_what_is_missing(cls):
    with refused(TypeError, "layers[1] must be a Conv", cls.__name__, "parentheses"):
        Network([Conv(3), cls, Conv(1)])


@pytest.mark.parametrize("activation", [ReLU(), LeakyReLU(0.1)])
def test_network_refuses_an_activation_at_either_end(activation):
    with refused(ValueError, "layers must start with a Conv", f"got {activation!r} at layers[0]"):
        Network([activation, Conv(3)])
    with refused(ValueError, "layers must end with a Conv", f"got {activation!r} at layers[1]"):
        Network([Conv(3), activation])
    with refused(ValueError, "layers must start with a Conv", f"got {activation!r} at layers[0]"):
        Network([activation])


@pytest.mark.parametrize("first", [ReLU(), LeakyReLU(0.1)])
@pytest.mark.parametrize("second", [ReLU(), LeakyReLU(-1)])
def test_network_refuses_an_activation_after_an_activation(first, second):
    with refused(ValueError, "layers[2]", f"{second!r}, must follow a Conv", f"got {first!r}"):
        Network([Conv(3), first, second, Conv(1)])


@pytest.mark.parametrize("activation", [ReLU(), Abs(), LeakyReLU(1), *SMOOTH])
@pytest.mark.parametrize(
    ("before", "what"),
    [
        ([], "the image"),
        ([AvgPool(), Upsample()], "Upsample()"),
        ([Conv(3), ReLU(), AvgPool(), Conv(3), Erf(), Upsample()], "Upsample()"),
        ([Conv(3), Skip([Conv(3)])], "a concat"),
        ([Conv(3), Skip([Conv(3)], shortcut=[ReLU()], merge="add")], "a sum"),
    ],
)
def test_activations_need_gaussian_pre_activations(before, what, activation):
    # Identity stands first, so that the place is never the special one at the start.
    with refused(
        ValueError, f"layers[{len(before) + 1}], {activation!r}, must follow a Conv", f"got {what} before it"
    ) as caught:
        Network([Identity(), *before, activation, Conv(1)])
    assert ("inside both paths" in str(caught.value)) == (what == "a concat")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([Conv(3), Identity()], []),
        ([Conv(3, stride=2), Upsample(), AvgPool()], [Upsample()]),
        ([Conv(3, stride=2), Skip([Conv(3)], merge="add")], [Upsample()]),
        ([AvgPool(), Conv(1), Skip([Upsample(), Conv(3), AvgPool()], merge="add"), Upsample(mode="nearest")], []),
    ],
)
def test_activations_may_follow_what_is_gaussian(before, after):
    assert Network([*before, ReLU(), *after, Conv(1)]).depth == 1


def test_messages_name_the_place_in_nested_layers():
    inner = Skip([Conv(3), ReLU(), ReLU()], shortcut=[Conv(1)])
    with refused(ValueError, "layers[2].layers[1].layers[2], ReLU(), must follow a Conv", "got ReLU() before it"):
        Network([Conv(3), ReLU(), Skip([Conv(3), inner]), Conv(1)])
    outer = Skip([Conv(3)], shortcut=[Conv(3), Skip([Conv(1)]), Erf()])
    with refused(ValueError, "layers[0].shortcut[2], Erf(), must follow a Conv", "got a concat"):
        Network([outer, Conv(1)])


def test_network_starts_with_anything_linear():
    for first in (AvgPool(), Conv(3, stride=2), Skip([Conv(3), AvgPool()], shortcut=[AvgPool()])):
        assert Network([first, Upsample(), Conv(1)]).levels == 1
    assert Network([Skip([Conv(3), ReLU()]), Conv(1)]).depth == 1


def test_network_ends_with_a_convolution_as_fine_as_the_image():
    assert Network([Conv(3), Identity()]).convs == (Conv(3),)
    for last in (AvgPool(), Skip([Conv(3)]), Skip([Conv(3)], merge="add"), Upsample(), Conv(3, stride=2)):
        first = Conv(3, stride=2 if isinstance(last, Upsample) else 1)
        with refused(ValueError, "layers must end with a Conv of stride 1", f"got {last!r} at layers[1]"):
            Network([first, last])
    with refused(ValueError, "layers must end with a Conv at the resolution of the image", "got level 2"):
        Network([Conv(3, stride=2), AvgPool(), Conv(1)])


def test_no_layer_is_finer_than_the_image():
    with refused(ValueError, "layers[3], Upsample(), must follow", "(level 0) before it"):
        Network([Conv(3), AvgPool(), Upsample(), Upsample(), Conv(1)])
    with refused(ValueError, "layers[1].layers[0], Upsample(), must follow"):
        Network([Conv(3), Skip([Upsample(), AvgPool()]), Conv(1)])


@pytest.mark.parametrize("merge", ["concat", "add"])
def test_paths_end_at_one_resolution(merge):
    with refused(ValueError, "layers[1]: shortcut and layers", "same resolution", "got level 0 and level 1"):
        Network([Conv(3), Skip([Conv(3, stride=2)], merge=merge), Conv(1)])
    with refused(ValueError, "layers[1].layers[0]: shortcut and layers", "got level 2 and level 1"):
        inner = Skip([AvgPool(), Conv(1)], shortcut=[AvgPool(), Conv(3, stride=2)], merge=merge)
        Network([Conv(3), Skip([inner, Upsample()], merge=merge), Conv(1)])
    net = Network([Conv(3), Skip([AvgPool(), Conv(1)], shortcut=[Conv(3, stride=2)], merge=merge), Upsample(), Conv(1)])
    assert net.levels == 1


CONV = Conv(3)


def residual(branch, shortcut=(), before=(CONV,)):
    """Return a network with one sum, whose place is layers[n] after the n layers ``before``."""
    return Network([*before, Skip(branch, merge="add", shortcut=shortcut), Conv(1)])


POOLED = [AvgPool(), Upsample()]


@pytest.mark.parametrize(
    ("branch", "shortcut", "before"),
    [
        ([Conv(3)], [], [Conv(3)]),
        ([Conv(3)], [], [Conv(3), ReLU()]),
        ([Conv(3), Erf(), Conv(3)], [ReLU()], [Conv(3)]),
        ([ReLU()], [Conv(3)], [Conv(3)]),
        # The ways alone are counted, not the depth: a skip around the convolution of a nested path.
        ([Skip([Conv(3)]), Conv(3)], [], [Conv(3)]),
        ([*POOLED, Conv(3)], POOLED, [Conv(3)]),
        ([Conv(3)], [], [Conv(3), Skip([Conv(3)])]),
    ],
)
def test_sums_of_independent_paths(branch, shortcut, before):
    assert any(isinstance(node.layer, Add) for node in residual(branch, shortcut, before).graph())


@pytest.mark.parametrize(
    ("branch", "shortcut"),
    [
        ([Identity()], []),
        (POOLED, []),
        ([Erf()], []),
        ([ReLU()], [LeakyReLU(0.1)]),
        ([Skip([Conv(3)])], []),
        ([Skip([Conv(3)], merge="add")], []),
        ([Skip([Conv(3)], shortcut=[Sin()])], [Skip([Conv(3)])]),
    ],
)
def test_sums_of_dependent_paths_are_refused(branch, shortcut):
    with refused(ValueError, "layers[1]: one path", "must lead through a Conv on every way", "independent"):
        residual(branch, shortcut)


@pytest.mark.parametrize(
    "odd", [[], *([layer] for layer in (LeakyReLU(1), *SMOOTH) if layer.is_odd()), [Erf(), *POOLED]]
)
def test_sums_of_a_centred_path(odd):
    for branch, shortcut in (([Conv(3), *odd], [Cos()]), ([ReLU()], [Conv(3), *odd])):
        assert residual(branch, shortcut).depth >= 1
    # A concat and a sum are centred where both of their parts are.
    for merge in ("concat", "add"):
        assert residual([Conv(3), Skip([Conv(3), *odd], merge=merge, shortcut=[Conv(1)])], [ReLU()]).depth >= 1


@pytest.mark.parametrize("even", [ReLU(), LeakyReLU(0.9), Abs(), *(layer for layer in SMOOTH if not layer.is_odd())])
@pytest.mark.parametrize("after", [[], POOLED])
def test_sums_of_two_paths_with_means_are_refused(even, after):
    named = repr(after[-1] if after else even)
    with refused(ValueError, "layers[1]: one path", "must have mean zero", f"got a concat and {named}"):
        residual([Conv(3), even, *after], [Skip([Conv(3)], shortcut=[Abs()])])
    with refused(ValueError, "layers[2]: one path", "must have mean zero", f"got ReLU() and {named}"):
        residual([Conv(3), even, *after], [], before=[Conv(3), ReLU()])
    with refused(ValueError, "layers[1]: one path", "must have mean zero", "got ReLU() and a sum"):
        residual([Conv(3), Skip([Conv(3), even], merge="add")], [ReLU()])


@pytest.mark.parametrize("path", [[Identity()], POOLED, [Skip([Conv(3)])], [AvgPool(), Skip([Conv(3)]), Upsample()]])
def test_the_image_is_no_summand(path):
    with refused(ValueError, "layers[0]: shortcut", "must lead through a Conv", "from the image"):
        residual([Conv(3)], path, before=[])
    with refused(ValueError, "layers[0]: layers", "must lead through a Conv", "from the image"):
        residual(path, [Conv(3)], before=[])
    assert residual([Conv(3)], [Conv(1)], before=[]).graph()[-2] == Node(Add(), (1, 2), 0, 1)


@pytest.mark.parametrize("value", ["same", "SAME", "Zeros", "", "zeros ", "reflect"])
def test_network_refuses_unknown_paddings(value):
    with refused(ValueError, "padding must be one of ('zeros', 'circular')", f"got {value!r}"):
        Network([Conv(3)], padding=value)


@pytest.mark.parametrize("value", [None, 0, 1.0, True, b"zeros", ("zeros",), ["zeros"]])
def test_network_refuses_paddings_that_are_no_strings(value):
    with refused(TypeError, "padding must be one of ('zeros', 'circular')", f"got {value!r}"):
        Network([Conv(3)], padding=value)
