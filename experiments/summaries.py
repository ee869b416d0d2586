"""The summary of a run, which is what the repository keeps: all that claims and tables need, to be read in a diff.

``{"scale": ..., "machines": [...], "commits": [...], "days": [...], "experiments": {name: entry}}`` with entries
``{"version": ..., "units": ..., "expected": ..., "seconds": ..., "summary": {...}}``: so many of the expected units of
work have a result.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.experiment import Experiment, Summary
from experiments.layout import kept, laid_out
from experiments.scales import Scale
from experiments.store import FolderError, Store, replace_file

ENTRY: dict[str, tuple[type, ...]] = {
    "version": (int,),
    "units": (int,),
    "expected": (int,),
    "seconds": (int, float),
    "summary": (dict,),
}


def collect(experiments: Sequence[Experiment], scale: Scale, store: Store) -> Summary:
    """Summary of the results in a store."""
    found: dict[str, Any] = {}
    origins = []
    for experiment in experiments:
        units = experiment.units(scale)
        origin = store.origin(experiment, units)
        origins.append(origin)
        found[experiment.name] = {
            "version": experiment.version,
            "units": origin["units"],
            "expected": len(units),
            "seconds": origin["seconds"],
            "summary": experiment.summary(store.records(experiment, units)),
        }
    machines = {json.dumps(machine, sort_keys=True): machine for origin in origins for machine in origin["machines"]}
    summary: Summary = kept(
        {
            "scale": scale.name,
            "machines": list(machines.values()),
            "commits": sorted({commit for origin in origins for commit in origin["commits"]}),
            "days": sorted({day for origin in origins for day in origin["days"]}),
            "experiments": found,
        }
    )
    return summary


def of_experiment(summary: Summary, experiment: Experiment) -> dict[str, Any]:
    """An experiment's entry; one without results where there is none, or one of another version."""
    entry: dict[str, Any] = summary["experiments"].get(experiment.name, {})
    if entry.get("version") != experiment.version:
        return {"units": 0, "expected": max(1, entry.get("expected", 1)), "seconds": 0.0, "summary": {}}
    return entry


def write(path: Path, summary: Summary) -> None:
    """Write a summary, in place of an earlier one."""
    replace_file(path, lambda part: part.write_text(laid_out(summary) + "\n"))


def read(path: Path) -> Summary | None:
    """A summary; None for a file of JSON that is none, such as a results.json.

    Raises
    ------
    FolderError
        If it is no JSON, or lacks what a summary has; the message names it.
    """
    try:
        content = json.loads(path.read_text())
    except ValueError as error:  # no JSON, or no text
        raise FolderError(f"{path} is damaged ({error})") from None
    if not isinstance(content, dict) or "experiments" not in content:
        return None
    wrong = _wrong(content)
    if wrong:
        raise FolderError(f"{path} is damaged or no summary ({wrong})")
    return content


def _wrong(content: Summary) -> str:
    """Name what is not as :func:`collect` leaves it; empty if nothing is."""
    lists = all(isinstance(content.get(name), list) for name in ("machines", "commits", "days"))
    if not lists or not isinstance(content.get("scale"), str) or not isinstance(content["experiments"], dict):
        return "scale, machines, commits, days or experiments are missing or of another kind"
    for name, entry in content["experiments"].items():
        for key, types in ENTRY.items():
            if not isinstance(entry, dict) or not isinstance(entry.get(key), types):
                return f"{key} of {name} is missing or of another kind"
    return ""
