"""Placeholder of the experiment ``weights``."""

from __future__ import annotations

from bench.paper.experiment import Experiment, Result

EXPERIMENT = Experiment(
    name="weights",
    title="weights",
    version=1,
    units=lambda scale: [],
    run=lambda settings, tools: Result({}),
    figures=lambda records: [],
    claims=lambda records: [],
    text=lambda records: "",
)
