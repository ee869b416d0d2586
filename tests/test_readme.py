"""Every Python block of README.md runs, in the order of the text, on small pictures."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ntkfast as nf

README = Path(__file__).resolve().parent.parent / "README.md"

# Each block with the heading above it.
BLOCKS = [
    (heading.strip(), block)
    for heading, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", README.read_text(), re.MULTILINE | re.DOTALL)
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
]

NEEDS = {"deepinv": "deepinv.models", "torch": "torch", "cupy": "cupy"}  # a word of a block -> the module it needs


def given() -> dict[str, Any]:
    """Return what the text takes for given: pictures, counts, a mask, a pixel, and a kernel of the noisy picture."""
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:32, :32]
    clean = np.stack([0.5 + 0.3 * np.sin(rows / (3 + c)) * np.cos(cols / 4) for c in range(3)], axis=-1)
    noisy = clean + rng.normal(0, 25 / 255, clean.shape)
    mean = noisy.mean()
    known = rng.random((32, 32)) < 0.5
    K = nf.NTK(nf.vanilla_cnn(1, 5), noisy - mean, channel_axis=-1)
    return {
        "nf": nf,
        "np": np,
        "clean": clean,
        "one": noisy,
        "another": noisy[::-1],
        "noisy": noisy,
        "mean": mean,
        "image": noisy - mean,
        "picture": noisy - mean,
        "y": noisy - mean,
        "known": known,
        "K": K,
        "net": K.network,
        "v": rng.standard_normal(32 * 32),
        "V": rng.standard_normal((32 * 32, 3)),
        "row": 3,
        "col": 5,
        "level_of_each_pixel": np.full((32, 32), 25 / 255),
        "counts": 2.0 * rng.poisson(20 * clean[..., 0]) + rng.normal(0, 1.5, (32, 32)),
        "kernel": np.ones((3, 3)) / 9,
        "shape": (32, 32),
    }


def test_blocks_are_found() -> None:
    assert len(BLOCKS) >= 10
    assert len({heading for heading, _ in BLOCKS}) >= 8


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_runs(number: int) -> None:
    heading, block = BLOCKS[number]
    for word, module in NEEDS.items():
        if word in block:
            try:
                importlib.import_module(module)
            except (ImportError, RuntimeError) as error:  # torchvision that does not fit the PyTorch raises the latter
                pytest.skip(f"{module} cannot be imported: {error}")
    code = compile(block, f"README.md, {heading}", "exec")
    if "on a gpu" in heading.lower() and nf.info()["devices"] == ["cpu"]:
        pytest.skip("there is no card")
    exec(code, given())
