"""The specification against constructions that share nothing with it: patches, shift matrices, numerical integrals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images import HARD, IMAGES, NATURAL, noise
from ntkfast.network import Conv, LeakyReLU, Network, ReLU, vanilla_cnn
from ntkfast.reference import kernel_matrix
from strategies import chains, image_shapes

KERNELS = ("ntk", "nngp")
PADDINGS = ("zeros", "circular")
SLOPES = (0.0, 0.01, 0.1, 0.5, 1.0, 1.5, -0.3, -1.0)
# Where two patches are parallel, rounding of their cosine by 1e-16 turns into an angle of 1e-8.
PARALLEL = 1e-7


def deterministic(max_examples: int):
    return settings(deadline=None, derandomize=True, max_examples=max_examples)


def assert_close(actual, expected, tolerance=1e-12):
    """Maximal error over maximal value."""
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


# --- Oracles ------------------------------------------------------------------------------------------------------


def neighbour(row, col, dy, dx, height, width, padding):
    """Index of the pixel at (row + dy, col + dx), or None if a convolution sees a zero there."""
    row, col = row + dy, col + dx
    if padding == "circular":
        return (row % height) * width + col % width
    return row * width + col if 0 <= row < height and 0 <= col < width else None


def patches(image, kernel_size, padding):
    """All k x k patches, shape (H*W, k*k*C), in the order in which a convolution sees them."""
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
    """For every delta, the d x d matrix that takes an image to its shifted copy."""
    radius = kernel_size // 2
    for dy, dx in itertools.product(range(-radius, radius + 1), repeat=2):
        shift = np.zeros((height * width, height * width))
        for row, col in itertools.product(range(height), range(width)):
            q = neighbour(row, col, dy, dx, height, width, padding)
            if q is not None:
                shift[row * width + col, q] = 1
        yield shift


def gaussian_mean(s, f, n=48, reach=9.0):
    """E[f(u_i) f(u_j)] for u ~ N(0, s), all pairs (i, j), by quadrature in two dimensions; f may have a kink at 0.

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


def explicit_kernels(network, image):
    """The kernels (ntk, nngp) by shift matrices and quadrature, from the definitions alone."""
    height, width, channels = image.shape
    flat = image.reshape(-1, channels)
    q = sum(np.outer(flat[:, c], flat[:, c]) for c in range(channels)) / channels
    t = np.zeros_like(q)
    for layer in network.layers:
        if isinstance(layer, Conv):
            shifts = list(shift_matrices(height, width, layer.kernel_size, network.padding))
            scale = layer.weight_var / len(shifts)
            q = scale * sum(a @ q @ a.T for a in shifts) + layer.bias_var
            t = scale * sum(a @ t @ a.T for a in shifts) + (q if layer.trainable else 0)
        else:
            slope = layer.slope
            t = t * gaussian_mean(q, lambda x, a=slope: np.where(x > 0, 1.0, a))
            q = gaussian_mean(q, lambda x, a=slope: np.where(x > 0, x, a * x))
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
    """Q and Q' that the reference gives for a 2 x 2 covariance: two pixels, kernels of one pixel, unit variances."""
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
        # Relative to every entry: the pixels may differ by orders of magnitude.
        scale = (1 + slope**2) * np.outer(p, p)
        assert_close(q / scale, mean_q / scale, 1e-9)
        assert_close(dq, mean_dq, 1e-9)


@pytest.mark.parametrize("slope", SLOPES)
def test_activation_kernels_of_parallel_orthogonal_and_opposite_patches(slope):
    # Image of one channel: pixels 1, 3, -2 with kernels of one pixel; the means are elementary.
    x = np.array([1.0, 3.0, -2.0])
    plus, minus = (1 + slope**2) / 2, slope
    net = Network([Conv(1, weight_var=1), LeakyReLU(slope), Conv(1, weight_var=1, trainable=False)])
    image = x.reshape(1, 3, 1)
    same = np.outer(x, x) > 0
    assert_close(kernel_matrix(net, image, "nngp"), np.where(same, plus, minus) * np.outer(x, x), PARALLEL)
    assert_close(kernel_matrix(net, image, "ntk"), np.where(same, plus, minus) * np.outer(x, x), PARALLEL)
    # Orthogonal pixels: (E f(z))^2 = ((1 - slope) / sqrt(2 pi))^2.
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
    # The row (1, 2) under a 3 x 3 kernel of weight variance 9, so that S counts products of pixels.
    # Zeros: patches (0 1 2), (1 2 0).  Circular: patches (2 1 2), (1 2 1), each in three equal rows.
    image = np.array([[1.0, 2.0]])
    zeros, circular = (Network([Conv(3, weight_var=9)], padding) for padding in PADDINGS)
    assert_close(kernel_matrix(zeros, image), np.array([[5.0, 2.0], [2.0, 5.0]]), 1e-15)
    assert_close(kernel_matrix(circular, image), 3 * np.array([[9.0, 6.0], [6.0, 6.0]]), 1e-15)


def test_one_pixel_by_hand():
    # Mean square of (1, 2, 2) = 3.  Zeros see the pixel once in 9: S = 18/9 * 3 + 1 = 7; Q = 3.5, T' = 3.5;
    # S = 9/9 * 3.5 + 0.5 = 4,  T = 4 + 3.5.  Circular padding sees it 9 times: S = 54 + 1, Q = T' = 27.5,
    # S = 9 * 27.5 + 0.5 = 248,  T = 248 + 247.5.
    image = np.array([[[1.0, 2.0, 2.0]]])
    layers = [Conv(3, weight_var=18, bias_var=1), ReLU(), Conv(3, weight_var=9, bias_var=0.5)]
    for padding, s, t in (("zeros", 4.0, 7.5), ("circular", 248.0, 495.5)):
        assert kernel_matrix(Network(layers, padding), image, "nngp").item() == pytest.approx(s, rel=1e-14)
        assert kernel_matrix(Network(layers, padding), image).item() == pytest.approx(t, rel=1e-14)


@pytest.mark.parametrize("flags", list(itertools.product((True, False), repeat=3)))
def test_frozen_layers_by_hand(flags):
    # One pixel of 1, no bias, weight variance 2: S = 2 in every layer and E[relu'^2] = 1/2, so that
    # every trained layer adds 2.
    c1, c2, c3 = (Conv(1, trainable=flag) for flag in flags)
    theta = kernel_matrix(Network([c1, ReLU(), c2, ReLU(), c3]), np.ones((1, 1)))
    assert theta.item() == pytest.approx(2 * sum(flags), rel=1e-14)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_closed_form_of_one_hidden_layer_with_the_last_layer_trained(kernel_size, padding):
    # |y_i||y_j|/pi (sin t + (pi - t) cos t) with y the patch times sqrt(2 / (k^2 C))
    image = noise(5, 4, 3, seed=4)
    y = patches(image, kernel_size, padding) * math.sqrt(2 / (3 * kernel_size**2))
    norm = np.linalg.norm(y, axis=1)
    t = np.arccos(np.clip(y @ y.T / np.outer(norm, norm), -1, 1))
    expected = np.outer(norm, norm) / math.pi * (np.sin(t) + (math.pi - t) * np.cos(t))
    net = Network([Conv(kernel_size, trainable=False), ReLU(), Conv(1)], padding)
    assert_close(kernel_matrix(net, image), expected, 1e-10)


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
    # A receptive field of 5 x 5: columns 0 to 5 see the noise, columns 6 to 8 see zeros.
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
    # Zeros: beyond twice the image a larger kernel only sees more zeros, and k^2 S stays.
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
