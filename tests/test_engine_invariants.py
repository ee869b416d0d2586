"""These test what kernels of the engine keep: symmetry, shifts, scales, bits, and progress."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cases import (
    BARS,
    NETS,
    OPERATORS,
    each_dtype,
    each_kernel,
    each_net,
    each_padding,
    error_of,
)
from images import IMAGES, noise
from levels import ISAS, use_isa
from ntkfast import NTK
from ntkfast.activations import LeakyReLU, ReLU
from ntkfast.engine.cpu import CPU
from ntkfast.engine.program import Problem
from ntkfast.network import Conv, Network, vanilla_cnn
from ntkfast.reference import kernel_matrix


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
