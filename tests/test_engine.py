"""The compiled engine is compared with the dense reference: accuracy at every instruction set, edges, invariants."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cases import (
    BARS,
    DTYPES,
    GRAPH_BARS,
    GRAPHS,
    HOMOGENEOUS,
    KERNELS,
    NETS,
    OPERATORS,
    PARALLEL,
    bar_of,
    each_dtype,
    each_graph,
    each_kernel,
    each_net,
    each_padding,
    error_of,
    product_error,
)
from images import HARD, IMAGES, NATURAL, axis_of, noise
from ntkfast import NTK, _core
from ntkfast.activations import LeakyReLU, ReLU
from ntkfast.engine.cpu import CPU
from ntkfast.engine.cpu import isa as chosen_isa
from ntkfast.engine.memory import peaks
from ntkfast.engine.program import Problem, nodes
from ntkfast.inputs import NoiseInput
from ntkfast.network import AvgPool, Conv, Network, Upsample, unet, vanilla_cnn
from ntkfast.reference import kernel_matrix
from strategies import SMOOTH, chains, image_shapes, networks

ISAS = _core.supported_isas()
each_isa = pytest.mark.parametrize("isa", ISAS)


def deterministic(max_examples: int):
    return settings(deadline=None, derandomize=True, max_examples=max_examples)


def use_isa(monkeypatch, isa):
    monkeypatch.setenv("NTKFAST_ISA", isa)
    assert chosen_isa() == isa


# --- Accuracy -----------------------------------------------------------------------------------------------------


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


# --- Images -------------------------------------------------------------------------------------------------------


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


def image_variants():
    x = np.random.default_rng(0).integers(0, 200, (6, 5, 3))
    locked = x.astype(float)
    locked.flags.writeable = False
    wide = np.random.default_rng(1).standard_normal((12, 10, 6))
    wide[::2, ::-2, 1::2] = x
    return x, {
        "uint8": x.astype(np.uint8),
        "int64": x,
        "float16": x.astype(np.float16),
        "float32": x.astype(np.float32),
        "longdouble": x.astype(np.longdouble),
        "big-endian": x.astype(">f8"),
        "list": x.tolist(),
        "read-only": locked,
        "Fortran order": np.asfortranarray(x.astype(float)),
        "strided and reversed": wide[::2, ::-2, 1::2],
    }


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


# --- Invariants ---------------------------------------------------------------------------------------------------


@each_dtype
@each_kernel
@each_padding
@each_net
@pytest.mark.parametrize("name", ["natural", "periodic", "spiked"])
def test_kernel_is_symmetric_and_positive_semi_definite(name, net, padding, kernel, dtype):
    K = OPERATORS[kernel](Network(NETS[net], padding), IMAGES[name](7, 8, 3, 0), dtype=dtype, channel_axis=-1)
    matrix = K.dense()
    if padding == "zeros":
        np.testing.assert_array_equal(matrix, matrix.T)
    else:  # displacements that are their own opposites are computed from both ends
        assert error_of(matrix, matrix.T) <= {"float32": 1e-6, "float64": 1e-14}[dtype]
    values = np.linalg.eigvalsh(matrix.astype(np.float64))
    assert values[-1] > 0
    assert values[0] >= -{"float32": 1e-6, "float64": 1e-8}[dtype] * values[-1]


@each_dtype
@each_kernel
@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (-2, 3)])
def test_circular_kernel_moves_with_the_image(shift, kernel, dtype):
    net = Network(NETS["biases"], "circular")
    image = noise(5, 6, 2, 5)
    pixels = np.roll(np.arange(30).reshape(5, 6), shift, axis=(0, 1)).ravel()
    matrix, moved = (
        OPERATORS[kernel](net, x, dtype=dtype, channel_axis=-1).dense() for x in (image, np.roll(image, shift, (0, 1)))
    )
    assert error_of(moved, matrix[np.ix_(pixels, pixels)]) <= BARS[dtype]["noise"]
    assert error_of(moved, matrix) > 0.01


@each_dtype
@each_padding
@pytest.mark.parametrize("storage", ["stream", "dense"])
def test_products_are_linear_and_those_of_the_matrix(storage, padding, dtype):
    K = NTK(vanilla_cnn(2, 5, padding=padding), noise(7, 6, 3, 0), dtype=dtype, storage=storage, channel_axis=-1)
    v, w = noise(42, 4, 2, 1).transpose(2, 0, 1).astype(dtype)
    tolerance = {"float32": 2e-6, "float64": 1e-14}[dtype]
    assert error_of(K @ (2 * v - 3 * w), 2 * (K @ v) - 3 * (K @ w)) <= tolerance
    assert error_of(K @ v, K.dense() @ v) <= tolerance
    assert error_of(np.vdot(w, K @ v), np.vdot(K @ w, v)) <= 10 * tolerance
    assert not (K @ np.zeros(42)).any()


@each_dtype
@each_padding
@pytest.mark.parametrize("factor", [2.0, 0.5, -4.0, 2.0**30, 2.0**-30])
def test_powers_of_two_scale_the_kernel_exactly(factor, padding, dtype):
    net, image, v = Network(NETS["7 9"], padding), noise(6, 7, 2, 0), noise(42, 2, 1, 1)[..., 0]
    K, scaled = (NTK(net, x, dtype=dtype, channel_axis=-1) for x in (image, factor * image))
    np.testing.assert_array_equal(scaled.dense(), factor**2 * K.dense())
    np.testing.assert_array_equal(scaled @ v, factor**2 * (K @ v))
    np.testing.assert_array_equal(scaled.columns([5]), factor**2 * K.columns([5]))
    np.testing.assert_array_equal(scaled.diagonal(), factor**2 * K.diagonal())


@each_dtype
@each_padding
@pytest.mark.parametrize("factor", [3.7, 1e-12, 1e12])
@pytest.mark.parametrize("name", ["centred", "spiked"])
def test_kernel_scales_with_the_square_of_the_image(name, factor, padding, dtype):
    net, image = vanilla_cnn(3, 3, padding=padding), IMAGES[name](6, 7, 3, 0)
    matrix, scaled = (
        NTK(net, x, dtype=dtype, channel_axis=-1).dense().astype(np.float64) for x in (image, factor * image)
    )
    assert np.isfinite(scaled).all()
    assert error_of(scaled / factor**2, matrix) <= BARS[dtype][name]


@each_padding
@pytest.mark.parametrize("weight_var", [1e-3, 1e3])
def test_weight_variances_of_any_size_stay_in_range(weight_var, padding):
    net = Network([*[Conv(3, weight_var=weight_var), ReLU()] * 5, Conv(1)], padding)
    image = 1e3 * noise(6, 7, 2, 0)
    theta = kernel_matrix(net, image, channel_axis=-1)
    assert error_of(NTK(net, image, dtype="float32", channel_axis=-1).dense(), theta) <= 1e-6


@each_dtype
@each_kernel
@each_padding
def test_zero_image_has_zero_kernel(padding, kernel, dtype):
    K = OPERATORS[kernel](Network(NETS["7 9"], padding), np.zeros((5, 6, 2)), dtype=dtype, channel_axis=-1)
    assert not K.dense().any()
    assert not K.diagonal().any()
    assert not K.columns([7]).any()
    assert not (K @ np.ones((30, 3))).any()


@each_dtype
@each_kernel
def test_zero_patches_have_zero_rows_and_columns(kernel, dtype):
    image = noise(4, 9, 2, 11)
    image[:, 4:] = 0
    net = Network([Conv(3), LeakyReLU(0.1), Conv(3), ReLU(), Conv(1)])
    K = OPERATORS[kernel](net, image, dtype=dtype, channel_axis=-1)
    matrix = K.dense().reshape(4, 9, 4, 9)
    # The receptive field is 5 x 5: columns 0 to 5 see the noise, columns 6 to 8 see zeros.
    largest = np.abs(matrix).max()
    assert np.abs(matrix[:, 6:]).max() <= 1e-7 * largest
    assert np.abs(matrix[:, :, :, 6:]).max() <= 1e-7 * largest
    assert (K.diagonal().reshape(4, 9)[:, :6] > 0).all()
    assert error_of(K.dense(), kernel_matrix(net, image, kernel, channel_axis=-1)) <= BARS[dtype]["noise"]


@each_dtype
@each_padding
@pytest.mark.parametrize("storage", ["stream", "dense"])
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_results_repeat_to_the_bit(threads, storage, padding, dtype):
    net, image, v = vanilla_cnn(2, 3, padding=padding), noise(19, 21, 2, 0), noise(399, 3, 1, 1)[..., 0]

    def results(count):
        K = NTK(net, image, dtype=dtype, storage=storage, threads=count, channel_axis=-1)
        return K @ v, K @ v, K.dense(), K.columns([3, 200])

    first, again = results(threads), results(threads)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(first[0], first[1])
    # Another number of threads adds in another order.
    for a, b in zip(first, results(1), strict=True):
        assert error_of(a, b) <= 1e-6


@pytest.mark.skipif(len(ISAS) < 2, reason="this machine has one instruction-set level")
@each_dtype
@each_padding
@each_net
def test_levels_agree(net, padding, dtype, monkeypatch):
    image, v = noise(9, 10, 3, 0), noise(90, 3, 1, 1)[..., 0]
    results = []
    for isa in ISAS:
        use_isa(monkeypatch, isa)
        K = NTK(Network(NETS[net], padding), image, dtype=dtype, channel_axis=-1)
        results.append((K.dense(), K @ v, K.columns([0, 44])))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert error_of(a, b) <= BARS[dtype]["noise"]


# --- Progress -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["product", "store", "dense"])
@each_padding
def test_progress_of_short_sweeps_over_many_images_stays_in_range(padding, call):
    # Displacements that are their own opposites on the torus (here 3 of 3) meet each pair twice.
    images = np.random.default_rng(0).standard_normal((100_000, 2, 2, 1))
    net = vanilla_cnn(3, 1, padding=padding)
    engine = CPU.make(Problem(net, images.shape, np.dtype("float64"), 1), images)
    seen = []
    argument = [np.ones((4, 1, len(images)))] if call == "product" else []
    getattr(engine, call)(*argument, seen.append)
    assert seen[-1] == 1  # one call alone where the sweep takes less than the 50 ms between two
    assert all(0 <= a <= b <= 1 for a, b in itertools.pairwise(seen))


# --- Graphs: several resolutions, merges, all activations ---------------------------------------------------------


def operators(net, image, kernel, dtype, **options):
    """Return the kernel by every storage; on one thread by default, since these images are small."""
    for storage in ("stream", "coarse", "dense"):
        if storage == "coarse" and net.levels == 0:
            continue
        yield OPERATORS[kernel](net, image, dtype=dtype, storage=storage, **({"threads": 1} | options), channel_axis=-1)


@each_isa
@each_dtype
@each_kernel
@each_padding
@each_graph
def test_graphs_are_exact(graph, padding, kernel, dtype, isa, monkeypatch):
    use_isa(monkeypatch, isa)
    net = Network(GRAPHS[graph], padding)
    pixels = [0, 95, 13, 50]
    for name in ("natural", "centred", "noise", "flat", "spiked", "periodic"):
        image = IMAGES[name](8, 12, 3, 0)
        theta = kernel_matrix(net, image, kernel, channel_axis=-1)
        K = OPERATORS[kernel](net, image, dtype=dtype, threads=1, channel_axis=-1)
        # In float32 one bar serves all.  In double the reference sets the limit, on the diagonal too: that of a coarse
        # pixel is a sum over pairs of fine ones.
        bar = 1e-6 if dtype == "float32" else BARS[dtype][name]
        diagonal_bar = 1e-13 if name in NATURAL else bar
        assert error_of(K.dense(), theta) <= bar, name
        assert error_of(K._engine.columns(np.array(pixels)).T, theta[:, pixels], np.abs(theta).max()) <= bar, name
        assert error_of(K.diagonal(), np.diagonal(theta)) <= (3e-7 if dtype == "float32" else diagonal_bar), name


@each_dtype
@each_kernel
@each_padding
@each_graph
def test_graphs_of_noise_are_exact(graph, padding, kernel, dtype):
    net, noise_input = Network(GRAPHS[graph], padding), NoiseInput((8, 12))
    theta = kernel_matrix(net, noise_input, kernel)
    v = noise(96, 3, 1, 2)[..., 0]
    bar = GRAPH_BARS[dtype]
    for K in operators(net, noise_input, kernel, dtype):
        assert error_of(K.dense(), theta) <= bar
        assert product_error(K, theta, v) <= bar
        assert error_of(K.columns([0, 17]), theta[:, [0, 17]]) <= bar
        assert error_of(K.diagonal(), np.diagonal(theta)) <= bar
        assert error_of(K.affinity(2, 3), theta[27].reshape(8, 12), np.abs(theta).max()) <= bar
        assert product_error(K, theta, v) <= bar  # the fields kept by now are right too
        assert error_of(K.apply(v.reshape(8, 12, 3)), (theta @ v).reshape(8, 12, 3)) <= 10 * bar
    axes = [OPERATORS[kernel](net, noise_input, dtype=dtype, channel_axis=axis) for axis in (None, 0, -1)]
    for K in axes[1:]:
        np.testing.assert_array_equal(K.dense(), axes[0].dense())


@deterministic(60)
@given(networks(), st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 3), (3, 2)]), st.sampled_from(NATURAL), st.data())
def test_random_graphs_agree_with_the_reference(net, cells, name, data):
    # One cell is a whole kernel at the coarsest level, and two may be wholly alike: the bar is that of the hard images.
    height, width = (net.multiple * n for n in cells)
    image = IMAGES[name](height, width, data.draw(st.integers(1, 3)), data.draw(st.integers(0, 1000)))
    v = noise(height * width, 2, 1, 0)[..., 0]
    pixel = data.draw(st.integers(0, height * width - 1))
    kernel = data.draw(st.sampled_from(KERNELS))
    theta = kernel_matrix(net, image, kernel, channel_axis=-1)
    assume(np.abs(theta).max() > 1e-12 * np.abs(image).max() ** 2)  # the mean of a centred image is rounding
    for dtype in DTYPES:
        bar = {"float32": 1e-5, "float64": PARALLEL}[dtype]
        for K in operators(net, image, kernel, dtype):
            assert product_error(K, theta, v) <= bar
        assert error_of(K.dense(), theta) <= bar
        assert error_of(K._engine.columns(np.array([pixel])).T, theta[:, [pixel]], np.abs(theta).max()) <= bar


@each_dtype
@each_kernel
@each_padding
@each_graph
def test_graphs_give_symmetric_positive_semi_definite_kernels(graph, padding, kernel, dtype):
    K = OPERATORS[kernel](Network(GRAPHS[graph], padding), IMAGES["natural"](8, 12, 3, 0), dtype=dtype, channel_axis=-1)
    matrix = K.dense().astype(np.float64)
    assert error_of(matrix, matrix.T) <= {"float32": 1e-6, "float64": 1e-14}[dtype]
    values = np.linalg.eigvalsh(matrix)
    assert values[-1] > 0
    assert values[0] >= -{"float32": 1e-6, "float64": 1e-8}[dtype] * values[-1]


@each_dtype
@each_graph
@pytest.mark.parametrize("cells", [(1, 0), (0, -1), (1, 2)])
def test_circular_graphs_move_with_the_image_by_whole_cells(cells, graph, dtype):
    net = Network(GRAPHS[graph], "circular")
    m, image = net.multiple, noise(16, 20, 2, 5)
    shift = (m * cells[0], m * cells[1])
    pixels = np.roll(np.arange(320).reshape(16, 20), shift, axis=(0, 1)).ravel()
    matrix, moved = (NTK(net, x, dtype=dtype, channel_axis=-1).dense() for x in (image, np.roll(image, shift, (0, 1))))
    assert error_of(moved, matrix[np.ix_(pixels, pixels)]) <= GRAPH_BARS[dtype]
    assert error_of(moved, matrix) > 1e-4


@each_dtype
@each_kernel
@each_padding
@pytest.mark.parametrize("graph", [name for name in GRAPHS if name != "strides" and name != "nested"])
def test_transposed_image_has_the_transposed_kernel(graph, kernel, padding, dtype):
    net, image = Network(GRAPHS[graph], padding), noise(8, 12, 3, 6)
    pixels = np.arange(96).reshape(12, 8).T.ravel()
    matrix, turned = (
        OPERATORS[kernel](net, x, dtype=dtype, channel_axis=-1).dense() for x in (image, image.transpose(1, 0, 2))
    )
    assert error_of(turned[np.ix_(pixels, pixels)], matrix) <= GRAPH_BARS[dtype]


@each_dtype
@each_padding
@each_graph
def test_products_of_graphs_are_linear_and_those_of_the_matrix(graph, padding, dtype):
    net, image = Network(GRAPHS[graph], padding), noise(8, 12, 3, 0)
    v, w = noise(96, 5, 2, 1).transpose(2, 0, 1).astype(dtype)
    tolerance = {"float32": 2e-6, "float64": 1e-14}[dtype]
    for K in operators(net, image, "ntk", dtype):
        matrix = K.dense()
        assert error_of(K @ (2 * v - 3 * w), 2 * (K @ v) - 3 * (K @ w)) <= 2 * tolerance, K.storage
        assert error_of(K @ v, matrix @ v) <= tolerance, K.storage
        some = np.array([0, 13, 50, 95])
        assert error_of(K._engine.columns(some).T, matrix[:, some], np.abs(matrix).max()) <= tolerance, K.storage
        assert error_of(K.diagonal(), np.diagonal(matrix)) <= tolerance, K.storage
        assert not (K @ np.zeros(96)).any()


@each_dtype
@each_padding
@pytest.mark.parametrize("storage", ["stream", "coarse", "dense"])
@pytest.mark.parametrize("graph", ["unet 2", "nested"])
def test_results_of_graphs_repeat_to_the_bit(graph, storage, padding, dtype):
    net, image, v = Network(GRAPHS[graph], padding), noise(12, 16, 2, 0), noise(192, 3, 1, 1)[..., 0]

    def results(count):
        K = NTK(net, image, dtype=dtype, storage=storage, threads=count, channel_axis=-1)
        return K @ v, K @ v, K.dense(), K.columns([3, 150])

    one = results(1)
    for threads in (1, 2, 5):
        first, again = results(threads), results(threads)
        for a, b, c in zip(first, again, one, strict=True):
            np.testing.assert_array_equal(a, b)
            assert error_of(a, c) <= {"float32": 1e-6, "float64": 1e-14}[dtype]


@each_padding
@pytest.mark.parametrize("graph", ["unet 2", "autoencoder 2", "residual"])
def test_a_batch_through_a_graph_is_each_image(graph, padding):
    net = Network(GRAPHS[graph], padding)
    images = noise(24, 12, 2, 0).reshape(3, 8, 12, 2)
    engine = CPU.make(Problem(net, images.shape, np.dtype("float64"), 2), images)
    v = noise(96, 2, 3, 1)
    matrices, product, diagonal = engine.dense(), engine.product(v), engine.diagonal()
    for n, image in enumerate(images):
        theta = kernel_matrix(net, image, channel_axis=-1)
        assert error_of(matrices[n], theta) <= 1e-12
        assert error_of(product[:, :, n], theta @ v[:, :, n]) <= 1e-12
        assert error_of(diagonal[:, n], np.diagonal(theta)) <= 1e-12


@each_padding
@pytest.mark.parametrize("storage", ["stream", "coarse"])
def test_progress_of_graphs_ascends_to_one(storage, padding):
    seen = []
    K = NTK(unet(2, padding=padding), noise(96, 96, 1, 0), storage=storage, progress=seen.append, channel_axis=-1)
    K @ np.ones(96 * 96)
    parts = np.split(np.array(seen), np.flatnonzero(np.array(seen) == 1)[:-1] + 1)
    assert len(parts) == (2 if storage == "coarse" else 1)  # the coarse fields, and the product
    for part in parts:
        assert part[-1] == 1
        assert (part >= 0).all()
        assert (np.diff(part) > 0).all()  # the last one before the end is below 1: no pair is counted twice


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_exceptions_stop_a_product_of_a_graph(error):
    calls = []

    def stop(fraction):
        calls.append(fraction)
        raise error

    K = NTK(unet(2), noise(160, 160, 1, 0), storage="stream", progress=stop, channel_axis=-1)
    start = time.monotonic()
    with pytest.raises(error):
        K @ np.ones(160 * 160)
    assert time.monotonic() - start < 1
    assert len(calls) == 1
    assert 0 < calls[0] < 1


@pytest.mark.parametrize("operation", ["conv", "avg_pool", "upsample"])
def test_engine_takes_the_factors_of_the_layers_and_refuses_others(operation):
    def with_factor(node, factor):
        name, inputs, level, numbers = node
        if name != operation or (name == "conv" and numbers[1] == 1):
            return node
        at = 1 if name == "conv" else 0
        assert numbers[at] == 2
        return name, inputs, level, [*numbers[:at], factor, *numbers[at + 1 :]]

    layers = [Conv(3, stride=2), ReLU(), AvgPool(), Conv(3), ReLU(), Upsample(), Upsample(), Conv(1)]
    built = nodes(Network(layers))
    for factor in (3, 4):
        changed = [with_factor(node, factor) for node in built]
        with pytest.raises(ValueError, match=f"factor of 2 only, got {factor}"):
            _core.estimate_float32(changed, False, False, (1, 8, 8, 1), 1, 1, 1)


@pytest.mark.parametrize("shape", [(8, 10), (9, 12), (2, 4), (1, 1)])
@pytest.mark.parametrize("make", [noise, lambda h, w, c, s: NoiseInput((h, w))], ids=["image", "noise"])
def test_sides_must_be_multiples(make, shape):
    with pytest.raises(ValueError, match="image must") as expected:
        unet(2).check_size(*shape)
    with pytest.raises(ValueError, match=re.escape(str(expected.value))):
        NTK(unet(2), make(*shape, 1, 0), channel_axis=-1)


@each_dtype
@each_padding
@each_graph
@pytest.mark.parametrize("cells", [(1, 1), (1, 3), (3, 1)], ids=str)
def test_small_images_through_graphs(cells, graph, padding, dtype):
    # Kernels reach beyond the image at the coarse levels, where cells are few and may be alike.
    net = Network(GRAPHS[graph], padding)
    height, width = (net.multiple * n for n in cells)
    image = noise(height, width, 2, 3)
    for kernel in KERNELS:
        theta = kernel_matrix(net, image, kernel, channel_axis=-1)
        for K in operators(net, image, kernel, dtype):
            bar = {"float32": 1e-6, "float64": PARALLEL}[dtype]
            assert error_of(K.dense(), theta) <= bar
            assert product_error(K, theta, np.eye(len(theta))) <= bar
            assert error_of(K._engine.columns(np.arange(len(theta))).T, theta) <= bar


@each_padding
@pytest.mark.parametrize("kernel_size", [9, 15])
def test_kernels_larger_than_the_coarse_image(kernel_size, padding):
    net, image = unet(2, kernel_size, padding=padding), noise(8, 4, 2, 0)
    theta = kernel_matrix(net, image, channel_axis=-1)
    assert error_of(NTK(net, image, channel_axis=-1).dense(), theta) <= 1e-6
    assert error_of(NTK(net, image, dtype="float64", channel_axis=-1).dense(), theta) <= PARALLEL


@each_dtype
@each_padding
@pytest.mark.parametrize("graph", HOMOGENEOUS)
def test_zero_image_has_zero_kernel_of_a_graph(graph, padding, dtype):
    for K in operators(Network(GRAPHS[graph], padding), np.zeros((8, 12, 2)), "ntk", dtype):
        assert not K.dense().any()
        assert not K.diagonal().any()
        assert not K._engine.columns(np.array([7])).any()
        assert not (K @ np.ones((96, 3))).any()


@each_dtype
@each_padding
@pytest.mark.parametrize("graph", HOMOGENEOUS)
@pytest.mark.parametrize("factor", [1e-6, 1e6])
@pytest.mark.parametrize("name", ["natural", "flat"])
def test_kernel_of_a_homogeneous_graph_scales_with_the_square_of_the_image(name, factor, graph, padding, dtype):
    net, image = Network(GRAPHS[graph], padding), IMAGES[name](8, 12, 3, 0)
    matrix, scaled = (
        NTK(net, x, dtype=dtype, channel_axis=-1).dense().astype(np.float64) for x in (image, factor * image)
    )
    assert error_of(scaled / factor**2, matrix) <= BARS[dtype][name]


@pytest.mark.parametrize("variant", image_variants()[1])
def test_graphs_take_every_kind_of_array(variant):
    image = np.asarray(image_variants()[1][variant])[:4, :4]
    expected = NTK(unet(2), np.array(image, dtype=float), channel_axis=-1).dense()
    np.testing.assert_array_equal(NTK(unet(2), image, channel_axis=-1).dense(), expected)


RESIDENT = """
import sys
import numpy as np
from ntkfast import NTK, autoencoder, unet
from ntkfast.engine.cpu import CPU
from ntkfast.engine.program import Problem, nodes
def resident(key):
    for line in open("/proc/self/status"):
        if line.startswith(key):
            return 1024 * int(line.split()[1])
"""
MEASURE = """
make, padding, size, storage = {"unet": unet, "autoencoder": autoencoder}[sys.argv[1]], sys.argv[2], 160, sys.argv[3]
options = dict(storage=storage, threads=2, channel_axis=-1)
NTK(make(2), np.ones((8, 8, 3)), **options) @ np.ones((64, 3), dtype=np.float32)  # libraries, threads
image = np.random.default_rng(0).standard_normal((size, size, 3))
v = np.ones((size * size, 3), dtype=np.float32)
start = resident("VmRSS:")
K = NTK(make(2, padding=padding), image, **options)
K @ v
print(resident("VmHWM:") - start, K.memory_estimate(3)[storage])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@each_padding
@pytest.mark.parametrize("network", ["unet", "autoencoder"])
def test_memory_is_as_estimated(network, padding):
    require_estimate(MEASURE, network, padding, "stream")


def require_estimate(code, *arguments):
    command = [sys.executable, "-c", RESIDENT + code, *arguments]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    measured, estimated = map(int, printed.split())
    assert abs(measured - estimated) <= 0.25 * measured + 4e6, (measured, estimated)


MEASURE_CONSTRUCTION = """
padding, dtype = sys.argv[1:]
net, image = unet(3, padding=padding), np.random.default_rng(0).standard_normal((192, 192, 3))
options = dict(storage="stream", threads=2, dtype=dtype, channel_axis=-1)
NTK(net, image[:8, :8], **options)  # libraries, threads
start = resident("VmRSS:")
K = NTK(net, image, **options)
parts = CPU.estimate(Problem(net, (1, *image.shape), K.dtype, 2), 3)
print(resident("VmHWM:") - start, parts["fields"] + parts["building"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@each_dtype
@each_padding
def test_memory_of_construction_is_as_estimated(padding, dtype):
    """The bands near D = 0 take some times what the fields do."""
    require_estimate(MEASURE_CONSTRUCTION, padding, dtype)


def test_construction_may_be_the_peak():
    parts = {"fields": 1, "building": 30, "product": 2, "bands": 10, "coarse": 20, "store": 100}
    assert peaks(parts) == {"stream": 31, "coarse": 31, "dense": 113}


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
