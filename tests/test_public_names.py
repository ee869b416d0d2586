"""The names of the package stand in its stub alone: they are what it says, each with its documentation."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

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


# --- Signatures and documentation ---------------------------------------------------------------------------------

MOST_PARAMETERS = 10

# Functions return these, and no one makes them: their fields are no parameters.
RESULTS = ("Info", "Estimate", "Training", "Module", "Inputs")


def public_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield public functions, classes and their own public methods, those of submodules too, by their names."""
    pytest.importorskip("torch")
    from vision import import_torchvision

    import_torchvision()
    values = {name: value_of(name) for name in sorted(NAMES - {"__version__"})}
    for module in SUBMODULES:
        home = values.pop(module)
        values |= {f"{module}.{name}": getattr(home, name) for name in home.__all__}
    for name, value in values.items():
        if inspect.isclass(value):
            yield name, value
            for method in dir(value):
                own = inspect.getattr_static(value, method)
                if not method.startswith("_") and inspect.isfunction(own) and own.__module__.startswith("ntkfast"):
                    yield f"{name}.{method}", own
        elif callable(value):
            yield name, value


def test_public_functions_are_found() -> None:
    names = {name for name, _ in public_functions()}
    assert {"NTK", "NNGP.apply", "LowRank.estimate_error", "denoise_ntk", "finite.train", "info"} <= names
    assert len(names) > 80


def test_no_public_function_has_more_than_ten_parameters() -> None:
    long = {}
    for name, function in public_functions():
        parameters = [p for p in inspect.signature(function).parameters if p != "self"]
        if len(parameters) > MOST_PARAMETERS and not name.endswith(RESULTS):
            long[name] = len(parameters)
    assert not long


def declared(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """Return what type checkers see of a function: its overloads, or itself."""
    import typing

    return list(typing.get_overloads(function)) or [function]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="typing.get_overloads is from 3.11")
def test_no_public_function_returns_anything() -> None:
    vague = []
    for name, function in public_functions():
        for signature in [] if inspect.isclass(function) else map(inspect.signature, declared(function)):
            if signature.return_annotation in ("Any", Any, inspect.Signature.empty):
                vague.append(name)
    assert not vague


def test_every_public_function_has_an_example() -> None:
    # The methods of activations are for kernels, not for callers; modules of PyTorch are called, not their methods.
    methods = (*(f"{kind.__name__}." for kind in ACTIVATIONS), "finite.NTKConv2d.", "finite.NTKGraph.")
    bare = [name for name, function in public_functions() if ">>>" not in (inspect.getdoc(function) or "")]
    assert not [name for name in bare if not name.startswith(methods)]


def test_no_example_is_skipped() -> None:
    skipped = [name for name, function in public_functions() if "doctest: +SKIP" in (inspect.getdoc(function) or "")]
    assert not skipped
