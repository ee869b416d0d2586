"""The command: kernels in full, trainings as far as the budget goes, summary, report and page."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments import analysis, report, summaries, workers
from experiments.architectures import INPUTS, OF_PICTURES, call_of
from experiments.experiment import Record, Summary, Tools, Unit, Work
from experiments.picture import measure, reading, summary, text
from experiments.picture.reading import MEANS, OwnPicture
from experiments.scales import OF_PICTURES as SIZES
from experiments.store import Store, replace_file

DEFAULTS = {"sigma": 25.0, "budget": 15.0, "title": None}
FOLDER = "picture"  # below that of all results
KEPT = "picture.json"  # the summary that the repository keeps

# Shares of the budget; a training gives what it does not take to the next ones.
SHARES = {"removed": 3.0, "kept": 1.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a picture of one's own."""
    group = parser.add_argument_group(
        "a picture of one's own", "the paper's ten cases on it, in place of the experiments"
    )
    group.add_argument("--picture", type=Path, metavar="PATH", help="a PNG, JPEG or TIFF file, gray or in colour")
    group.add_argument(
        "--sigma", type=float, help=f"standard deviation of the noise, of 255 (default: {DEFAULTS['sigma']:g})"
    )
    group.add_argument(
        "--budget",
        type=float,
        metavar="MINUTES",
        help="time to train finite networks; the exact kernels and Nystrom, which come before, are computed in full "
        f"(default: {DEFAULTS['budget']:g})",
    )
    group.add_argument("--title", help="what the report calls the picture (default: the file's name)")


def check(parser: argparse.ArgumentParser, args: argparse.Namespace, page: Path) -> None:
    """Fill in the defaults, and refuse what does not go together."""
    given = [f"--{name}" for name in DEFAULTS if getattr(args, name) is not None]
    if args.picture is None:
        if given:
            parser.error(f"{', '.join(given)}: only with --picture")
        return
    for name in ("only", "claims"):
        if getattr(args, name) is not None:
            parser.error(f"--picture: not with --{name}")
    for name, value in DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    for name in ("sigma", "budget"):
        value = getattr(args, name)
        if not (math.isfinite(value) and value > 0):
            parser.error(f"argument --{name}: must be positive, got {value:g}")
    if args.docs and not page.is_file():
        parser.error(f"--docs: {page} is not there; make it first, with --scale")


def run(args: argparse.Namespace, store: Store, page: Path, results: Path) -> int:
    """Compute everything, and write the summary and the report.

    Returns
    -------
    int
        The exit code: 1 if a unit failed.
    """
    own = reading.read(args.picture, args.title)
    measure.require_memory(own, SIZES, args.device)
    computation = Computation(own, args, store)
    failed = computation.run()
    found = computation.summary()
    if found["noisy"] is None:
        print("no kernel could be computed: there is nothing to report", file=sys.stderr)
        return 1
    shown = text.section(found)
    summaries.write(args.summary or args.out / "summary.json", found)
    replace_file(args.out / "report.md", lambda part: part.write_text(f"{report.wrapped(shown)}\n"))
    print(f"report: {args.out / 'report.md'}")
    if failed:
        print(f"{failed} units failed", file=sys.stderr)
    elif args.docs:
        changed = report.with_section(page.read_text(), shown)
        summaries.write(results / KEPT, found)
        replace_file(page, lambda part: part.write_text(changed))
    return 1 if failed else 0


def appendix(results: Path) -> str:
    """The section that a summary kept gives, for the end of the page; empty without one."""
    path = results / KEPT
    return text.section(json.loads(path.read_text())) if path.is_file() else ""


class Computation:
    """The work on a picture: which units have a result, and what is left of the budget."""

    def __init__(self, own: OwnPicture, args: argparse.Namespace, store: Store) -> None:
        self.own, self.store, self.device = own, store, args.device
        self.sigma, self.minutes = args.sigma, args.budget
        self.work: Work = measure.work(own)
        self.units = measure.kernel_units(own, args.sigma, SIZES)
        self.failed = self.done = 0

    def run(self) -> int:
        """Run all units that have no result yet, trainings within the budget; the number of those that failed."""
        kernels = list(self.units)
        count = len(kernels) + len(MEANS) * len(INPUTS) * len(OF_PICTURES) * len(measure.OPTIMIZERS)
        bar = tqdm(total=count, file=sys.stderr, bar_format="{l_bar}{bar}| {n:.1f}/{total} {elapsed}")
        with bar:
            for unit in kernels:
                self._run(unit, bar, None)
            trainings = measure.finite_units(self.own, self.sigma, SIZES, self.minutes, self._eigenvalues())
            self.units = [*kernels, *trainings]
            for n, unit in enumerate(trainings):
                self._run(unit, bar, self._seconds(trainings[n:]))
        return self.failed

    def _run(self, unit: Unit, bar: tqdm, seconds: float | None) -> None:
        """Run a unit that has no result, of which a training ends after so many seconds."""
        bar.set_description(unit.key)
        if self.store.get(self.work, unit) is None and (seconds is None or seconds > 0):
            outcome = workers.measure(self.work, unit, Tools(self.device, _progress(bar, self.done, seconds)))
            if outcome.result is None:
                self.failed += 1
                bar.write(f"{self.work.key(unit)} failed:\n{outcome.error}", file=sys.stderr)
            else:
                self.store.put(self.work, unit, outcome.result, outcome.seconds, self.device)
        self.done += 1
        bar.update(self.done - bar.n)

    def _eigenvalues(self) -> dict[tuple[str, str, str], float]:
        """lambda_max by network, input and mean."""
        return {
            (record.settings["network"], record.settings["input"], mean): float(f"{record.values['lambda_max']:.7g}")
            for record in self._records()
            for mean in record.settings.get("means", ())
        }

    def _records(self) -> list[Record]:
        return self.store.records(self.work, self.units)

    def _seconds(self, units: Sequence[Unit]) -> float:
        """The share of the first of some units in what is left of the budget; 0 if it has a result."""
        waiting = [unit for unit in units if self.store.get(self.work, unit) is None]
        if not waiting or waiting[0] is not units[0]:
            return 0.0
        spent = sum(record.seconds for record in self._records() if "minutes" in record.settings)
        left = 60 * self.minutes - spent
        shares = [SHARES[unit.settings["mean"]] for unit in waiting]
        return float(max(0.0, left * shares[0] / sum(shares)))

    def summary(self) -> Summary:
        """Sum up all results."""
        asked: dict[str, Any] = {
            "title": self.own.title,
            "shape": list(self.own.pixels.shape),
            "pixels": self.own.fingerprint,
            "sigma": self.sigma,
            "minutes": self.minutes,
            "most_steps": SIZES.most_steps,
            "points": len(analysis.times(SIZES.most_steps, SIZES.points)),
            "landmarks": measure.landmarks(self.own, SIZES),
            "channels": SIZES.channels,
            "networks": {name: {"call": call_of(name), "width": SIZES.widths[name]} for name in OF_PICTURES},
        }
        return summary.summarize(asked, self._records(), self.store.origin(self.work, self.units))


def _progress(bar: tqdm, before: int, seconds: float | None) -> Callable[[float], None]:
    """Draw the share of a unit that is done, and end a training that has had its time."""
    start = time.monotonic()

    def progress(fraction: float) -> None:
        used = 0.0 if seconds is None else (time.monotonic() - start) / seconds
        bar.update(before + min(max(fraction, used, 0.0), 0.99) - bar.n)
        if used >= 1:
            raise StopIteration

    return progress
