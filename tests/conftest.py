"""These are fixtures of all tests."""

import os
import signal
from collections.abc import Iterator

import pytest

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
