"""Units of work, in this process or in several at a time.

The networks of the smaller scales are too small for many threads: a unit of the table at scale "small" is hardly slower
on one thread than on two (``--jobs 1``), so that two at once end in about half the time.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from experiments.experiment import Experiment, Result, Tools, Unit, Work

THREADS = "OMP_NUM_THREADS"  # read by PyTorch, by ntkfast's engine and by NumPy's BLAS

Task = tuple[Experiment, Unit]


@dataclass(frozen=True)
class Outcome:
    """A unit has come to a result, or to an error in words, in some seconds."""

    result: Result | None
    seconds: float
    error: str = ""


def default_jobs(device: str) -> int:
    """Processes that keep the machine busy: one for each core, four at most for want of memory; one for a card."""
    return 1 if device == "cuda" else min(4, os.cpu_count() or 1)


def measure(work: Work, unit: Unit, tools: Tools) -> Outcome:
    """Run a unit here."""
    start = time.perf_counter()
    try:
        return Outcome(work.run(unit.settings, tools), time.perf_counter() - start)
    except Exception:
        return Outcome(None, time.perf_counter() - start, traceback.format_exc())


def in_processes(tasks: Sequence[Task], device: str, jobs: int) -> Generator[tuple[Task, Outcome]]:
    """Run units in ``jobs`` processes, which share the cores; each with its outcome, in the order in which they end.

    If the iterator is closed, or the program interrupted or killed, the processes are ended.
    """
    before = os.environ.get(THREADS)
    os.environ[THREADS] = str(max(1, (os.cpu_count() or 1) // jobs))
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=end_with_parent)
    complete = False
    try:
        futures = {pool.submit(_measure, e.name, unit, device): (e, unit) for e, unit in tasks}
        for future in as_completed(futures):
            try:
                outcome = future.result()
            except BrokenProcessPool as error:  # killed: for want of memory, say
                outcome = Outcome(None, 0.0, str(error))
            yield futures[future], outcome
        complete = True
    finally:
        if not complete:
            for process in multiprocessing.active_children():
                process.terminate()
        pool.shutdown(cancel_futures=True)
        if before is None:
            del os.environ[THREADS]
        else:
            os.environ[THREADS] = before


def end_with_parent() -> None:
    """Ends this process when the one that started it is gone, killed by a signal that it cannot answer.

    Nothing else would: a worker that waits for its next unit holds both ends of the queue itself.
    """

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)  # from a thread, in the middle of a unit

    threading.Thread(target=wait, name="end with parent", daemon=True).start()


def _measure(name: str, unit: Unit, device: str) -> Outcome:
    """Run a unit in a process that is deaf to Ctrl-C, which reaches them all: the first one ends the others."""
    import signal

    from experiments import registry

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    experiment = next(e for e in registry.EXPERIMENTS if e.name == name)
    return measure(experiment, unit, Tools(device))
