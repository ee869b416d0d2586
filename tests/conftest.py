"""These are fixtures of all tests.

What is slow to import, or needs NumPy, is imported where a fixture needs it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import numpy as np

    from command_line import FakeDenoiser
    from ntkfast.network import Network

# This is set before NumPy is loaded.  Most matrices here are small, and OpenBLAS's threads, which spin while they wait,
# then cost many times what they save where processes share the cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# This is set before OpenMP is loaded.  With pytest -n the threads of several processes share the cores, and those that
# spin while they wait would hold up the others.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> Iterator[None]:
    """Heed SIGINT: a job in the background of a shell script ignores it, and so would the processes of the tests."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def one_torch_thread():
    """These networks are too small to share among threads: on a busy machine the threads would wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty directory the current one, with a small 8 bit colour picture ``in.png``."""
    from command_line import save

    monkeypatch.chdir(tmp_path)
    save("in.png", (12, 17, 3))
    return tmp_path


@pytest.fixture
def denoiser(monkeypatch: pytest.MonkeyPatch) -> FakeDenoiser:
    """Put a quick function in the place of the denoiser."""
    import ntkfast
    from command_line import FakeDenoiser

    fake = FakeDenoiser()
    monkeypatch.setattr(ntkfast, "denoise_ntk", fake, raising=False)
    return fake


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Network, np.ndarray, dict[str, Any]]]:
    """Put quick classes in the place of the kernels, and return the list of the calls to come."""
    import ntkfast
    from command_line import FakeCovariance, FakeKernel
    from ntkfast.network import vanilla_cnn

    FakeKernel.calls = []
    monkeypatch.setattr(ntkfast, "NTK", FakeKernel, raising=False)
    monkeypatch.setattr(ntkfast, "NNGP", FakeCovariance, raising=False)
    monkeypatch.setattr(ntkfast, "vanilla_cnn", vanilla_cnn, raising=False)
    return FakeKernel.calls


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make figures but do not draw them, which takes most of a page's time."""
    import imagecodecs
    import numpy as np

    from ntkfast.app import figures

    png = bytes(imagecodecs.png_encode(np.zeros((2, 2), np.uint8)))
    monkeypatch.setattr(figures, "render", lambda figure, form: png)
