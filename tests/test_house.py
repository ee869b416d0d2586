"""The structure of the code is tested: includes and imports, where a device is named, and how long functions may be.

The rules and the reasons are in docs/architecture.md, "Storeys and wings".
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from ntkfast.activations import ACTIVATIONS, Cos, Rectifier, Sin

lizard = pytest.importorskip("lizard")

ROOT = Path(__file__).resolve().parent.parent
CSRC, PACKAGE = ROOT / "csrc", ROOT / "python" / "ntkfast"
ACTIVATION_FILES, FUNCTION_LINES = 5, 60

# From the bottom up: parts on one line may include or import each other.
STOREYS = (("math",), ("plan",), ("cpu",), ("cuda",), ("bindings.cpp",))
WINGS = (
    ("_core", "_check", "_choices", "_libraries", "inputs", "activations", "network", "reference"),
    ("engine",),
    ("images", "pixel_operator", "kernel"),
    ("adapters",),
    ("finite",),
    ("spectral",),
    ("restoration",),
    ("deepinv",),
    ("app",),
    ("__init__", "__main__"),
)

# A comment or docstring that begins so seldom has a subject ("Of the device's memory", "Whether it fits"); where a
# clause is the subject ("What fits is kept"), it is easily turned around.
HEADLESS = re.compile(r"(of|what|whether)\s", re.IGNORECASE)
SENTENCES = ("csrc", "tests", "bench", "tools", "examples", "experiments", "python")

# Above engine/, which device computes is nobody's business.
DEVICE_BLIND = ("kernel.py", "spectral", "restoration", "app")
DEVICE_WORD = re.compile(r"(?<![A-Za-z])([Cc]uda|CUDA|[Cc]ard|CARD)s?(?![a-z])")
DEVICE_VALUE = re.compile(r"[rb]?([\"'])(cuda(:N|:\d+)?)\1")


def level_of(part: str, levels: tuple[tuple[str, ...], ...]) -> int:
    found = [n for n, names in enumerate(levels) if part in names]
    assert found, f"{part} stands in no storey or wing: tests/test_house.py says where each belongs"
    return found[0]


def includes(path: Path) -> Iterator[str]:
    """Yield the files of the project that a C++ file includes, by their paths from csrc."""
    yield from re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE)


def imports(path: Path) -> Iterator[str]:
    """Yield the modules of the package that a file imports anywhere, as dotted paths below the package."""
    package = list(path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("ntkfast."):
                    yield alias.name.removeprefix("ntkfast.")
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0 and (node.module or "").split(".")[0] != "ntkfast":
                continue
            base = package[: len(package) - node.level + 1] if node.level else []
            module = (node.module or "").removeprefix("ntkfast").lstrip(".") if not node.level else node.module or ""
            start = [*base, *filter(None, module.split("."))]
            for alias in node.names:  # "from . import x" names modules, "from .x import y" one of them
                yield ".".join(start) if start else alias.name


def cpp_files() -> list[Path]:
    return sorted(path for path in CSRC.rglob("*") if path.suffix in (".h", ".cpp", ".def"))


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_no_storey_includes_one_above_it() -> None:
    upward = []
    for path in cpp_files():
        own = path.relative_to(CSRC).parts[0]
        for name in includes(path):
            assert (CSRC / name).is_file(), f"{path.relative_to(ROOT)} includes {name} by no path from csrc"
            if level_of(Path(name).parts[0], STOREYS) > level_of(own, STOREYS):
                upward.append(f"{path.relative_to(ROOT)} includes {name}")
    assert not upward


def test_no_wing_imports_one_above_it() -> None:
    upward = []
    for path in python_files():
        own = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for module in imports(path):
            if level_of(module.split(".")[0], WINGS) > level_of(own, WINGS):
                upward.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not upward


def test_the_arrows_are_seen() -> None:
    """The two tests above would pass if they read nothing."""
    assert "plan/program.h" in set(includes(CSRC / "plan" / "plan.h"))
    assert "kernel" in set(imports(PACKAGE / "restoration" / "inverse.py"))
    assert "_check" in set(imports(PACKAGE / "kernel.py"))
    assert level_of("cuda", STOREYS) > level_of("plan", STOREYS)
    with pytest.raises(AssertionError, match="stands in no storey"):
        level_of("attic", WINGS)


def docstring_lines(tree: ast.Module) -> set[int]:
    """Return the numbers of the lines on which docstrings begin."""
    places = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in ast.walk(tree) if isinstance(node, places) and ast.get_docstring(node) is not None)
    return {node.body[0].lineno for node in nodes}


def device_words(source: str) -> list[str]:
    """List names, comments and strings of a source that speak of a device, but for docstrings and option values."""
    documented = docstring_lines(ast.parse(source))
    found = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (tokenize.NAME, tokenize.COMMENT, tokenize.STRING):
            continue
        if token.type == tokenize.STRING and (token.start[0] in documented or DEVICE_VALUE.fullmatch(token.string)):
            continue
        if DEVICE_WORD.search(token.string):
            found.append(f"line {token.start[0]}: {token.string}")
    return found


@pytest.mark.parametrize("place", DEVICE_BLIND)
def test_no_device_is_named_above_the_engines(place: str) -> None:
    path = PACKAGE / place
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    assert files
    found = {str(file.relative_to(ROOT)): words for file in files if (words := device_words(file.read_text("utf-8")))}
    assert not found


def test_device_words_are_found() -> None:
    source = (
        'def f(device="cuda:N"):\n    """On a card."""\n    return self._card, "no card", CudaEngine, discard  # CUDA\n'
    )
    assert device_words(source) == ["line 3: _card", 'line 3: "no card"', "line 3: CudaEngine", "line 3: # CUDA"]


def functions(files: list[Path]) -> list[tuple[int, str]]:
    """Count the lines of code of each function without comments, blank lines and docstrings; say where it stands."""
    found = []
    for path in files:
        for function in lizard.analyze_file(str(path)).function_list:
            found.append((function.nloc, f"{path.relative_to(ROOT)}:{function.start_line} {function.name}"))
    return found


def test_no_function_is_longer_than_a_page() -> None:
    counted = functions(cpp_files() + python_files())
    assert len(counted) > 1000  # the tool sees them
    assert not [f"{lines} lines: {place}" for lines, place in counted if lines > FUNCTION_LINES]


def test_an_activation_is_named_in_five_files_at_most() -> None:
    """Code names it where it is described, and everything else is made of the tables.

    Rectifiers are left out, which many places take as a default, and sine and cosine, whose names are functions' too.
    """
    sources = {path: code_of(path) for path in (*cpp_files(), *python_files(), *PACKAGE.rglob("*.pyi"))}
    smooth = [kind.__name__ for kind in ACTIVATIONS if not issubclass(kind, (Rectifier, Sin, Cos))]
    assert len(smooth) >= 3
    naming = set()
    for name in smooth:
        pattern = re.compile(rf"\b({name}|{name.capitalize()}Activation)\b")
        found = {path for path, code in sources.items() if pattern.search(code)}
        assert 1 < len(found) <= ACTIVATION_FILES, (name, sorted(str(path.relative_to(ROOT)) for path in found))
        naming |= found
    recipe = (ROOT / "docs" / "architecture.md").read_text("utf-8").partition("## Adding an activation")[2]
    recipe = recipe.partition("\n## ")[0]
    for path in naming:
        assert str(path.relative_to(ROOT)) in recipe or path.name in recipe


def code_of(path: Path) -> str:
    """Return a source without comments and, of Python, without strings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".h", ".cpp", ".def"):
        return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return "\n".join(token.string for token in tokens if token.type not in (tokenize.STRING, tokenize.COMMENT))


def comments(name: str, text: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring and comment of a file; of comments that go on, the first line alone."""
    if name.endswith(".py"):
        found = [
            (token.start[0], token.string.lstrip("#").strip(), token.line.lstrip().startswith("#"))
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type == tokenize.COMMENT
        ]
        places = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, places) and (docstring := ast.get_docstring(node)):
                yield node.body[0].lineno, docstring
    else:
        lines = ((n, line.partition("//")) for n, line in enumerate(text.splitlines(), 1))
        found = [(n, comment.strip(), not code.strip()) for n, (code, mark, comment) in lines if mark]
    above = 0
    for n, comment, alone in found:
        if not (alone and above == n - 1):
            yield n, comment
        above = n if alone else 0


def test_no_comment_begins_without_a_subject() -> None:
    headless, count = [], 0
    for place in SENTENCES:
        root = ROOT / place
        files = [root] if root.is_file() else [path for path in root.rglob("*") if path.suffix in (".py", ".h", ".cpp")]
        for path in files:
            for line, text in comments(path.name, path.read_text(encoding="utf-8")):
                count += 1
                if HEADLESS.match(text):
                    headless.append(f"{path.relative_to(ROOT)}:{line}: {text[:60]}")
    assert count > 2000  # they are seen
    assert not headless


def test_headless_comments_are_found() -> None:
    python = '"""Whether it is."""\nx = 1  # of y\n# It goes on, one line\n# of two.\n# What it is:\n'
    assert [line for line, text in comments("x.py", python) if HEADLESS.match(text)] == [1, 2]
    cpp = "int x;  // of y\n// It is a sum\n// of two.\nint y;\n// What it is.\n"
    assert [line for line, text in comments("x.h", cpp) if HEADLESS.match(text)] == [1, 5]
