"""Power laws fitted to what was measured over the width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PowerLaw:
    """value = level * width^slope.

    Attributes
    ----------
    slope, error : float
        The exponent and its standard error; nan where two points leave no residuals.
    level : float
        Value at width 1.
    points : int
        From which it is fitted.
    """

    slope: float
    error: float
    level: float
    points: int

    def at(self, width: float) -> float:
        """The law's value."""
        return float(self.level * width**self.slope)

    def interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """Ends between which the exponent lies with this confidence, for normal residuals; None without any.

        slope +- t error, t the quantile of Student's distribution with (points - 2) degrees of freedom.
        """
        if np.isnan(self.error):
            return None
        from scipy.stats import t

        half = float(t.ppf((1 + confidence) / 2, self.points - 2)) * self.error
        return self.slope - half, self.slope + half

    def __str__(self) -> str:
        return slope_text([self.slope, self.error])

    def kept(self) -> dict[str, Any]:
        """For a summary."""
        return asdict(self)

    @classmethod
    def of(cls, entry: dict[str, Any]) -> PowerLaw:
        """From a summary, which has None for nan."""
        return cls(**entry | {"error": math.nan if entry["error"] is None else entry["error"]})


Slope = Sequence[Any]  # exponent and standard error, nan or None where there is none, as summaries have it


def slope_of(law: PowerLaw | None) -> Slope | None:
    """Return the exponent of a law, for a summary."""
    return None if law is None else [law.slope, law.error]


def slope_text(slope: Slope) -> str:
    """An exponent with its standard error."""
    exponent, error = slope
    return f"{exponent:.2f}" if error is None or math.isnan(error) else f"{exponent:.2f} ± {error:.2f}"


def power_law(widths: Sequence[float], values: Sequence[float]) -> PowerLaw | None:
    """Least squares of log(value) over log(width), all points alike; None with fewer than two widths.

    The standard error is that of linear regression, from the residuals of all points: with several networks of a width
    it has their spread in it, and the bend of what is no power law.
    """
    x, y = np.log(np.asarray(widths, dtype=float)), np.log(np.asarray(values, dtype=float))
    if len(set(widths)) < 2:
        return None
    centred = x - x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread
    intercept = float(y.mean() - slope * x.mean())
    residuals = y - intercept - slope * x
    # error^2 = (sum residuals^2 / (n - 2)) / sum (x - mean)^2
    error = float(np.sqrt(residuals @ residuals / (len(x) - 2) / spread)) if len(x) > 2 else float("nan")
    return PowerLaw(slope, error, float(np.exp(intercept)), len(x))
