"""A problem that does not fit on a card is refused before any work, or done in smaller parts.

Tests that compute run where there is a card, or in a build with the emulated engine (NTKFAST_CUDA=emulate), whose
device arrays are those of the host.
"""

from __future__ import annotations

import numpy as np
import pytest

from cases import (
    error_of,
)
from cuda_cases import NET, cuda, each_library, host, on_a_device
from images import noise
from ntkfast import (
    NTK,
    Compute,
    denoise_ntk,
    ridge,
)
from ntkfast.engine import memory
from ntkfast.engine.cuda import CudaBackend


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


@on_a_device
def test_tiles_that_do_not_fit_on_the_card(monkeypatch):
    monkeypatch.setattr(CudaBackend, "free", lambda card: 100)
    with pytest.raises(MemoryError, match=r"one tile needs .* on cuda:0.*: use Tiles of a smaller size"):
        denoise_ntk(np.zeros((9, 9)), sigma=0.1, compute=Compute(device="cuda"))
