"""Adam, and the kernel that adapts."""

from experiments.adam import claims, figures, measure, summary, text
from experiments.experiment import Experiment

EXPERIMENT = Experiment(
    name="adam",
    title="Adam, and the kernel that adapts",
    version=3,
    units=measure.units,
    run=measure.run,
    summarize=summary.summarize,
    claims=claims.CLAIMS,
    text=text.text,
    figures=figures.figures,
)
