"""These test what a network says of itself, and the presets."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given

from ntkfast.activations import ACTIVATIONS, Abs, Erf, LeakyReLU, ReLU
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
from refusals import deterministic, refused
from strategies import chains, networks


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
