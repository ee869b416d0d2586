"""The engine is compared with the reference on networks of several resolutions, with merges and all activations."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cases import (
    BARS,
    DTYPES,
    GRAPH_BARS,
    GRAPHS,
    HOMOGENEOUS,
    KERNELS,
    OPERATORS,
    PARALLEL,
    each_dtype,
    each_graph,
    each_kernel,
    each_padding,
    error_of,
    product_error,
)
from images import IMAGES, NATURAL, image_variants, noise
from levels import each_isa, use_isa
from ntkfast import NTK, _core
from ntkfast.activations import ReLU
from ntkfast.engine.cpu import CPU
from ntkfast.engine.program import Problem, nodes
from ntkfast.inputs import NoiseInput
from ntkfast.network import AvgPool, Conv, Network, Upsample, unet
from ntkfast.reference import kernel_matrix
from strategies import deterministic, networks


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
