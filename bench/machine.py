"""This says on what a result was measured: processor, instruction set, compiler, versions, commit.

No name of a host or path is in it.

``python -m bench.machine`` prints it.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy
import scipy

from ntkfast import info

ROOT = Path(__file__).resolve().parent.parent
LINE, DIGITS = 480, 7  # line length and digits in the files kept


def cpu_model() -> str:
    """Return the name of the processor as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def commit() -> str:
    """Return the commit checked out, with ``+changes`` if tracked files differ from it.

    Outside a repository it is what the environment variable NTKFAST_COMMIT says, or ``unknown``.
    """
    name = _git("rev-parse", "HEAD") or os.environ.get("NTKFAST_COMMIT", "")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return f"{name or 'unknown'}{'+changes' if changed else ''}"


def description() -> dict[str, Any]:
    """Describe the machine and the build, for JSON files."""
    ours = info()
    return {
        "cpu": cpu_model(),
        "cores": ours["cores"],
        "threads": ours["threads"],
        "isa": ours["isa_active"],
        "compiler": ours["compiler"],
        "float_flags": ours["float_flags"],
        "system": platform.system(),
        "versions": {
            "ntkfast": ours["version"],
            "python": ours["python"],
            "numpy": numpy.__version__,
            "scipy": scipy.__version__,
        },
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def as_text(value: Any, indent: str = "", *, item: bool = False) -> str:
    """Write JSON to be read and compared line by line: items of lists on one line each where they fit, seven digits."""
    if isinstance(value, float):
        return json.dumps(float(f"{value:.{DIGITS}g}"))
    inner = indent + "  "
    if isinstance(value, dict) and value:
        parts = [f"{json.dumps(str(key))}: {as_text(part, inner, item=item)}" for key, part in value.items()]
        line = f"{{{', '.join(parts)}}}"
        if item and len(line) <= LINE and "\n" not in line:
            return line
        return f"{{\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}}}"
    if isinstance(value, (list, tuple)):
        parts = [as_text(part, inner, item=True) for part in value]
        if any(isinstance(part, dict) for part in value):
            return f"[\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}]"
        return f"[{', '.join(parts)}]"
    return json.dumps(value)


def save(path: Path, results: Any) -> None:
    """Write results and the machine they were measured on as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(as_text({"machine": description(), "results": results}) + "\n")
    part.replace(path)  # at once: who is stopped meanwhile keeps the old results


if __name__ == "__main__":
    print(json.dumps(description(), indent=2))
