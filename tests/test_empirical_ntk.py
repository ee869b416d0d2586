"""The empirical tangent kernel as an operator must agree with the Jacobian that autograd gives row by row."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import eigsh

import ntkfast as nf
from finite_networks import distance, tangent_kernel
from images import noise
from ntkfast.activations import GELU, Cos, Erf, LeakyReLU, ReLU
from ntkfast.engine import memory
from ntkfast.finite import empirical, to_torch
from ntkfast.network import Conv, Network, Skip, Upsample, autoencoder, unet, vanilla_cnn
from refusals import refused
from strategies import networks

# An entry is name: (network, shape of the input, output channels).
CASES = {
    "one hidden": (vanilla_cnn(1, 3), (4, 5, 1), 1),
    "two hidden, circular, several channels": (vanilla_cnn(2, 5, padding="circular"), (4, 3, 2), 3),
    "biases": (Network([Conv(3, bias_var=0.5), ReLU(), Conv(1, bias_var=0.3)]), (3, 4, 2), 2),
    "frozen first": (Network([Conv(3, bias_var=0.5, trainable=False), ReLU(), Conv(3), ReLU(), Conv(1)]), (4, 4, 1), 1),
    "only last": (Network([Conv(5, trainable=False), LeakyReLU(0.1), Conv(3)], "circular"), (4, 3, 2), 2),
    "smooth": (Network([Conv(3), GELU(), Conv(3), Erf(), Conv(1), Cos(), Conv(1)]), (3, 4, 1), 1),
    "autoencoder": (autoencoder(1), (4, 6, 3), 3),
    "stride 2, circular": (Network([Conv(3, stride=2), ReLU(), Upsample(), Conv(3)], "circular"), (4, 6, 1), 1),
    "unet": (unet(2), (4, 4, 1), 1),
    "unet, circular, several channels": (unet(1, padding="circular"), (4, 6, 2), 2),
    "residual": (Network([Conv(3), Skip([ReLU(), Conv(3)], merge="add"), ReLU(), Conv(1)]), (4, 3, 2), 1),
}
each_case = pytest.mark.parametrize("name", CASES)


pytestmark = pytest.mark.usefixtures("one_torch_thread")


def make(name, width=5, dtype=torch.float64):
    """Return module and input."""
    network, shape, out_channels = CASES[name]
    return to_torch(network, width, shape[2], rng=1, dtype=dtype, out_channels=out_channels), noise(*shape, seed=2)


def jacobian_kernel(module, x):
    """Return J J^T, the rows of J by one backward pass each, in the order (row, col, channel)."""
    z = module(torch.from_numpy(x).permute(2, 0, 1)[None])[0]
    trained = [p for p in module.parameters() if p.requires_grad]
    channels, height, width = z.shape
    rows = [
        torch.cat([g.ravel() for g in torch.autograd.grad(z[c, row, col], trained, retain_graph=True)])
        for row in range(height)
        for col in range(width)
        for c in range(channels)
    ]
    jacobian = torch.stack(rows).numpy()
    return jacobian @ jacobian.T


# --- Against autograd ---------------------------------------------------------------------------------------------


@each_case
def test_products_the_matrix_and_its_diagonal_are_those_of_the_jacobian(name):
    module, x = make(name)
    expected = jacobian_kernel(module, x)
    K = tangent_kernel(module, x)
    d = len(expected)
    assert K.shape == (d, d)
    assert K.dtype == np.float64
    V = np.random.default_rng(0).standard_normal((d, 3))
    assert distance(K.matmat(V), expected @ V) < 1e-13
    assert distance(K @ V[:, 0], expected @ V[:, 0]) < 1e-13
    assert distance(K.T @ V[:, 0], expected @ V[:, 0]) < 1e-13
    assert distance(K.dense(), expected) < 1e-13
    assert distance(K.diagonal(), np.diagonal(expected)) < 1e-13


@pytest.mark.parametrize("batch_numbers", [1, 700, 2000])
def test_the_jacobian_may_come_in_several_batches(batch_numbers, monkeypatch):
    module, x = make("two hidden, circular, several channels")
    K = tangent_kernel(module, x)
    whole, diagonal = K.dense(), K.diagonal()
    monkeypatch.setattr(empirical, "BATCH_NUMBERS", batch_numbers)
    assert K._batch() < 36
    assert distance(K.dense(), whole) < 1e-14
    assert distance(K.diagonal(), diagonal) < 1e-14


def test_batches_are_small_where_the_features_are_large(monkeypatch):
    """Each row of the Jacobian is a reverse pass through them: 16 channels of 24 x 24 behind only 160 parameters."""
    K = tangent_kernel(to_torch(vanilla_cnn(1, 3), 16, 1), noise(24, 24, 1, seed=0))
    whole = K.diagonal()
    monkeypatch.setattr(empirical, "BATCH_NUMBERS", 2**17)
    assert 1 <= K._batch() <= 2**17 // (16 * 24 * 24)
    assert distance(K.diagonal(), whole) < 1e-14


@settings(deadline=None, derandomize=True, max_examples=15)
@given(networks(max_kernel=3), st.integers(1, 3))
def test_products_with_random_networks_are_those_of_the_matrix_symmetric_and_positive(network, out_channels):
    x = noise(network.multiple, 2 * network.multiple, 2, seed=3)
    K = tangent_kernel(to_torch(network, 3, 2, out_channels=out_channels), x)
    assert K.shape == (out_channels * 2 * network.multiple**2,) * 2
    products, matrix = K.matmat(np.eye(K.shape[0])), K.dense()
    scale = np.abs(matrix).max()
    assert np.abs(products - matrix).max() <= 1e-12 * scale
    assert np.abs(products - products.T).max() <= 1e-12 * scale
    assert np.linalg.eigvalsh(matrix)[0] >= -1e-12 * len(matrix) * scale


def test_the_kernel_of_several_output_channels_is_theirs_side_by_side():
    # With the last layer alone trained the channels share no parameters, and each has the kernel of the features.
    network = Network([Conv(3, trainable=False), ReLU(), Conv(1)])
    x = noise(3, 4, 1, seed=4)
    one = tangent_kernel(to_torch(network, 6, 1), x).dense()
    three = tangent_kernel(to_torch(network, 6, 1, out_channels=3), x).dense()
    assert distance(three, np.kron(one, np.eye(3))) < 1e-14


@pytest.mark.parametrize("name", ["unet", "biases"])
def test_single_precision(name):
    single, double = (tangent_kernel(*make(name, dtype=dtype)) for dtype in (torch.float32, torch.float64))
    V = np.random.default_rng(1).standard_normal((single.shape[0], 2))
    assert single.dtype == single.dense().dtype == single.diagonal().dtype == (single @ V).dtype == np.float32
    assert distance(single @ V, double @ V) < 1e-5
    assert distance(single.dense(), double.dense()) < 1e-5


def test_inputs_of_any_layout_and_type():
    module, x = make("one hidden")
    v = np.arange(20.0)
    expected = tangent_kernel(module, x) @ v
    for same in (np.asfortranarray(x), x[::-1, ::-1].copy()[::-1, ::-1], x[..., 0], x.tolist()):
        assert np.array_equal(tangent_kernel(module, same) @ v, expected)
    levels = np.arange(20).reshape(4, 5).astype(np.uint8)
    assert np.array_equal(tangent_kernel(module, levels) @ v, tangent_kernel(module, levels.astype(float)) @ v)
    columns = np.asfortranarray(np.outer(v, [1, 2])).astype(int)
    assert np.array_equal((tangent_kernel(module, x) @ columns)[:, 0], expected)


# --- Its own weights ----------------------------------------------------------------------------------------------


def test_the_weights_are_those_at_creation():
    module, x = make("unet")
    K, v = tangent_kernel(module, x), np.arange(16.0)
    before, matrix = K @ v, K.dense()
    with torch.no_grad():
        for p in module.parameters():
            p *= 2
    x *= 3
    assert np.array_equal(K @ v, before)
    assert np.array_equal(K.dense(), matrix)
    assert distance(tangent_kernel(module, x) @ v, before) > 1


def test_buffers_are_those_at_creation():
    norm = torch.nn.BatchNorm2d(3)
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, padding=1), norm, torch.nn.Conv2d(3, 1, 1)).double().eval()
    x = noise(3, 4, 1, seed=5)
    K = tangent_kernel(module, x)
    assert distance(K.dense(), jacobian_kernel(module, x)) < 1e-13
    before = K.dense()
    norm.running_var.fill_(0.1)
    assert np.array_equal(K.dense(), before)


def test_the_module_is_left_alone():
    module, x = make("biases")
    before = {name: p.clone() for name, p in module.state_dict().items()}
    K = tangent_kernel(module, x)
    K.matmat(np.eye(K.shape[0]))
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert all(torch.equal(p, before[name]) for name, p in module.state_dict().items())


def test_gradients_need_not_be_enabled():
    module, x = make("one hidden")
    v = np.arange(20.0)
    expected = tangent_kernel(module, x) @ v
    with torch.no_grad():
        K = tangent_kernel(module, x)
        assert np.array_equal(K @ v, expected)
        assert distance(K.dense() @ v, expected) < 1e-13


def test_without_trained_parameters_it_is_zero():
    K = tangent_kernel(to_torch(Network([Conv(3, trainable=False)]), 1, 1), np.ones((2, 3)))
    assert not K.matmat(np.eye(6)).any()
    assert not K.dense().any()
    assert not K.diagonal().any()


# --- Layers with two modes, layers in place -----------------------------------------------------------------------


def between_convolutions(layer):
    """Return two convolutions of torch, in double precision, around a layer."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, padding=1), layer, torch.nn.Conv2d(3, 1, 1)).double()


class Silent(torch.nn.Module):
    """This is random in training mode, by a function that no submodule shows."""

    def forward(self, h):
        return torch.nn.functional.dropout(h, 0.5, self.training)


class Counting(torch.nn.Module):
    """Its output grows with the number of its evaluations, in either mode."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, h):
        return h * self.count.add_(1)


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (torch.nn.Dropout(0.3), "is random in training mode"),
        (torch.nn.Dropout2d(0.3), "is random in training mode"),
        (torch.nn.AlphaDropout(0.3), "is random in training mode"),
        (torch.nn.RReLU(), "is random in training mode"),
        (torch.nn.BatchNorm2d(3), "changes its running statistics in training mode"),
        (torch.nn.InstanceNorm2d(3, track_running_stats=True), "changes its running statistics in training mode"),
    ],
    ids=repr,
)
def test_layers_that_are_random_or_change_in_training_mode_are_refused_by_name(layer, what):
    module, x = between_convolutions(layer), noise(4, 5, 1, seed=8)
    with refused(ValueError, "module must have one Jacobian", f"submodule '1', {layer!r}, {what}: call module.eval()"):
        tangent_kernel(module, x)
    module.eval()
    assert distance(tangent_kernel(module, x) @ np.eye(20), jacobian_kernel(module, x)) < 1e-13
    layer.train()  # the mode that counts is the layer's own
    with refused(ValueError, "submodule '1'"):
        tangent_kernel(module, x)


def test_a_layer_that_is_the_whole_module_is_refused_too():
    with refused(ValueError, "module must have one Jacobian, but BatchNorm2d(1,", "call module.eval()"):
        tangent_kernel(torch.nn.BatchNorm2d(1), np.ones((2, 3)))


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.Tanh(),
        torch.nn.ReLU(inplace=True),
        torch.nn.Dropout(0.0),
        torch.nn.GroupNorm(1, 3),
        torch.nn.InstanceNorm2d(3),
        torch.nn.BatchNorm2d(3, track_running_stats=False),
    ],
    ids=repr,
)
def test_layers_that_are_the_same_in_both_modes_are_taken_in_either(layer):
    module, x = between_convolutions(layer), noise(4, 5, 1, seed=8)
    for training in (True, False):
        module.train(training)
        K = tangent_kernel(module, x)
        assert distance(K @ np.eye(20), jacobian_kernel(module, x)) < 1e-12
        assert module.training is training


def test_modules_with_another_output_each_time_are_refused():
    module, x = between_convolutions(Silent()), noise(4, 5, 1, seed=8)
    with refused(ValueError, "module must have the same output each time", "differ by up to", "call module.eval()"):
        tangent_kernel(module, x)
    assert tangent_kernel(module.eval(), x).shape == (20, 20)
    counting = between_convolutions(Counting()).eval()
    with refused(ValueError, "module must have the same output each time", "remove what", "changes its state"):
        tangent_kernel(counting, x)
    assert counting[1].count == 0


def test_a_first_layer_in_place_leaves_the_input_alone():
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(1, 1, 3, padding=1).double()
    in_place, plain = (torch.nn.Sequential(torch.nn.LeakyReLU(0.1, inplace), convolution) for inplace in (True, False))
    x = noise(4, 5, 1, seed=8)
    K, expected = tangent_kernel(in_place, x), jacobian_kernel(plain, x)
    for _ in range(2):
        assert distance(K @ np.eye(20), expected) < 1e-13
        assert distance(K.dense(), expected) < 1e-13
        assert distance(K.diagonal(), np.diagonal(expected)) < 1e-13


# --- As the kernel of filters -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one hidden", "autoencoder"])
def test_the_filters_and_scipy_take_it(name):
    module, x = make(name)
    K = tangent_kernel(module, x)
    values, vectors = np.linalg.eigh(K.dense())
    y = np.random.default_rng(6).standard_normal(K.image_shape)
    assert K.lambda_max is None
    z, info = nf.gradient_descent(K, y, [0, 1, 30], return_info=True)
    assert z.shape == (3, *K.image_shape)
    assert math.isclose(K.lambda_max, values[-1], rel_tol=1e-5)
    assert K.lambda_max == info.lambda_max
    for t, result in zip((0, 1, 30), z, strict=True):
        expected = vectors @ ((1 - (1 - info.learning_rate * values) ** t) * (vectors.T @ y.ravel()))
        assert np.linalg.norm(result.ravel() - expected) <= 1e-9 * np.linalg.norm(y)
    iterated = nf.gradient_descent(K, y, 30, info.learning_rate, method="iteration")
    assert distance(iterated, z[-1]) < 1e-8
    expected = vectors @ (values / (values + 0.5) * (vectors.T @ y.ravel()))
    assert distance(nf.ridge(K, y.ravel(), 0.5), expected) < 1e-9
    assert np.allclose(eigsh(K, 2, return_eigenvectors=False), values[-2:], rtol=1e-10)


def test_targets_have_the_shape_of_the_output():
    K = tangent_kernel(*make("autoencoder"))
    assert K.image_shape == (4, 6, 3)
    y = noise(4, 6, 3, seed=7)
    z = nf.gradient_descent(K, y, 5)
    assert distance(nf.gradient_descent(K, y.ravel(), 5), z.ravel()) < 1e-8
    both = nf.gradient_descent(K, np.stack([y, 2 * y], axis=-1), 5)
    assert both.shape == (4, 6, 3, 2)
    assert distance(both[..., 0], z) < 1e-8
    for shape in ((4, 6), (6, 4, 3), (4, 6, 2), (4, 6, 3, 1, 1)):
        with refused(ValueError, "y must have shape (72,) or (72, n), or (4, 6, 3)", f"got {shape}"):
            nf.gradient_descent(K, np.ones(shape), 5)


# --- What is refused ----------------------------------------------------------------------------------------------


def test_a_jacobian_that_does_not_fit_is_refused_with_its_bytes(monkeypatch):
    module, x = make("one hidden")
    K = tangent_kernel(module, x)
    d, parameters = 20, 5 * 9 + 5
    needed = 8 * (d * (parameters + d) + 2 * d * parameters)
    monkeypatch.setattr(memory, "available_memory", lambda: needed - 1)
    with refused(MemoryError, "the Jacobian needs", f"({needed} bytes)", "multiply with the operator"):
        K.dense()
    assert (K @ np.ones(d)).shape == (d,)
    monkeypatch.setattr(memory, "available_memory", lambda: needed)
    assert K.dense().shape == (d, d)


def test_complex_vectors_are_mapped_by_their_parts():
    K = tangent_kernel(*make("one hidden"))
    v, w = noise(4, 5, 2, seed=3).reshape(20, 2).T
    out = K @ (v + 1j * w)
    assert out.dtype == np.complex128
    np.testing.assert_allclose(out.real, K @ v, rtol=1e-12)
    np.testing.assert_allclose(out.imag, K @ w, rtol=1e-12)
    with refused(TypeError, "the operator applies to real vectors", "object"):
        K @ np.ones(20, object)


def test_images_that_overflow_in_the_type_of_the_parameters_are_refused():
    x = noise(4, 5, 1, seed=8)
    x[1, 2] = -3e39
    with refused(ValueError, "x must be finite in float32", "got values up to 3e+39"):
        tangent_kernel(make("one hidden", dtype=torch.float32)[0], x)
    assert tangent_kernel(make("one hidden")[0], x).shape == (20, 20)


def test_outputs_that_are_not_finite_are_refused():
    module, x = make("one hidden")
    with torch.no_grad():
        module[0].weight[0] = math.nan
    with refused(ValueError, "module must have a finite output on x", "got 20 NaN or infinite values"):
        tangent_kernel(module, x)


class Pair(torch.nn.Conv2d):
    """This returns no tensor."""

    def forward(self, h):
        return super().forward(h), h


@pytest.mark.parametrize(
    ("module", "shape", "error", "parts"),
    [
        (to_torch(unet(2), 4, 1), (6, 6), ValueError, ("got an error on (1, 1, 6, 6)", "Sizes of tensors must match")),
        (torch.nn.Conv2d(3, 1, 3), (4, 5), ValueError, ("got an error on (1, 1, 4, 5)", "Given groups=1")),
        (to_torch(vanilla_cnn(), 4, 3), (4, 5), ValueError, ("got an error on (1, 1, 4, 5)", "input must have shape")),
        (torch.nn.Bilinear(1, 1, 1), (4, 5), ValueError, ("got an error on (1, 1, 4, 5)", "missing 1 required")),
        (Pair(1, 1, 1), (4, 5), TypeError, ("module must return a tensor", "got tuple")),
    ],
    ids=["sizes", "channels", "channels of to_torch", "arguments", "tuple"],
)
def test_modules_that_do_not_take_the_image_are_refused_with_torch_s_reason(module, shape, error, parts):
    if error is ValueError:
        parts = ("module must take x of shape (1, C, H, W)", *parts)
    with refused(error, *parts):
        tangent_kernel(module, np.ones(shape))


def test_a_card_that_is_full_is_no_fault_of_the_module():
    class Full(torch.nn.Conv2d):
        def forward(self, h):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with refused(torch.cuda.OutOfMemoryError, "CUDA out of memory"):
        tangent_kernel(Full(1, 1, 1), np.ones((4, 5)))
