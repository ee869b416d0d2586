"""Experiments may know public names of ntkfast, and of bench what both need."""

import ast
from pathlib import Path

import pytest

import ntkfast
from experiments.__main__ import ROOT

PUBLIC = {"ntkfast", "ntkfast.finite", "ntkfast.reference"}
FILES = "ntkfast.app.image_files"  # the command line's reader of pictures, for a picture of one's own
SHARED = {"bench.machine", "bench.quality.methods", "bench.quality.pictures"}


def imported(path: Path) -> set[tuple[str, str]]:
    """(module, name) of every import in a file; the name is empty where the module itself is imported."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "", alias.name) for alias in node.names}
    return found


def own(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", own("experiments"), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_experiments_import_public_names(path):
    for module, name in imported(path):
        if module.split(".")[0] == "ntkfast":
            assert module in PUBLIC | {FILES}
            assert module != "ntkfast" or not name or name in ntkfast.__all__ or f"ntkfast.{name}" in PUBLIC
        if module.split(".")[0] == "bench":
            assert module in SHARED or f"{module}.{name}" in SHARED


def test_nothing_else_imports_the_experiments():
    for folder in ("bench", "python", "tests", "tools", "examples"):
        for path in own(folder):
            assert not {module for module, _ in imported(path) if module.split(".")[0] == "experiments"}, path
