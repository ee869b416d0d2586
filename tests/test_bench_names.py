"""The package is measured by bench/ from outside: it takes public names alone, and nothing of tools/."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.networks import NETWORKS, picture

import ntkfast

BENCH = Path(__file__).parents[1] / "bench"
SUBMODULES = {"reference", "finite", "deepinv"}
PUBLIC = set(dir(ntkfast))  # those of __init__.pyi
FILES = sorted(path.relative_to(BENCH).as_posix() for path in BENCH.rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[tuple[str, str | None, str]]:
    """Yield (module, name of it or None, what the file calls it) of each import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, alias.asname or alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.module or "", alias.name, alias.asname or alias.name


def dotted(node: ast.expr) -> str:
    """Return ``a.b.c`` of an attribute; "" where it begins with anything but a name."""
    if isinstance(node, ast.Name):
        return node.id
    before = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{before}.{node.attr}" if before and isinstance(node, ast.Attribute) else ""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_public(name: str) -> bool:
    """Tell whether a dotted name, ``ntkfast.X...``, is one of the package's."""
    _, *path = name.split(".")
    if not path:
        return True
    if path[0] not in PUBLIC or any(map(is_private, path)):
        return False
    if path[0] not in SUBMODULES or len(path) == 1:
        return True
    module = getattr(ntkfast, path[0])
    return path[1] in getattr(module, "__all__", dir(module))


def not_public(source: str) -> list[str]:
    """List what a file of bench/ takes that is none of the package's public names."""
    tree = ast.parse(source)
    wrong, package = [], set()
    for module, name, called in imports(tree):
        root = module.partition(".")[0]
        if root == "tools":
            wrong.append(module)
        if root == "ntkfast":
            full = module if name is None else f"{module}.{name}"
            if not is_public(full):
                wrong.append(full)
            elif full == "ntkfast" or (name is None and called == "ntkfast"):
                package.add(called)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = dotted(node).partition(".")
            if first in package and not is_public(f"ntkfast.{rest}"):
                wrong.append(f"ntkfast.{rest}")
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if is_private(node.attr) and not own:
                wrong.append(f".{node.attr}")
    return wrong


@pytest.mark.parametrize("file", FILES)
def test_bench_takes_public_names_alone(file: str) -> None:
    assert not_public((BENCH / file).read_text(encoding="utf-8")) == []


def test_there_is_something_to_read() -> None:
    assert {"networks.py", "machine.py", "peers/neural_tangents.py", "quality/methods.py"} <= set(FILES)


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("from ntkfast import _core", "ntkfast._core"),
        ("import ntkfast._core", "ntkfast._core"),
        ("from ntkfast.engine import cpu", "ntkfast.engine.cpu"),
        ("from ntkfast.network import Layer", "ntkfast.network.Layer"),
        ("from ntkfast.spectral.lowrank import OVERSAMPLING", "ntkfast.spectral.lowrank.OVERSAMPLING"),
        ("def f():\n    from ntkfast.engine.arrays import to_host", "ntkfast.engine.arrays.to_host"),
        ("import ntkfast.restoration.stopping as rules", "ntkfast.restoration.stopping"),
        ("from ntkfast.reference import _dense", "ntkfast.reference._dense"),
        ("from ntkfast.reference import nothing", "ntkfast.reference.nothing"),
        ("import ntkfast as nf\nnf.kernel.COLUMN_PAIR", "ntkfast.kernel"),
        ("import ntkfast as nf\nnf._core.roofline", "ntkfast._core"),
        ("from ntkfast import NTK\nNTK(1, 2)._column_cost()", "._column_cost"),
        ("from tools.tuning import oracle", "tools.tuning"),
    ],
)
def test_what_is_not_public_is_found(source: str, wrong: str) -> None:
    assert wrong in not_public(source)


def test_public_names_pass() -> None:
    source = "import ntkfast as nf\nfrom ntkfast import NTK, finite\nfrom ntkfast.reference import kernel_matrix\n"
    source += "nf.reference.kernel_matrix(nf.unet(1), x)\nnf.finite.to_torch\nself._own\nnf.NTK.__doc__"
    assert not_public(source) == []


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [64, 128])
def test_the_columns_that_products_are_checked_by_need_no_sweep(name: str, size: int) -> None:
    """A wrong sweep would else be compared with itself (bench/test_products.py)."""
    options = {"channel_axis": -1, "dtype": "float64", "storage": "stream"}
    assert not ntkfast.NTK(NETWORKS[name], picture(size), **options)._columns_by_sweep(1)
