"""The paper's claims and some of ours are measured: gradient descent, Adam, and the kernel behind both.

``python -m experiments --scale small`` takes 10 to 12 minutes on two cores and leaves results.json, summary.json,
report.md and its figures in out/experiments/small.  Stopped and started again it goes on where it was.  With ``--docs``
a complete report also becomes docs/paper.md, and its summary the one in experiments/results, unless the page is of a
larger scale.

``python -m experiments --picture PATH --sigma 25 --budget 15`` does the paper's ten cases on a picture of one's own.
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

from experiments import registry, report, summaries, workers
from experiments.experiment import Experiment, Picture, Summary, Tools
from experiments.picture import command as picture
from experiments.picture.reading import PictureError
from experiments.scales import SCALES, Scale
from experiments.store import FolderError, Store

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGE = "paper.md"  # there
RESULTS = ROOT / "experiments" / "results"  # summaries that are kept, by scale


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


def figures(experiments: Sequence[Experiment], scale: Scale, store: Store) -> dict[str, list[Picture]]:
    """Those of each experiment, from the results kept."""
    return {e.name: e.figures(store.records(e, e.units(scale))) for e in experiments}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [experiment.name for experiment in registry.EXPERIMENTS]
    parser.add_argument("--scale", choices=list(SCALES), default="small", help="default: %(default)s")
    parser.add_argument(
        "--out", type=Path, help="folder of results, figures and report (default: out/experiments/SCALE)"
    )
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"run these alone: {', '.join(names)}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the finite networks")
    parser.add_argument(
        "--jobs", type=int, help="units of work at a time (default: one for each core, at most 4; with cuda one)"
    )
    parser.add_argument(
        "--claims",
        type=Path,
        metavar="FILE",
        help="compute nothing and print the report without figures of a summary, or of a results.json of this scale, "
        "which may be alone",
    )
    parser.add_argument(
        "--summary",
        type=Path,
        metavar="FILE",
        help="where the summary goes (default: OUT/summary.json; with --claims none is written)",
    )
    parser.add_argument(
        "--docs",
        action="store_true",
        help="also write docs/paper.md with its images and experiments/results, if complete",
    )
    picture.add_arguments(parser)
    args = parser.parse_args(argv)
    picture.check(parser, args, DOCS / PAGE)
    if args.out is None:
        args.out = ROOT / "out" / "experiments" / (args.scale if args.picture is None else picture.FOLDER)
    if args.jobs is None:
        args.jobs = workers.default_jobs(args.device)
    if args.jobs < 1:
        parser.error(f"argument --jobs: must be at least 1, got {args.jobs}")
    if args.device == "cuda" and not has_card():
        parser.error("--device cuda: PyTorch sees no card")
    if args.claims is not None and not args.claims.is_file():
        parser.error(f"argument --claims: {args.claims} is no file")
    published = report.scale_of(DOCS / PAGE) if args.docs and args.picture is None else None
    sizes = list(SCALES)  # ascending
    if published in SCALES and sizes.index(published) > sizes.index(args.scale):
        parser.error(f"--docs: {DOCS / PAGE} is of the larger scale {published}; delete it to replace it")
    return args


def has_card() -> bool:
    """Tell whether PyTorch can use one."""
    import torch

    return torch.cuda.is_available()


def main(argv: list[str] | None = None) -> int:
    """Run the experiments and write the report.

    Returns
    -------
    int
        The exit code: 1 if a unit failed or the report is too incomplete for --docs, 2 if the results in the folder
        cannot be read, another run is writing there, or a picture cannot be used, 130 if stopped.
    """
    args = arguments(argv)
    try:
        if args.claims is not None:
            summary = summary_of(args.claims, SCALES[args.scale])
            if args.summary is not None:
                summaries.write(args.summary, summary)
            print(report.markdown(report.of_summary(summary, registry.EXPERIMENTS, {}), ""), end="")
            return 0
        store = Store(args.out)
        with store.locked(), terminated_like_interrupted():
            if args.picture is not None:
                return picture.run(args, store, DOCS / PAGE, RESULTS)
            return run(args, store)
    except (FolderError, PictureError, MemoryError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from {args.out}", file=sys.stderr)
        return 130


def summary_of(path: Path, scale: Scale) -> Summary:
    """Read what a file has: a summary, or results of a scale."""
    found = summaries.read(path)
    if found is None:
        found = summaries.collect(registry.EXPERIMENTS, scale, Store(path.parent, path.name, arrays=False))
    return found


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
    """Do the work of :func:`main` in a folder that is its own."""
    scale = SCALES[args.scale]
    chosen = [e for e in registry.EXPERIMENTS if args.only is None or e.name in args.only]
    done, failed = compute(chosen, scale, store, args.device, args.jobs)
    summary = summaries.collect(registry.EXPERIMENTS, scale, store)
    summaries.write(args.summary or args.out / "summary.json", summary)
    whole = report.of_summary(summary, registry.EXPERIMENTS, figures(registry.EXPERIMENTS, scale, store))
    report.write(args.out / "report.md", whole, args.out)
    print(f"{done} units computed, {failed} failed; report: {args.out / 'report.md'}")
    print(report.overview(whole))
    lacking = [part.experiment.name for part in whole.parts if part.incomplete]
    if args.docs and lacking:
        print(f"{DOCS / PAGE} was not written: units without a result in {', '.join(lacking)}", file=sys.stderr)
        return 1
    if args.docs:
        report.publish(DOCS / PAGE, whole, DOCS / "images" / "paper", args.out, picture.appendix(RESULTS))
        summaries.write(RESULTS / f"{args.scale}.json", summary)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
