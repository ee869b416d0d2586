"""These test the reference against oracles: patches, quadrature, PyTorch's layers, values by hand, finite networks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given
from hypothesis import strategies as st

from images import noise
from ntkfast.activations import GELU, Cos, Erf, Gaussian, LeakyReLU, ReLU, Sin
from ntkfast.network import AvgPool, Conv, Network, Skip, Upsample
from oracles import (
    KERNELS,
    PADDINGS,
    PARALLEL,
    SLOPES,
    assert_close,
    explicit_kernels,
    gaussian_mean,
    kernel_matrix,
    patches,
)
from strategies import SMOOTH, chains, deterministic, image_shapes, networks


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 9])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 2), (5, 1, 1), (4, 3, 3), (6, 5, 1)])
def test_first_layer_is_the_product_of_patches(shape, kernel_size, padding):
    image = noise(*shape, seed=1)
    p = patches(image, kernel_size, padding)
    expected = 1.5 / p.shape[1] * p @ p.T + 0.25
    net = Network([Conv(kernel_size, weight_var=1.5, bias_var=0.25)], padding)
    for kernel in KERNELS:
        assert_close(kernel_matrix(net, image, kernel), expected)


def activation_kernels(layer, s):
    """Return the reference's Q and Q' of a 2 x 2 covariance: two pixels, kernels of one pixel, unit variances."""
    image = math.sqrt(2) * np.linalg.cholesky(s).reshape(1, 2, 2)
    first, last = Conv(1, weight_var=1), Conv(1, weight_var=1, trainable=False)
    net = Network([first, layer, last])
    return kernel_matrix(net, image, "nngp"), kernel_matrix(net, image, "ntk") / s


@pytest.mark.parametrize("slope", SLOPES)
def test_activation_kernels_are_gaussian_means(slope):
    rng = np.random.default_rng(2)
    layer = LeakyReLU(slope) if slope else ReLU()
    for rho in (*rng.uniform(-1, 1, 12), 0.999, -0.999, 0.999999):
        p = 10 ** rng.uniform(-2, 2, 2)
        s = np.outer(p, p) * np.array([[1, rho], [rho, 1]])
        q, dq = activation_kernels(layer, s)
        mean_q = gaussian_mean(s, lambda x: np.where(x > 0, x, slope * x), n=128)
        mean_dq = gaussian_mean(s, lambda x: np.where(x > 0, 1.0, slope), n=128)
        # The bar is relative to every entry: the pixels may differ by orders of magnitude.
        scale = (1 + slope**2) * np.outer(p, p)
        assert_close(q / scale, mean_q / scale, 1e-9)
        assert_close(dq, mean_dq, 1e-9)


@pytest.mark.parametrize(
    ("layer", "f", "df"),
    [
        (Erf(), scipy.special.erf, lambda x: 2 / math.sqrt(math.pi) * np.exp(-(x**2))),
        (
            GELU(),
            lambda x: x * scipy.special.ndtr(x),
            lambda x: scipy.special.ndtr(x) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi),
        ),
        (Sin(), np.sin, np.cos),
        (Cos(), np.cos, lambda x: -np.sin(x)),
        (Gaussian(), lambda x: np.exp(-(x**2) / 2), lambda x: -x * np.exp(-(x**2) / 2)),
    ],
    ids=["erf", "gelu", "sin", "cos", "gaussian"],
)
def test_smooth_activations_are_what_their_names_say(layer, f, df):
    x = np.linspace(-6, 6, 241)
    np.testing.assert_allclose(layer.function(x), f(x), rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(layer.derivative(x), df(x), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("layer", SMOOTH, ids=repr)
def test_smooth_activation_kernels_are_gaussian_means(layer):
    # The oracle is Gauss-Hermite: E[f(u) f(v)] = sum_ab w_a w_b f(p_i x_a) f(p_j (rho x_a + sqrt(1 - rho^2) x_b)).
    x, w = np.polynomial.hermite_e.hermegauss(150)
    w = w / w.sum()
    rng = np.random.default_rng(2)
    for rho in (*rng.uniform(-1, 1, 12), 0.999, -0.999, 0.999999):
        p = 10 ** rng.uniform(-2, 0.2, 2)
        s = np.outer(p, p) * np.array([[1, rho], [rho, 1]])
        q, dq = activation_kernels(layer, s)
        u, v = p[0] * x[:, None], p[1] * (rho * x[:, None] + math.sqrt(1 - rho**2) * x)
        for dual, f in zip((q, dq), (layer.function, layer.derivative), strict=True):
            assert dual[0, 1] == pytest.approx(w @ (f(u) * f(v)) @ w, rel=1e-11, abs=1e-14)
            for n in (0, 1):
                assert dual[n, n] == pytest.approx(w @ f(p[n] * x) ** 2, rel=1e-11)


@pytest.mark.parametrize("rho", [-0.8, -0.1, 0.3, 0.99])
def test_smooth_activations_far_from_zero(rho):
    # These are steps of p = 1e5 standard deviations: erf is a sign (arcsine law), GELU a ReLU, sine and cosine two
    # random phases.
    s = 1e10 * np.array([[1, rho], [rho, 1]])
    q, dq = activation_kernels(Erf(), s)
    assert q[0, 1] == pytest.approx(2 / math.pi * math.asin(rho), rel=1e-9)
    assert dq[0, 1] == pytest.approx(2 / math.pi / 1e10 / math.sqrt(1 - rho**2), rel=1e-9)
    for smooth, rectified in zip(activation_kernels(GELU(), s), activation_kernels(ReLU(), s), strict=True):
        assert_close(smooth, rectified, 1e-5)  # they differ by 1 / p
    for layer in (Sin(), Cos()):
        for dual in activation_kernels(layer, s):
            assert_close(dual, np.eye(2) / 2, 1e-15)


@pytest.mark.parametrize(("layer", "gain"), [(Erf(), 4 / math.pi), (Sin(), 1.0), (GELU(), 0.25)])
def test_smooth_activations_close_to_zero_are_linear(layer, gain):
    s = 1e-14 * np.array([[1, 0.3], [0.3, 2]])
    q, dq = activation_kernels(layer, s)
    assert_close(q, gain * s, 1e-12)
    assert_close(dq, np.full((2, 2), gain), 1e-12)


def test_sines_and_cosines_side_by_side_are_a_gaussian_kernel():
    # Random Fourier features (Rahimi & Recht, 2007) have E[cos(u - v)] = exp(-Var(u - v) / 2).
    image = noise(4, 3, 2, seed=16)
    net = Network([Skip([Conv(3), Sin()], shortcut=[Conv(3), Cos()]), Conv(1)])
    s = kernel_matrix(Network([Conv(3)]), image, "nngp")
    half = (np.diagonal(s)[:, None] + np.diagonal(s)) / 2 - s
    assert_close(kernel_matrix(net, image, "nngp"), np.exp(-half), 1e-14)


@pytest.mark.parametrize("slope", SLOPES)
def test_activation_kernels_of_parallel_orthogonal_and_opposite_patches(slope):
    # The image of one channel has the pixels 1, 3, -2 with kernels of one pixel; the means are elementary.
    x = np.array([1.0, 3.0, -2.0])
    plus, minus = (1 + slope**2) / 2, slope
    net = Network([Conv(1, weight_var=1), LeakyReLU(slope), Conv(1, weight_var=1, trainable=False)])
    image = x.reshape(1, 3, 1)
    same = np.outer(x, x) > 0
    assert_close(kernel_matrix(net, image, "nngp"), np.where(same, plus, minus) * np.outer(x, x), PARALLEL)
    assert_close(kernel_matrix(net, image, "ntk"), np.where(same, plus, minus) * np.outer(x, x), PARALLEL)
    # Orthogonal pixels have (E f(z))^2 = ((1 - slope) / sqrt(2 pi))^2.
    eye = math.sqrt(2) * np.eye(2).reshape(1, 2, 2)
    q = kernel_matrix(net, eye, "nngp")
    assert q[0, 1] == pytest.approx((1 - slope) ** 2 / (2 * math.pi), rel=1e-14)
    assert kernel_matrix(net, eye, "ntk")[0, 1] == 0


@deterministic(40)
@given(chains(max_depth=2, max_kernel=5), image_shapes(max_side=3), st.integers(0, 1000))
def test_random_networks_against_shift_matrices_and_quadrature(net, shape, seed):
    image = noise(*(*shape, 1)[:3], seed=seed)
    for kernel, expected in zip(KERNELS, explicit_kernels(net, image), strict=True):
        assert_close(kernel_matrix(net, image.reshape(shape), kernel), expected, PARALLEL)


@pytest.mark.parametrize("padding", PADDINGS)
def test_a_deep_network_against_shift_matrices_and_quadrature(padding):
    layers = [
        Conv(3, bias_var=0.1),
        ReLU(),
        Conv(5, weight_var=1.2, trainable=False),
        LeakyReLU(-0.3),
        Conv(3, bias_var=0.3),
        Conv(1, weight_var=0.7),
        LeakyReLU(0.2),
        Conv(3),
    ]
    image = noise(3, 4, 2, seed=3)
    net = Network(layers, padding)
    for kernel, expected in zip(KERNELS, explicit_kernels(net, image), strict=True):
        assert_close(kernel_matrix(net, image, kernel), expected, 1e-12)


def test_two_orthogonal_pixels_by_hand():
    # S = I;  Q = I/2 off 1/(2 pi), T' = I/2;  S = I off 1/pi;  T = S + 2 T'
    image = np.eye(2).reshape(1, 2, 2)
    net = Network([Conv(1), ReLU(), Conv(1)])
    assert_close(kernel_matrix(net, image, "nngp"), np.array([[1, 1 / math.pi], [1 / math.pi, 1]]), 1e-15)
    assert_close(kernel_matrix(net, image), np.array([[2, 1 / math.pi], [1 / math.pi, 2]]), 1e-15)


def test_borders_by_hand():
    # The row (1, 2) lies under a 3 x 3 kernel of weight variance 9, so that S counts products of pixels.  With zeros
    # the patches are (0 1 2), (1 2 0); circular ones are (2 1 2), (1 2 1), each in three equal rows.
    image = np.array([[1.0, 2.0]])
    zeros, circular = (Network([Conv(3, weight_var=9)], padding) for padding in PADDINGS)
    assert_close(kernel_matrix(zeros, image), np.array([[5.0, 2.0], [2.0, 5.0]]), 1e-15)
    assert_close(kernel_matrix(circular, image), 3 * np.array([[9.0, 6.0], [6.0, 6.0]]), 1e-15)


def test_one_pixel_by_hand():
    # The mean square of (1, 2, 2) is 3.  Zeros see the pixel once in 9: S = 18/9 * 3 + 1 = 7; Q = 3.5, T' = 3.5;
    # S = 9/9 * 3.5 + 0.5 = 4,  T = 4 + 3.5.  Circular padding sees it 9 times: S = 54 + 1, Q = T' = 27.5,
    # S = 9 * 27.5 + 0.5 = 248,  T = 248 + 247.5.
    image = np.array([[[1.0, 2.0, 2.0]]])
    layers = [Conv(3, weight_var=18, bias_var=1), ReLU(), Conv(3, weight_var=9, bias_var=0.5)]
    for padding, s, t in (("zeros", 4.0, 7.5), ("circular", 248.0, 495.5)):
        assert kernel_matrix(Network(layers, padding), image, "nngp").item() == pytest.approx(s, rel=1e-14)
        assert kernel_matrix(Network(layers, padding), image).item() == pytest.approx(t, rel=1e-14)


@pytest.mark.parametrize("flags", list(itertools.product((True, False), repeat=3)))
def test_frozen_layers_by_hand(flags):
    # With one pixel of 1, no bias and weight variance 2, S = 2 in every layer and E[relu'^2] = 1/2, so that every
    # trained layer adds 2.
    c1, c2, c3 = (Conv(1, trainable=flag) for flag in flags)
    theta = kernel_matrix(Network([c1, ReLU(), c2, ReLU(), c3]), np.ones((1, 1)))
    assert theta.item() == pytest.approx(2 * sum(flags), rel=1e-14)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_closed_form_of_one_hidden_layer_with_the_last_layer_trained(kernel_size, padding):
    # The kernel is |y_i||y_j|/pi (sin t + (pi - t) cos t) with y the patch times sqrt(2 / (k^2 C)).
    image = noise(5, 4, 3, seed=4)
    y = patches(image, kernel_size, padding) * math.sqrt(2 / (3 * kernel_size**2))
    norm = np.linalg.norm(y, axis=1)
    t = np.arccos(np.clip(y @ y.T / np.outer(norm, norm), -1, 1))
    expected = np.outer(norm, norm) / math.pi * (np.sin(t) + (math.pi - t) * np.cos(t))
    net = Network([Conv(kernel_size, trainable=False), ReLU(), Conv(1)], padding)
    assert_close(kernel_matrix(net, image), expected, 1e-10)


LAYERS = {
    "pool": [AvgPool()],
    "stride": [Conv(3, stride=2, weight_var=1.5, bias_var=0.3)],
    "stride5": [Conv(5, stride=2, trainable=False)],
    "bilinear": [AvgPool(), Upsample()],
    "nearest": [AvgPool(), Upsample(mode="nearest")],
    "bilinear twice": [AvgPool(), AvgPool(), Upsample(), Upsample()],
}


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_linear_layers_are_the_matrices_of_pytorch(layers, padding):
    # The path goes back to the image's resolution by "nearest", so that no entry is lost, after a Conv that makes T' !=
    # 0.
    up = [] if isinstance(layers[-1], Upsample) else [Upsample(mode="nearest")]
    net = Network([Conv(3, bias_var=0.1), *layers, *up, Conv(1)], padding)
    for shape in ((4, 8, 2), (8, 4, 1), (4, 4, 1)):
        image = noise(*shape, seed=17)
        for kernel, expected in zip(KERNELS, explicit_kernels(net, image), strict=True):
            assert_close(kernel_matrix(net, image, kernel), expected, 1e-13)


@pytest.mark.parametrize("padding", PADDINGS)
def test_strided_convolutions_sum_the_patches_of_pytorch(padding):
    # S = w/(k^2 C) Y Y^T with Y the patches, by PyTorch's own unfolding; "nearest" repeats them.
    image = torch.from_numpy(noise(6, 4, 2, seed=18)).permute(2, 0, 1)[None]
    mode = {"zeros": "constant", "circular": "circular"}[padding]
    patch = torch.nn.functional.unfold(torch.nn.functional.pad(image, (1, 1, 1, 1), mode), 3, stride=2)[0].T.numpy()
    s = 2 / 18 * patch @ patch.T
    coarse = np.arange(6).reshape(3, 2).repeat(2, axis=0).repeat(2, axis=1).ravel()
    net = Network([Conv(3, stride=2), Upsample(mode="nearest"), Conv(1, weight_var=1)], padding)
    theta = kernel_matrix(net, image[0].permute(1, 2, 0).numpy(), "nngp")
    assert_close(theta, s[np.ix_(coarse, coarse)], 1e-14)


@deterministic(15)
@given(networks(max_kernel=3), st.data())
def test_random_graphs_against_pytorch_and_quadrature(net, data):
    shape = data.draw(image_shapes(max_side=3, multiple=net.multiple))
    image = 0.5 * noise(*(*shape, 1)[:3], seed=data.draw(st.integers(0, 1000)))
    for kernel, expected in zip(KERNELS, explicit_kernels(net, image), strict=True):
        assert_close(kernel_matrix(net, image.reshape(shape), kernel), expected, 1e-6)


class Wide:
    """It convolves 3x3 with random weights in the NTK parametrisation, n channels out, and remembers the weights."""

    def __init__(self, width, seed):
        self.width, self.weights = width, []
        self.generator = torch.Generator().manual_seed(seed)

    def conv(self, x, width=None, kernel_size=3):
        shape = (width or self.width, x.shape[0], kernel_size, kernel_size)
        self.weights.append(torch.randn(shape, generator=self.generator).requires_grad_())
        scale = math.sqrt(2 / (x.shape[0] * kernel_size**2))
        return torch.nn.functional.conv2d(x[None], scale * self.weights[-1], padding=kernel_size // 2)[0]


def tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1).float()


def covariance(features):
    """Return the mean over the channels of products of pixels."""
    flat = features.detach().double().flatten(1).numpy()
    return flat.T @ flat / len(flat)


def test_covariances_add_if_one_summand_is_centred_and_not_if_none_is():
    # Both paths read the same h, and h depends on the weights of the first convolution.
    image = noise(4, 4, 2, seed=19)
    wide = Wide(2000, seed=20)
    h = wide.conv(tensor(image))
    b = wide.conv(h.relu())
    last = Conv(1, weight_var=1)

    def q(*layers):
        return kernel_matrix(Network([Conv(3), *layers, last]), image, "nngp")

    # relu(h) + conv(relu(h)) is accepted.  Channels are 2000: errors are a few times 1 / sqrt(2000).
    accepted = q(ReLU(), Skip([Conv(3)], merge="add"))
    assert_close(covariance(h.relu() + b), accepted, 0.07)
    # relu(h) + relu(conv(relu(h))) is refused.  The sum of the covariances lacks twice the product of two means.
    with pytest.raises(ValueError, match="mean zero"):
        q(ReLU(), Skip([Conv(3), ReLU()], merge="add"))
    short, branch = q(ReLU()), q(ReLU(), Conv(3), ReLU())
    measured = covariance(h.relu() + b.relu())
    assert np.abs(measured - (short + branch)).max() > 0.2 * measured.max()
    p, r = (np.sqrt(np.diagonal(f) * 2 / (2 * math.pi)) for f in (short, branch))  # E relu(u) = sqrt(S / (2 pi))
    assert_close(measured, short + branch + np.outer(p, r) + np.outer(r, p), 0.07)
    # h + erf(h) and h + pool(h) are refused, since the summands are functions of the same h.
    for path, features in (([Erf()], h.erf()), ([AvgPool(), Upsample(mode="nearest")], pooled(h))):
        with pytest.raises(ValueError, match="independent"):
            q(Skip(path, merge="add"))
        total = q() + q(*path)
        assert np.abs(covariance(h + features) - total).max() > 0.4 * total.max()


def pooled(h):
    return torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(h[None], 2), scale_factor=2)[0]


@pytest.mark.parametrize("shortcut", ["activation", "conv"])
def test_tangent_kernels_add_with_weights_shared_upstream(shortcut):
    # This is the mean over three random networks of J J^T, all pixels of the output against all weights.
    image = noise(4, 4, 2, seed=21)
    path = [ReLU()] if shortcut == "activation" else [Conv(3), GELU()]
    net = Network([Conv(3), Skip([Conv(3), Erf()], merge="add", shortcut=path), Conv(1)])
    theta = np.zeros((16, 16))
    for seed in range(3):
        wide = Wide(400, seed)
        h = wide.conv(tensor(image))
        a = h.relu() if shortcut == "activation" else torch.nn.functional.gelu(wide.conv(h))
        out = wide.conv(a + wide.conv(h).erf(), 1, 1).flatten()
        rows = [torch.autograd.grad(pixel, wide.weights, retain_graph=True) for pixel in out]
        jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
        theta += (jacobian @ jacobian.T).double().numpy() / 3
    assert_close(theta, kernel_matrix(net, image), 0.1)
