"""These test which device is chosen, what is said of it, and the errors where there is none.

Those without a card run everywhere, the others where there is one or its emulation.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest

import ntkfast
from cuda_cases import BACKEND, NET, cuda, on_a_device
from images import noise
from ntkfast import (
    NTK,
    Compute,
    _core,
    denoise_ntk,
)
from ntkfast.app import cli
from ntkfast.engine import cuda as cards
from ntkfast.engine.program import nodes


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


@on_a_device
def test_cards_that_are_not_there():
    count = len(_core.cuda_devices())
    with pytest.raises(ValueError, match=rf"device must name a card .*, got 'cuda:{count}'"):
        cuda(NET, noise(4, 4, 1, 0), device=f"cuda:{count}")


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
