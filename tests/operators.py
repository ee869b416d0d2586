"""These are operators for the tests of kernels, and what tests ask of any of them."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import numpy as np

from cases import OPERATORS
from images import natural
from ntkfast import vanilla_cnn

NET = vanilla_cnn(1, 5)


def operator(dtype="float64", storage="stream", shape=(8, 9, 3), kernel="ntk", **options):
    return OPERATORS[kernel](NET, natural(*shape, 0), dtype=dtype, storage=storage, **options, channel_axis=-1)


def relative(actual, expected):
    assert np.shape(actual) == np.shape(expected)
    return np.abs(actual - expected).max() / np.abs(expected).max()


class Fenced:
    """Some calls must not be made of this engine."""

    def __init__(self, engine, *forbidden):
        self._engine, self._forbidden = engine, forbidden

    def __getattr__(self, name):
        assert name not in self._forbidden, f"the engine's {name} was used"
        return getattr(self._engine, name)


def run_python(code, timeout=60):
    """Return the last line that ``code`` prints in a process of its own, read as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
