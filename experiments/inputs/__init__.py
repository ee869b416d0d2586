"""The noisy image or iid noise as input."""

from experiments.experiment import Experiment
from experiments.inputs import claims, figures, measure, summary, text

EXPERIMENT = Experiment(
    name="inputs",
    title="The noisy image or iid noise as input",
    version=2,
    units=measure.units,
    run=measure.run,
    summarize=summary.summarize,
    claims=claims.CLAIMS,
    text=text.text,
    figures=figures.figures,
)
