"""The experiments, in the order of the report, which numbers the claims: the first one's are 1.1, 1.2 and so on."""

from __future__ import annotations

from experiments import adam, follow, inputs, table, weights
from experiments.experiment import Experiment

EXPERIMENTS: tuple[Experiment, ...] = (
    follow.EXPERIMENT,
    weights.EXPERIMENT,
    inputs.EXPERIMENT,
    adam.EXPERIMENT,
    table.EXPERIMENT,
)
