"""Devices are objects: a third one needs no change above engine/.

Budgets of memory and arrays of other libraries are tested here too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import ntkfast as nf
from images import noise
from ntkfast.engine import arrays, backend, memory
from ntkfast.engine.arrays import NUMPY, Arrays, DeviceArrays, namespace, register_arrays
from ntkfast.engine.backend import Backend, Devices, TileEngine, Tiles, at, choose, register
from ntkfast.engine.cpu import CPU, BatchEngine, Beside
from ntkfast.engine.memory import Budget
from ntkfast.engine.program import Problem

NET = nf.vanilla_cnn(1, 5)
PROBLEM = Problem(NET, (1, 6, 8, 1), np.dtype("float32"), 1)


class ToyTiles(Tiles):
    has_dense = False

    def engine(self, problem: Problem, tiles: np.ndarray) -> TileEngine:
        return BatchEngine(CPU.make(problem, tiles))

    def at_once(self, problem: Problem, columns: int, most: int) -> int:
        return min(most, 5)

    def on_host(self, at_once: int) -> int:
        return 1

    def host_bytes(self, problem: Problem, columns: int) -> int:
        return CPU.peaks(problem, columns)["dense"]

    def shares(self, threads: int) -> tuple[int, int]:
        return 1, threads


class Toy(Backend):
    """This has the host's engine behind a memory of its own, without columns."""

    name, where, elsewhere = "toy:0", " on toy:0", ", or device='cpu'"
    has_columns = has_fourier = False
    tiles = ToyTiles()
    left = 10**12

    def free(self) -> int:
        return self.left

    def estimate(self, problem: Problem, columns: int) -> dict[str, int]:
        return CPU.estimate(problem, columns)

    def make(self, problem: Problem, images: np.ndarray) -> Any:
        return CPU.make(problem, images)

    def columns_engine(self, problem: Problem, images: np.ndarray) -> Callable[[Any], Any]:
        return Beside(self, problem, images)

    def arrays(self, own: Arrays) -> Arrays:
        return own

    def require_fields(self, problem: Problem) -> None:
        """Refuse nothing: they are part of the estimate."""

    def host_bytes(self, count: int) -> int:
        return 0


class Toys(Devices):
    kind = "toy"
    spellings = ("toy", "toy:N")

    def __init__(self) -> None:
        self.worth = False

    def names(self) -> list[str]:
        return ["toy:0"]

    def at(self, number: int) -> Toy:
        return Toy()

    def choose(self, asked: str, number: int | None, near: str) -> Toy:
        return Toy()

    def worthwhile(self, problem: Problem) -> Toy | None:
        return Toy() if self.worth else None

    def holding(self, kind: int, number: int) -> str | None:
        return f"toy:{number}" if kind == 77 else None

    def info(self) -> dict[str, str]:
        return {"toys": "one"}


@pytest.fixture
def toys(monkeypatch):
    """Register a third kind of devices for one test."""
    monkeypatch.setattr(backend, "_kinds", dict(backend._kinds))
    monkeypatch.setattr(arrays, "_memories", list(arrays._memories))
    monkeypatch.setattr(arrays, "_adapters", dict(arrays._adapters))
    found = Toys()
    register(found)
    return found


def test_the_host_is_always_there():
    assert choose("cpu", PROBLEM) is CPU
    assert at("cpu") is CPU
    assert nf.NTK(NET, noise(6, 8, 1, 0), device="cpu", channel_axis=-1).backend is CPU


def test_a_kernel_on_a_third_device(toys):
    image, v = noise(6, 8, 2, 0), noise(48, 3, 1, 1)[..., 0]
    here, there = (nf.NTK(NET, image, device=device, threads=1, channel_axis=-1) for device in ("cpu", "toy"))
    assert there.device == "toy:0"
    assert there.memory_estimate() == here.memory_estimate()
    for call in (lambda K: K @ v, lambda K: K.dense(), lambda K: nf.ridge(K, v, 1.0)):
        np.testing.assert_array_equal(call(there), call(here))
    for call in (lambda K: K.columns([3, 7]), lambda K: nf.nystrom(K, 9).eigenvalues):  # there always in double
        np.testing.assert_allclose(call(there), call(here), rtol=1e-5)
    assert here.host_bytes(3) == here.working_bytes(3) > there.host_bytes(3) == 0


def test_restoration_on_a_third_device(toys):
    image = noise(20, 20, 1, 0)[..., 0]
    places = [nf.Compute(device, threads=1) for device in ("cpu", "toy")]
    for method in (nf.Tiles(size=8, steps=9), nf.WholeImage(steps=9), nf.WholeImage(landmarks=9, steps=9)):
        here, there = (nf.denoise_ntk(image, 0.5, method=method, compute=place) for place in places)
        np.testing.assert_allclose(there, here, atol=1e-3)  # batches are smaller there
    A = nf.Inpainting(noise(20, 20, 1, 1)[..., 0] > 0)
    here, there = (nf.restore_ntk(image, A, method=nf.Landweber(steps=9), compute=place) for place in places)
    np.testing.assert_array_equal(there, here)


def test_auto_asks_the_devices_and_the_image(toys):
    assert choose("auto", PROBLEM) is CPU
    assert choose("auto", PROBLEM, near="toy:0").name == "toy:0"
    toys.worth = True
    assert choose("auto", PROBLEM).name == "toy:0"
    assert choose("cpu", PROBLEM, near="toy:0") is CPU


def test_refusals_name_the_device_and_another(toys, monkeypatch):
    monkeypatch.setattr(Toy, "left", 1000)
    message = r"one product needs .* on toy:0, but only 1000 bytes are available: use a smaller image, or device='cpu'"
    with pytest.raises(MemoryError, match=message):
        nf.NTK(NET, noise(6, 8, 1, 0), device="toy", channel_axis=-1)
    for wrong in ("toys", "toy:", "cpu:0", "auto:1", "Toy"):
        message = f"device must be 'auto', 'cpu', 'cuda', 'cuda:N', 'toy' or 'toy:N', got '{wrong}'"
        with pytest.raises(ValueError, match=message):
            nf.NTK(NET, noise(6, 8, 1, 0), device=wrong, channel_axis=-1)


def test_info_names_all_devices(toys):
    info = nf.info()
    assert info["devices"][0] == "cpu"
    assert info["devices"][-1] == "toy:0"
    assert info["toys"] == "one"


class Array:
    """This is an array of some library on the toy."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __dlpack_device__(self) -> tuple[int, int]:
        return 77, 0


class ToyArrays(DeviceArrays):
    def to_host(self, array: Array) -> np.ndarray:
        return array.values

    def address(self, array):
        raise NotImplementedError

    def stream(self) -> int:
        return 0


def test_libraries_add_their_arrays(toys):
    image = noise(6, 8, 1, 0)
    with pytest.raises(TypeError, match=r"arrays on a GPU must be .*, got test_backend\.Array"):
        namespace(Array(image))
    register_arrays("test_backend", lambda array, device: ToyArrays(np, device))
    kind = namespace(Array(image))
    assert isinstance(kind, ToyArrays)
    assert kind.device == "toy:0"
    assert namespace(image) is NUMPY
    array = Array(image)
    array.shape = image.shape
    K = nf.NTK(NET, array, channel_axis=-1)
    assert K.device == "toy:0"
    np.testing.assert_array_equal(K.dense(), nf.NTK(NET, image, device="cpu", channel_axis=-1).dense())


def test_a_problem_is_what_engines_take():
    nodes, circular, nngp = replace(PROBLEM, kernel="nngp").program
    assert [name for name, *_ in nodes] == ["input", "conv", "rectifier", "conv"]
    assert not circular
    assert nngp


def test_a_budget_counts_what_is_stated(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 100)
    budget = Budget().state(30).state(20)
    assert budget.left == 50
    assert budget.fits()
    assert budget.fits(50)
    assert not budget.fits(51)
    assert budget.most(20, lambda n: 7 * n) == 7
    assert budget.most(3, lambda n: 7 * n) == 3
    assert budget.most(20, lambda n: 51 * n) == 0
    budget.require("it", "try less", 50)
    with pytest.raises(MemoryError, match=r"^it needs 101 bytes, but only 100 bytes are available: try less$"):
        budget.require("it", "try less", 51)
    with pytest.raises(MemoryError, match=re.escape("it needs 6 bytes on toy:0, but only 5 bytes are available: no")):
        Budget(5, " on toy:0").state(6).require("it", "no")
