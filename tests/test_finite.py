"""Finite networks in torch are exact where the kernel is, and tend to it as one over the root of the width."""

from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from cases import PADDINGS
from images import axis_of, noise
from ntkfast.activations import GELU, Abs, Activation, Cos, Erf, LeakyReLU, ReLU, Sin
from ntkfast.engine import memory
from ntkfast.finite import NTKConv2d, empirical_ntk, to_torch
from ntkfast.finite.modules import Pointwise
from ntkfast.network import AvgPool, Conv, Network, Skip, Upsample, autoencoder, unet, vanilla_cnn
from ntkfast.reference import kernel_matrix
from strategies import SMOOTH, chains, convs, image_shapes, networks


def deterministic(max_examples: int):
    return settings(deadline=None, derandomize=True, max_examples=max_examples)


def refused(error: type[Exception], *parts: str):
    """Expect ``error`` with a message that holds all ``parts``, in this order."""
    return pytest.raises(error, match="(?s)" + ".*".join(map(re.escape, parts)))


def distance(a, b):
    """Return the Frobenius norm of the difference over that of ``b``."""
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def tangent_kernel(module, image):
    """The network's own kernel on an image, whose channels are on the last axis if it has three."""
    return empirical_ntk(module, image, channel_axis=-1 if np.ndim(image) == 3 else None)


def as_batch(image):
    """Return a (1, C, H, W) tensor of an (H, W, C) image."""
    return torch.from_numpy(image).permute(2, 0, 1)[None]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """These networks are too small to share among threads: on a busy machine the threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- The limit of infinite width ----------------------------------------------------------------------------------

# An entry is name: (network, image shape).
LIMITS = {
    "one hidden": (vanilla_cnn(1, 3), (4, 4, 1)),
    "one hidden, circular": (vanilla_cnn(1, 7, padding="circular"), (4, 3, 2)),
    "two hidden": (vanilla_cnn(2, 3), (4, 4, 3)),
    "two hidden, circular": (vanilla_cnn(2, 3, padding="circular"), (5, 3, 1)),
    "biases": (
        Network([Conv(3, bias_var=0.5), ReLU(), Conv(3, weight_var=1, bias_var=1), ReLU(), Conv(1, bias_var=0.3)]),
        (3, 4, 2),
    ),
    "frozen first": (Network([Conv(3, bias_var=0.5, trainable=False), ReLU(), Conv(3), ReLU(), Conv(1)]), (4, 4, 2)),
    "only last": (Network([Conv(5, trainable=False), ReLU(), Conv(1)]), (4, 4, 2)),
    "only first": (
        Network([Conv(3), ReLU(), Conv(3, trainable=False), ReLU(), Conv(1, trainable=False)], "circular"),
        (4, 3, 1),
    ),
    "leaky": (Network([Conv(3), LeakyReLU(0.1), Conv(3), LeakyReLU(0.1), Conv(3)], "circular"), (4, 3, 2)),
    "absolute": (Network([Conv(3, weight_var=1), LeakyReLU(-1), Conv(1, weight_var=1)]), (4, 4, 1)),
    "no activation": (Network([Conv(3, weight_var=1), Conv(3, weight_var=1), ReLU(), Conv(1)]), (4, 3, 2)),
    "Erf and Sin": (Network([Conv(3, weight_var=1), Erf(), Conv(1, bias_var=0.5), Sin(), Conv(1)]), (4, 3, 2)),
    "GELU and Cos": (Network([Conv(3, weight_var=1), GELU(), Conv(1, bias_var=0.5), Cos(), Conv(1)]), (4, 3, 2)),
    "Abs": (Network([Conv(3, weight_var=1), Abs(), Conv(3, weight_var=1)], "circular"), (4, 3, 1)),
    "autoencoder": (autoencoder(1), (4, 4, 1)),
    "stride 2": (
        Network([Conv(3, stride=2), ReLU(), Upsample(mode="nearest"), Conv(3, bias_var=0.3)], "circular"),
        (4, 6, 2),
    ),
    "U-Net": (unet(1, share=0.3), (4, 4, 1)),
    "U-Net, circular": (unet(1, padding="circular"), (4, 4, 2)),
    "residual": (
        Network([Conv(3), Skip([ReLU(), Conv(3, weight_var=1)], merge="add"), ReLU(), Conv(1)]),
        (4, 3, 2),
    ),
    "concat with the image": (
        Network([Skip([Conv(3), ReLU()], share=0.7), Conv(3), ReLU(), Conv(1)], "circular"),
        (4, 3, 2),
    ),
    # These are twice and three times the width: the sum repeats both up to six times.
    "sum of concats": (
        Network(
            [
                *(Conv(3), ReLU()),
                Skip(
                    [Conv(1), Erf(), Skip([Conv(1)]), Skip([Conv(1)], share=0.8)],
                    merge="add",
                    shortcut=[Skip([Conv(1)], share=0.4)],
                ),
                Conv(1),
            ]
        ),
        (3, 4, 1),
    ),
}
# An entry is width: number of seeds; wide networks are slow, and their kernels vary less.
SEEDS = {12: 80, 36: 100, 72: 40}
each_limit = pytest.mark.parametrize("name", LIMITS)


@cache
def limit_samples(name: str, width: int) -> np.ndarray:
    """Return empirical kernels over the seeds, shape (seeds, d, d)."""
    network, shape = LIMITS[name]
    image = noise(*shape, seed=0)
    modules = (to_torch(network, width, shape[-1], seed) for seed in range(SEEDS[width]))
    return np.array([tangent_kernel(module, image).dense() for module in modules])


def limit(name: str) -> np.ndarray:
    network, shape = LIMITS[name]
    return kernel_matrix(network, noise(*shape, seed=0), channel_axis=-1)


@each_limit
def test_empirical_kernels_tend_to_the_kernel_as_one_over_the_root_of_the_width(name):
    theta = limit(name)
    errors = [np.sqrt(np.mean([distance(s, theta) ** 2 for s in limit_samples(name, width)])) for width in SEEDS]
    slope = np.polyfit(np.log(list(SEEDS)), np.log(errors), 1)[0]
    assert -0.65 <= slope <= -0.35
    assert errors[-1] < 0.5


@each_limit
@pytest.mark.parametrize("width", [36, 72])
def test_empirical_kernels_have_the_kernel_as_their_mean(name, width):
    theta, samples = limit(name), limit_samples(name, width)
    spread = np.sqrt(np.mean([distance(s, theta) ** 2 for s in samples]))
    # The bar is the random error of the mean, and a bias of order 1/width (none with one hidden layer).
    allowed = 2 * spread / math.sqrt(len(samples)) + 0.5 / width
    assert distance(samples.mean(axis=0), theta) <= allowed
    # The bar is low enough to tell the kernel from its neighbours.
    assert allowed < 0.12


@pytest.mark.parametrize(
    "name",
    [
        *("one hidden", "two hidden, circular", "biases", "leaky", "Erf and Sin", "GELU and Cos", "Abs"),
        *("stride 2", "residual", "autoencoder", "U-Net, circular", "sum of concats"),
    ],
)
def test_outputs_have_mean_zero_and_the_nngp_covariance(name):
    network, shape = LIMITS[name]
    image = noise(*shape, seed=0)
    expected = kernel_matrix(network, image, "nngp", channel_axis=-1)
    with torch.no_grad():
        outputs = [to_torch(network, 32, shape[-1], seed)(as_batch(image)).numpy().ravel() for seed in range(1000)]
    products = np.array([np.outer(z, z) for z in outputs])
    spread = np.sqrt(np.mean([distance(p, expected) ** 2 for p in products]))
    assert distance(products.mean(axis=0), expected) <= 2.5 * spread / math.sqrt(1000) + 0.5 / 32
    # The mean of n outputs has the covariance S / n, hence the mean square trace(S) / n.
    mean = np.mean(outputs, axis=0)
    assert mean @ mean <= 2.5**2 * np.trace(expected) / 1000


def test_the_authors_closed_form_is_the_limit_of_training_the_last_layer():
    # The kernel is |y_i||y_j|/pi (sin t + (pi - t) cos t) at w = 2, with y the patch times sqrt(w / (k^2 C)).
    shape = LIMITS["only last"][1]
    padded = np.pad(noise(*shape, seed=0), ((2, 2), (2, 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(0, 1))
    y = windows.reshape(16, 50) * math.sqrt(2 / 50)
    norm = np.linalg.norm(y, axis=1)
    cos = np.clip(y @ y.T / np.outer(norm, norm), -1, 1)
    t = np.arccos(cos)
    formula = np.outer(norm, norm) / math.pi * (np.sin(t) + (math.pi - t) * cos)
    assert distance(limit("only last"), formula) < 1e-12
    samples = limit_samples("only last", 72)
    spread = np.sqrt(np.mean([distance(s, formula) ** 2 for s in samples]))
    assert distance(samples.mean(axis=0), formula) <= 2.5 * spread / math.sqrt(len(samples))


# --- Exact at any width -------------------------------------------------------------------------------------------


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


# --- Parameters ---------------------------------------------------------------------------------------------------


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


# --- What is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["width", "in_channels", "out_channels", "rng"])
def test_to_torch_refuses_bad_integers(name):
    arguments = {"width": 4, "in_channels": 1, "rng": 0}
    for value in (1.0, "1", True, None)[: 3 if name == "rng" else 4]:
        with refused(TypeError, f"{name} must be an integer", f"got {value!r}"):
            to_torch(vanilla_cnn(), **{**arguments, name: value})
    least = 0 if name == "rng" else 1
    for value in (least - 1, -5):
        with refused(ValueError, f"{name} must be at least {least}", f"got {value}"):
            to_torch(vanilla_cnn(), **{**arguments, name: value})
    assert to_torch(vanilla_cnn(), **{**arguments, name: np.int64(3)})


def test_to_torch_refuses_seeds_that_torch_has_not():
    assert to_torch(vanilla_cnn(), 4, 1, 2**63 - 1)
    with refused(ValueError, "rng must be less than 2**63", f"got {2**63}"):
        to_torch(vanilla_cnn(), 4, 1, 2**63)


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


@pytest.mark.parametrize("value", [torch.int64, torch.complex64, "float64", float, None, np.float64])
def test_to_torch_refuses_dtypes_that_are_not_floating_point(value):
    with refused(TypeError, "dtype must be a floating-point torch.dtype", f"got {value!r}"):
        to_torch(vanilla_cnn(), 4, 1, dtype=value)


@pytest.mark.parametrize("value", [None, [Conv(3)], Network, "net"])
def test_to_torch_refuses_what_is_no_network(value):
    with refused(TypeError, "network must be an ntkfast.Network", f"got {value!r}"):
        to_torch(value, 4, 1)


@pytest.mark.parametrize(
    ("dtype", "needed"),
    [
        # The bytes are those of 3x3 from 2 to 7 channels with a bias, 1x1 from 7 to 3: what is kept, and float64 for
        # one draw.
        (torch.float64, 8 * (126 + 7 + 21)),
        (torch.float32, 4 * 126 + 8 * 126),
        (torch.float16, 2 * 126 + 8 * 126),
    ],
)
def test_to_torch_refuses_networks_that_do_not_fit_before_drawing(dtype, needed, monkeypatch):
    network = Network([Conv(3, bias_var=0.5), ReLU(), Conv(1)])
    monkeypatch.setattr(memory, "available_memory", lambda: needed - 1)
    named = "width = 7, in_channels = 2 and out_channels = 3"
    with refused(MemoryError, named, f"{needed} bytes", "but only", "use fewer channels"):
        to_torch(network, 7, 2, dtype=dtype, out_channels=3)
    monkeypatch.setattr(memory, "available_memory", lambda: needed)
    to_torch(network, 7, 2, dtype=dtype, out_channels=3)


def test_to_torch_refuses_a_width_that_fits_nowhere():
    with refused(MemoryError, f"width = {10**12}, in_channels = 1", "bytes), but only"):
        to_torch(unet(2), 10**12, 1)


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (2, 2, 4), (2, 2)])
def test_modules_refuse_inputs_of_another_shape(shape):
    with refused(ValueError, "input must have shape (N, 2, H, W)", f"got {shape}"):
        to_torch(vanilla_cnn(), 4, 2)(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(4,), (1, 1, 4, 4), (0, 4), (4, 0, 1), (4, 4, 0), ()])
def test_empirical_ntk_refuses_arrays_that_are_no_images(shape):
    with refused(ValueError, "x must", f"got shape {shape}"):
        tangent_kernel(to_torch(vanilla_cnn(), 4, 1), np.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_empirical_ntk_refuses_images_that_are_not_finite(value):
    image = np.zeros((3, 3))
    image[1, 2] = value
    with refused(ValueError, "x must be finite"):
        tangent_kernel(to_torch(vanilla_cnn(), 4, 1), image)


@pytest.mark.parametrize("value", [np.zeros((2, 2), complex), np.array([["a"]]), None, "image"])
def test_empirical_ntk_refuses_images_that_are_not_real(value):
    with refused(TypeError, "x must be a real numeric array", "got dtype"):
        tangent_kernel(to_torch(vanilla_cnn(), 4, 1), value)


@pytest.mark.parametrize("value", [None, vanilla_cnn(), torch.nn.ReLU])
def test_empirical_ntk_refuses_what_is_no_module(value):
    with refused(TypeError, "module must be a torch.nn.Module", f"got {value!r}"):
        tangent_kernel(value, np.zeros((2, 2)))


def test_empirical_ntk_refuses_modules_without_parameters_or_with_other_outputs():
    with refused(ValueError, "module must have parameters", "got ReLU()"):
        tangent_kernel(torch.nn.ReLU(), np.zeros((2, 2)))
    with refused(TypeError, "module must have parameters of float32 or float64", "got torch.float16"):
        tangent_kernel(to_torch(vanilla_cnn(), 4, 1, dtype=torch.float16), np.zeros((2, 2)))
    for other, shape in ((torch.nn.Conv2d(1, 1, 2), "(1, 1, 1, 2)"), (torch.nn.Flatten(2), "(1, 1, 6)")):
        module = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), other)
        with refused(ValueError, "module must map to shape (1, C_out, 2, 3)", f"got {shape}"):
            tangent_kernel(module, np.zeros((2, 3)))
    with refused(ValueError, "module must take x", "input must have shape (N, 3, H, W)", "got (1, 1, 2, 3)"):
        tangent_kernel(to_torch(vanilla_cnn(), 4, 3), np.zeros((2, 3)))


@pytest.mark.parametrize("use", ["import ntkfast.finite", "ntkfast.from_torch", "from ntkfast import from_torch"])
def test_without_torch_the_import_says_what_is_missing(use):
    code = f"import sys; sys.modules['torch'] = None; import ntkfast; print('imported'); {use}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "imported\n"
    assert "ImportError: ntkfast.finite and from_torch need PyTorch: install it with `pip install torch`" in done.stderr
