"""These test from_torch on architectures as people write them, merges, variances, and kernels."""

from __future__ import annotations

import math
import operator

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from torch import nn

from images import noise
from ntkfast import (
    GELU,
    Abs,
    AvgPool,
    Conv,
    Cos,
    Erf,
    LeakyReLU,
    Network,
    ReLU,
    Sin,
    Skip,
    Upsample,
    autoencoder,
    from_torch,
    unet,
    vanilla_cnn,
)
from ntkfast.activations import ACTIVATIONS, Activation
from ntkfast.finite import empirical_ntk, to_torch
from ntkfast.reference import kernel_matrix
from refusals import refused
from strategies import networks
from torch_modules import conv, described

pytestmark = pytest.mark.usefixtures("one_torch_thread")


class DoubleConv(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.body = nn.Sequential(conv(c_in, c_out), nn.ReLU(inplace=True), conv(c_out, c_out), nn.ReLU(inplace=True))

    def forward(self, x):
        return self.body(x)


class UNet(nn.Module):
    def __init__(self, up="bilinear", channels=3):
        super().__init__()
        self.first, self.second, self.bottom = DoubleConv(channels, 8), DoubleConv(8, 16), DoubleConv(16, 32)
        self.coarse, self.fine = DoubleConv(16 + 32, 16), DoubleConv(8 + 16, 8)
        self.pool = nn.AvgPool2d(2)
        self.mode = up
        self.last = conv(8, channels, 1)

    def up(self, x):
        return F.interpolate(x, scale_factor=2, mode=self.mode)

    def forward(self, x):
        a = self.first(x)
        b = self.second(self.pool(a))
        c = self.bottom(self.pool(b))
        d = self.coarse(torch.cat([b, self.up(c)], dim=1))
        return self.last(self.fine(torch.cat((self.up(d), a), 1)))


def test_a_unet():
    hidden = [Conv(3), ReLU(), Conv(3), ReLU()]
    up = Upsample()
    inner = Skip([AvgPool(), *hidden, up], share=32 / 48)
    outer = Skip([AvgPool(), *hidden, inner, *hidden, up], share=16 / 24)
    assert from_torch(UNet(), init="he") == Network([*hidden, outer, *hidden, Conv(1)])


def test_a_preactivation_residual_network():
    class Block(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.one, self.two, self.dropout = conv(channels, channels), conv(channels, channels), nn.Dropout(0.3)

        def forward(self, x):
            h = self.one(F.relu(x))
            h = self.two(self.dropout(torch.relu(h)))
            h += x
            return h

    module = nn.Sequential(conv(1, 6, 5), Block(6), Block(6), nn.LeakyReLU(0.2), conv(6, 1)).eval()
    block = Skip([ReLU(), Conv(3), ReLU(), Conv(3)], merge="add")
    assert from_torch(module, init="he") == Network([Conv(5), block, block, LeakyReLU(0.2), Conv(3)])


def test_nested_sequentials_and_every_layer():
    module = nn.Sequential(
        nn.Sequential(conv(2, 4, stride=2), nn.Identity(), nn.GELU()),
        nn.Sequential(conv(4, 4, 1, stride=(2, 2)), nn.Sequential(nn.LeakyReLU())),
        nn.Upsample(scale_factor=4),
        nn.Conv2d(4, 5, 7, padding="same", padding_mode="circular"),
        nn.ReLU(),
        nn.AvgPool2d(4),
        nn.UpsamplingNearest2d(scale_factor=2),
        nn.Upsample(scale_factor=(2, 2), mode="nearest"),
        conv(5, 2, 1),
    )
    module[0][0].padding_mode = "circular"
    nearest = Upsample(mode="nearest")
    layers = [Conv(3, stride=2), GELU(), Conv(1, stride=2), LeakyReLU(0.01), nearest, nearest, Conv(7), ReLU()]
    layers += [AvgPool(), AvgPool(), nearest, nearest, Conv(1)]
    assert from_torch(module, init="he") == Network(layers, "circular")


@pytest.mark.parametrize(
    ("function", "layer"),
    [
        (torch.relu, ReLU()),
        (F.relu, ReLU()),
        (F.relu_, ReLU()),
        (lambda x: x.relu(), ReLU()),
        (lambda x: F.relu(x, inplace=True), ReLU()),
        (lambda x: F.leaky_relu(x, 0.3), LeakyReLU(0.3)),
        (lambda x: F.leaky_relu(x, negative_slope=-1), LeakyReLU(-1)),
        (F.leaky_relu, LeakyReLU(0.01)),
        (F.gelu, GELU()),
        (torch.abs, Abs()),
        (abs, Abs()),
        (lambda x: x.abs(), Abs()),
        (torch.erf, Erf()),
        (lambda x: x.erf_(), Erf()),
        (torch.sin, Sin()),
        (lambda x: x.cos(), Cos()),
        (lambda x: F.dropout(x, 0.5, training=False), None),
        (lambda x: F.interpolate(F.avg_pool2d(x, 2), scale_factor=2), (AvgPool(), Upsample(mode="nearest"))),
    ],
)
def test_functions_and_methods(function, layer):
    network = described(lambda m, x: m.b(function(m.a(x))), a=conv(1, 4), b=conv(4, 1))
    between = layer if isinstance(layer, tuple) else [] if layer is None else [layer]
    assert network == Network([Conv(3), *between, Conv(3)])
    # The layer is the function.
    if isinstance(layer, Activation):
        x = torch.linspace(-3, 3, 7)
        ours = to_torch(Network([Conv(1), layer, Conv(1)]), 1, 1)[1]
        assert torch.allclose(ours(x), function(x.clone()))


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_every_activation_is_read_by_all_names_that_torch_has_for_it(kind):
    spec = kind.in_torch
    layer = kind(*(value for _, value in spec.arguments))
    names = [name.rpartition(".")[2] + end for name in spec.names for end in ("", "_")]
    functions = [getattr(place, name) for name in names for place in (torch, F) if hasattr(place, name)]
    functions += [operator.methodcaller(name) for name in names if hasattr(torch.Tensor, name)]
    assert bool(functions) == bool(spec.names)
    for function in functions:
        network = described(lambda m, x, f=function: m.b(f(m.a(x))), a=conv(1, 4), b=conv(4, 1))
        assert network == Network([Conv(3), layer, Conv(3)])
    modules = [getattr(nn, spec.module)()] if spec.module else []
    for module in (*modules, to_torch(Network([Conv(1), layer, Conv(1)]), 1, 1)[1]):
        network = from_torch(nn.Sequential(conv(1, 4), module, conv(4, 1)), init="he")
        assert network == Network([Conv(3), layer, Conv(3)])


@pytest.mark.parametrize("add", [torch.add, lambda a, b: a + b, lambda a, b: a.add(b), lambda a, b: a.add_(b)])
def test_sums(add):
    network = described(
        lambda m, x: m.c(add(m.a(x), m.b(torch.cos(m.d(x))))), a=conv(1, 4, 1), b=conv(4, 4), c=conv(4, 1), d=conv(1, 4)
    )
    skip = Skip([Conv(3), Cos(), Conv(3)], merge="add", shortcut=[Conv(1)])
    assert network == Network([skip, Conv(3)])


def test_a_bare_convolution():
    assert from_torch(nn.Conv2d(3, 3, 5, padding=2), init="lecun") == Network([Conv(5, weight_var=1.0)])


def test_a_concat_of_three_is_two_of_two_with_the_shares_of_the_channels():
    network = described(
        lambda m, x: m.end(torch.cat([m.b(h := m.a(x)), h, m.c(h)], -3)),
        **{"a": conv(2, 3), "b": conv(3, 4, 1), "c": conv(3, 5), "end": conv(12, 2)},
    )
    inner = Skip([Conv(1)], share=4 / 7)
    assert network == Network([Conv(3), Skip([Conv(3)], shortcut=[inner], share=5 / 12), Conv(3)])


def test_a_dense_network():
    # The layers are h2 = cat(h1, f(h1)), h3 = cat(h2, g(h2)), the image itself being the first part.
    network = described(
        lambda m, x: m.end(torch.cat([h := torch.cat([x, F.relu(m.a(x))], 1), F.relu(m.b(h))], 1)),
        **{"a": conv(3, 2), "b": conv(5, 5), "end": conv(10, 1)},
    )
    assert network == Network([Skip([Conv(3), ReLU()], share=0.4), Skip([Conv(3), ReLU()]), Conv(3)])


def test_a_dense_block_that_concatenates_all_features_so_far():
    def forward(m, x):
        features = [m.a(x)]
        for name in "bcd":
            features.append(F.relu(getattr(m, name)(torch.cat(features, 1))))
        return m.end(torch.cat(features, 1))

    children = {name: conv(c_in, 2) for name, c_in in zip("bcd", (4, 6, 8), strict=True)}
    network = described(forward, a=conv(1, 4), end=conv(10, 1), **children)
    skips = [Skip([Conv(3), ReLU()], share=2 / channels) for channels in (6, 8, 10)]
    assert network == Network([Conv(3), *skips, Conv(3)])


def test_the_same_concat_twice_is_one():
    network = described(
        lambda m, x: m.end(torch.cat([torch.cat([h := m.a(x), b := m.b(h)], 1), m.c(torch.cat([b, h], 1))], 1)),
        **{"a": conv(1, 2), "b": conv(2, 2), "c": conv(4, 4), "end": conv(8, 1)},
    )
    assert network == Network([Conv(3), Skip([Conv(3)]), Skip([Conv(3)]), Conv(3)])
    # One in which some part counts twice is refused: cat(h, h, b) and cat(h, b) have other shares.
    with refused(ValueError, "series-parallel", "'b' (Conv2d)"):
        described(
            lambda m, x: m.end(torch.cat([torch.cat([h := m.a(x), h, b := m.b(h)], 1), m.c(torch.cat([h, b], 1))], 1)),
            **{"a": conv(1, 2), "b": conv(2, 2), "c": conv(4, 4), "end": conv(10, 1)},
        )


def test_paths_that_part_late_are_merged_first():
    # Here cat(h, r, c(r)) = cat(h, cat(r, c(r))) with r = relu(b(h)).
    network = described(
        lambda m, x: m.end(torch.cat([r := F.relu(m.b(h := m.a(x))), h, m.c(r)], 1)),
        **{"a": conv(1, 2), "b": conv(2, 3), "c": conv(3, 5), "end": conv(10, 1)},
    )
    late = Skip([Conv(3)], share=5 / 8)
    assert network == Network([Conv(3), Skip([Conv(3), ReLU(), late], share=8 / 10), Conv(3)])


def test_an_activation_behind_a_concat_moves_into_its_paths():
    network = described(
        lambda m, x: m.end(F.relu(m.pool_up(torch.cat([h := m.a(x), m.b(h)], 1)))),
        a=conv(1, 4),
        b=conv(4, 4),
        end=conv(8, 1),
        pool_up=nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2)),
    )
    moved = [AvgPool(), Upsample(mode="nearest"), ReLU()]
    assert network == Network([Conv(3), Skip([Conv(3), *moved], shortcut=moved), Conv(3)])
    # Activations move into the paths of the paths, too.
    network = described(
        lambda m, x: m.end(F.relu(torch.cat([torch.cat([h := m.a(x), m.b(h)], 1), m.c(h)], 1))),
        **{"a": conv(1, 4), "b": conv(4, 4), "c": conv(4, 8), "end": conv(16, 1)},
    )
    inner = Skip([Conv(3), ReLU()], shortcut=[ReLU()])
    assert network == Network([Conv(3), Skip([Conv(3), ReLU()], shortcut=[inner]), Conv(3)])


def test_layers_without_weights_may_lead_into_several_paths():
    # Two paths that end at different places use relu(h): it is the same function in both.
    network = described(
        lambda m, x: m.end(torch.cat([m.d(torch.cat([h := m.a(x), m.b(r := F.relu(h))], 1)), m.c(r)], 1)),
        **{"a": conv(1, 2), "b": conv(2, 2), "c": conv(2, 4), "d": conv(4, 4), "end": conv(8, 1)},
    )
    inner = Skip([ReLU(), Conv(3)])
    assert network == Network([Conv(3), Skip([ReLU(), Conv(3)], shortcut=[inner, Conv(3)]), Conv(3)])


def test_a_concat_of_features_with_themselves_is_nothing():
    network = described(lambda m, x: m.end(torch.cat([h := m.a(x), h], 1)), a=conv(1, 2), end=conv(4, 1))
    assert network == Network([Conv(3), Conv(3)])


def test_what_the_output_does_not_need_is_left_out():
    network = described(
        lambda m, x: [m.b(m.pool(h := m.a(x))), m.end(h)][1],
        **{"a": conv(1, 2), "b": conv(2, 2), "pool": nn.MaxPool2d(2), "end": conv(2, 1)},
    )
    assert network == Network([Conv(3), Conv(3)])


def test_named_initialisations():
    module = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1, bias=False))
    module[2].requires_grad_(False)
    for init, w, b in (("he", 2.0, 0.0), ("lecun", 1.0, 0.0), ("torch", 1 / 3, 1 / (3 * 2 * 9))):
        last = Conv(1, weight_var=w, trainable=False)
        assert from_torch(module, init=init) == Network([Conv(3, weight_var=w, bias_var=b), ReLU(), last])


def test_the_torch_initialisation_is_what_torch_draws():
    torch.manual_seed(0)
    module = nn.Conv2d(5, 4000, 3, padding=1)
    layer = from_torch(nn.Sequential(module, conv(4000, 1)), init="torch").layers[0]
    n = module.weight.numel()
    # The square of a uniform variable has the relative standard deviation 2/sqrt(5); five standard errors.
    assert module.weight.var().item() * 5 * 9 == pytest.approx(layer.weight_var, rel=5 * 0.9 / math.sqrt(n))
    assert module.bias.var().item() == pytest.approx(layer.bias_var, rel=5 * 0.9 / math.sqrt(4000))


def test_a_callable_gets_every_convolution_with_its_name():
    seen = {}

    def init(module, name):
        seen[name] = module
        return module.in_channels, 0.5 if module.bias is not None else 0

    module = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), conv(4, 1))
    network = from_torch(module, init=init)
    assert network == Network([Conv(1, weight_var=3, bias_var=0.5), ReLU(), Conv(3, weight_var=4)])
    assert seen == {"0.0": module[0][0], "1": module[1]}


def test_weights_are_never_read():
    module = nn.Sequential(conv(1, 4), nn.ReLU(), conv(4, 1))
    for parameter in module.parameters():
        parameter.data.fill_(math.nan)
    assert from_torch(module, init="he") == Network([Conv(3), ReLU(), Conv(3)])
    assert from_torch(module.to("meta"), init="he") == Network([Conv(3), ReLU(), Conv(3)])


ROUND_TRIPS = {
    "vanilla": vanilla_cnn(2, 3, padding="circular"),
    "autoencoder": autoencoder(2),
    "U-Net": unet(2, share=0.3),
    "U-Net, circular": unet(1, padding="circular"),
    "residual": Network([Conv(3), Skip([Erf(), Conv(3, bias_var=0.1, trainable=False)], merge="add"), Sin(), Conv(1)]),
    "sum of concats": Network(
        [
            Conv(3),
            Skip([Conv(1), Skip([Conv(3)])], merge="add", shortcut=[Conv(1), Skip([Conv(1)], share=0.7)]),
            Conv(1),
        ]
    ),
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_networks_survive_the_way_to_torch_and_back(name):
    # The modules of to_torch know their variances: init is for others.
    assert from_torch(to_torch(ROUND_TRIPS[name], 4, 3), init="torch") == ROUND_TRIPS[name]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(networks())
def test_random_networks_keep_their_kernel_on_the_way_to_torch_and_back(network):
    image = noise(network.multiple, 2 * network.multiple, 2, seed=0)
    back = from_torch(to_torch(network, 2, 2), init="he")
    expected = kernel_matrix(network, image, channel_axis=-1)
    np.testing.assert_allclose(
        kernel_matrix(back, image, channel_axis=-1), expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max()
    )


class Small(nn.Module):
    """Everything is in it: two resolutions, a concat with an activation behind it, a sum, biases, a frozen layer."""

    def __init__(self, width=1):
        super().__init__()
        self.first = nn.Conv2d(2, 2 * width, 3, padding=1)
        self.down = conv(2 * width, 3 * width, stride=2)
        self.frozen = conv(3 * width, 3 * width, 1).requires_grad_(False)
        self.last = nn.Conv2d(5 * width, 1, 3, padding=1)

    def forward(self, x):
        h = self.first(x)
        coarse = self.down(F.leaky_relu(h, 0.2))
        coarse = coarse + self.frozen(torch.erf(coarse))
        up = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        return self.last(F.relu(torch.cat((h, up), dim=1)))


def test_the_kernel_is_the_mean_of_that_of_the_module_initialised_again_and_again():
    # This is the module itself, in torch's own parametrisation: its weights are sqrt(w / (c k^2)) W, so that the
    # tangent kernel weighs each layer by the square of that factor.  The same holds for biases, with sqrt(b).
    width, seeds = 24, 100
    image = noise(4, 4, 2, seed=1)
    network = from_torch(Small(width), init="torch")
    theta = kernel_matrix(network, image, channel_axis=-1)
    variance = {"first.weight": 1 / (3 * 18), "first.bias": 1 / (3 * 18)}
    variance |= {"down.weight": 1 / (3 * 18 * width), "last.weight": 1 / (3 * 45 * width)}
    variance |= {"last.bias": 1 / (3 * 45 * width)}
    x = torch.from_numpy(image).permute(2, 0, 1)[None]
    samples = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        module = Small(width).double()
        trained = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
        frozen = {name: p for name, p in module.named_parameters() if not p.requires_grad}

        def output(values, module=module, frozen=frozen):
            return torch.func.functional_call(module, {**values, **frozen}, (x,)).reshape(-1)

        jacobian = torch.func.jacrev(output)(trained)
        rows = {name: block.reshape(16, -1) for name, block in jacobian.items()}
        samples.append(sum(variance[name] * block @ block.T for name, block in rows.items()).numpy())
    spread = np.sqrt(np.mean([np.linalg.norm(s - theta) ** 2 for s in samples]))
    difference = np.linalg.norm(np.mean(samples, axis=0) - theta)
    # The bar is the random error of the mean, and a bias of order 1/width.
    allowed = 2 * spread / math.sqrt(seeds) + 0.5 / width * np.linalg.norm(theta)
    assert difference <= allowed
    assert allowed < 0.1 * np.linalg.norm(theta)


def test_the_kernel_is_the_mean_of_that_of_the_network_in_the_ntk_parametrisation():
    image = noise(4, 4, 2, seed=2)
    network = from_torch(Small(), init=lambda conv, name: (1.5, 0.2 if name == "last" else 0))
    assert [c.trainable for c in network.convs] == [True, True, False, True]
    theta = kernel_matrix(network, image, channel_axis=-1)
    samples = np.array(
        [empirical_ntk(to_torch(network, 36, 2, seed), image, channel_axis=-1).dense() for seed in range(100)]
    )
    spread = np.sqrt(np.mean(np.sum((samples - theta) ** 2, axis=(1, 2))))
    allowed = 2 * spread / 10 + 0.5 / 36 * np.linalg.norm(theta)
    assert np.linalg.norm(samples.mean(axis=0) - theta) <= allowed
    assert allowed < 0.1 * np.linalg.norm(theta)
