"""The CUDA engine is tested through Python: against the dense reference and the CPU engine.

Arrays of the device and errors are tested too.

Tests that compute run where there is a card, or in a build with the emulated engine (NTKFAST_CUDA=emulate), whose
device arrays are those of the host.  The tests of the errors that are met without a card run everywhere.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ntkfast
from cases import (
    BARS,
    GRAPH_BARS,
    GRAPHS,
    KERNELS,
    NETS,
    OPERATORS,
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
from images import IMAGES, axis_of, noise
from ntkfast import (
    NTK,
    Compute,
    Network,
    NoiseInput,
    Tiles,
    _core,
    denoise_ntk,
    gradient_descent,
    gradient_flow,
    ridge,
    unet,
    vanilla_cnn,
)
from ntkfast.app import cli
from ntkfast.engine import cuda as cards
from ntkfast.engine import memory
from ntkfast.engine.arrays import in_memory_of_host, namespace
from ntkfast.engine.cuda import CudaBackend
from ntkfast.engine.cupy_arrays import CuPyArrays
from ntkfast.engine.program import nodes
from ntkfast.engine.torch_arrays import TorchArrays
from ntkfast.reference import kernel_matrix

BACKEND = _core.cuda_backend()
on_a_device = pytest.mark.skipif(not _core.cuda_devices(), reason=f"no card: {_core.cuda_why_unavailable()}")
NET = vanilla_cnn(2, 3)


def cuda(net, image, kernel="ntk", **options):
    return OPERATORS[kernel](net, image, **({"device": "cuda", "threads": 1, "channel_axis": axis_of(image)} | options))


# --- Without a card -----------------------------------------------------------------------------------------------


@pytest.fixture
def without_a_card(monkeypatch):
    """Hide what the machine has of cards."""
    monkeypatch.setattr(_core, "cuda_devices", list)
    monkeypatch.setattr(_core, "cuda_why_unavailable", lambda: "the driver is missing")


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3"])
def test_cuda_without_a_card_says_what_is_missing(device, without_a_card):
    message = f"device='{device}' cannot be used: the driver is missing; or use device='cpu'"
    with pytest.raises(RuntimeError, match=message):
        NTK(NET, noise(4, 5, 1, 0), device=device, channel_axis=-1)
    with pytest.raises(RuntimeError, match=message):
        NTK(NET, noise(4, 5, 1, 0), channel_axis=-1).memory_estimate(device=device)
    with pytest.raises(RuntimeError, match=message):
        denoise_ntk(noise(4, 5, 1, 0)[..., 0], sigma=0.1, compute=Compute(device=device))


def test_auto_without_a_card_is_the_cpu(without_a_card, monkeypatch):
    monkeypatch.setattr(_core, "cuda_backend", lambda: "cuda")
    monkeypatch.setattr(cards, "AUTO_PAIR_LAYERS", 0)
    assert NTK(NET, noise(4, 5, 1, 0), device="auto", channel_axis=-1).device == "cpu"


def test_info_without_a_card(without_a_card, capsys):
    info = ntkfast.info()
    assert info["devices"] == ["cpu"]
    assert info["cuda"] == BACKEND
    assert info["cuda_cards"] == []
    assert info["cuda_missing"] == "the driver is missing"
    assert cli.main(["info"]) == 0
    shown = dict(re.split(r":\s+", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert shown["cuda_cards"] == "none"
    assert shown["cuda_missing"] == "the driver is missing"


def test_command_line_without_a_card(without_a_card, tmp_path, capsys):
    imagecodecs = pytest.importorskip("imagecodecs")
    picture, out = tmp_path / "in.png", tmp_path / "out.png"
    picture.write_bytes(imagecodecs.png_encode(np.zeros((4, 5), np.uint8)))
    assert cli.main(["denoise", str(picture), str(out), "--sigma", "1", "--device", "cuda"]) == 1
    message = "error: device='cuda' cannot be used: the driver is missing; or use device='cpu'"
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.skipif(BACKEND != "none", reason="this build has CUDA")
def test_a_build_without_cuda_says_how_to_get_it():
    assert _core.cuda_devices() == []
    assert _core.cuda_architectures() == _core.cuda_compiler() == _core.cuda_driver() == ""
    assert "nvcc" in _core.cuda_why_unavailable()
    for engine in (_core.CudaEngineFloat32, _core.CudaEngineFloat64):
        with pytest.raises(RuntimeError, match=r"no CUDA.*nvcc"):
            engine(nodes(NET), False, False, np.ones((1, 4, 5, 1)), False, device=0, threads=1)
    with pytest.raises(RuntimeError, match=r"no CUDA.*nvcc"):
        _core.cuda_estimate_float32(nodes(NET), False, False, (1, 4, 5, 1), 3, 0)


@pytest.mark.skipif(BACKEND != "cuda", reason="needs the CUDA runtime")
def test_cards_can_be_hidden():
    """The build works without a visible card, and says why there is none."""
    code = "from ntkfast import _core; print(_core.cuda_devices(), bool(_core.cuda_why_unavailable()))"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["[]", "True"]


def test_import_calls_no_cuda():
    """No library of CUDA is loaded by the import, and no card is started."""
    code = (
        "import ntkfast._core; print(open('/proc/self/maps').read() if __import__('os').path.exists('/proc') else '')"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert "libcuda" not in done.stdout
    assert "/dev/nvidia" not in done.stdout


# --- Accuracy -----------------------------------------------------------------------------------------------------


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


# --- Arrays of the device -------------------------------------------------------------------------------------------


def torch_array(value, device=0):
    torch = pytest.importorskip("torch")
    return torch.as_tensor(np.array(value), device="cpu" if BACKEND == "emulation" else f"cuda:{device}")


def cupy_array(value, device=0):
    cupy = pytest.importorskip("cupy")
    if BACKEND == "emulation":
        pytest.skip("CuPy has no arrays of the host")
    with cupy.cuda.Device(device):
        return cupy.asarray(value)


each_library = pytest.mark.parametrize("array", [torch_array, cupy_array], ids=["torch", "cupy"])


def host(value):
    return namespace(value).to_host(value)


def refuse_copies(monkeypatch, limit):
    """Refuse to copy arrays of more than ``limit`` numbers to the host, by the engine's own copies too."""
    for kind in (TorchArrays, CuPyArrays):

        def to_host(self, value, kept=kind.to_host):
            result = kept(self, value)
            assert result.size <= limit, f"{result.shape} was copied to the host"
            return result

        monkeypatch.setattr(kind, "to_host", to_host)


@on_a_device
@each_library
@each_dtype
@pytest.mark.parametrize("shape", [(48,), (48, 1), (48, 3), (48, 70), (48, 0)], ids=str)
def test_device_arrays_give_device_arrays(array, shape, dtype, monkeypatch):
    image = noise(6, 8, 3, 0)
    K = cuda(NET, image, dtype=dtype)
    v = np.random.default_rng(0).standard_normal(shape)
    given = array(v.astype(dtype))
    expected = K @ v
    monkeypatch.setattr(K, "_engine", OnDeviceOnly(K._engine))
    refuse_copies(monkeypatch, 0)
    results = [K @ given, K.dot(given), K * given]
    if len(shape) == 2:
        results += [K.matmat(given), K.rmatmat(given)]
    if shape in ((48,), (48, 1)):
        results += [K.matvec(given), K.rmatvec(given)]
    monkeypatch.undo()
    for out in results:
        assert type(out) is type(given)
        assert out.device == given.device
        assert tuple(out.shape) == shape
        np.testing.assert_array_equal(host(out), expected)
    np.testing.assert_array_equal(host(given), v.astype(dtype))


class OnDeviceOnly:
    """The products of this engine are fenced off for the host's arrays."""

    def __init__(self, engine):
        self._engine = engine

    def __getattr__(self, name):
        assert name not in ("product", "dense"), "an array was copied to the device and back"
        return getattr(self._engine, name)


@on_a_device
@each_library
def test_device_arrays_of_every_kind(array):
    """There are other dtypes, and arrays that are not contiguous."""
    image = noise(6, 8, 3, 0)
    K = cuda(NET, image)
    v = np.random.default_rng(0).integers(-5, 5, (48, 6)).astype(np.float64)
    expected = K @ v
    for dtype in (np.float16, np.float32, np.float64, np.int64, np.int8):
        np.testing.assert_array_equal(host(K @ array(v.astype(dtype))), expected)
    np.testing.assert_array_equal(host(K @ array(np.ascontiguousarray(v.T)).T), expected)
    np.testing.assert_array_equal(host(K @ array(v)[:, ::2]), K @ v[:, ::2])
    np.testing.assert_array_equal(host(K @ array(v > 0)), K @ (v > 0))


@on_a_device
@each_library
def test_apply_takes_images_on_the_device(array):
    image = noise(6, 8, 3, 0)
    K = cuda(NET, image)
    for shape in ((6, 8), (6, 8, 2), (48,), (48, 2)):
        v = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        out = K.apply(array(v))
        assert type(out) is type(array(v))
        np.testing.assert_array_equal(host(out), K.apply(v))


@on_a_device
@each_library
@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_an_image_on_the_device(array, device):
    image = noise(6, 8, 3, 0)
    K = NTK(NET, array(image), device=device, channel_axis=-1)
    assert K.device == "cuda:0"
    np.testing.assert_array_equal(K.dense(), cuda(NET, image).dense())


@on_a_device
@each_library
@each_dtype
def test_filters_stay_on_the_device(array, dtype, monkeypatch):
    image = noise(9, 16, 3, 0)
    y = noise(9, 16, 3, 1).astype(dtype)
    calls = {
        "descent": lambda K, y: gradient_descent(K, y, steps=[0, 5, 50]),
        "one time": lambda K, y: gradient_descent(K, y, steps=20),
        "iteration": lambda K, y: gradient_descent(K, y, steps=[3, 7], method="iteration"),
        "flow": lambda K, y: gradient_flow(K, y, t=[1e-3, 1e-2]),
        "ridge": lambda K, y: ridge(K, y, noise_var=[0.1, 1.0]),
        "zero": lambda K, y: gradient_descent(K, 0 * y, steps=[1, 2]),
    }
    for name, call in calls.items():
        expected = call(NTK(NET, image, dtype=dtype, device="cpu", channel_axis=-1), y)
        K = cuda(NET, image, dtype=dtype)
        K._engine = OnDeviceOnly(K._engine)
        with monkeypatch.context() as patch:
            refuse_copies(patch, 9 * 16)  # fewer numbers than two columns
            out = call(K, array(y))
        assert type(out) is type(array(y)), name
        assert host(out).dtype == dtype
        tolerance = {"float32": 2e-5, "float64": 1e-8}[dtype]
        assert error_of(host(out), expected) <= tolerance, name


@on_a_device
@each_dtype
def test_filters_of_arrays_of_the_host(dtype):
    image, y = noise(9, 16, 3, 0), noise(9, 16, 3, 1)
    expected, info = gradient_descent(
        NTK(NET, image, dtype=dtype, device="cpu", channel_axis=-1), y, steps=[5, 50], return_info=True
    )
    K = cuda(NET, image, dtype=dtype)
    out, device_info = gradient_descent(K, y, steps=[5, 50], return_info=True)
    assert isinstance(out, np.ndarray)
    assert out.dtype == dtype
    assert error_of(out, expected) <= {"float32": 2e-5, "float64": 1e-8}[dtype]
    assert device_info.products == info.products
    assert abs(K.lambda_max - info.lambda_max) <= 1e-5 * info.lambda_max


@on_a_device
@each_library
def test_rank_deficient_right_hand_sides_on_the_device(array):
    image = noise(2, 2, 1, 0)  # fewer pixels than columns
    y = np.ones((4, 6), np.float32)
    y[:, 3:] = 0
    expected = gradient_descent(NTK(NET, image, device="cpu", channel_axis=-1), y, steps=10)
    assert error_of(host(gradient_descent(cuda(NET, image), array(y), steps=10)), expected) <= 1e-5


@on_a_device
@pytest.mark.skipif(BACKEND == "emulation", reason="the emulation has no streams")
def test_streams_of_the_caller():
    """The engine waits for what is queued on the caller's stream."""
    torch = pytest.importorskip("torch")
    K = cuda(NET, noise(16, 16, 3, 0))
    v = torch.randn(256, 3, device="cuda:0")
    expected = K @ v
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        a = torch.randn(4096, 4096, device="cuda:0")
        for _ in range(20):
            a = a @ a * 1e-3
        late = v + 0 * a[:256, :3].nan_to_num(0, 0, 0)  # known long after this line
        out = K @ late
    stream.synchronize()
    assert torch.equal(out, expected)


# --- Refusals -----------------------------------------------------------------------------------------------------


@on_a_device
@each_library
def test_device_arrays_for_an_operator_on_the_cpu(array):
    image = noise(6, 8, 3, 0)
    K, v = NTK(NET, image, device="cpu", channel_axis=-1), array(np.ones((48, 2), np.float32))
    if in_memory_of_host(v):  # an emulated device has the host's memory
        np.testing.assert_array_equal(K @ v, K @ np.ones((48, 2)))
        return
    for call in (K.dot, K.matmat, K.apply, lambda v: gradient_descent(K, v, steps=3)):
        with pytest.raises(ValueError, match=r"is on cuda:0, but the operator is on the CPU: .*device='cuda:0'"):
            call(v)


@on_a_device
def test_device_arrays_of_another_card(monkeypatch):
    K = cuda(NET, noise(6, 8, 3, 0))
    if len(_core.cuda_devices()) > 1 and BACKEND == "cuda":
        v = torch_array(np.ones((48, 2), np.float32), 1)
    else:
        v = torch_array(np.ones((48, 2), np.float32))
        monkeypatch.setattr(K, "backend", CudaBackend(1))
    with pytest.raises(ValueError, match=r"is on cuda:\d, but the operator is on cuda:\d: .* or move the array"):
        K @ v


@on_a_device
def test_cards_that_are_not_there():
    count = len(_core.cuda_devices())
    with pytest.raises(ValueError, match=rf"device must name a card .*, got 'cuda:{count}'"):
        cuda(NET, noise(4, 4, 1, 0), device=f"cuda:{count}")


@on_a_device
@each_library
def test_bad_device_arrays(array):
    K = cuda(NET, noise(6, 8, 3, 0))
    for shape in ((47,), (48, 2, 1), (2, 6, 8), (6, 8)):
        with pytest.raises(ValueError, match="dimension mismatch"):
            K @ array(np.ones(shape, np.float32))
    with pytest.raises(ValueError, match="dimension mismatch"):
        K.matvec(array(np.ones((48, 2))))
    with pytest.raises(ValueError, match="two dimensions"):
        K.matmat(array(np.ones(48)))
    with pytest.raises(ValueError, match="y must be finite, got 2 NaN or infinite values"):
        ridge(K, array(np.array([np.nan, np.inf] + [0.0] * 46)), 1.0)
    with pytest.raises(ValueError, match=r"y must have shape \(48,\) or"):
        ridge(K, array(np.ones((8, 6))), 1.0)
    with pytest.raises(ValueError, match="y must not be empty"):
        ridge(K, array(np.ones((48, 0))), 1.0)
    with pytest.raises(ValueError, match="image must be finite, got 1"):
        cuda(NET, array(np.array([[1.0, np.nan]])))


@on_a_device
def test_tensors_that_record_gradients():
    v = torch_array(np.ones((48, 2), np.float32)).requires_grad_()
    with pytest.raises(TypeError, match=r"tensor\.detach\(\)"):
        cuda(NET, noise(6, 8, 3, 0)) @ v


@on_a_device
def test_arrays_of_unknown_libraries():
    class Foreign:
        def __dlpack_device__(self):
            return (1 if BACKEND == "emulation" else 2), 0

    with pytest.raises(TypeError, match=r"must be of cupy or torch, got .*Foreign: cupy\.from_dlpack"):
        cuda(NET, noise(6, 8, 3, 0)) @ Foreign()


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
def test_memory_of_the_card_is_refused_before_any_work(monkeypatch):
    image = noise(6, 8, 3, 0)
    needed = cuda(NET, image).memory_estimate()
    assert needed["stream"] < needed["dense"]
    monkeypatch.setattr(CudaBackend, "free", lambda card: needed["dense"] - 1)
    with pytest.raises(MemoryError, match=rf"storage='dense' needs .*\({needed['dense']} bytes\) on cuda:0.*'stream'"):
        cuda(NET, image, storage="dense")
    assert cuda(NET, image).storage == "stream"
    monkeypatch.setattr(CudaBackend, "free", lambda card: needed["stream"] - 1)
    with pytest.raises(MemoryError, match=r"one product needs .* on cuda:0, but only .*smaller image, or device='cpu'"):
        cuda(NET, image)
    monkeypatch.setattr(CudaBackend, "free", lambda card: 10**12)
    K = cuda(NET, image)
    assert K.storage == "dense"
    monkeypatch.setattr(CudaBackend, "free", lambda card: 4 * 48 * 48 - 1)
    with pytest.raises(MemoryError, match=r"the dense matrix needs 9\.0 KiB .* on cuda:0.*columns\(\)"):
        K.dense()
    monkeypatch.setattr(CudaBackend, "free", lambda card: 10**12)
    monkeypatch.setattr(memory, "available_memory", lambda: 100)
    with pytest.raises(MemoryError, match="the engine's fields, on the host"):
        cuda(NET, image)


@on_a_device
@each_library
def test_products_on_the_card_take_fewer_columns_where_its_memory_is_short(array, monkeypatch):
    K, V = cuda(NET, noise(6, 8, 3, 0), storage="stream"), noise(48, 70, 1, 1)[..., 0].astype(np.float32)
    expected = host(K @ array(V))
    monkeypatch.setattr("ntkfast.kernel.UNCHECKED_BYTES", 0)
    needed = K.working_bytes(1) + 4 * 48 * (70 + 2)
    monkeypatch.setattr(CudaBackend, "free", lambda card: needed)
    assert error_of(host(K @ array(V)), expected) <= 1e-5
    assert error_of(K @ V, expected) <= 1e-5
    monkeypatch.setattr(CudaBackend, "free", lambda card: needed - 1)
    with pytest.raises(MemoryError, match=r"70 columns needs .* on cuda:0, but only .*: 69 columns would fit"):
        K @ array(V)
    assert error_of(K @ V, expected) <= 1e-5  # whose results lie on the host


@on_a_device
@each_library
def test_a_basis_that_does_not_fit_on_the_card(array, monkeypatch):
    K = cuda(NET, noise(6, 8, 3, 0), storage="stream")
    monkeypatch.setattr(CudaBackend, "free", lambda card: K.working_bytes(1) + 48 * 4 * 40)
    with pytest.raises(MemoryError, match=r"30 products with 1 column needs .* on cuda:0"):
        ridge(K, array(np.ones(48, np.float32)), 1.0)


@on_a_device
def test_estimates_of_either_device():
    image = noise(6, 8, 3, 0)
    on_cpu, on_card = NTK(NET, image, device="cpu", channel_axis=-1), cuda(NET, image)
    assert on_cpu.memory_estimate(device="cuda") == on_card.memory_estimate()
    assert on_card.memory_estimate(2, device="cpu")["dense"] > 0
    assert on_cpu.memory_estimate(5, device="cuda:0") == on_card.memory_estimate(5)


# --- Choices ------------------------------------------------------------------------------------------------------


@on_a_device
def test_auto_takes_the_card_for_large_problems_that_fit(monkeypatch):
    image = noise(6, 8, 3, 0)
    assert NTK(NET, image, channel_axis=-1).device == "cpu"
    monkeypatch.setattr(cards, "AUTO_PAIR_LAYERS", 48**2 / 2 * 2)
    monkeypatch.setattr(_core, "cuda_backend", lambda: "cuda")  # the emulation is never chosen
    assert NTK(NET, image, channel_axis=-1).device == "cuda:0"
    assert NTK(NET, noise(6, 7, 3, 0), channel_axis=-1).device == "cpu"
    assert NTK(NET, image, device="cpu", channel_axis=-1).device == "cpu"
    free = NTK(NET, image, channel_axis=-1).memory_estimate()["stream"]
    card = _core.cuda_devices()[0]
    monkeypatch.setattr(_core, "cuda_devices", lambda: [(*card[:4], free - 1)])
    assert NTK(NET, image, channel_axis=-1).device == "cpu"


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
def test_tiles_that_do_not_fit_on_the_card(monkeypatch):
    monkeypatch.setattr(CudaBackend, "free", lambda card: 100)
    with pytest.raises(MemoryError, match=r"one tile needs .* on cuda:0.*: use Tiles of a smaller size"):
        denoise_ntk(np.zeros((9, 9)), sigma=0.1, compute=Compute(device="cuda"))


@on_a_device
def test_info_names_the_cards():
    info = ntkfast.info()
    assert info["devices"] == ["cpu", *(f"cuda:{n}" for n in range(len(_core.cuda_devices())))]
    assert info["cuda_architectures"] != "none"
    name, capability, multiprocessors, size, _ = _core.cuda_devices()[0]
    assert info["cuda_cards"][0] == {
        "name": name,
        "capability": f"{capability[0]}.{capability[1]}",
        "multiprocessors": multiprocessors,
        "bytes": size,
    }
    assert len(info["cuda_cards"]) == len(_core.cuda_devices())
    assert info["cuda_missing"] is None


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
