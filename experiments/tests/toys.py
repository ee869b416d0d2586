"""Experiments without networks, and the findings of records that are made up."""

import numpy as np

from experiments.experiment import Check, Claim, Experiment, Result, Unit
from experiments.scales import SCALES

TINY = SCALES["tiny"]


def findings(experiment, records):
    """Return what the claims come to, by way of the summary."""
    return experiment.findings(experiment.summary(records))


def toy(run, *, keys=("a", "b", "c"), version=1, settings=None):
    """An experiment without networks: unit n has the setting n."""
    return Experiment(
        name="toy",
        title="A toy",
        version=version,
        units=lambda scale: [Unit(key, settings or {"n": n}) for n, key in enumerate(keys)],
        run=run,
        summarize=lambda records: {"records": len(records)},
        claims=(Claim("All are there.", "ours", all_there),),
        text=lambda summary: f"{summary.get('records', 0)} records.",
        figures=lambda records: [],
    )


def all_there(summary):
    count = summary.get("records", 0)
    return [Check(f"{count} of 3", count == 3)]


def counting(calls, *, fails_at=None):
    def run(settings, tools):
        calls.append(settings["n"])
        if settings["n"] == fails_at:
            raise RuntimeError("no luck")
        return Result({"square": settings["n"] ** 2}, {"ramp": np.arange(settings["n"] + 1)})

    return run
