"""Environments of peers are made on first use below build/peers/; jobs run in them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import machine

FOLDER = machine.ROOT / "build" / "peers"


class PeerError(RuntimeError):
    """The peer's process ended without a result."""


def make_environment(folder: Path, python: str, requirements: Sequence[str]) -> Path:
    """Return the interpreter of a peer's environment, which is made if it is not there or holds something else."""
    interpreter = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    marker = folder / "requirements.json"  # written last: without it, an installation was cut short
    if marker.exists() and json.loads(marker.read_text()) == list(requirements):
        return interpreter
    print(f"installing {', '.join(requirements)} into an environment of their own", flush=True)
    subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
    subprocess.run([str(interpreter), "-m", "pip", "install", "--quiet", *requirements], check=True)
    marker.write_text(json.dumps(list(requirements)))
    return interpreter


def run_worker(
    peer: str,
    interpreter: Path,
    worker: Path,
    job: Mapping[str, Any],
    folder: Path,
    *,
    variables: Mapping[str, str] | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Run one job in a process of its own, so that its peak of memory is its own too; stop it after ``seconds``.

    The worker is started as ``python -I worker JOB RESULT``, both JSON files in ``folder``, with ``variables`` added to
    the environment.  ``PeerError`` names the ``peer``.
    """
    job_path, result_path = folder / "job.json", folder / "result.json"
    job_path.write_text(json.dumps(job))
    # Warnings, such as those on every merge of branches in neural_tangents, would hide the error.
    command = [str(interpreter), "-I", "-W", "ignore", str(worker), str(job_path), str(result_path)]
    environment = {**os.environ, **(variables or {})}
    try:
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise PeerError(f"{peer} took more than {seconds:.0f} s") from None
    if done.returncode != 0:  # -9: killed, as the system does when memory runs out
        raise PeerError(f"{peer} failed with status {done.returncode}:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(result_path.read_text())
    return result
