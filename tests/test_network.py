"""Networks as data: what is accepted, what is refused and how, and what a network says of itself."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings

from ntkfast.network import Conv, LeakyReLU, Network, ReLU, Stage, vanilla_cnn
from strategies import networks

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


def test_conv_takes_only_the_kernel_size_by_position():
    with pytest.raises(TypeError, match="positional"):
        Conv(3, 1.0)


def test_conv_defaults():
    conv = Conv(3)
    assert (conv.kernel_size, conv.weight_var, conv.bias_var, conv.trainable) == (3, 2.0, 0.0, True)


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
    ],
)
def test_repr_is_short(value, text):
    assert repr(value) == text


@deterministic
@given(networks())
def test_networks_survive_repr_pickle_and_copy(net):
    assert eval(repr(net)) == net
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
@given(networks())
def test_stages_hold_all_layers_in_order(net):
    layers = [layer for stage in net.stages() for layer in (stage.conv, stage.activation) if layer is not None]
    assert tuple(layers) == net.layers
    assert net.stages()[-1].activation is None
    assert net.depth == sum(stage.activation is not None for stage in net.stages())


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
