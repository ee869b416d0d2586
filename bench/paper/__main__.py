"""What the paper claims and what else was asked, measured: gradient descent, Adam, and the kernel behind both.

``python -m bench.paper --scale small`` takes 10 to 12 minutes on two cores and leaves results.json, figures and
report.md in build/paper/small.  Stopped and started again it goes on where it was.  With ``--docs`` a complete report
also becomes docs/paper.md, unless that is of a larger scale.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from tqdm import tqdm

from bench import machine
from bench.paper import registry, report, workers
from bench.paper.experiment import Experiment, Tools
from bench.paper.scales import SCALES, Scale
from bench.paper.store import FolderError, Store

DOCS = machine.ROOT / "docs"
PAGE = "paper.md"  # there


def compute(
    experiments: Sequence[Experiment], scale: Scale, store: Store, device: str, jobs: int = 1
) -> tuple[int, int]:
    """Run all units that have no result yet, ``jobs`` at a time; a unit that fails does not stop the others.

    Returns
    -------
    (int, int)
        Units computed and units failed.
    """
    todo = [(e, unit) for e in experiments for unit in e.units(scale) if store.get(e, unit) is None]
    failed = 0
    bar = tqdm(total=len(todo), file=sys.stderr, disable=not todo, bar_format="{l_bar}{bar}| {n:.1f}/{total} {elapsed}")
    outcomes = in_turn(todo, device, bar) if jobs == 1 else workers.in_processes(todo, device, jobs)
    with bar, closing(outcomes):
        for done, ((experiment, unit), outcome) in enumerate(outcomes, 1):
            if outcome.result is None:
                failed += 1
                bar.write(f"{experiment.key(unit)} failed:\n{outcome.error}", file=sys.stderr)
            else:
                store.put(experiment, unit, outcome.result, outcome.seconds, device)
            bar.set_description(experiment.key(unit), refresh=False)
            bar.update(done - bar.n)
    return len(todo) - failed, failed


def in_turn(todo: Sequence[workers.Task], device: str, bar: tqdm) -> Generator[tuple[workers.Task, workers.Outcome]]:
    """Units one after the other in this process; the bar shows how far each is."""
    for n, (experiment, unit) in enumerate(todo):
        bar.set_description(experiment.key(unit))

        def progress(fraction: float, done: int = n) -> None:
            bar.update(done + min(max(fraction, 0.0), 1.0) - bar.n)  # draws at most ten times a second

        yield (experiment, unit), workers.measure(experiment, unit, Tools(device, progress))


def collect(
    experiments: Sequence[Experiment], scale: Scale, store: Store, *, figures: bool = True
) -> list[report.Part]:
    """Claims, figures and texts from the results kept."""
    parts = []
    for experiment in experiments:
        units = experiment.units(scale)
        records = store.records(experiment, units)
        parts.append(
            report.Part(
                experiment,
                experiment.claims(records),
                experiment.figures(records) if figures else [],
                experiment.text(records),
                store.origin(experiment, units),
                len(units),
            )
        )
    return parts


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [experiment.name for experiment in registry.EXPERIMENTS]
    parser.add_argument("--scale", choices=list(SCALES), default="small", help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="folder of results, figures and report (default: build/paper/SCALE)")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"run these alone: {', '.join(names)}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the finite networks")
    parser.add_argument(
        "--jobs", type=int, help="units of work at a time (default: one for each core, at most 4; with cuda one)"
    )
    parser.add_argument(
        "--claims",
        type=Path,
        metavar="FILE",
        help="compute nothing and print the report without figures of a results.json of this scale, which may be alone",
    )
    parser.add_argument("--docs", action="store_true", help="also write docs/paper.md and its images, if complete")
    args = parser.parse_args(argv)
    if args.out is None:
        args.out = machine.ROOT / "build" / "paper" / args.scale
    if args.jobs is None:
        args.jobs = workers.default_jobs(args.device)
    if args.jobs < 1:
        parser.error(f"argument --jobs: must be at least 1, got {args.jobs}")
    if args.device == "cuda" and not has_card():
        parser.error("--device cuda: PyTorch sees no card")
    if args.claims is not None and not args.claims.is_file():
        parser.error(f"argument --claims: {args.claims} is no file")
    published = report.scale_of(DOCS / PAGE) if args.docs else None
    sizes = list(SCALES)  # ascending
    if published in SCALES and sizes.index(published) > sizes.index(args.scale):
        parser.error(f"--docs: {DOCS / PAGE} is of the larger scale {published}; delete it to replace it")
    return args


def has_card() -> bool:
    """Whether PyTorch can use one."""
    import torch

    return torch.cuda.is_available()


def main(argv: list[str] | None = None) -> int:
    """Run the experiments and write the report.

    Returns
    -------
    int
        The exit code: 1 if a unit failed or the report is too incomplete for --docs, 2 if the results in the folder
        cannot be read or another run is writing there, 130 if stopped.
    """
    args = arguments(argv)
    try:
        if args.claims is not None:
            alone = Store(args.claims.parent, args.claims.name, arrays=False)
            parts = collect(registry.EXPERIMENTS, SCALES[args.scale], alone, figures=False)
            print(report.markdown(parts, args.scale, ""), end="")
            return 0
        store = Store(args.out)
        with store.locked(), terminated_like_interrupted():
            return run(args, store)
    except FolderError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from {args.out}", file=sys.stderr)
        return 130


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM acts as Ctrl-C does: worker processes are ended and what is done is kept."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # which alone may set it
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(args: argparse.Namespace, store: Store) -> int:
    """What :func:`main` does in a folder that is its own."""
    scale = SCALES[args.scale]
    chosen = [e for e in registry.EXPERIMENTS if args.only is None or e.name in args.only]
    done, failed = compute(chosen, scale, store, args.device, args.jobs)
    parts = collect(registry.EXPERIMENTS, scale, store)
    report.write(args.out / "report.md", parts, args.scale, args.out)
    print(f"{done} units computed, {failed} failed; report: {args.out / 'report.md'}")
    print(report.summary(parts))
    lacking = [part.experiment.name for part in parts if part.incomplete]
    if args.docs and lacking:
        print(f"{DOCS / PAGE} was not written: units without a result in {', '.join(lacking)}", file=sys.stderr)
        return 1
    if args.docs:
        report.publish(DOCS / PAGE, parts, args.scale, DOCS / "images" / "paper", args.out)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
