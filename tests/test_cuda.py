"""The CUDA engine is compared with the dense reference and the CPU engine.

Tests that compute run where there is a card, or in a build with the emulated engine (NTKFAST_CUDA=emulate), whose
device arrays are those of the host.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cases import (
    BARS,
    GRAPH_BARS,
    GRAPHS,
    KERNELS,
    NETS,
    PADDINGS,
    bar_of,
    each_dtype,
    each_graph,
    each_kernel,
    each_net,
    each_padding,
    error_of,
    product_error,
)
from cuda_cases import NET, cuda, on_a_device
from images import IMAGES, axis_of, noise
from ntkfast import (
    Compute,
    Network,
    NoiseInput,
    Tiles,
    denoise_ntk,
    unet,
)
from ntkfast.reference import kernel_matrix


@on_a_device
@each_dtype
@each_padding
@each_net
def test_chains_are_exact(net, padding, dtype):
    net = Network(NETS[net], padding)
    for name, shape, kernel in (
        ("noise", (6, 9, 3), "ntk"),
        ("spiked", (9, 5, 1), "ntk"),
        ("noise", (5, 4, 2), "nngp"),
    ):
        image = IMAGES[name](*shape, 1)
        theta = kernel_matrix(net, image, kernel, channel_axis=-1)
        bar = bar_of(dtype, name, net)
        v = noise(len(theta), 4, 1, 2)[..., 0]
        for storage in ("stream", "dense"):
            K = cuda(net, image, kernel=kernel, dtype=dtype, storage=storage)
            assert K.device == "cuda:0"
            assert product_error(K, theta, v) <= bar, (name, storage)
            assert K._engine.stored == (storage == "dense")
            assert error_of(K @ v[:, 0], (K @ v[:, :1])[:, 0]) <= bar
        assert error_of(K.dense(), theta) <= bar, name
        assert error_of(K.diagonal(), np.diagonal(theta)) <= {"float32": 3e-7, "float64": 1e-13}[dtype], name
        assert error_of(K.columns([0, 7]), theta[:, [0, 7]], np.abs(theta).max()) <= bar, name


@on_a_device
@each_dtype
@each_padding
@each_graph
def test_graphs_are_exact(graph, padding, dtype):
    net = Network(GRAPHS[graph], padding)
    for kernel in KERNELS:
        image = noise(8, 12, 3, 0)
        theta = kernel_matrix(net, image, kernel, channel_axis=-1)
        v = noise(96, 3, 1, 2)[..., 0]
        for storage in ("stream", "coarse", "dense") if net.levels else ("stream", "dense"):
            K = cuda(net, image, kernel=kernel, dtype=dtype, storage=storage)
            assert product_error(K, theta, v) <= GRAPH_BARS[dtype], storage
            assert product_error(K, theta, v) <= GRAPH_BARS[dtype], storage  # with what is kept by now
            assert K._engine.coarse_kept == (storage == "coarse")
        assert error_of(K.dense(), theta) <= GRAPH_BARS[dtype]
        assert error_of(K.diagonal(), np.diagonal(theta)) <= GRAPH_BARS[dtype]


@on_a_device
@each_padding
@pytest.mark.parametrize("name", ["flat", "nearly_flat", "periodic", "two_level", "zero", "ramp"])
def test_hard_images(name, padding):
    for net in (Network(NETS["deep 3"], padding), unet(1, padding=padding)):
        image = IMAGES[name](6, 8, 2, 0)
        theta = kernel_matrix(net, image, channel_axis=-1)
        assert error_of(cuda(net, image).dense(), theta) <= BARS["float32"][name]


@on_a_device
@each_padding
@pytest.mark.parametrize("graph", ["unet 2", "strides", "smooth"])
def test_noise_as_input(graph, padding):
    net, noise_input = Network(GRAPHS[graph], padding), NoiseInput((8, 12))
    theta = kernel_matrix(net, noise_input)
    K = cuda(net, noise_input)
    assert product_error(K, theta, noise(96, 3, 1, 2)[..., 0]) <= GRAPH_BARS["float32"]
    assert error_of(K.columns([0, 17]), theta[:, [0, 17]]) <= GRAPH_BARS["float32"]


@on_a_device
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 17, 4)], ids=str)
def test_images_of_every_shape(shape):
    image = np.random.default_rng(1).standard_normal(shape)
    for padding in PADDINGS:
        net = Network(NETS["13 15"], padding)
        theta = kernel_matrix(net, image, channel_axis=axis_of(image))
        K = cuda(net, image)
        assert error_of(K.dense(), theta) <= 1e-6
        assert product_error(K, theta, np.eye(len(theta))) <= 1e-6


@on_a_device
@each_kernel
@pytest.mark.parametrize("columns", [0, 1, 5, 64, 67])
def test_products_with_any_number_of_columns(columns, kernel):
    image = noise(4, 6, 2, 0)
    K = cuda(NET, image, kernel=kernel)
    v = noise(24, columns, 1, 1)[..., 0]
    assert (K @ v).shape == (24, columns)
    assert error_of(K @ v, kernel_matrix(NET, image, kernel, channel_axis=-1) @ v) <= 1e-5


@on_a_device
@pytest.mark.parametrize("net", [NET, unet(1)], ids=repr)
@pytest.mark.parametrize("storage", ["stream", "dense"])
def test_results_repeat_to_the_bit(storage, net):
    image, v = noise(8, 10, 2, 0), noise(80, 3, 1, 1)[..., 0]
    K = cuda(net, image, storage=storage)
    first = K @ v
    np.testing.assert_array_equal(first, K @ v)
    np.testing.assert_array_equal(first, cuda(net, image, storage=storage) @ v)


@on_a_device
def test_scipy_takes_the_operator():
    image = noise(5, 6, 2, 0)
    K, theta = cuda(NET, image, dtype="float64"), kernel_matrix(NET, image, channel_axis=-1)
    v = noise(30, 1, 1, 1)[:, 0, 0]
    for w in (K.matvec(v), K.rmatvec(v), K.T @ v, K.H @ v, K.dot(v), (2 * K @ v) / 2, v @ K):
        np.testing.assert_allclose(w, theta @ v, rtol=1e-10)


@on_a_device
def test_the_engine_checks_addresses():
    engine = cuda(NET, noise(6, 8, 3, 0))._engine
    v = np.ones((48, 2), np.float32)
    good = (v.ctypes.data, (48, 2), 0)
    for bad, message in (
        ((0, (48, 2), 0), "v must be the address"),
        ((good[0] + 1, (48, 2), 0), "v must be the address"),
        ((good[0], (48, 2), 1), "v must be on device 0, got 1"),
        ((good[0], (47, 2), 0), "the same shape"),
        ((good[0], (48,), 0), "the same shape"),
        ((good[0], (48, 3), 0), "the same shape"),
    ):
        with pytest.raises(ValueError, match=message):
            engine.product_on_device(bad, good, stream=0)


@on_a_device
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_exceptions_stop_a_product(error):
    calls = []

    def stop(fraction):
        calls.append(fraction)
        raise error

    K = cuda(NET, noise(12, 12, 1, 0), storage="stream", progress=stop)
    with pytest.raises(error):
        K @ np.ones(144)
    assert len(calls) == 1
    K._progress = calls.append
    K @ np.ones(144)
    assert calls[-1] == 1


@on_a_device
def test_denoising_on_the_device():
    rng = np.random.default_rng(0)
    clean = IMAGES["two_level"](14, 12, 3, 0)
    noisy = clean + 0.1 * rng.standard_normal(clean.shape)
    options = {"sigma": 0.1, "channel_axis": -1, "method": Tiles(size=8, overlap=4, steps=20)}
    expected = denoise_ntk(noisy, compute=Compute("cpu", threads=1), **options)
    assert error_of(denoise_ntk(noisy, compute=Compute("cuda", threads=1), **options), expected) <= 1e-3


@on_a_device
def test_benchmark_of_the_device(tmp_path):
    """The benchmark runs at tiny sizes; it checks its results by itself."""
    root = Path(__file__).parents[1]
    if not (root / "bench").exists():
        pytest.skip("no benchmarks beside these tests")
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "bench.gpu", "--sizes", "8", "--networks", "unet", "--seconds", "60"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(root)])}
    done = subprocess.run([*command, "--json", str(out)], cwd=root, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(out.read_text())["results"]["results"]
    assert [result["what"] for result in results] == ["product", "descent", "stored product"]
    assert all(result["seconds"] > 0 and result["error"] <= result["tolerance"] for result in results)
