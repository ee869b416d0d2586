"""The names of the package stand in its stub alone: they are what it says, each with its documentation."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

import ntkfast
from ntkfast.activations import ACTIVATIONS

STUB = ast.parse(Path(ntkfast.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
# An entry is (module, name), the module being "" for a submodule of that name.
IMPORTS = [
    (statement.module or "", alias)
    for statement in STUB.body
    if isinstance(statement, ast.ImportFrom)
    for alias in statement.names
]
NAMES = {alias.name for _, alias in IMPORTS}
SUBMODULES = {alias.name for module, alias in IMPORTS if not module}
TORCH = {"deepinv", "finite", "from_torch"}


def value_of(name: str) -> object:
    if name in TORCH:
        pytest.importorskip("torch")
    return getattr(ntkfast, name)


def test_the_package_has_the_names_of_the_stub_and_shows_no_others() -> None:
    assert set(dir(ntkfast)) == NAMES
    assert set(ntkfast.__all__) == NAMES - TORCH
    assert len(IMPORTS) == len(NAMES) == len(dir(ntkfast))
    with pytest.raises(AttributeError, match=r"^No ntkfast attribute nothing$"):
        _ = ntkfast.nothing


def test_the_stub_exports_all_that_it_imports() -> None:
    # To type checkers, "import x as x" in a stub is an export; beside imports there is the docstring alone.
    assert all(alias.asname == alias.name for _, alias in IMPORTS)
    assert [type(statement) for statement in STUB.body if not isinstance(statement, ast.ImportFrom)] == [ast.Expr]


@pytest.mark.parametrize(("module", "name"), [(module, alias.name) for module, alias in IMPORTS if module])
def test_each_name_is_the_one_of_its_module(module: str, name: str) -> None:
    value = value_of(name)
    home = import_module(f"ntkfast.{module}")
    assert value is getattr(home, name)
    if name != "__version__":
        assert value.__module__ == home.__name__
        assert name in getattr(home, "__all__", NAMES)


@pytest.mark.parametrize("name", sorted(NAMES - SUBMODULES - {"__version__"}))
def test_each_name_can_be_imported_and_has_a_docstring(name: str) -> None:
    value = value_of(name)
    assert value.__doc__
    if is_dataclass(value):  # without a docstring it is given its signature
        assert not value.__doc__.startswith(f"{name}(")


def test_every_activation_is_public() -> None:
    kinds = {kind.__name__ for kind in ACTIVATIONS if not inspect.isabstract(kind)}
    assert kinds <= NAMES
    assert all(getattr(ntkfast, kind.__name__) is kind for kind in ACTIVATIONS)


def test_submodules_need_no_import_of_their_own() -> None:
    code = f"import ntkfast, sys; print(*sorted({SUBMODULES} & {{m[8:] for m in sys.modules}}))"
    code += "\nassert ntkfast.reference.kernel_matrix and ntkfast.finite.train"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"  # nothing is imported before it is wanted
    assert {"deepinv", "finite", "reference"} == SUBMODULES
