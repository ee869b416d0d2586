"""These test what kernels of the reference keep: symmetry, shifts, mirrors, scales, zero images, noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from images import HARD, IMAGES, NATURAL, noise
from ntkfast.activations import GELU, Erf, LeakyReLU, ReLU, Sin
from ntkfast.inputs import NoiseInput
from ntkfast.network import AvgPool, Conv, Identity, Network, Skip, Upsample, autoencoder, unet, vanilla_cnn
from oracles import KERNELS, PADDINGS, PARALLEL, assert_close, kernel_matrix
from strategies import chains, deterministic, image_shapes, networks

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
