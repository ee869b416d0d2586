"""Count which of the engine's inner loops a compiler vectorises, in the assembly that it writes.

    python -m tools.vectorised g++ clang++-14
    python -m tools.vectorised aarch64-linux-gnu-g++ --toolchain cmake/aarch64-linux-gnu.cmake

Each row kernel file (csrc/cpu/rows/row_kernels_*.cpp) is compiled with the flags that CMake gives it, and with line
numbers.  A loop of the assembly belongs to the loop of the source behind NTKFAST_VECTOR_LOOP of which it has a line;
templates and inlining make many loops of one, which are told apart by the function that they are in.  Such a
loop counts as vectorised if some loop of the assembly that was made of it does arithmetic on whole vectors: compilers
add scalar loops for what a vector does not divide, though the rows are so long that it rarely runs.

The table has a line for each compiler and file: loops, those that are vectorised, and their floating-point
instructions by kind, as packed/scalar.  ``scalar`` has only the loops that are not vectorised.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARK = "NTKFAST_VECTOR_LOOP"
KINDS = ("sqrt", "div", "mul", "add", "fma")

LABEL = re.compile(r"^([.\w$]+):")
FILE = re.compile(r'^\s*\.file\s+(\d+)\s+"([^"]*)"(?:\s+"([^"]*)")?')
LINE = re.compile(r"^\s*\.loc\s+(\d+)\s+(\d+)")
INSTRUCTION = re.compile(r"^\s+([a-z][\w.]*)\s*(.*)")
JUMP = re.compile(r"^(?:j[a-z]+|b|b\.?[a-z]{2}|cbn?z|tbn?z)$")  # GCC writes bne where clang writes b.ne
X86 = re.compile(r"^v?(?:(sqrt|div|mul|add|sub)|(fn?m(?:add|sub)\d*))([ps])[sd]$")
ARM = re.compile(r"^f(?:(sqrt|div|n?mul|add|sub)|(n?m(?:add|sub)|ml[as]))$")


@dataclass
class Loop:
    """An innermost loop of the assembly: its place in the source, and its arithmetic by (kind, whether packed)."""

    function: str
    line: int
    arithmetic: Counter[tuple[str, bool]] = field(default_factory=Counter)

    @property
    def packed(self) -> bool:
        """Tell whether it works on whole vectors."""
        return any(packed for _, packed in self.arithmetic)


def arithmetic(name: str, operands: str) -> tuple[str, bool] | None:
    """Return the kind of a floating-point instruction of x86-64 or 64-bit ARM, and whether it is packed."""
    if x86 := X86.match(name):
        base, fused, width = x86.groups()
        return ("fma" if fused else "add" if base == "sub" else base), width == "p"
    if arm := ARM.match(name):
        base, fused = arm.groups()
        kind = "fma" if fused else {"sub": "add", "nmul": "mul"}.get(base, base)
        return kind, bool(re.match(r"[vz]\d+\.", operands))
    return None


def functions(assembly: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the lines of each function: what lies between its label and .cfi_endproc."""
    name, lines = "", []
    for text in assembly.splitlines():
        label = LABEL.match(text)
        if label and not label[1].startswith(".L"):
            name, lines = label[1], []
        if ".cfi_endproc" in text and name:
            yield name, lines
            name, lines = "", []
        lines.append(text)


def innermost(lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield where the loops begin and end that hold no other: from a label to the last jump back to it."""
    labels = {label[1]: n for n, text in enumerate(lines) if (label := LABEL.match(text))}
    ends: dict[int, int] = {}
    for n, text in enumerate(lines):
        if (found := INSTRUCTION.match(text)) and JUMP.match(found[1]):
            target = labels.get(re.split(r"[\s,]+", found[2].split("#")[0].split("//")[0].strip())[-1], n)
            if target < n:
                ends[target] = n
    for begin, end in ends.items():
        if not any(begin <= other < ends[other] <= end for other in ends if other != begin):
            yield begin, end


def loops(assembly: str, source: str, marked: dict[int, range]) -> Iterator[Loop]:
    """Yield the innermost loops of ``assembly`` that were made of marked loops of the file named ``source``."""
    owner = {line: first for first, lines in marked.items() for line in lines}
    files = [number for text in assembly.splitlines() if (number := FILE.match(text))]
    numbers = {number[1] for number in files if source in (number[3] or number[2])}
    for function, lines in functions(assembly):
        for begin, end in innermost(lines):
            places = [place for text in lines[begin:end] if (place := LINE.match(text)) and place[1] in numbers]
            marks = [owner[int(place[2])] for place in places if int(place[2]) in owner]
            if not marks:
                continue
            loop = Loop(function, marks[-1])
            for text in lines[begin:end]:
                if (found := INSTRUCTION.match(text)) and (kind := arithmetic(found[1], found[2])):
                    loop.arithmetic[kind] += 1
            if loop.arithmetic:  # loops that only copy or clear are the library's business
                yield loop


def marked_ranges(source: str) -> dict[int, range]:
    """Return the lines of each loop behind a mark, by the line of its ``for``; numbers begin at 1."""
    lines = source.splitlines()
    ranges = {}
    for first in (n + 1 for n, text in enumerate(lines) if text.strip() == MARK):
        depth, last = 0, first
        for last in range(first, len(lines)):
            text = lines[last].split("//")[0].rstrip()
            depth += text.count("{") - text.count("}")
            if depth == 0 and text.endswith((";", "}")):
                break
        ranges[first + 1] = range(first + 1, last + 2)
    return ranges


@dataclass
class Share:
    """The loops of one file by one compiler: all, those vectorised, and the instructions of either."""

    loops: int = 0
    vectorised: int = 0
    arithmetic: Counter[tuple[str, bool]] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    left_lines: Counter[int] = field(default_factory=Counter)


def share(found: Iterator[Loop]) -> Share:
    """Add up loops, as one those that were made of one loop of the source in one function."""
    groups: dict[tuple[str, int], list[Loop]] = {}
    for loop in found:
        groups.setdefault((loop.function, loop.line), []).append(loop)
    result = Share(loops=len(groups))
    for (_, line), group in groups.items():
        total: Counter[tuple[str, bool]] = sum((loop.arithmetic for loop in group), Counter())
        result.arithmetic += total
        if any(loop.packed for loop in group):
            result.vectorised += 1
        else:
            result.left += Counter({kind: count for (kind, _), count in total.items()})
            result.left_lines[line] += 1
    return result


def commands(compiler: str, toolchain: Path | None) -> dict[str, list[str]]:
    """Return how CMake would compile each file of row kernels, by name."""
    build = ROOT / "build" / "vectorised" / Path(compiler).name
    how = (
        [f"-DCMAKE_CXX_COMPILER={compiler}"] if toolchain is None else [f"-DCMAKE_TOOLCHAIN_FILE={toolchain.resolve()}"]
    )
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"]
    options += ["-DNTKFAST_PYTHON=OFF", "-DNTKFAST_CUDA=off"]
    subprocess.run(["cmake", "-S", ROOT, "-B", build, *how, *options], check=True, stdout=subprocess.DEVNULL)
    entries = json.loads((build / "compile_commands.json").read_text())
    rows = {Path(entry["file"]).stem: shlex.split(entry["command"]) for entry in entries}
    return {name: command for name, command in rows.items() if name.startswith("row_kernels_")}


def assemble(command: Sequence[str]) -> str:
    """Return the assembly, with line numbers, that a command makes in place of an object."""
    kept = [word for word in command if word != "-c"]
    kept[kept.index("-o") + 1] = "-"
    return subprocess.run([*kept, "-S", "-g1"], check=True, stdout=subprocess.PIPE, text=True).stdout


def row(compiler: str, name: str, result: Share) -> str:
    """Return a line of the table, in Markdown."""
    of_kind = [f"{result.arithmetic[kind, True]}/{result.arithmetic[kind, False]}" for kind in KINDS]
    percent = 100 * result.vectorised / max(1, result.loops)
    left = ", ".join(f"{result.left[kind]} {kind}" for kind in KINDS if result.left[kind]) or "none"
    cells = [compiler, name, result.loops, result.vectorised, f"{percent:.1f} %", *of_kind, left]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 1 where a compiler leaves more loops scalar than is allowed."""
    parser = argparse.ArgumentParser(description="count the inner loops that compilers vectorise")
    parser.add_argument("compilers", nargs="+", help="C++ compilers, as CMake takes them")
    parser.add_argument("--toolchain", type=Path, help="CMake toolchain file, for a compiler of another machine")
    parser.add_argument("--levels", nargs="+", help="instruction sets; by default all that are compiled")
    parser.add_argument("--least", type=float, default=0, help="share in per cent that each file must reach")
    args = parser.parse_args(arguments)
    source = ROOT / "csrc" / "cpu" / "rows" / "row_kernels_impl.h"
    marked = marked_ranges(source.read_text())
    heads = ["compiler", "level", "loops", "vectorised", "share", *KINDS, "in scalar loops"]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    good = True
    for compiler in args.compilers:
        files = {
            name.removeprefix("row_kernels_"): command for name, command in commands(compiler, args.toolchain).items()
        }
        chosen = {name: command for name, command in files.items() if not args.levels or name in args.levels}
        with ThreadPoolExecutor() as pool:
            for name, assembly in zip(chosen, pool.map(assemble, chosen.values()), strict=True):
                result = share(loops(assembly, source.name, marked))
                print(row(Path(compiler).name, name, result), flush=True)
                for line, count in sorted(result.left_lines.items()):
                    print(f"  {source.name}:{line}: {count} scalar", file=sys.stderr)
                good &= result.loops > 0 and 100 * result.vectorised >= args.least * result.loops
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
