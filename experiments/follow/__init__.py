"""Gradient descent follows the filter."""

from experiments.experiment import Experiment
from experiments.follow import claims, figures, measure, summary, text

EXPERIMENT = Experiment(
    name="follow",
    title="Gradient descent follows the filter",
    version=2,
    units=measure.units,
    run=measure.run,
    summarize=summary.summarize,
    claims=claims.CLAIMS,
    text=text.text,
    figures=figures.figures,
)
