"""Finite networks in torch do what their layers say, exactly, at any width."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given

from cases import PADDINGS
from finite_networks import LIMITS, as_batch, distance, tangent_kernel
from images import axis_of, noise
from ntkfast.activations import Abs, Activation, LeakyReLU, ReLU
from ntkfast.finite import NTKConv2d, to_torch
from ntkfast.finite.modules import Pointwise
from ntkfast.network import AvgPool, Conv, Network, Skip, Upsample, autoencoder, unet, vanilla_cnn
from ntkfast.reference import kernel_matrix
from refusals import refused
from strategies import SMOOTH, chains, convs, deterministic, image_shapes, networks

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@deterministic(40)
@given(convs(trainable=True), image_shapes(max_side=6))
def test_one_convolution_has_the_exact_kernel_at_any_seed(conv, shape):
    image = noise(*(*shape, 1)[:3], seed=1).reshape(shape)
    for seed, padding in enumerate(PADDINGS):
        network = Network([conv], padding)
        module = to_torch(network, 7, image.reshape(*shape[:2], -1).shape[2], seed)
        theta = kernel_matrix(network, image, channel_axis=axis_of(image))
        assert distance(tangent_kernel(module, image).dense(), theta) < 1e-12


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("kernel_size", "shape"), [(1, (3, 4, 2)), (3, (4, 3, 2)), (5, (1, 4, 3)), (7, (2, 2, 1))])
def test_forward_is_the_sum_over_the_kernel(kernel_size, shape, padding):
    height, width, channels = shape
    image = noise(*shape, seed=2)
    conv = Conv(kernel_size, weight_var=1.5, bias_var=0.3)
    module = to_torch(Network([conv], padding), 1, channels, rng=3)
    weight, beta = (p.detach().numpy() for p in module.parameters())
    expected = np.full((height, width), math.sqrt(0.3) * beta[0])
    for row, col in np.ndindex(height, width):
        for a, b in np.ndindex(kernel_size, kernel_size):
            y, x = row + a - kernel_size // 2, col + b - kernel_size // 2
            if padding == "circular" or (0 <= y < height and 0 <= x < width):
                scale = math.sqrt(1.5 / (channels * kernel_size**2))
                expected[row, col] += scale * weight[0, :, a, b] @ image[y % height, x % width]
    actual = module(as_batch(image)).detach().numpy()
    assert actual.shape == (1, 1, height, width)
    assert distance(actual[0, 0], expected) < 1e-13


def test_the_finite_parts_of_a_branching_network_do_what_the_layers_say():
    # With 1x1 convolutions of weight 1 (in the module: W = 1/scale) everything is a function of the one channel.
    network = Network([Conv(1), Skip([AvgPool(), Upsample(mode="nearest")], share=0.36), Conv(1)])
    module = to_torch(network, 1, 1)
    with torch.no_grad():
        for conv in (m for m in module.modules() if isinstance(m, NTKConv2d)):
            conv.weight.fill_(1 / conv.weight_scale)
    x = noise(4, 6, 1, seed=12)[..., 0]
    pooled = x.reshape(2, 2, 3, 2).mean(axis=(1, 3)).repeat(2, axis=0).repeat(2, axis=1)
    # The parts have one channel of two each: sqrt(share * 2 / 1).
    expected = math.sqrt(0.64 * 2) * x + math.sqrt(0.36 * 2) * pooled
    assert distance(module(as_batch(x[..., None])).detach().numpy()[0, 0], expected) < 1e-14


@pytest.mark.parametrize("size", [2, 3, 6])
def test_bilinear_upsampling_wraps_in_circular_networks_and_clamps_in_others(size):
    x = np.random.default_rng(13).standard_normal(size)
    a = np.arange(size)
    for padding, index in (("circular", lambda n: n % size), ("zeros", lambda n: np.clip(n, 0, size - 1))):
        module = to_torch(Network([AvgPool(), Upsample(), Conv(1)], padding), 1, 1)[1]
        expected = np.empty(2 * size)
        expected[::2] = 0.75 * x + 0.25 * x[index(a - 1)]
        expected[1::2] = 0.75 * x + 0.25 * x[index(a + 1)]
        columns = module(as_batch(np.outer(x, np.ones(size))[..., None])).numpy()[0, 0]
        assert distance(columns, np.outer(expected, np.ones(2 * size))) < 1e-14
        rows = module(as_batch(np.outer(np.ones(size), x)[..., None])).numpy()[0, 0]
        assert distance(rows, np.outer(np.ones(2 * size), expected)) < 1e-14


def test_circular_networks_of_several_levels_commute_with_shifts_by_their_multiple():
    network = unet(2, padding="circular")
    module = to_torch(network, 4, 1, rng=1)
    x = as_batch(noise(8, 8, 1, seed=14))
    m = network.multiple
    shifted = module(x.roll((m, -m), (2, 3)))
    assert torch.allclose(shifted.roll((-m, m), (2, 3)), module(x), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(shifted, module(x), rtol=0.1)


def test_activations_are_those_of_the_network():
    network = Network([Conv(1), ReLU(), Conv(1), LeakyReLU(-0.5), Conv(1), Conv(1)])
    module = to_torch(network, 3, 1)
    x = torch.tensor([-2.0, 0.0, 3.0])
    kinds = [type(m) for m in module]
    assert kinds == [NTKConv2d, torch.nn.ReLU, NTKConv2d, torch.nn.LeakyReLU, NTKConv2d, NTKConv2d]
    assert module[1](x).tolist() == [0.0, 0.0, 3.0]
    assert module[3](x).tolist() == [1.0, 0.0, 3.0]


@pytest.mark.parametrize("layer", [ReLU(), LeakyReLU(-0.5), Abs(), *SMOOTH], ids=repr)
def test_activations_and_derivatives_are_those_of_pytorch(layer):
    x = torch.linspace(-3, 3, 8, dtype=torch.float64, requires_grad=True)
    y = to_torch(Network([Conv(1), layer, Conv(1)]), 3, 1)[1](x)
    y.sum().backward()
    t = x.detach().numpy()
    assert layer.function(t) == pytest.approx(y.detach().numpy(), rel=1e-13)
    assert layer.derivative(t) == pytest.approx(x.grad.numpy(), rel=1e-13)
    assert layer.is_odd() == np.allclose(layer.function(-t), -layer.function(t))


def test_an_activation_that_pytorch_lacks_is_written_with_the_methods_of_tensors():
    class Square(Activation, family=True):  # not one of the package's own
        function = derivative = dual = None

        def on_tensor(self, h):
            return h.square()

    x = torch.tensor([-2.0, 3.0])
    assert Pointwise(Square())(x).tolist() == [4.0, 9.0]


def test_networks_without_branches_are_sequential_and_branching_ones_have_the_names_of_the_graph():
    assert type(to_torch(autoencoder(1), 3, 1)) is torch.nn.Sequential
    network = Network([Conv(3), ReLU(), Skip([Conv(1, trainable=False)], share=0.25), Conv(3, stride=1)])
    module = to_torch(network, 3, 2)
    assert {name: (tuple(p.shape), p.requires_grad) for name, p in module.named_parameters()} == {
        "0.weight": ((3, 2, 3, 3), True),
        "2.weight": ((3, 3, 1, 1), False),
        "4.weight": ((1, 6, 3, 3), True),
    }
    assert "NTKConcat((0.75, 0.25))" in repr(module)


@pytest.mark.parametrize("name", ["biases", "frozen first", "leaky"])
def test_a_small_step_along_the_gradient_moves_the_output_by_the_kernel(name):
    # Autograd's own backward pass over the trained parameters gives z(q + h J^T r) = z(q) + h J J^T r + O(h^2).
    network, shape = LIMITS[name]
    image = noise(*shape, seed=4)
    module = to_torch(network, 10, shape[-1], rng=5)
    r = torch.from_numpy(noise(*shape[:2], 1, seed=6)[None, None, ..., 0])
    theta = tangent_kernel(module, image).dense()
    before = module(as_batch(image))
    (before * r).sum().backward()
    h = 1e-7
    with torch.no_grad():
        for p in module.parameters():
            if p.grad is not None:
                p += h * p.grad
        change = (module(as_batch(image)) - before).numpy().ravel() / h
    assert distance(change, theta @ r.numpy().ravel()) < 1e-4


def test_empirical_kernel_leaves_the_module_as_it_was():
    module = to_torch(vanilla_cnn(1, 3), 4, 1)
    before = {name: p.clone() for name, p in module.state_dict().items()}
    tangent_kernel(module, noise(3, 3, 1, seed=7)).dense()
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert all(torch.equal(p, before[name]) for name, p in module.state_dict().items())


@deterministic(20)
@given(chains(max_depth=3, max_kernel=5), image_shapes(max_side=4))
def test_random_networks_have_symmetric_kernels_of_the_image_size(network, shape):
    image = noise(*(*shape, 1)[:3], seed=8)
    theta = tangent_kernel(to_torch(network, 5, image.shape[2]), image.reshape(shape)).dense()
    assert theta.shape == (image[..., 0].size,) * 2
    assert distance(theta.T, theta) < 1e-14
    assert (np.diagonal(theta) >= 0).all()


@deterministic(20)
@given(networks(max_kernel=3))
def test_random_branching_networks_have_symmetric_kernels_of_the_image_size(network):
    image = noise(network.multiple, 2 * network.multiple, 2, seed=8)
    theta = tangent_kernel(to_torch(network, 3, 2), image).dense()
    assert theta.shape == (2 * network.multiple**2,) * 2
    assert distance(theta.T, theta) < 1e-14
    assert (np.diagonal(theta) >= 0).all()


def test_a_frozen_network_has_the_zero_kernel():
    theta = tangent_kernel(to_torch(Network([Conv(3, trainable=False)]), 1, 1), np.ones((2, 3))).dense()
    assert theta.shape == (6, 6)
    assert not theta.any()


def test_any_torch_module_with_the_right_shapes_has_a_kernel():
    module = torch.nn.Conv2d(2, 1, 3, padding=1).double()
    image = noise(4, 3, 2, seed=9)
    # torch's own parametrisation has no factor sqrt(w / (c k^2)) and a bias of unit factor.
    expected = kernel_matrix(Network([Conv(3, weight_var=18, bias_var=1)]), image, channel_axis=-1)
    assert distance(tangent_kernel(module, image).dense(), expected) < 1e-12


def test_parameters_are_those_of_the_layers():
    layers = [Conv(5, bias_var=0.1), ReLU(), Conv(3, trainable=False, bias_var=1), ReLU(), Conv(3), Conv(1)]
    module = to_torch(Network(layers), 6, 2)
    parameters = {name: (tuple(p.shape), p.requires_grad) for name, p in module.named_parameters()}
    assert parameters == {
        "0.weight": ((6, 2, 5, 5), True),
        "0.bias": ((6,), True),
        "2.weight": ((6, 6, 3, 3), False),
        "2.bias": ((6,), False),
        "4.weight": ((6, 6, 3, 3), True),
        "5.weight": ((1, 6, 1, 1), True),
    }
    assert "Conv(3, bias_var=1.0, trainable=False), 6, 6, padding='zeros'" in repr(module)


def test_parameters_are_standard_normal_whatever_the_variances():
    module = to_torch(Network([Conv(3, weight_var=0.5, bias_var=9), ReLU(), Conv(1)]), 4000, 3)
    for values in (p.detach().numpy().ravel() for p in module.parameters()):
        n = len(values)
        # The moments are those of N(0, 1), to five standard errors.
        for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
            assert abs((values**power).mean() - moment) < 5 * math.sqrt(variance / n)


def test_a_seed_names_the_weights_in_every_precision():
    network = Network([Conv(3, bias_var=1), ReLU(), Conv(1)])
    double, again, single, other = (
        to_torch(network, 4, 1, seed, dtype)
        for seed, dtype in ((1, torch.float64), (1, torch.float64), (1, torch.float32), (2, torch.float64))
    )
    for p, q, s, o in zip(*(m.parameters() for m in (double, again, single, other)), strict=True):
        assert p.dtype == torch.float64
        assert s.dtype == torch.float32
        assert torch.equal(p, q)
        assert torch.equal(p.float(), s)
        assert not torch.isclose(p, o).any()


def test_drawing_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    to_torch(vanilla_cnn(), 4, 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_single_precision_runs_in_single_precision():
    network, image = vanilla_cnn(1, 3), noise(3, 3, 1, seed=10)
    single = tangent_kernel(to_torch(network, 8, 1, dtype=torch.float32), image).dense()
    assert single.dtype == np.float32
    assert distance(single, tangent_kernel(to_torch(network, 8, 1), image).dense()) < 1e-5


def test_batches_are_mapped_one_image_at_a_time():
    module = to_torch(vanilla_cnn(2, 3, padding="circular"), 4, 2)
    batch = torch.from_numpy(noise(3, 2, 4 * 5, seed=11).reshape(3, 2, 4, 5))
    together = module(batch)
    assert together.shape == (3, 1, 4, 5)
    for image, out in itertools.zip_longest(batch, together):
        assert torch.allclose(module(image[None])[0], out, rtol=1e-13, atol=1e-13)


def test_rng_may_be_a_generator_or_none():
    def weights(rng, dtype=torch.float64):
        return [p.detach() for p in to_torch(vanilla_cnn(), 4, 1, rng, dtype).parameters()]

    def same(a, b):
        return all(map(torch.equal, a, b))

    def torchs(seed):
        return torch.Generator().manual_seed(seed)

    assert same(weights(0), [p.detach() for p in to_torch(vanilla_cnn(), 4, 1).parameters()])
    assert same(weights(3), weights(torchs(3)))
    assert same(weights(np.random.default_rng(3)), weights(np.random.default_rng(3)))
    assert not same(weights(None), weights(None))
    for generator in (np.random.default_rng(3), torchs(3)):  # both go on where they are
        assert not same(weights(generator), weights(generator))


def test_a_convolution_by_itself_is_the_one_of_the_network():
    whole, conv = to_torch(Network([Conv(3, bias_var=1)]), 1, 2, 5, out_channels=3)[0], Conv(3, bias_var=1)
    for rng in (5, torch.Generator().manual_seed(5)):
        own = NTKConv2d(conv, 2, 3, rng=rng)
        assert torch.equal(own.weight, whole.weight)
        assert torch.equal(own.bias, whole.bias)
    for change, error, parts in (
        ({"layer": 3}, TypeError, ("layer must be a Conv", "got 3")),
        ({"in_channels": 0}, ValueError, ("in_channels must be at least 1", "got 0")),
        ({"padding": "reflect"}, ValueError, ("padding must be one of", "got 'reflect'")),
        ({"rng": "a"}, TypeError, ("rng must be an integer, None or a numpy.random.Generator", "got 'a'")),
        ({"dtype": torch.int64}, TypeError, ("dtype must be a floating-point torch.dtype",)),
    ):
        with refused(error, *parts):
            NTKConv2d(**{"layer": conv, "in_channels": 2, "out_channels": 3} | change)
