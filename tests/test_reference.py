"""The specification is compared with constructions that share nothing with it: patches, shifts, integrals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from images import HARD, IMAGES, NATURAL, axis_of, noise
from ntkfast import reference
from ntkfast.activations import GELU, Cos, Erf, Gaussian, LeakyReLU, ReLU, Sin
from ntkfast.inputs import NoiseInput
from ntkfast.network import AvgPool, Conv, Identity, Network, Skip, Upsample, autoencoder, unet, vanilla_cnn
from strategies import SMOOTH, chains, image_shapes, networks

KERNELS = ("ntk", "nngp")
PADDINGS = ("zeros", "circular")
SLOPES = (0.0, 0.01, 0.1, 0.5, 1.0, 1.5, -0.3, -1.0)
# Where two patches are parallel, rounding of their cosine by 1e-16 turns into an angle of 1e-8.
PARALLEL = 1e-7


def deterministic(max_examples: int):
    return settings(deadline=None, derandomize=True, max_examples=max_examples)


def kernel_matrix(network, image, kernel="ntk"):
    """The function that is tested; images are (H, W) or (H, W, C)."""
    return reference.kernel_matrix(network, image, kernel, channel_axis=axis_of(image))


def assert_close(actual, expected, tolerance=1e-12):
    """Compare the maximal error with the maximal value."""
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


# --- Oracles ------------------------------------------------------------------------------------------------------


def neighbour(row, col, dy, dx, height, width, padding):
    """Return the index of the pixel at (row + dy, col + dx), or None if a convolution sees a zero there."""
    row, col = row + dy, col + dx
    if padding == "circular":
        return (row % height) * width + col % width
    return row * width + col if 0 <= row < height and 0 <= col < width else None


def patches(image, kernel_size, padding):
    """Return all k x k patches, shape (H*W, k*k*C), in the order in which a convolution sees them."""
    height, width, channels = image.shape
    flat, radius = image.reshape(-1, channels), kernel_size // 2
    out = []
    for row, col in itertools.product(range(height), range(width)):
        values = []
        for dy, dx in itertools.product(range(-radius, radius + 1), repeat=2):
            q = neighbour(row, col, dy, dx, height, width, padding)
            values.append(np.zeros(channels) if q is None else flat[q])
        out.append(np.concatenate(values))
    return np.array(out)


def shift_matrices(height, width, kernel_size, padding):
    """Return for every delta the d x d matrix that takes an image to its shifted copy."""
    radius = kernel_size // 2
    for dy, dx in itertools.product(range(-radius, radius + 1), repeat=2):
        shift = np.zeros((height * width, height * width))
        for row, col in itertools.product(range(height), range(width)):
            q = neighbour(row, col, dy, dx, height, width, padding)
            if q is not None:
                shift[row * width + col, q] = 1
        yield shift


def gaussian_mean(s, f, n=48, reach=9.0):
    """Return E[f(u_i) f(u_j)] for u ~ N(0, s), all pairs (i, j), by quadrature in 2-D; f may have a kink at 0.

    u_i = p_i z1,  u_j = p_j (rho z1 + sqrt(1 - rho^2) z2),  z iid N(0, 1).  Gauss-Legendre on pieces that end where
    u_i or u_j changes sign; the nodes in z1 gather at 0, where the integral over z2 turns sharply if |rho| is near 1.
    """
    t, weight = np.polynomial.legendre.leggauss(n)
    t, weight = (1 + t) / 2, weight / 2
    z1 = np.concatenate([-reach * t**3, reach * t**3])
    w1 = np.tile(3 * reach * t**2 * weight, 2) * np.exp(-(z1**2) / 2) / math.sqrt(2 * math.pi)
    p = np.sqrt(np.diagonal(s))
    pp = np.outer(p, p)
    rho = np.clip(s / np.where(pp > 0, pp, 1), -1, 1)
    np.fill_diagonal(rho, 1)
    rho = rho[..., None]
    along = np.maximum(np.sqrt((1 - rho) * (1 + rho)), 1e-100)
    sign_change = np.clip(-rho * z1 / along, -reach, reach)[..., None]
    total = np.zeros(s.shape)
    for start, stop in ((-reach, sign_change), (sign_change, reach)):
        z2 = start + (stop - start) * t
        w2 = (stop - start) * weight * np.exp(-(z2**2) / 2) / math.sqrt(2 * math.pi)
        v = p[None, :, None, None] * (rho[..., None] * z1[:, None] + along[..., None] * z2)
        total += ((f(v) * w2).sum(axis=-1) * f(p[:, None, None] * z1) * w1).sum(axis=-1)
    return total


def torch_matrix(layer, height, width, padding):
    """Return the d' x d matrix of a pool or upsampling: what PyTorch makes of every basis image.

    PyTorch has no bilinear upsampling that wraps: it is what happens in the middle of 3 x 3 copies of the image.
    """
    basis = torch.eye(height * width, dtype=torch.float64).reshape(-1, 1, height, width)
    if isinstance(layer, AvgPool):
        out = torch.nn.functional.avg_pool2d(basis, 2)
    else:
        options = {"align_corners": False} if layer.mode == "bilinear" else {}
        copies = basis.tile(1, 1, 3, 3) if padding == "circular" else basis
        out = torch.nn.functional.interpolate(copies, scale_factor=2, mode=layer.mode, **options)
        if padding == "circular":
            out = out[:, :, 2 * height : 4 * height, 2 * width : 4 * width]
    return out.reshape(height * width, -1).T.numpy(), out.shape[2:]


def explicit_path(layers, q, t, shape, padding):
    """Return covariance, tangent kernel and shape after ``layers``, from the definitions alone."""
    for layer in layers:
        if isinstance(layer, Conv):
            shifts = list(shift_matrices(*shape, layer.kernel_size, padding))
            keep = np.arange(shape[0] * shape[1]).reshape(shape)[:: layer.stride, :: layer.stride]
            shape = keep.shape
            shifts = [a[keep.ravel()] for a in shifts]
            scale = layer.weight_var / len(shifts)
            q = scale * sum(a @ q @ a.T for a in shifts) + layer.bias_var
            t = scale * sum(a @ t @ a.T for a in shifts) + (q if layer.trainable else 0)
        elif isinstance(layer, (AvgPool, Upsample)):
            a, shape = torch_matrix(layer, *shape, padding)
            q, t = a @ q @ a.T, a @ t @ a.T
        elif isinstance(layer, Skip):
            q1, t1, _ = explicit_path(layer.shortcut, q, t, shape, padding)
            q2, t2, shape = explicit_path(layer.layers, q, t, shape, padding)
            a, b = (1, 1) if layer.merge == "add" else (1 - layer.share, layer.share)
            q, t = a * q1 + b * q2, a * t1 + b * t2
        elif not isinstance(layer, Identity):
            if isinstance(layer, (Sin, Cos)):
                assume(q.max() < 9)  # the quadrature resolves no more oscillations
            t = t * gaussian_mean(q, layer.derivative)
            q = gaussian_mean(q, layer.function)
    return q, t, shape


def explicit_kernels(network, image):
    """Return the kernels (ntk, nngp) by shift matrices, PyTorch's pools and quadrature."""
    height, width, channels = image.shape
    flat = image.reshape(-1, channels)
    q = sum(np.outer(flat[:, c], flat[:, c]) for c in range(channels)) / channels
    q, t, _ = explicit_path(network.layers, q, np.zeros_like(q), (height, width), network.padding)
    return t, q


# --- Against the oracles ------------------------------------------------------------------------------------------


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


# --- By hand ------------------------------------------------------------------------------------------------------


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


# --- Against random networks of finite width ----------------------------------------------------------------------


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


# --- Invariants ---------------------------------------------------------------------------------------------------

INVARIANT_NETS = {
    "vanilla": vanilla_cnn(2, 3),
    "circular": vanilla_cnn(2, 3, padding="circular"),
    "leaky": Network([Conv(5), LeakyReLU(-0.3), Conv(3, trainable=False), Conv(3), LeakyReLU(0.1), Conv(3)]),
    "biases": Network([Conv(3, bias_var=0.5), ReLU(), Conv(3), ReLU(), Conv(1, bias_var=0.1)]),
}
each_net = pytest.mark.parametrize("net", INVARIANT_NETS.values(), ids=INVARIANT_NETS)
each_kernel = pytest.mark.parametrize("kernel", KERNELS)


@each_kernel
@each_net
@pytest.mark.parametrize("name", IMAGES)
def test_kernels_are_symmetric_and_positive_semi_definite(name, net, kernel):
    for shape, seed in (((7, 6, 1), 0), ((6, 7, 3), 1)):
        theta = kernel_matrix(net, IMAGES[name](*shape, seed), kernel)
        assert theta.dtype == np.float64
        assert np.isfinite(theta).all()
        assert_close(theta, theta.T, 1e-14)
        eigenvalues = np.linalg.eigvalsh(theta)
        assert eigenvalues[0] >= -1e-10 * eigenvalues[-1]


@deterministic(60)
@given(networks(), st.data(), st.sampled_from(NATURAL + HARD), st.integers(0, 1000))
def test_random_graphs_have_symmetric_and_positive_semi_definite_kernels(net, data, name, seed):
    shape = data.draw(image_shapes(max_side=6, multiple=net.multiple))
    image = IMAGES[name](*(*shape, 1)[:3], seed).reshape(shape)
    for kernel in KERNELS:
        theta = kernel_matrix(net, image, kernel)
        assert np.isfinite(theta).all()
        assert_close(theta, theta.T, 1e-12)
        eigenvalues = np.linalg.eigvalsh(theta)
        assert eigenvalues[0] >= -PARALLEL * eigenvalues[-1]


@deterministic(40)
@given(networks(), st.integers(0, 1000))
def test_random_circular_graphs_move_with_the_image_by_multiples(net, seed):
    net, m = Network(net.layers, "circular"), net.multiple
    height, width = 2 * m, 3 * m
    image = noise(height, width, 2, seed=seed)
    pixels = np.roll(np.arange(height * width).reshape(height, width), (m, -m), axis=(0, 1)).ravel()
    for kernel in KERNELS:
        theta, moved = (kernel_matrix(net, x, kernel) for x in (image, np.roll(image, (m, -m), axis=(0, 1))))
        assert_close(moved, theta[np.ix_(pixels, pixels)], 1e-9)


@deterministic(40)
@given(networks(), st.integers(0, 1000))
def test_random_graphs_turn_with_the_image_and_see_only_inner_products(net, seed):
    m = net.multiple
    image = noise(m, 2 * m, 3, seed=seed)
    pixels = np.arange(2 * m * m).reshape(m, 2 * m).T.ravel()
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
    for kernel in KERNELS:
        theta = kernel_matrix(net, image, kernel)
        turned = kernel_matrix(net, image.swapaxes(0, 1), kernel)
        assert_close(turned, theta[np.ix_(pixels, pixels)], 1e-9)
        assert_close(kernel_matrix(net, image @ rotation, kernel), theta, PARALLEL)


@each_kernel
def test_shares_weigh_the_paths_of_a_concat(kernel):
    image = noise(4, 4, 2, seed=22)
    branch, shortcut = [AvgPool(), Conv(3), GELU(), Upsample()], [Conv(3), Sin()]

    def theta(*layers):
        return kernel_matrix(Network([Conv(3), *layers, Conv(3, trainable=False)]), image, kernel)

    one, other = theta(*branch), theta(*shortcut)
    for share in (1e-13, 0.25, 0.5, 1 - 1e-13):
        merged = theta(Skip(branch, share=share, shortcut=shortcut))
        assert_close(merged, share * one + (1 - share) * other, 1e-14)
    assert np.abs(one - other).max() > 0.1 * other.max()


@each_kernel
def test_a_concat_of_equal_paths_and_identities_change_nothing(kernel):
    image = noise(4, 4, 2, seed=23)
    layers = [Conv(3), ReLU(), AvgPool(), Conv(3), Erf(), Upsample()]
    theta = kernel_matrix(Network([*layers, Conv(1)]), image, kernel)
    assert_close(
        kernel_matrix(Network([Identity(), *layers, Skip([Identity()]), Conv(1)]), image, kernel), theta, 1e-14
    )
    double = Skip(layers, shortcut=layers, share=0.3)
    assert_close(kernel_matrix(Network([double, Conv(1)]), image, kernel), theta, 1e-14)


@each_kernel
@pytest.mark.parametrize("net", [autoencoder(), unet(1, 5)])
def test_constant_circular_images_have_constant_kernels_at_all_resolutions(net, kernel):
    # Pools and upsampling are means: an autoencoder of kernels 1x1 and one resolution gives the same value.
    def flattened(layers):
        for layer in layers:
            if isinstance(layer, Skip):
                yield Skip(list(flattened(layer.layers)))
            elif not isinstance(layer, (AvgPool, Upsample)):
                yield Conv(1) if isinstance(layer, Conv) else layer

    value = kernel_matrix(Network(flattened(net.layers)), np.full((1, 1, 2), 0.7), kernel).item()
    theta = kernel_matrix(Network(net.layers, "circular"), np.full((4, 8, 2), 0.7), kernel)
    assert_close(theta, np.full((32, 32), value), PARALLEL)


@deterministic(20)
@given(networks(max_kernel=3))
def test_noise_is_an_image_of_orthonormal_channels(net):
    m = net.multiple
    image = math.sqrt(2 * m * m) * np.eye(2 * m * m).reshape(m, 2 * m, -1)
    for kernel in KERNELS:
        assert_close(kernel_matrix(net, NoiseInput((m, 2 * m)), kernel), kernel_matrix(net, image, kernel), PARALLEL)


@pytest.mark.parametrize("padding", PADDINGS)
def test_noise_through_one_resolution_is_filtered_not_at_all(padding):
    # Different pixels of noise, and different patches, are orthogonal: Theta is a multiple of I plus a constant.  With
    # kernels of one pixel S = 2 I;  Q = [i = j] + 1/pi [i != j];  Theta = 4 I + 2/pi [i != j].
    theta = kernel_matrix(vanilla_cnn(1, 1, padding=padding), NoiseInput((5, 4)))
    assert_close(theta, (4 - 2 / math.pi) * np.eye(20) + 2 / math.pi, 1e-14)
    if padding == "circular":
        assert_close(kernel_matrix(vanilla_cnn(1, 3, padding=padding), NoiseInput((5, 4))), theta, 1e-14)


def test_noise_through_an_autoencoder_is_a_low_pass():
    # Upsampled pixels share what they were made of: the weights fall with the distance, down to a constant.
    row = kernel_matrix(autoencoder(1, 3, padding="circular"), NoiseInput((16, 16)))[0].reshape(16, 16)
    assert row[0, 0] > row[0, 1] > row[0, 2] > row[0, 3] > row[0, 6]
    assert row[0, 8] == pytest.approx(row[8, 8], rel=1e-13)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (3, 3, 2)])
def test_images_that_cannot_be_halved_are_refused(shape):
    with pytest.raises(ValueError, match=f"image must have .* multiples of 4 .* got {shape[0]} x {shape[1]}"):
        kernel_matrix(autoencoder(2), np.ones(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_that_are_not_finite_are_refused(value):
    image = np.ones((4, 4))
    image[1, 2] = value
    with pytest.raises(ValueError, match="image must be finite, got 1 NaN or infinite"):
        kernel_matrix(vanilla_cnn(1, 3), image)


@deterministic(60)
@given(chains(), image_shapes(max_side=6), st.sampled_from(NATURAL + HARD), st.integers(0, 1000))
def test_random_kernels_are_symmetric_and_positive_semi_definite(net, shape, name, seed):
    image = IMAGES[name](*(*shape, 1)[:3], seed).reshape(shape)
    for kernel in KERNELS:
        theta = kernel_matrix(net, image, kernel)
        assert np.isfinite(theta).all()
        assert_close(theta, theta.T, 1e-13)
        eigenvalues = np.linalg.eigvalsh(theta)
        assert eigenvalues[0] >= -PARALLEL * eigenvalues[-1]


@each_kernel
@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (-2, 3)])
def test_circular_kernels_move_with_the_image(shift, kernel):
    net = Network([Conv(3, bias_var=0.2), ReLU(), Conv(7), LeakyReLU(0.1), Conv(3)], "circular")
    image = noise(5, 6, 2, seed=5)
    pixels = np.roll(np.arange(30).reshape(5, 6), shift, axis=(0, 1)).ravel()
    theta, moved = (kernel_matrix(net, x, kernel) for x in (image, np.roll(image, shift, axis=(0, 1))))
    assert_close(moved, theta[np.ix_(pixels, pixels)], 1e-10)
    assert np.abs(moved - theta).max() > 0.01 * theta.max()


@each_kernel
@each_net
@pytest.mark.parametrize("move", [np.flipud, np.fliplr, lambda a: np.swapaxes(a, 0, 1)])
def test_kernels_mirror_with_the_image(move, net, kernel):
    image = noise(5, 6, 2, seed=6)
    pixels = move(np.arange(30).reshape(5, 6)).ravel()
    expected = kernel_matrix(net, image, kernel)[np.ix_(pixels, pixels)]
    assert_close(kernel_matrix(net, move(image), kernel), expected, 1e-10)


@each_kernel
@each_net
@pytest.mark.parametrize("factor", [3.7, 1e-6, 1e6, -2.0])
def test_kernels_without_bias_scale_with_the_square_of_the_image(factor, net, kernel):
    image = noise(5, 6, 2, seed=7)
    theta, scaled = (kernel_matrix(net, x, kernel) for x in (image, factor * image))
    homogeneous = all(conv.bias_var == 0 for conv in net.convs)
    error = np.abs(scaled / factor**2 - theta).max() / theta.max()
    assert error <= 1e-10 if homogeneous else error > 1e-2


@each_kernel
@each_net
def test_channels_and_their_signs_are_exchangeable(net, kernel):
    # Only inner products of pixels count: an orthogonal matrix on the channels changes nothing.
    image = noise(5, 6, 3, seed=8)
    theta = kernel_matrix(net, image, kernel)
    rotation = np.linalg.qr(np.random.default_rng(9).standard_normal((3, 3)))[0]
    for moved in (image[..., [2, 0, 1]], image * [1, -1, 1], image @ rotation):
        assert_close(kernel_matrix(net, moved, kernel), theta, 1e-10)


@each_kernel
@each_net
def test_equal_channels_count_as_one(net, kernel):
    image = noise(5, 6, 1, seed=10)
    grey = kernel_matrix(net, image[..., 0], kernel)
    assert_close(kernel_matrix(net, image, kernel), grey)
    assert_close(kernel_matrix(net, image.repeat(4, axis=2), kernel), grey, 1e-10)


@each_kernel
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("activation", [ReLU(), LeakyReLU(0.1), LeakyReLU(-1)])
def test_zero_image_has_zero_kernel_without_bias(activation, padding, kernel):
    net = Network([Conv(3), activation, Conv(3), activation, Conv(1)], padding)
    assert not kernel_matrix(net, np.zeros((4, 5, 2)), kernel).any()


def test_zero_image_with_bias_has_the_kernel_of_the_biases():
    # S = 0.5;  Q = 0.25, T' = 0.25;  S = 2 * 0.25 + 0.1,  T = S + 2 T'
    net = Network([Conv(3, bias_var=0.5), ReLU(), Conv(1, bias_var=0.1)])
    for kernel, value in (("nngp", 0.6), ("ntk", 1.1)):
        assert_close(kernel_matrix(net, np.zeros((3, 3)), kernel), np.full((9, 9), value), PARALLEL)


@each_kernel
@pytest.mark.parametrize("activation", [ReLU(), LeakyReLU(0.1), LeakyReLU(-1)])
def test_zero_patches_have_zero_rows_and_columns(activation, kernel):
    image = noise(4, 9, 2, seed=11)
    image[:, 4:] = 0
    net = Network([Conv(3), activation, Conv(3), activation, Conv(1)])
    theta = kernel_matrix(net, image, kernel).reshape(4, 9, 4, 9)
    # The receptive field is 5 x 5: columns 0 to 5 see the noise, columns 6 to 8 see zeros.
    assert net.receptive_field == 5
    assert not theta[:, 6:].any()
    assert not theta[:, :, :, 6:].any()
    assert (np.einsum("ijij->ij", theta)[:, :6] > 0).all()


@each_kernel
@pytest.mark.parametrize("kernel_size", [3, 11])
def test_constant_circular_images_have_constant_kernels(kernel_size, kernel):
    # Every patch is the same, so that every entry is that of one pixel under kernels of one pixel.
    def net(k):
        layers = [Conv(k, bias_var=0.2), LeakyReLU(0.3), Conv(k), ReLU(), Conv(1)]
        return Network(layers, "circular")

    value = kernel_matrix(net(1), np.full((1, 1, 2), 0.7), kernel).item()
    theta = kernel_matrix(net(kernel_size), np.full((4, 3, 2), 0.7), kernel)
    assert_close(theta, np.full((12, 12), value), PARALLEL)


@each_kernel
def test_zero_padding_is_an_image_with_a_black_frame(kernel):
    # Through one hidden layer and a last kernel of one pixel, zeros outside are zeros inside a wider image.
    image = noise(3, 4, 2, seed=12)
    framed = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    inside = np.pad(np.ones((3, 4), bool), 2).ravel()
    for padding in PADDINGS:
        theta = kernel_matrix(vanilla_cnn(1, 5, padding=padding), framed, kernel)
        assert_close(theta[np.ix_(inside, inside)], kernel_matrix(vanilla_cnn(1, 5), image, kernel), 1e-10)


@each_kernel
def test_kernels_larger_than_the_image_see_all_of_it(kernel):
    # With zeros, beyond twice the image a larger kernel only sees more zeros, and k^2 S stays.
    image = noise(3, 2, 2, seed=13)
    small, large = (kernel_matrix(Network([Conv(k, weight_var=k * k)]), image, kernel) for k in (5, 15))
    assert_close(large, small)


@each_kernel
@pytest.mark.parametrize("padding", PADDINGS)
def test_a_row_is_a_column_turned(padding, kernel):
    image = noise(1, 7, 2, seed=14)
    net = vanilla_cnn(2, 3, padding=padding)
    theta = kernel_matrix(net, image, kernel)
    assert_close(kernel_matrix(net, image.reshape(7, 1, 2), kernel), theta)


@deterministic(30)
@given(chains(), image_shapes(max_side=5), st.integers(0, 1000))
def test_linear_networks_have_the_covariance_of_one_convolution_after_another(net, shape, seed):
    # Without activations, the tangent kernel is the covariance (less biases) times the number of trained layers.
    convs = [Conv(c.kernel_size, weight_var=c.weight_var, trainable=c.trainable) for c in net.convs]
    image = noise(*(*shape, 1)[:3], seed=seed)
    linear = Network(convs, net.padding)
    trained = sum(c.trainable for c in convs)
    assert_close(kernel_matrix(linear, image), trained * kernel_matrix(linear, image, "nngp"))


@each_kernel
def test_a_leaky_relu_of_slope_one_is_no_activation_and_of_slope_zero_a_relu(kernel):
    image = noise(4, 4, 1, seed=15)

    def theta(*middle):
        return kernel_matrix(Network([Conv(3, bias_var=0.1), *middle, Conv(3), Conv(1)]), image, kernel)

    assert_close(theta(LeakyReLU(1)), theta())
    assert_close(theta(LeakyReLU(0)), theta(ReLU()), 1e-15)


def test_integer_images_are_images():
    image = np.arange(12).reshape(3, 4)
    assert_close(kernel_matrix(vanilla_cnn(1, 3), image), kernel_matrix(vanilla_cnn(1, 3), image.astype(float)), 0)
