"""The engine is compared with the reference: accuracy, images of every shape and kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cases import (
    BARS,
    DTYPES,
    KERNELS,
    NETS,
    OPERATORS,
    PARALLEL,
    bar_of,
    each_dtype,
    each_kernel,
    each_net,
    each_padding,
    error_of,
    product_error,
)
from images import HARD, IMAGES, NATURAL, axis_of, image_variants, noise
from levels import each_isa, use_isa
from ntkfast import NTK
from ntkfast.activations import LeakyReLU, ReLU
from ntkfast.engine.cpu import CPU
from ntkfast.engine.program import Problem
from ntkfast.network import Conv, Network, vanilla_cnn
from ntkfast.reference import kernel_matrix
from strategies import SMOOTH, chains, deterministic, image_shapes


@each_dtype
@each_kernel
@each_padding
@each_net
@pytest.mark.parametrize("name", IMAGES)
def test_matrix_is_exact(name, net, padding, kernel, dtype):
    net = Network(NETS[net], padding)
    for shape, seed in (((9, 8, 1), 0), ((8, 9, 3), 1), ((7, 7, 2), 2)):
        image = IMAGES[name](*shape, seed)
        theta = kernel_matrix(net, image, kernel, channel_axis=-1)
        K = OPERATORS[kernel](net, image, dtype=dtype, threads=1, channel_axis=-1)
        matrix = K.dense()
        assert matrix.dtype == dtype
        bar = bar_of(dtype, name, net)
        assert error_of(matrix, theta) <= bar, shape
        assert error_of(K.diagonal(), np.diagonal(theta)) <= {"float32": 3e-7, "float64": 1e-13}[dtype], shape


@each_isa
@each_dtype
@each_kernel
@each_padding
@each_net
@pytest.mark.parametrize("name", ["centred", "spiked"])
def test_products_and_columns_at_every_level(name, net, padding, kernel, dtype, isa, monkeypatch):
    use_isa(monkeypatch, isa)
    net = Network(NETS[net], padding)
    rng = np.random.default_rng(3)
    image = IMAGES[name](6, 9, 3, 1)
    theta = kernel_matrix(net, image, kernel, channel_axis=-1)
    bar = bar_of(dtype, name, net)
    v = rng.standard_normal((54, 5))
    pixels = np.array([0, 53, 8, 31, 31])
    for storage in ("stream", "dense"):
        K = OPERATORS[kernel](net, image, dtype=dtype, storage=storage, threads=2, channel_axis=-1)
        assert K.storage == storage
        for columns in (1, 3, 5):
            assert product_error(K, theta, v[:, :columns]) <= bar, (storage, columns)
        assert K._engine.stored == (storage == "dense")
        assert error_of(K.dense(), theta) <= bar, storage
        assert error_of(K._engine.columns(pixels).T, theta[:, pixels], np.abs(theta).max()) <= bar, storage
        assert error_of(K.diagonal(), np.diagonal(theta)) <= bar, storage


@each_isa
@each_kernel
@each_padding
@pytest.mark.parametrize("net", ["deep 3", "7 9", "frozen", "biases", "magnitude", "1 3"])
def test_small_angles_behind_the_first_layer(net, padding, kernel, isa, monkeypatch):
    """Rows of nearly parallel patches of different brightness are computed again in double at any depth.

    Without it one image of spikes in twenty is off by up to 1e-4.
    """
    use_isa(monkeypatch, isa)
    net = Network(NETS[net] if net in NETS else [Conv(1), LeakyReLU(0.1), Conv(3), LeakyReLU(-1.0), Conv(3)], padding)
    halves = np.where(np.arange(9) < 4, 1.0, 1 / 3)[:, None, None] * np.ones((10, 3))
    images = [IMAGES["spiked"](10, 12, (3, 1)[seed % 2], seed) for seed in range(12)]
    images += [halves, halves * (1 + 5e-4 * noise(9, 10, 3, 0))]
    for n, image in enumerate(images):
        K = OPERATORS[kernel](net, image, storage="stream", threads=2, channel_axis=-1)
        assert error_of(K.dense(), kernel_matrix(net, image, kernel, channel_axis=-1)) <= 1e-5, n


@each_padding
def test_small_angles_in_a_batch(padding):
    net = Network(NETS["deep 3"], padding)
    images = np.stack([IMAGES["spiked"](9, 8, 2, seed) for seed in range(5)])
    engine = CPU.make(Problem(net, images.shape, np.dtype("float32"), 2), images)
    for image, matrix in zip(images, engine.dense(), strict=True):
        assert error_of(matrix, kernel_matrix(net, image, channel_axis=-1)) <= 1e-5


@each_isa
@each_dtype
@each_padding
def test_levels_on_rows_of_every_length(padding, dtype, isa, monkeypatch):
    # Rows end within a register, at its end, and one behind it.
    use_isa(monkeypatch, isa)
    net = Network([Conv(3), ReLU(), Conv(7), ReLU(), Conv(1)], padding)
    for width in (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33):
        image = noise(3, width, 2, width)
        theta = kernel_matrix(net, image, channel_axis=-1)
        K = NTK(net, image, dtype=dtype, storage="stream", channel_axis=-1)
        assert error_of(K.dense(), theta) <= BARS[dtype]["noise"], width
        assert error_of(K.columns([3 * width // 2]), theta[:, [3 * width // 2]]) <= BARS[dtype]["noise"], width
        assert product_error(K, theta, noise(3 * width, 3, 1, 1)[..., 0]) <= BARS[dtype]["noise"], width


@each_dtype
@each_padding
@pytest.mark.parametrize("storage", ["stream", "dense"])
@pytest.mark.parametrize("columns", [1, 3, 4, 5, 63, 64, 65, 70])
def test_products_with_any_number_of_columns(columns, storage, padding, dtype):
    net = vanilla_cnn(2, 3, padding=padding)
    image = noise(5, 7, 3, 4)
    v = np.random.default_rng(columns).standard_normal((35, columns))
    K = NTK(net, image, dtype=dtype, storage=storage, channel_axis=-1)
    assert (K @ v).shape == (35, columns)
    assert product_error(K, kernel_matrix(net, image, channel_axis=-1), v) <= BARS[dtype]["noise"]


@each_dtype
def test_sums_over_many_displacements_do_not_drift(dtype):
    # A sum has 2304 terms of one sign, over more displacements than are summed in one go.
    net = vanilla_cnn(1, 5)
    image = IMAGES["natural"](48, 48, 3, 0)
    theta = kernel_matrix(net, image, channel_axis=-1)
    K = NTK(net, image, dtype=dtype, storage="stream", channel_axis=-1)
    v = np.ones(48 * 48)
    assert error_of(K @ v, theta @ v) <= {"float32": 1e-6, "float64": 1e-12}[dtype]


@deterministic(60)
@given(chains(max_depth=5, max_kernel=11), image_shapes(), st.sampled_from(NATURAL + HARD), st.integers(0, 1000))
def test_random_networks_apply_as_the_reference(net, shape, name, seed):
    image = IMAGES[name](*(*shape, 1)[:3], seed).reshape(shape)
    v = np.random.default_rng(seed).standard_normal((shape[0] * shape[1], 3))
    for kernel in KERNELS:
        theta = kernel_matrix(net, image, kernel, channel_axis=axis_of(image))
        for dtype in DTYPES:
            for storage in ("stream", "dense"):
                K = OPERATORS[kernel](net, image, dtype=dtype, storage=storage, channel_axis=axis_of(image))
                assert product_error(K, theta, v) <= bar_of(dtype, name, net)


@deterministic(60)
@given(chains(max_depth=5, max_kernel=11), image_shapes(max_side=7), st.sampled_from(NATURAL + HARD), st.data())
def test_random_networks_have_the_columns_of_the_reference(net, shape, name, data):
    image = IMAGES[name](*(*shape, 1)[:3], data.draw(st.integers(0, 1000))).reshape(shape)
    pixels = np.array(data.draw(st.lists(st.integers(0, shape[0] * shape[1] - 1), min_size=1, max_size=4)))
    for kernel in KERNELS:
        theta = kernel_matrix(net, image, kernel, channel_axis=axis_of(image))
        for dtype in DTYPES:
            K = OPERATORS[kernel](net, image, dtype=dtype, channel_axis=axis_of(image))
            # Both ways are compared: the engine's columns, and what NTK chooses.
            scale = np.abs(theta).max()
            for columns in (K._engine.columns(pixels).T, K.columns(pixels)):
                assert error_of(columns, theta[:, pixels], scale) <= bar_of(dtype, name, net)


@each_isa
@each_kernel
@each_padding
@pytest.mark.parametrize("activation", SMOOTH, ids=repr)
def test_smooth_activations_of_large_arguments(activation, padding, kernel, isa, monkeypatch):
    """Behind the first layer E and the activation are in double where variances are large.

    With E in float32 the error of Erf is 1.4e-4; the kernels of Sin and Cos are next to diagonal here.
    """
    use_isa(monkeypatch, isa)
    net = Network([Conv(3), activation, Conv(1)], padding)
    image = 100 * IMAGES["spiked"](9, 8, 3, 1)
    theta = kernel_matrix(net, image, kernel, channel_axis=-1)
    assert error_of(OPERATORS[kernel](net, image, threads=1, channel_axis=-1).dense(), theta) <= 3e-7


@each_dtype
@each_kernel
@each_padding
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 1, 5), (1, 9), (9, 1), (2, 2), (1, 2, 3), (3, 5, 4), (5, 3, 1), (7, 4, 5)], ids=str
)
def test_images_of_every_shape(shape, padding, kernel, dtype):
    # Kernels up to 11 and 15 reach beyond most of these images.
    image = np.random.default_rng(1).standard_normal(shape)
    for layers in (NETS["deep 3"], NETS["11"], NETS["13 15"], NETS["biases"]):
        net = Network(layers, padding)
        theta = kernel_matrix(net, image, kernel, channel_axis=axis_of(image))
        # There is no room for patches that differ in a single pixel or a row of two.
        K = OPERATORS[kernel](net, image, dtype=dtype, channel_axis=axis_of(image))
        bar = {"float32": 1e-6, "float64": PARALLEL}[dtype]
        assert error_of(K.dense(), theta) <= bar
        assert error_of(K.columns(range(len(theta))), theta) <= bar
        assert product_error(K, theta, np.eye(len(theta))) <= bar


@pytest.mark.parametrize("variant", image_variants()[1])
def test_images_of_every_kind_of_array(variant):
    x, variants = image_variants()
    net = vanilla_cnn(1, 3)
    expected = NTK(net, x.astype(float), channel_axis=-1).dense()
    assert error_of(expected, kernel_matrix(net, x, channel_axis=-1)) <= 1e-6
    image = variants[variant]
    before = np.array(image)
    np.testing.assert_array_equal(NTK(net, image, channel_axis=-1).dense(), expected)
    np.testing.assert_array_equal(image, before)


def test_boolean_images_are_zeros_and_ones():
    mask = noise(5, 6, 1, 0)[..., 0] > 0
    np.testing.assert_array_equal(NTK(vanilla_cnn(), mask).dense(), NTK(vanilla_cnn(), mask.astype(float)).dense())


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_channels_may_lie_on_any_axis(axis):
    image = noise(4, 5, 3, 0)
    K = NTK(vanilla_cnn(1, 3), np.moveaxis(image, -1, axis), channel_axis=axis)
    assert K.image_shape == (4, 5)
    assert K.channels == 3
    np.testing.assert_array_equal(K.dense(), NTK(vanilla_cnn(1, 3), image, channel_axis=-1).dense())


def test_a_grey_image_is_an_image_of_one_channel():
    image = noise(4, 5, 1, 0)
    np.testing.assert_array_equal(
        NTK(vanilla_cnn(), image[..., 0]).dense(), NTK(vanilla_cnn(), image, channel_axis=-1).dense()
    )


def test_a_batch_of_images_is_each_of_them():
    net = vanilla_cnn(2, 3, padding="circular")
    images = noise(12, 5, 2, 0).reshape(3, 4, 5, 2)
    engine = CPU.make(Problem(net, images.shape, np.dtype("float64"), 2), images)
    v = noise(20, 2, 3, 1)
    matrices, product = engine.dense(), engine.product(v)
    for n, image in enumerate(images):
        theta = kernel_matrix(net, image, channel_axis=-1)
        assert error_of(matrices[n], theta) <= 1e-12
        assert error_of(product[:, :, n], theta @ v[:, :, n]) <= 1e-12
        assert error_of(engine.diagonal()[:, n], np.diagonal(theta)) <= 1e-12
