"""Every example in a docstring of the package runs, and shows what it gives."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import ntkfast

# Examples are written for readers who have imported these two.
NAMES = {"nf": ntkfast, "np": np}

# These modules need a library that may not be there.
NEEDS = {"deepinv": "deepinv", "finite": "torch", "cupy_images": "cupy", "dask_images": "dask", "torch_images": "torch"}
NEEDS |= {"xarray_images": "xarray"}

MODULES = sorted(
    found.name
    for found in pkgutil.walk_packages(ntkfast.__path__, "ntkfast.")
    if not found.name.endswith(("._core", ".__main__"))
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    if name == "ntkfast.deepinv":
        pytest.importorskip("torch")
        from vision import import_torchvision

        import_torchvision()
    for part in name.split("."):
        if part in NEEDS:
            pytest.importorskip(NEEDS[part], exc_type=ImportError)
    module = importlib.import_module(name)
    failures, _ = doctest.testmod(module, extraglobs=NAMES, optionflags=doctest.ELLIPSIS)
    assert not failures  # the example and what it gave instead stand in the captured output


def test_examples_are_found() -> None:
    """The test above would pass if it read nothing."""
    assert "ntkfast.spectral.filters" in MODULES
    finder = doctest.DocTestFinder(exclude_empty=True)
    assert sum(bool(test.examples) for test in finder.find(importlib.import_module("ntkfast.kernel"))) > 2
