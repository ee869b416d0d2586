"""Networks are data: these test what is accepted, what is refused and how, and what a network says of itself."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings

from ntkfast.activations import ACTIVATIONS, Abs, Cos, Erf, LeakyReLU, ReLU, Sin
from ntkfast.inputs import NoiseInput
from ntkfast.network import (
    Add,
    AvgPool,
    Concat,
    Conv,
    Identity,
    Input,
    Network,
    Node,
    Skip,
    Stage,
    Upsample,
    autoencoder,
    unet,
    vanilla_cnn,
)
from ntkfast.reference import kernel_matrix
from strategies import SMOOTH, chains, networks

NAN, INF = float("nan"), float("inf")
deterministic = settings(deadline=None, derandomize=True, max_examples=50)


def refused(error: type[Exception], *parts: str):
    """Expect ``error`` with a message that holds all ``parts``, in this order."""
    return pytest.raises(error, match="(?s)" + ".*".join(map(re.escape, parts)))


# --- Conv ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 2, 4, -1, -2, -3])
def test_conv_refuses_kernel_sizes_that_are_not_odd_and_positive(value):
    with refused(ValueError, "kernel_size must be an odd integer >= 1", f"got {value}"):
        Conv(value)


@pytest.mark.parametrize("value", [3.0, True, "3", None, (3, 3), 3 + 0j, np.float64(3), np.array([3]), NAN, INF])
def test_conv_refuses_kernel_sizes_that_are_no_integers(value):
    with refused(TypeError, "kernel_size must be an integer", f"got {value!r}"):
        Conv(value)


@pytest.mark.parametrize("value", [0, 0.0, -0.0, -1, -1e-300])
def test_conv_refuses_weight_variances_that_are_not_positive(value):
    with refused(ValueError, "weight_var must be positive", f"got {float(value)!r}"):
        Conv(3, weight_var=value)


@pytest.mark.parametrize("value", [-1, -1e-300])
def test_conv_refuses_negative_bias_variances(value):
    with refused(ValueError, "bias_var must be >= 0", f"got {float(value)!r}"):
        Conv(3, bias_var=value)


@pytest.mark.parametrize("name", ["weight_var", "bias_var"])
@pytest.mark.parametrize("value", [NAN, INF, -INF, np.float32("nan")])
def test_conv_refuses_variances_that_are_not_finite(name, value):
    with refused(ValueError, f"{name} must be finite", f"got {float(value)!r}"):
        Conv(3, **{name: value})


@pytest.mark.parametrize("name", ["weight_var", "bias_var"])
@pytest.mark.parametrize("value", ["2", True, False, None, 2 + 0j, [2.0], np.array([2.0]), b"2"])
def test_conv_refuses_variances_that_are_no_real_numbers(name, value):
    with refused(TypeError, f"{name} must be a real number", f"got {value!r}"):
        Conv(3, **{name: value})


@pytest.mark.parametrize("value", [1, 0, None, "yes", np.True_, 1.0])
def test_conv_refuses_trainable_that_is_no_bool(value):
    with refused(TypeError, "trainable must be True or False", f"got {value!r}"):
        Conv(3, trainable=value)


@pytest.mark.parametrize("value", [0, 3, 4, -1])
def test_conv_refuses_strides_other_than_one_and_two(value):
    with refused(ValueError, "stride must be 1 or 2", f"got {value}"):
        Conv(3, stride=value)


@pytest.mark.parametrize("value", [2.0, True, "2", None, (2, 2)])
def test_conv_refuses_strides_that_are_no_integers(value):
    with refused(TypeError, "stride must be an integer", f"got {value!r}"):
        Conv(3, stride=value)


def test_conv_takes_only_the_kernel_size_by_position():
    with pytest.raises(TypeError, match="positional"):
        Conv(3, 1.0)


def test_conv_defaults():
    conv = Conv(3)
    assert dataclasses.astuple(conv) == (3, 1, 2.0, 0.0, True)


def test_conv_stores_plain_numbers():
    conv = Conv(np.int32(5), weight_var=np.float32(0.5), bias_var=Fraction(1, 4))
    assert [type(v) for v in dataclasses.astuple(conv)] == [int, int, float, float, bool]
    assert conv == Conv(5, weight_var=0.5, bias_var=0.25)


@pytest.mark.parametrize(("kernel_size", "radius"), [(1, 0), (3, 1), (5, 2), (101, 50)])
def test_conv_radius(kernel_size, radius):
    assert Conv(kernel_size).radius == radius


# --- LeakyReLU, ReLU ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_leaky_relu_refuses_slopes_that_are_not_finite(value):
    with refused(ValueError, "slope must be finite", f"got {value!r}"):
        LeakyReLU(value)


@pytest.mark.parametrize("value", ["0.1", 1j, 0.1 + 0j, True, None, [0.1], np.array(0.1)])
def test_leaky_relu_refuses_slopes_that_are_no_real_numbers(value):
    with refused(TypeError, "slope must be a real number", f"got {value!r}"):
        LeakyReLU(value)


def test_leaky_relu_needs_a_slope():
    with pytest.raises(TypeError, match="slope"):
        LeakyReLU()


@pytest.mark.parametrize("value", [-1, 0, 0.1, 1, 3, Fraction(1, 2), np.float32(0.25)])
def test_leaky_relu_takes_any_finite_slope(value):
    slope = LeakyReLU(value).slope
    assert type(slope) is float
    assert slope == value


def test_relu_has_slope_zero_and_no_arguments():
    assert ReLU().slope == 0.0
    with pytest.raises(TypeError):
        ReLU(0.1)


def test_abs_has_slope_minus_one_and_no_arguments():
    assert Abs().slope == -1.0
    assert Abs() != LeakyReLU(-1)
    with pytest.raises(TypeError):
        Abs(0.1)


# --- AvgPool, Upsample, Skip, NoiseInput --------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [AvgPool, Upsample])
def test_pools_and_upsampling_have_the_factor_two_alone(cls):
    assert cls() == cls(np.int32(2))
    for value in (1, 4, 0, -2):
        with refused(ValueError, "factor must be 2 (use two layers for 4)", f"got {value}"):
            cls(value)
    for value in (2.0, True, "2", None, (2, 2)):
        with refused(TypeError, "factor must be an integer", f"got {value!r}"):
            cls(value)


def test_upsample_has_two_modes():
    assert Upsample().mode == "bilinear"
    assert Upsample(mode="nearest").mode == "nearest"
    with refused(ValueError, "mode must be one of ('bilinear', 'nearest')", "got 'cubic'"):
        Upsample(mode="cubic")
    with refused(TypeError, "mode must be one of", "got 1"):
        Upsample(mode=1)


def test_skip_takes_any_iterables_and_keeps_tuples():
    skip = Skip(iter([Conv(3), ReLU()]), share=Fraction(1, 4), shortcut=[Conv(1)])
    assert (skip.layers, skip.shortcut) == ((Conv(3), ReLU()), (Conv(1),))
    assert (skip.merge, skip.share) == ("concat", 0.25)
    assert (Skip([Conv(3)]).share, Skip([Conv(3)]).shortcut) == (0.5, ())
    assert len({skip, dataclasses.replace(skip), dataclasses.replace(skip, share=0.5)}) == 2


def test_skip_refuses_what_is_no_path():
    with refused(ValueError, "layers of a Skip must hold at least one layer", "got none"):
        Skip([])
    with refused(TypeError, "layers must be a sequence of layers", "got Conv(3)"):
        Skip(Conv(3))
    with refused(TypeError, "shortcut must be a sequence of layers", "got None"):
        Skip([Conv(3)], shortcut=None)
    with refused(TypeError, "layers[1] must be a Conv", "got 'ReLU'"):
        Skip([Conv(3), "ReLU"])
    with refused(TypeError, "shortcut[0] must be a Conv", "ReLU", "parentheses"):
        Skip([Conv(3)], shortcut=[ReLU])


@pytest.mark.parametrize("value", ["sum", "", "Add"])
def test_skip_refuses_unknown_merges(value):
    with refused(ValueError, "merge must be one of ('concat', 'add')", f"got {value!r}"):
        Skip([Conv(3)], merge=value)


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5])
def test_skip_refuses_shares_of_nothing_and_of_all(value):
    with refused(ValueError, "share must lie strictly between 0 and 1", f"got {float(value)!r}"):
        Skip([Conv(3)], share=value)


def test_skip_refuses_a_share_of_a_sum():
    assert Skip([Conv(3)], merge="add", share=0.5) == Skip([Conv(3)], merge="add")
    with refused(ValueError, "share", "must be left out with merge='add'", "got 0.3"):
        Skip([Conv(3)], merge="add", share=0.3)
    with refused(TypeError, "share must be a real number", "got 'half'"):
        Skip([Conv(3)], share="half")


def test_noise_input_is_a_shape():
    assert NoiseInput((3, np.int64(4))) == NoiseInput([3, 4])
    assert len({NoiseInput((3, 4)), NoiseInput((3, 4)), NoiseInput((4, 3))}) == 2
    for shape in (3, None, (3,), (3, 4, 1), "34"):
        with refused(TypeError, "shape must be a pair (H, W) of integers", f"got {shape!r}"):
            NoiseInput(shape)
    with refused(TypeError, "shape[1] must be an integer", "got 4.0"):
        NoiseInput((3, 4.0))
    with refused(ValueError, "shape must hold integers >= 1", "got (0, 4)"):
        NoiseInput((0, 4))


# --- Network: what is refused -------------------------------------------------------------------------------------


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


# --- Network: what it says of itself ------------------------------------------------------------------------------


def test_network_takes_any_iterable_and_keeps_a_tuple():
    layers = [Conv(3), ReLU(), Conv(1)]
    net = Network(iter(layers))
    assert net.layers == tuple(layers)
    assert net == Network(tuple(layers)) == Network(layers)
    layers.append(Conv(5))
    assert len(net.layers) == 3


def test_network_may_use_one_layer_object_twice():
    conv = Conv(3)
    assert Network([conv, conv]).convs == (conv, conv)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Conv(5), "Conv(5)"),
        (Conv(5, weight_var=1), "Conv(5, weight_var=1.0)"),
        (Conv(5, bias_var=0.1, trainable=False), "Conv(5, bias_var=0.1, trainable=False)"),
        (ReLU(), "ReLU()"),
        (LeakyReLU(0.1), "LeakyReLU(0.1)"),
        (
            Network([Conv(3), LeakyReLU(-1), Conv(1)], "circular"),
            "Network([Conv(3), LeakyReLU(-1.0), Conv(1)], padding='circular')",
        ),
        (Conv(5, stride=2), "Conv(5, stride=2)"),
        (AvgPool(2), "AvgPool()"),
        (Upsample(2, mode="nearest"), "Upsample(mode='nearest')"),
        (Skip((Conv(3), ReLU())), "Skip([Conv(3), ReLU()])"),
        (Skip([Skip([Erf()], share=0.25)]), "Skip([Skip([Erf()], share=0.25)])"),
        (Skip([Conv(1)], merge="add", shortcut=[Abs()]), "Skip([Conv(1)], merge='add', shortcut=[Abs()])"),
    ],
)
def test_repr_is_short(value, text):
    assert repr(value) == text


@deterministic
@given(chains() | networks())
def test_networks_survive_repr_pickle_and_copy(net):
    assert eval(repr(net), globals() | {kind.__name__: kind for kind in ACTIVATIONS}) == net
    for twin in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net), dataclasses.replace(net)):
        assert twin == net
        assert hash(twin) == hash(net)


def test_networks_compare_by_value():
    same = [Network([Conv(3), ReLU(), Conv(1)]) for _ in range(2)]
    assert len(set(same)) == 1
    different = [
        *same,
        Network([Conv(3), ReLU(), Conv(1)], padding="circular"),
        Network([Conv(5), ReLU(), Conv(1)]),
        Network([Conv(3), LeakyReLU(0.1), Conv(1)]),
        Network([Conv(3), LeakyReLU(0.2), Conv(1)]),
        Network([Conv(3), Conv(1)]),
        Network([Conv(3, weight_var=1), ReLU(), Conv(1)]),
        Network([Conv(3, bias_var=1), ReLU(), Conv(1)]),
        Network([Conv(3, trainable=False), ReLU(), Conv(1)]),
    ]
    assert len(set(different)) == len(different) - 1
    assert same[0] != same[0].layers


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Conv(3), "kernel_size"),
        (Conv(3), "weight_var"),
        (Conv(3), "anything"),
        (LeakyReLU(0.1), "slope"),
        (ReLU(), "slope"),
        (Abs(), "slope"),
        (AvgPool(), "factor"),
        (Skip([Conv(3)]), "layers"),
        (NoiseInput((3, 4)), "shape"),
        (Network([Conv(3)]), "layers"),
        (Network([Conv(3)]), "padding"),
    ],
)
def test_layers_and_networks_are_frozen(value, name):
    with pytest.raises(AttributeError):
        setattr(value, name, 1)


def test_properties_of_a_mixed_network():
    c1, c2, c3, c4 = Conv(7), Conv(3, trainable=False), Conv(5, bias_var=1), Conv(1)
    net = Network([c1, c2, LeakyReLU(0.1), c3, ReLU(), c4])
    assert net.padding == "zeros"
    assert net.convs == (c1, c2, c3, c4)
    assert net.depth == 2
    assert net.receptive_field == 1 + 6 + 2 + 4
    assert net.stages() == (Stage(c1, None), Stage(c2, LeakyReLU(0.1)), Stage(c3, ReLU()), Stage(c4, None))


def test_properties_of_a_single_convolution():
    net = Network([Conv(3)])
    assert (net.depth, net.receptive_field, net.stages()) == (0, 3, (Stage(Conv(3), None),))


@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True), (True, True)])
def test_network_is_trainable_if_any_convolution_is(flags):
    net = Network([Conv(3, trainable=flags[0]), ReLU(), Conv(1, trainable=flags[1])])
    assert net.trainable is any(flags)


@deterministic
@given(chains())
def test_stages_hold_all_layers_in_order(net):
    layers = [layer for stage in net.stages() for layer in (stage.conv, stage.activation) if layer is not None]
    assert tuple(layers) == net.layers
    assert net.stages()[-1].activation is None
    assert net.depth == sum(stage.activation is not None for stage in net.stages())


@pytest.mark.parametrize(
    "net",
    [
        autoencoder(1),
        Network([Conv(3), Erf(), Conv(1)]),
        Network([Conv(3), Skip([Conv(3)], merge="add"), Conv(1)]),
        Network([Conv(3, stride=2), Upsample(), Conv(1)]),
    ],
)
def test_only_chains_have_stages(net):
    with refused(ValueError, "network must be a chain of Conv(stride=1)", "got"):
        net.stages()


def test_identities_vanish_from_stages():
    net = Network([Identity(), Conv(3), Identity(), Abs(), Conv(1), Identity()])
    assert net.stages() == (Stage(Conv(3), Abs()), Stage(Conv(1), None))


def test_graph_of_nested_skips():
    # (shortcut, branch) in this order, the nodes of the shortcut first; identities and skips leave no node.
    inner = Skip([ReLU(), Conv(3, stride=2), Upsample()], merge="add")
    net = Network([Conv(3), Identity(), Skip([Conv(5), inner], share=0.25, shortcut=[Erf()]), Conv(1)])
    assert net.graph() == (
        Node(Input(), (), 0, 1),
        Node(Conv(3), (0,), 0, 1),
        Node(Erf(), (1,), 0, 1),
        Node(Conv(5), (1,), 0, 1),
        Node(ReLU(), (3,), 0, 1),
        Node(Conv(3, stride=2), (4,), 1, 2),
        Node(Upsample(), (5,), 0, 1),
        Node(Add(), (3, 6), 0, 1),
        Node(Concat((0.75, 0.25)), (2, 7), 0, 1),
        Node(Conv(1), (8,), 0, 1),
    )
    assert net.convs == (Conv(3), Conv(5), Conv(3, stride=2), Conv(1))
    assert (net.depth, net.levels, net.multiple) == (1, 1, 2)


@deterministic
@given(networks())
def test_graphs_are_in_topological_order_and_levels_follow_the_layers(net):
    graph = net.graph()
    assert graph[0] == Node(Input(), (), 0, 1)
    assert {m for node in graph for m in node.inputs} == set(range(len(graph) - 1))
    for n, node in enumerate(graph[1:], start=1):
        layer = node.layer
        assert max(node.inputs) < n
        assert len(node.inputs) == (2 if isinstance(layer, (Concat, Add)) else 1)
        step = {AvgPool: 1, Upsample: -1}.get(type(layer), getattr(layer, "stride", 1) - 1)
        assert {graph[m].level + step for m in node.inputs} == {node.level}
        assert node.scale == 2**node.level
    assert graph[-1].level == 0
    assert net.levels == max(node.level for node in graph)
    assert net.trainable


# The name says what the patch is made of: kernels, and s for the stride of 2, p pool, b bilinear, n nearest.
PATCHES = {
    "3": (Network([Conv(3)]), 3),
    "p n": (Network([AvgPool(), Upsample(mode="nearest"), Conv(1)]), 2),
    "p b": (Network([AvgPool(), Upsample(), Conv(1)]), 4),
    "s1 n": (Network([Conv(1, stride=2), Upsample(mode="nearest"), Conv(1)]), 1),
    "s3 n": (Network([Conv(3, stride=2), Upsample(mode="nearest"), Conv(1)]), 3),
    "s3 b 3": (Network([Conv(3, stride=2), Upsample(), Conv(3)]), 7),
    "3 or 5": (Network([Conv(1), Skip([Conv(5)], shortcut=[Conv(3)]), Conv(1)]), 5),
    "3 or p1b": (Network([Conv(1), Skip([AvgPool(), Conv(1), Upsample()]), Conv(3)]), 6),
    "autoencoder": (autoencoder(1), 12),
    "unet": (unet(1, 5, upsample="nearest"), 18),
}


@pytest.mark.parametrize(("net", "side"), PATCHES.values(), ids=PATCHES)
def test_receptive_field_is_what_moves_an_output_pixel(net, side):
    # Change one column of a circular image, at each place in its coarsest cell; see which output pixels notice.  No
    # activation here may be flat, so LeakyReLU stands for ReLU.
    layers = eval(repr(list(net.layers)).replace("ReLU()", "LeakyReLU(0.5)"))
    net = Network(layers, "circular")
    m, width = net.multiple, 24
    image = np.random.default_rng(0).standard_normal((m, width))
    offsets = {phase: [] for phase in range(m)}
    for column in range(m):
        other = image.copy()
        other[:, column] += 1
        before, after = (np.diagonal(kernel_matrix(net, x, "nngp")).reshape(m, width)[0] for x in (image, other))
        for pixel in np.flatnonzero(np.abs(after - before) > 1e-9):
            offsets[pixel % m].append((column - pixel + width // 2) % width)
    assert net.receptive_field == max(max(o) - min(o) + 1 for o in offsets.values()) == side


def test_sizes_are_multiples_of_the_coarsest_cell():
    net = unet(2)
    assert net.check_size(4, 12) is None
    assert vanilla_cnn().check_size(1, 7) is None
    with refused(ValueError, "image", "multiples of 4", "got 30 x 33", "28 or 32 x 32 or 36"):
        net.check_size(30, 33)
    with refused(ValueError, "image", "multiples of 4", "got 2 x 8", "4 x 8"):
        net.check_size(2, 8)
    with refused(ValueError, "got 4 x 6", "4 x 4 or 8"):
        net.check_size(4, 6)


# --- Presets ------------------------------------------------------------------------------------------------------


def test_autoencoder():
    hidden = [Conv(5), ReLU()]
    up = [Upsample(mode="nearest"), *hidden]
    assert autoencoder(2, 5, upsample="nearest", padding="circular") == Network(
        [*hidden, AvgPool(), *hidden, AvgPool(), *hidden, *up, *up, Conv(1)], "circular"
    )
    net = autoencoder()
    assert (net.depth, net.levels, len(net.convs), net.padding) == (5, 2, 6, "zeros")
    assert {conv.kernel_size for conv in net.convs} == {3, 1}
    assert Upsample() in net.layers


def test_unet():
    hidden = [Conv(3), ReLU()]
    coarse = [*hidden, Skip([AvgPool(), *hidden, Upsample()]), *hidden]
    assert unet() == Network([*hidden, Skip([AvgPool(), *coarse, Upsample()]), *hidden, Conv(1)])
    net = unet(1, 5, upsample="nearest", padding="circular", share=0.25)
    merges = [node.layer for node in net.graph() if isinstance(node.layer, Concat)]
    assert merges == [Concat((0.75, 0.25))]
    assert (net.depth, net.levels, net.padding) == (3, 1, "circular")


@pytest.mark.parametrize("preset", [autoencoder, unet])
def test_presets_check_their_arguments(preset):
    for value in (0, -1):
        with refused(ValueError, "levels must be an integer >= 1", f"got {value}"):
            preset(value)
    with refused(TypeError, "levels must be an integer", "got 1.0"):
        preset(1.0)
    with refused(ValueError, "kernel_size", "got 4"):
        preset(1, 4)
    with refused(ValueError, "mode", "got 'cubic'"):
        preset(upsample="cubic")
    with refused(ValueError, "padding", "got 'same'"):
        preset(padding="same")
    with refused(ValueError, "share", "got 1.0"):
        unet(share=1)


# --- vanilla_cnn --------------------------------------------------------------------------------------------------


def test_vanilla_cnn():
    assert vanilla_cnn() == Network([Conv(5), ReLU(), Conv(1)])
    assert vanilla_cnn(3, 7, padding="circular") == Network(
        [Conv(7), ReLU(), Conv(7), ReLU(), Conv(7), ReLU(), Conv(1)], padding="circular"
    )
    assert vanilla_cnn(depth=4, kernel_size=3).depth == 4
    assert vanilla_cnn(4, 3).receptive_field == 9


@pytest.mark.parametrize("depth", [0, -1])
def test_vanilla_cnn_refuses_depths_below_one(depth):
    with refused(ValueError, "depth must be an integer >= 1", f"got {depth}"):
        vanilla_cnn(depth)


@pytest.mark.parametrize("depth", [1.0, "1", True, None])
def test_vanilla_cnn_refuses_depths_that_are_no_integers(depth):
    with refused(TypeError, "depth must be an integer", f"got {depth!r}"):
        vanilla_cnn(depth)


def test_vanilla_cnn_checks_the_rest_as_its_parts_do():
    with refused(ValueError, "kernel_size", "got 4"):
        vanilla_cnn(1, 4)
    with refused(ValueError, "padding", "got 'same'"):
        vanilla_cnn(padding="same")
