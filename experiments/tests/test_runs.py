"""Runs that are stopped, that fail, and that are ended; processes and devices."""

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import __main__ as command
from experiments import registry, weights, workers
from experiments.experiment import Result, Tools, Unit
from experiments.store import Store
from experiments.tests.toys import TINY, counting, toy

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Toys are known in this process alone."""
    monkeypatch.setattr(workers, "default_jobs", lambda device: 1)


def test_interrupted_run_continues(tmp_path, monkeypatch, capsys):
    calls = []

    def stopped(settings, tools):
        if settings["n"] == 1 and calls == [0]:
            raise KeyboardInterrupt
        return counting(calls)(settings, tools)

    monkeypatch.setattr(registry, "EXPERIMENTS", (toy(stopped),))
    argv = ["--scale", "tiny", "--out", str(tmp_path)]
    assert command.main(argv) == 130
    assert calls == [0]
    calls.append("again")
    assert command.main(argv) == 0
    assert calls == [0, "again", 1, 2]
    assert "2 units computed, 0 failed" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.part"))


def test_processes_end_with_the_iterator_and_give_the_threads_back(monkeypatch):
    monkeypatch.setenv(workers.THREADS, "7")
    tasks = [(weights.EXPERIMENT, unit) for unit in weights.EXPERIMENT.units(TINY)[:6]]
    outcomes = workers.in_processes(tasks, "cpu", 2)
    (_, unit), outcome = next(outcomes)
    assert unit in [task[1] for task in tasks]
    assert outcome.result is not None
    assert outcome.error == ""
    outcomes.close()
    assert not multiprocessing.active_children()
    assert os.environ[workers.THREADS] == "7"


def test_errors_in_processes_are_told():
    ((_, outcome),) = workers.in_processes([(weights.EXPERIMENT, Unit("none", {}))], "cpu", 1)
    assert outcome.result is None
    assert "KeyError" in outcome.error


def children(pid):
    """Processes that a process has started, but for those that only clean up after it."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [n for n in found if "spawn_main" in Path(f"/proc/{n}/cmdline").read_text()]
    except OSError:
        return []


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@pytest.mark.skipif(not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_run_that_is_ended_leaves_no_processes_and_what_is_done(tmp_path, number):
    argv = [sys.executable, "-m", "experiments", "--scale", "tiny", "--jobs", "2", "--out", str(tmp_path)]
    with subprocess.Popen(
        argv, cwd=command.ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as command_line:
        try:
            assert until((tmp_path / "results.json").exists, 300)
            workers_of = children(command_line.pid)
            assert len(workers_of) == 2
            command_line.send_signal(number)
            errors = command_line.communicate(timeout=60)[1]
            assert until(lambda: not any(alive(n) for n in workers_of), 30)
        finally:
            command_line.kill()
    if number == signal.SIGTERM:
        assert command_line.returncode == 130
        assert f"the same command goes on from {tmp_path}" in errors
    assert Store(tmp_path).records(registry.EXPERIMENTS[0], registry.EXPERIMENTS[0].units(TINY))


def test_failed_unit_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(registry, "EXPERIMENTS", (toy(counting(calls, fails_at=1)),))
    assert command.main(["--scale", "tiny", "--out", str(tmp_path)]) == 1
    assert calls == [0, 1, 2]
    assert "RuntimeError: no luck" in capsys.readouterr().err
    text = (tmp_path / "report.md").read_text()
    assert "Of 3 units of work 2 have a result." in text
    assert "**does not hold (incomplete)**" in text


def test_two_runs_do_not_write_to_one_folder(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(registry, "EXPERIMENTS", (toy(counting(calls)),))
    argv = ["--scale", "tiny", "--out", str(tmp_path)]
    with Store(tmp_path).locked():
        assert command.main(argv) == 2
    assert not calls
    assert f"another run is writing to {tmp_path}" in capsys.readouterr().err
    assert command.main(argv) == 0


def test_device_without_a_card_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as error:
        command.main(["--scale", "tiny", "--out", str(tmp_path), "--device", "cuda"])
    assert error.value.code == 2
    assert "PyTorch sees no card" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_device_reaches_the_units_and_their_results(tmp_path, monkeypatch):
    def run(settings, tools):
        return Result({"device": tools.device}, device="cpu" if settings["n"] == 1 else None)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a card ({device})")
    monkeypatch.setattr(registry, "EXPERIMENTS", (toy(run),))
    assert command.main(["--scale", "tiny", "--out", str(tmp_path), "--device", "cuda"]) == 0
    kept = json.loads((tmp_path / "results.json").read_text())
    assert {entry["values"]["device"] for entry in kept["results"].values()} == {"cuda"}
    devices = [kept["machines"][entry["machine"]]["device"] for entry in kept["results"].values()]
    assert devices == ["a card (cuda)", "cpu", "a card (cuda)"]


@pytest.mark.parametrize("key", ["inputs/vanilla/noise", "table/chelsea/peers"])
def test_what_runs_on_the_processor_says_so(key):
    name, _, rest = key.partition("/")
    experiment = next(e for e in registry.EXPERIMENTS if e.name == name)
    small = dataclasses.replace(TINY, table=dataclasses.replace(TINY.table, side=8, pictures=9))
    unit = next(unit for unit in experiment.units(small) if unit.key == rest)
    assert experiment.run(unit.settings, Tools("cuda")).device == "cpu"
