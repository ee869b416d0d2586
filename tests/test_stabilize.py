"""Variance stabilisation is compared with sums over all counts with Gaussian quadrature, and with simulated data."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import roots_jacobi, roots_legendre

from ntkfast.restoration.stabilize import PoissonGaussian

RATIOS = [0.0, 1e-6, 0.1, 0.3, 0.61, 1.0, 2.0, 5.0, 12.0, 15.99, 16.0, 20.0]  # sigma / gain; the table ends at 16
MEANS = np.concatenate([np.geomspace(0.01, 1e4, 40), [255.9, 256.0, 256.1]])  # counts; the table ends at 256


def mean_root(m, s):
    """Return E[2 sqrt(max(0, m + s Z))], Z ~ N(0, 1): Gauss rules on [-12, 12], of weight sqrt where the root ends."""
    if s == 0:
        return 2 * np.sqrt(m)
    reach, out = 12.0, np.empty_like(m)
    cut = m < reach * s
    start = -m[cut] / s
    x, weights = roots_jacobi(100, 0, 0.5)
    half = (reach - start) / 2
    z = start[:, None] + half[:, None] * (x + 1)
    out[cut] = 2 * np.sqrt(s) * half**1.5 * (stats.norm.pdf(z) @ weights)
    x, weights = roots_legendre(100)
    z = reach * x
    out[~cut] = 2 * np.sqrt(m[~cut, None] + s * z) @ (weights * reach * stats.norm.pdf(z))
    return out


def law_of(mean):
    """Return all counts that matter and their probabilities."""
    spread = 12 * np.sqrt(mean) + 30
    k = np.arange(max(0, np.floor(mean - spread)), np.ceil(mean + spread))
    p = stats.poisson.pmf(k, mean)
    return k, p / p.sum()  # pmf rounds k log(mean) - mean - log k!, the same error for neighbours


def stabilized_mean(mean, s):
    """Return F, the mean of the stabilised data, by its definition; in counts."""
    k, p = law_of(mean)
    return p @ mean_root(k + 3 / 8 + s**2, s)


def stabilized_deviation(mean, s):
    """Return the standard deviation of the stabilised data; E[max(0, m + s Z)] has a closed form."""
    k, p = law_of(mean)
    m = k + 3 / 8 + s**2
    positive = m if s == 0 else m * stats.norm.cdf(m / s) + s * stats.norm.pdf(m / s)
    return np.sqrt(4 * (p @ positive) - stabilized_mean(mean, s) ** 2)


def simulate(noise, x, count, rng):
    return noise.gain * rng.poisson(x / noise.gain, count) + noise.sigma * rng.standard_normal(count)


def test_stabilize_is_the_formula():
    gain, sigma = 1.7, 2.3
    y = np.linspace(-10, 100, 50)
    wanted = 2 / gain * np.sqrt(np.maximum(0, gain * y + 3 / 8 * gain**2 + sigma**2))
    np.testing.assert_allclose(PoissonGaussian(gain, sigma).stabilize(y), wanted, rtol=1e-14, atol=0)
    np.testing.assert_allclose(PoissonGaussian(1.0).stabilize([0, 1, 7]), 2 * np.sqrt(np.array([0, 1, 7]) + 0.375))


def test_variance_is_the_sum_of_both():
    np.testing.assert_array_equal(PoissonGaussian(2.0, 3.0).variance([[0.0, 1.0], [50.0, 0.5]]), [[9, 11], [109, 10]])


@pytest.mark.parametrize("s", RATIOS)
def test_inverse_is_exact(s):
    for gain in (1.0, 0.013):
        x = PoissonGaussian(gain, s * gain).invert([stabilized_mean(mean, s) for mean in MEANS])
        np.testing.assert_allclose(x, gain * MEANS, rtol=1e-9, atol=0)


def test_inverse_is_exact_for_much_gaussian_noise():
    s = 100.0
    x = PoissonGaussian(1.0, s).invert([stabilized_mean(mean, s) for mean in MEANS])
    np.testing.assert_allclose(x, MEANS, rtol=1e-8, atol=0)


@pytest.mark.parametrize("s", [1e3, 1e5, 1e8])
def test_inverse_errs_by_rounding_alone_where_the_noise_is_gaussian(s):
    means = np.array([0.0, 1.0, 100.0])
    x = PoissonGaussian(1.0, s).invert([stabilized_mean(mean, s) for mean in means])
    np.testing.assert_allclose(x, means, rtol=0, atol=4e-15 * s**2)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_series_is_right_to_its_last_term(share):
    """The rest of the series falls with v^-6, v = lambda + s^2, and nearly no other power; for shares of s^2 in v."""

    def rest(v):
        mean, s = v * (1 - share), np.sqrt(v * share)
        return (PoissonGaussian._series(np.array(stabilized_mean(mean, s)), s) - mean) * v**6

    assert 0.9 <= rest(100.0) / rest(60.0) <= 1


@pytest.mark.parametrize(
    ("gain", "sigma", "x"), [(1.0, 0.0, 0.3), (0.1, 0.06, 0.05), (2.0, 3.0, 1.0), (0.5, 10.0, 40.0)]
)
def test_inverse_of_the_mean_of_simulated_data_is_the_signal(gain, sigma, x):
    noise = PoissonGaussian(gain, sigma)
    u = noise.stabilize(simulate(noise, x, 400_000, np.random.default_rng(0)))
    bound = 4 * u.std() / np.sqrt(u.size)
    low, high = noise.invert([u.mean() - bound, u.mean() + bound])
    assert low < x < high
    # The test sees the bias of the plain algebraic inverse.
    assert not low < gain * (u.mean() ** 2 / 4 - 3 / 8 - (sigma / gain) ** 2) < high


@pytest.mark.parametrize("gain", [1.0, 0.02])
@pytest.mark.parametrize("s", [0.0, 0.6, 1.5, 3.0])
def test_stabilized_data_have_deviation_one(gain, s):
    noise, rng, count = PoissonGaussian(gain, s * gain), np.random.default_rng(1), 200_000
    for mean in (4.0, 10.0, 50.0, 1000.0):
        deviation = noise.stabilize(simulate(noise, gain * mean, count, rng)).std()
        wanted = stabilized_deviation(mean, s)
        assert abs(deviation / wanted - 1) <= 5 / np.sqrt(2 * count)
        assert abs(wanted - 1) <= 0.04


@pytest.mark.parametrize("s", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_deviation_within_the_documented_bounds(s):
    for variance in np.geomspace(max(4.0, s**2 + 1e-9), 100.0, 12):
        assert abs(stabilized_deviation(variance - s**2, s) - 1) <= 0.1
    assert max(abs(stabilized_deviation(mean, s) - 1) for mean in (4.0, 5.0, 7.0, 15.0)) <= 0.04


@pytest.mark.parametrize("s", [*RATIOS, 100.0])
def test_inverse_increases(s):
    """The inverse increases also where the table ends, next to its nodes and below the smallest mean."""
    noise, floor, end = PoissonGaussian(1.0, s), stabilized_mean(0.0, s), stabilized_mean(256.0, s)
    u = np.concatenate([np.linspace(0, floor + 50, 20_001), end + np.linspace(-1, 1, 2001) * 1e-9])
    u = np.sort(u)
    x = noise.invert(u)
    assert (np.diff(x) >= 0).all()
    above = u > floor + 1e-6
    assert (x[above] > 0).all()
    assert (np.diff(x[above])[np.diff(u[above]) > 1e-5] > 0).all()
    np.testing.assert_array_equal(x[u < floor - 1e-6], 0)


@pytest.mark.parametrize("s", [0.0, 0.5, 3.0, 30.0])
def test_round_trip_tends_to_the_data(s):
    """f is nearly linear over the noise of many counts, so that F and f then agree: Y - 1/8 + 3/8 = lambda + 1/4."""
    noise, y = PoissonGaussian(0.5, 0.5 * s), np.array([1e5, 1e6, 1e9])
    np.testing.assert_allclose(noise.invert(noise.stabilize(y)), y + 0.25 * 0.5, rtol=4e-16, atol=(s**2 + 1) * 1e-5)


@pytest.mark.parametrize("s", [0.0, 0.7, 3.0, 40.0])
def test_edges(s):
    noise = PoissonGaussian(2.0, 2.0 * s)
    np.testing.assert_array_equal(noise.stabilize([-1e9, -2.0 * (s**2 + 1)]), 0)
    np.testing.assert_array_equal(noise.invert([-1e300, -1.0, 0.0]), 0)
    np.testing.assert_allclose(noise.invert(stabilized_mean(0.0, s)), 0, rtol=0, atol=1e-10)
    np.testing.assert_allclose(noise.invert(noise.stabilize(1e300)), 1e300, rtol=1e-15)
    assert noise.variance(0.0) == (2.0 * s) ** 2


@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (2, 3, 4, 1)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint16, np.int8, np.bool_])
def test_any_shape_and_type(shape, dtype):
    noise, data = PoissonGaussian(0.7, 0.4), np.full(shape, 1, dtype)
    for function in (noise.stabilize, noise.invert, noise.variance):
        result = function(data)
        assert isinstance(result, np.ndarray)
        assert (result.shape, result.dtype) == (shape, np.float64)
        np.testing.assert_array_equal(result, np.full(shape, function(1.0)))


def test_layout_does_not_matter():
    noise, u = PoissonGaussian(0.7, 0.4), np.linspace(0, 50, 24).reshape(4, 6)
    np.testing.assert_array_equal(noise.invert(u.T), noise.invert(u).T)
    np.testing.assert_array_equal(noise.invert(u[::-2, ::3]), noise.invert(u)[::-2, ::3])


def test_arguments_are_left_as_they_are():
    noise, data = PoissonGaussian(0.7, 0.4), np.linspace(0, 50, 7)
    kept = data.copy()
    for function in (noise.stabilize, noise.invert, noise.variance):
        function(data)
    np.testing.assert_array_equal(data, kept)


def test_is_a_value():
    assert PoissonGaussian(2) == PoissonGaussian(2.0, 0.0)
    assert isinstance(PoissonGaussian(2).gain, float)
    assert len({PoissonGaussian(1.0, 0.5), PoissonGaussian(1.0, 0.5), PoissonGaussian(1.0)}) == 2
    with pytest.raises(AttributeError):
        PoissonGaussian(1.0).gain = 2.0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0.0,), ValueError, "gain must be > 0"),
        ((-1.0,), ValueError, "gain must be > 0"),
        ((np.inf,), ValueError, "gain must be finite"),
        ((np.nan,), ValueError, "gain must be finite"),
        ((1e-200,), ValueError, "gain must be > 0, from 1e-100"),
        (("1",), TypeError, "gain must be a real number"),
        ((1.0, -1e-9), ValueError, "sigma must lie between 0 and"),
        ((1.0, 1e9), ValueError, "sigma must lie between 0 and"),
        ((1.0, np.nan), ValueError, "sigma must be finite"),
        ((1.0, None), TypeError, "sigma must be a real number"),
    ],
)
def test_parameters_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        PoissonGaussian(*arguments)


@pytest.mark.parametrize(("method", "name"), [("stabilize", "y"), ("invert", "u"), ("variance", "x")])
def test_arrays_refused(method, name):
    function = getattr(PoissonGaussian(1e-3, 1.0), method)
    for bad, error, message in [
        ([1.0, np.nan], ValueError, "must be finite"),
        ([], ValueError, "must not be empty"),
        ([1j], TypeError, "must be a real numeric array"),
    ]:
        with pytest.raises(error, match=f"^{name} {message}"):
            function(bad)


def test_overflow_is_refused():
    with pytest.raises(ValueError, match=r"^y is so large"):
        PoissonGaussian(1e-3).stabilize(1e308)
    with pytest.raises(ValueError, match=r"^u is so large"):
        PoissonGaussian(1.0, 1.0).invert([1.0, 1e200])
    with pytest.raises(ValueError, match=r"^x is so large"):
        PoissonGaussian(1e3).variance(1e308)
    with pytest.raises(ValueError, match=r"^x must be >= 0"):
        PoissonGaussian(1.0, 5.0).variance([1.0, -0.1])


def test_table_is_made_once(monkeypatch):
    from ntkfast.restoration import stabilize

    calls = []
    real = stabilize._conditional_means
    monkeypatch.setattr(stabilize, "_conditional_means", lambda *args: calls.append(args) or real(*args))
    for gain in (1.0, 2.0):  # the table is in counts
        PoissonGaussian(gain, 0.4321 * gain).invert(5.0)
        PoissonGaussian(gain, 0.4321 * gain).invert(6.0)
    assert len(calls) == 1


def test_table_is_made_in_time():
    from ntkfast.restoration import stabilize

    def seconds(s):
        start = time.perf_counter()
        stabilize._table(s)
        return time.perf_counter() - start

    assert min(seconds(0.777 + n) for n in range(5)) < 0.05


@given(
    gain=st.floats(1e-6, 1e6),
    s=st.floats(0, 20),
    mean=st.floats(0.01, 1000),
)
def test_inverse_of_any_mean(gain, s, mean):
    x = PoissonGaussian(gain, s * gain).invert(stabilized_mean(mean, s))
    assert abs(x - gain * mean) <= 2e-9 * gain * mean


@given(gain=st.floats(1e-6, 1e6), s=st.floats(0, 1e4), counts=st.lists(st.floats(-1e3, 1e9), min_size=2, max_size=20))
def test_order_is_kept(gain, s, counts):
    noise, y = PoissonGaussian(gain, s * gain), gain * np.sort(counts)
    u = noise.stabilize(y)
    assert (u >= 0).all()
    assert (np.diff(u) >= 0).all()
    x = noise.invert(u)
    assert (x >= 0).all()
    assert (np.diff(x) >= -1e-14 * gain * s**2).all()
