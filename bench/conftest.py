"""This prints the table at the end of a benchmark run, and tells its JSON about the machine."""

from __future__ import annotations

from typing import Any

import pytest

from bench import machine
from bench.networks import table

Rows = dict[str, list[list[str]]]
ROWS = pytest.StashKey[Rows]()

HEADS = {
    "products": ["product", "s", "cores", "pair-layers/s", "floor ns/pair", "share", "prototype s", "ratio", "error"],
    "dense": ["matrix", "s", "cores", "pair-layers/s", "floor ns/pair", "share", "error"],
    "stored": ["stored", "s", "cores", "GB/s", "to store s", "streaming s", "ratio", "error"],
    "columns": ["columns", "s", "cores", "ms a column", "error"],
}


def pytest_configure(config: pytest.Config) -> None:
    rows: Rows = {suite: [] for suite in HEADS}
    config.stash[ROWS] = rows


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Rows:
    """Map each suite to the lines of its table, printed at the end of the run."""
    return request.config.stash[ROWS]


@pytest.hookimpl(trylast=True)  # below the long table of pytest-benchmark
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = config.stash[ROWS]
    if not any(rows.values()):
        return
    here = machine.description()
    terminalreporter.section("ntkfast")
    terminalreporter.line(", ".join(str(here[key]) for key in ("cpu", "isa", "compiler", "commit")))
    for suite, head in HEADS.items():
        if rows[suite]:
            terminalreporter.line("")
            for line in table(head, rows[suite]):
                terminalreporter.line(line)
    terminalreporter.line("\n* misses its target; medians of all rounds; see bench/README.md")


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info.clear()  # it names the host
    machine_info.update(machine.description())


def pytest_benchmark_update_commit_info(commit_info: dict[str, Any]) -> None:
    commit_info["project"] = "ntkfast"  # not the name of some folder
