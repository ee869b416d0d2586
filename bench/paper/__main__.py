"""The paper's claims, measured: gradient descent, Adam, and the kernel that does or does not explain them.

``python -m bench.paper --scale small`` takes about 10 minutes on two cores and leaves results.json, figures and
report.md in build/paper/small.  Stopped and started again it goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from bench import machine
from bench.paper import registry, report
from bench.paper.experiment import Experiment, Tools
from bench.paper.scales import SCALES, Scale
from bench.paper.store import Store

DOCS = machine.ROOT / "docs"


def compute(experiments: Sequence[Experiment], scale: Scale, store: Store, device: str) -> tuple[int, int]:
    """Run all units that have no result yet; a unit that fails does not stop the others.

    Returns
    -------
    (int, int)
        Units computed and units failed.
    """
    todo = [(e, unit) for e in experiments for unit in e.units(scale) if store.get(e, unit) is None]
    failed = 0
    bar = tqdm(total=len(todo), file=sys.stderr, disable=not todo, bar_format="{l_bar}{bar}| {n:.1f}/{total} {elapsed}")
    with bar:
        for n, (experiment, unit) in enumerate(todo):
            bar.set_description(experiment.key(unit))

            def progress(fraction: float, done: int = n) -> None:
                bar.update(done + min(max(fraction, 0.0), 1.0) - bar.n)  # draws at most ten times a second

            start = time.perf_counter()
            try:
                result = experiment.run(unit.settings, Tools(device, progress))
                store.put(experiment, unit, result, time.perf_counter() - start, device)
            except Exception:
                failed += 1
                bar.write(f"{experiment.key(unit)} failed:\n{traceback.format_exc()}", file=sys.stderr)
            progress(1.0)
    return len(todo) - failed, failed


def collect(experiments: Sequence[Experiment], scale: Scale, store: Store) -> list[report.Part]:
    """Claims, figures and texts from the results kept."""
    parts = []
    for experiment in experiments:
        units = experiment.units(scale)
        records = store.records(experiment, units)
        parts.append(
            report.Part(
                experiment,
                experiment.claims(records),
                experiment.figures(records),
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
    parser.add_argument("--docs", action="store_true", help="also write docs/paper.md and docs/images/paper/")
    args = parser.parse_args(argv)
    if args.out is None:
        args.out = machine.ROOT / "build" / "paper" / args.scale
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the experiments, write the report, and return the exit code: 1 if a unit failed."""
    args = arguments(argv)
    scale, store = SCALES[args.scale], Store(args.out)
    chosen = [e for e in registry.EXPERIMENTS if args.only is None or e.name in args.only]
    try:
        done, failed = compute(chosen, scale, store, args.device)
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from {args.out}", file=sys.stderr)
        return 130
    parts = collect(registry.EXPERIMENTS, scale, store)
    args.out.mkdir(parents=True, exist_ok=True)
    report.write(args.out / "report.md", parts, args.scale, args.out)
    if args.docs:
        report.write(DOCS / "paper.md", parts, args.scale, DOCS / "images" / "paper")
    print(f"{done} units computed, {failed} failed; report: {args.out / 'report.md'}")
    print(report.summary(parts))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
