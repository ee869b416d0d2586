"""How far weights move, over the width."""

from experiments.experiment import Experiment
from experiments.weights import claims, figures, measure, summary, text

EXPERIMENT = Experiment(
    name="weights",
    title="How far the weights move, over the width",
    version=5,
    units=measure.units,
    run=measure.run,
    summarize=summary.summarize,
    claims=claims.CLAIMS,
    text=text.text,
    figures=figures.figures,
)
