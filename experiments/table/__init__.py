"""Trained networks, filters and other denoisers on nine pictures."""

from experiments.experiment import Experiment
from experiments.table import claims, figures, measure, summary, text

EXPERIMENT = Experiment(
    name="table",
    title="Trained networks, filters and other denoisers on nine pictures",
    version=2,
    units=measure.units,
    run=measure.run,
    summarize=summary.summarize,
    claims=claims.CLAIMS,
    text=text.text,
    figures=figures.figures,
)
