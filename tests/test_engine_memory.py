"""These test that the engine takes the memory that it says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cases import (
    each_dtype,
    each_padding,
)
from ntkfast.engine.memory import peaks

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
