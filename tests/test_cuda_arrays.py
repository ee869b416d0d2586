"""Arrays of a device go through products and filters, and their results stay there.

Tests that compute run where there is a card, or in a build with the emulated engine (NTKFAST_CUDA=emulate), whose
device arrays are those of the host.
"""

from __future__ import annotations

import numpy as np
import pytest

from cases import (
    each_dtype,
    error_of,
)
from cuda_cases import BACKEND, NET, cuda, each_library, host, on_a_device, torch_array
from images import noise
from ntkfast import (
    NTK,
    _core,
    gradient_descent,
    gradient_flow,
    ridge,
)
from ntkfast.engine.arrays import in_memory_of_host
from ntkfast.engine.cuda import CudaBackend
from ntkfast.engine.cupy_arrays import CuPyArrays
from ntkfast.engine.torch_arrays import TorchArrays


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
