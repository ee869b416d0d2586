"""Tests of the CUDA engine share these: operators on a device, and arrays of PyTorch and CuPy there."""

from __future__ import annotations

import numpy as np
import pytest

from cases import (
    OPERATORS,
)
from images import axis_of
from ntkfast import (
    _core,
    vanilla_cnn,
)
from ntkfast.engine.arrays import namespace

BACKEND = _core.cuda_backend()


on_a_device = pytest.mark.skipif(not _core.cuda_devices(), reason=f"no card: {_core.cuda_why_unavailable()}")


NET = vanilla_cnn(2, 3)


def cuda(net, image, kernel="ntk", **options):
    return OPERATORS[kernel](net, image, **({"device": "cuda", "threads": 1, "channel_axis": axis_of(image)} | options))


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
