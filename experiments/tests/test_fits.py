"""Power laws."""

import numpy as np
import pytest

from experiments.fits import PowerLaw, power_law
from experiments.layout import kept


def test_power_law_is_found_exactly():
    widths = [16, 32, 64, 128]
    law = power_law(widths, [3.0 * w**-0.5 for w in widths])
    assert law.slope == pytest.approx(-0.5, abs=1e-12)
    assert law.level == pytest.approx(3.0, rel=1e-12)
    assert law.error == pytest.approx(0.0, abs=1e-12)
    assert law.at(1024) == pytest.approx(3 / 32, rel=1e-12)


def test_power_law_error_is_that_of_linear_regression():
    from scipy.stats import linregress

    rng = np.random.default_rng(0)
    widths = np.repeat([16, 32, 64, 128, 256], 4)
    values = 2.0 * widths**-1.5 * np.exp(0.1 * rng.standard_normal(20))
    want = linregress(np.log(widths), np.log(values))
    law = power_law(widths.tolist(), values.tolist())
    assert (law.slope, law.error) == pytest.approx((want.slope, want.stderr), rel=1e-10)
    assert abs(law.slope + 1.5) < 3 * law.error
    half = 2.1009 * law.error  # Student's quantile of 0.975 with 18 degrees of freedom
    assert law.interval() == pytest.approx((law.slope - half, law.slope + half), rel=1e-4)


def test_power_law_of_few_points():
    assert power_law([], []) is None
    assert power_law([16, 16], [1.0, 2.0]) is None
    law = power_law([16, 64], [1.0, 0.5])
    assert law.slope == pytest.approx(-0.5)
    assert str(law) == "-0.50"
    assert law.interval() is None


def test_power_law_comes_back_from_a_summary():
    for law in (PowerLaw(-0.5, 0.1, 2.0, 8), power_law([16, 64], [1.0, 0.5])):
        again = PowerLaw.of(kept(law.kept()))
        assert (str(again), again.points) == (str(law), law.points)
        assert again.at(64) == pytest.approx(law.at(64), rel=1e-6)
        assert (again.interval() is None) == (law.interval() is None)
