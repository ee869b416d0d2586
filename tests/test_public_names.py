"""The names of the package: where they stand more than once, all say the same, and each has its documentation."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

import ntkfast

NAMES = {name for names in ntkfast._MODULES.values() for name in names}


def test_all_has_every_name_that_needs_no_torch() -> None:
    assert set(ntkfast.__all__) == NAMES - {"from_torch"}
    assert set(dir(ntkfast)) >= NAMES


def test_type_checkers_see_the_same_names_of_the_same_modules() -> None:
    pytest.importorskip("torch")
    tree = ast.parse(Path(ntkfast.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {}
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom)
        names = [alias.name for alias in statement.names]
        module = import_module(f"ntkfast.{statement.module}")
        seen[statement.module] = set(module.__all__ if names == ["*"] else names)
    assert seen == {module: set(names) for module, names in ntkfast._MODULES.items()}


@pytest.mark.parametrize("name", sorted(NAMES - {"__version__"}))
def test_each_name_can_be_imported_and_has_a_docstring(name: str) -> None:
    if name == "from_torch":
        pytest.importorskip("torch")
    value = getattr(ntkfast, name)
    assert value.__doc__
    if is_dataclass(value):  # without a docstring it is given its signature
        assert not value.__doc__.startswith(f"{name}(")


def test_submodules_need_no_import_of_their_own() -> None:
    code = "import ntkfast, sys; print(*sorted(set(ntkfast._SUBMODULES) & {m[8:] for m in sys.modules}))"
    code += "\nassert ntkfast.reference.kernel_matrix and ntkfast.finite.train"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"  # nothing is imported before it is wanted
    assert set(dir(ntkfast)) >= set(ntkfast._SUBMODULES)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = ntkfast.nothing
