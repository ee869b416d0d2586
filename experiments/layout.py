"""Numbers of a summary: how many digits of them are kept, and how they are laid out in a file that people compare."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

DIGITS = 7  # three or more than the report shows, so that it hardly ever rounds up what was rounded up before
WIDTH = 160  # columns of a file of data


def kept(value: Any) -> Any:
    """A summary as it comes back from its file: JSON with numbers of :data:`DIGITS` digits; None for nan."""
    if isinstance(value, dict):
        return {str(key): kept(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [kept(entry) for entry in value]
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    number = float(value)
    return None if math.isnan(number) else float(f"{number:.{DIGITS}g}")


def laid_out(value: Any, indent: int = 0, taken: int = 0) -> str:
    """JSON in which whatever fits has a line of its own, and nothing else is broken.

    Parameters
    ----------
    value : JSON
    indent : int
        Of the line that it begins on.
    taken : int
        Columns of that line that are not its own: what stands before it, and the comma after it.
    """
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, (dict, list)) or not value or taken + len(flat) <= WIDTH:
        return flat
    inner = indent + 1
    if isinstance(value, dict):
        names = [f"{json.dumps(key, ensure_ascii=False)}: " for key in value]
        entries = list(value.values())
    else:
        names, entries = [""] * len(value), value
    lines = [
        f"{' ' * inner}{name}{laid_out(entry, inner, inner + len(name) + 1)}"
        for name, entry in zip(names, entries, strict=True)
    ]
    first, last = "{}" if isinstance(value, dict) else "[]"
    return "\n".join([first, ",\n".join(lines), f"{' ' * indent}{last}"])
