"""This reports registers, spills, stack and shared memory of every kernel, as ptxas says (nvcc -Xptxas -v).

``ptxas_report.py run NVCC ARGUMENTS`` compiles, keeps ptxas's lines in OBJECT.ptxas and prints the others;
``ptxas_report.py table OBJECTS`` prints what was kept as a table, and exits with 1 if a kernel spills registers.
Folders stand for the objects below them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

SUFFIX = ".ptxas"
OURS = re.compile(r"ptxas info|^\s+\d+ bytes stack frame")
HEAD = ("kernel", "for", "registers", "stack", "spill stores", "spill loads", "shared")


def run(command: list[str]) -> int:
    """Compile, and write what ptxas says to a file beside the object."""
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    lines = done.stderr.splitlines()
    for line in lines:
        if done.returncode or not OURS.search(line):
            print(line, file=sys.stderr)
    if "-o" in command and done.returncode == 0:
        kept = [line for line in lines if OURS.search(line)]
        Path(command[command.index("-o") + 1] + SUFFIX).write_text("\n".join(kept) + "\n")
    return done.returncode


def kernels(text: str) -> list[list[str]]:
    """Return a row for each entry function, and for each function that it calls and that was not copied into it."""
    rows: list[list[str]] = []
    target, entry = "", ""
    for line in text.splitlines():
        if match := re.search(r"Compiling entry function '(.*)' for '(.*)'", line):
            entry, target = match.groups()
        elif match := re.search(r"Function properties for (.*)", line):
            rows.append([match[1], target, "", "0", "0", "0", "0"])
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            rows[-1][3:6] = match.groups()
        elif match := re.search(r"Used (\d+) registers", line):
            row = next(row for row in reversed(rows) if row[0] == entry)
            row[2] = match[1]
            shared = re.search(r"(\d+) bytes smem", line)
            row[6] = shared[1] if shared else "0"
    return rows


def demangled(names: list[str]) -> list[str]:
    """Return names as in the source, shortened by what all share, if c++filt is there."""
    if not shutil.which("c++filt"):
        return names
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return [_short(name) for name in text.splitlines()]


def _short(name: str) -> str:
    """Return a kernel without the template that launches it, a function without its arguments and result."""
    name = re.sub(r"\((?:\w+::)*Reach\)", "reach ", name)
    if kernel := re.match(r"void ntkfast::cuda::entry<(.*)>\(", name):
        name = kernel[1]
    name = re.sub(r"(?:\w+::)*(\w+)<([^<>]*)>::", lambda m: f"{m[1]}<{m[2]}>::", name.partition("(")[0])
    return re.sub(r"\b(?:ntkfast|cuda|std)::|^(?:\w+(?:<[^<>]*>)?\s)+(?=\w+<)", "", name)


def table(paths: list[str]) -> int:
    """Print the table; return 1 if a kernel spills or nothing is known."""
    files: list[Path] = []
    for path in map(Path, paths):
        files += sorted(path.rglob("*" + SUFFIX)) if path.is_dir() else [Path(f"{path}{SUFFIX}")]
    rows = [row for file in files if file.exists() for row in kernels(file.read_text())]
    if not rows:
        print(f"no reports of ptxas below {', '.join(paths)}", file=sys.stderr)
        return 1
    for row, name in zip(rows, demangled([row[0] for row in rows]), strict=True):
        row[0] = name
    widths = [max(map(len, column)) for column in zip(HEAD, *rows, strict=True)]
    for row in (HEAD, *rows):
        cells = [*map(str.ljust, row[:2], widths[:2]), *map(str.rjust, row[2:], widths[2:])]
        print("  ".join(cells))
    spilling = [row[0] for row in rows if int(row[4]) or int(row[5])]
    for name in spilling:
        print(f"spills registers: {name}", file=sys.stderr)
    return 1 if spilling else 0


def main(arguments: list[str]) -> int:
    if len(arguments) > 1 and arguments[0] == "run":
        return run(arguments[1:])
    if len(arguments) > 1 and arguments[0] == "table":
        return table(arguments[1:])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
