"""Noise that grows with the signal, y = gain * Poisson(x / gain) + N(0, sigma^2), made into noise of level 1 and back.

In counts of ``gain``, with lambda = x / gain and s = sigma / gain, the data are Y = K + s Z, K ~ Poisson(lambda) and
Z ~ N(0, 1).  Their generalised Anscombe transform is

    f(Y) = 2 sqrt(max(0, Y + 3/8 + s^2)),        F(lambda) = E[f(Y)]

A denoiser of f(Y) estimates F(lambda), and not f(lambda), since f is concave: the way back is the inverse of F.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.interpolate import CubicHermiteSpline
from scipy.special import gammaln

from .. import _check
from .noise_model import NoiseModel

__all__ = ["PoissonGaussian"]

ANSCOMBE = 3 / 8

# The series in 1/(lambda + s^2) takes over from the table here, where its first omitted term is 1e-11 counts.
SERIES_FROM = 256.0

# Intervals of the table: between its nodes the inverse then errs by less than 1e-10 of its value.
TABLE_INTERVALS = 1000

# Ten standard deviations and a margin for small means: what is left out of a Poisson law is below 1e-20.
POISSON_DEVIATIONS, POISSON_MARGIN = 10.0, 25.0

# Beyond this many standard deviations lies less than 1e-18 of a normal law.  Nodes of the trapezoidal rule.
NORMAL_DEVIATIONS, NORMAL_NODES = 9.0, 64

# The squares of both parameters stay far from the ends of float64.
SMALLEST_GAIN, LARGEST_GAIN = 1e-100, 1e100

# This bounds sigma / gain.  The stabilised values are near twice this, and their rounding, 1e-8, is still far below
# their noise.
LARGEST_RATIO = 1e8

# A sigma / gain below this is none: it changes the mean of a stabilised value by less than s^2.
NEGLIGIBLE_RATIO = 1e-9

# d_n(tau), n = 0 to 5, ascending powers of tau: see PoissonGaussian._series.
SERIES = (
    (-1 / 8,),
    (0.0, 1 / 8),
    (1 / 64, 25 / 64),
    (49 / 1024, 91 / 64, 3 / 8),
    (175 / 1024, 1641 / 256, 1375 / 256),
    (6161 / 8192, 143253 / 4096, 486473 / 8192, 735 / 128),
)


@dataclass(frozen=True, eq=False, init=False, repr=False)
class PoissonGaussian(NoiseModel):
    """Noise y = gain * Poisson(x / gain) + N(0, sigma^2) of a camera or another counter, and its stabilisation.

    Parameters
    ----------
    gain : float
        Value of one count, in the image's units, > 0 (1e-100 to 1e100).
    sigma : float
        Standard deviation of the Gaussian part, in the image's units, from 0 to 1e8 gain.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a real number or out of range; the message names it.

    Notes
    -----
    An offset of the camera is subtracted first: the data have the mean x.

    For x >= gain/100 the inverse is exact up to a relative error of 1e-9 if sigma <= 20 gain, 1e-8 if sigma <= 100 gain
    (measured; docs/math.md).  Beyond, the error is that of rounding: some 1e-15 sigma/gain standard deviations of the
    noise.

    References
    ----------
    F. J. Anscombe. The transformation of Poisson, binomial and negative-binomial data. Biometrika 35, 1948.
    J.-L. Starck, F. Murtagh, A. Bijaoui. Image processing and data analysis. Cambridge University Press, 1998.
    M. Makitalo, A. Foi. Optimal inversion of the Anscombe transformation in low-count Poisson image denoising. IEEE
    Trans. Image Process. 20, 2011; and of the generalized one, 22, 2013.

    Examples
    --------
    >>> noise = nf.PoissonGaussian(gain=2.0, sigma=3.0)
    >>> noise
    PoissonGaussian(gain=2.0, sigma=3.0)
    >>> noise.variance(50.0)
    array(109.)
    >>> bool(noise.invert(noise.stabilize(50.0)) > 50.0)  # stabilize(50) is above the mean of stabilize(y)
    True
    >>> counts = np.random.default_rng(0).poisson(20, (24, 24))
    >>> bool(nf.denoise_ntk(counts, noise=nf.PoissonGaussian(1)).std() < counts.std() / 2)
    True
    """

    gain: float

    def __init__(self, gain: float, sigma: float = 0.0) -> None:
        gain, sigma = _check.real("gain", gain), _check.real("sigma", sigma)
        if not SMALLEST_GAIN <= gain <= LARGEST_GAIN:
            raise ValueError(f"gain must be > 0, from {SMALLEST_GAIN:g} to {LARGEST_GAIN:g}, got {gain!r}")
        if not 0 <= sigma <= LARGEST_RATIO * gain:
            raise ValueError(f"sigma must lie between 0 and {LARGEST_RATIO:g} * gain, got {sigma!r} for gain {gain!r}")
        object.__setattr__(self, "gain", gain)
        object.__setattr__(self, "sigma", sigma)
        object.__setattr__(self, "estimated", False)

    def __repr__(self) -> str:
        return f"PoissonGaussian(gain={self.gain!r}, sigma={self.sigma!r})"

    def variance(self, x: Any) -> np.ndarray:
        """Variance of y where its mean is x: gain x + sigma^2.

        Parameters
        ----------
        x : array_like of any shape, real, >= 0

        Returns
        -------
        ndarray of float64, shape of x
            In squared units of the image.

        Raises
        ------
        TypeError, ValueError
            If x is not a finite real array, is empty, has a negative value, or is too large for float64.

        Examples
        --------
        >>> nf.PoissonGaussian(gain=2.0, sigma=1.0).variance([0.0, 10.0])
        array([ 1., 21.])
        """
        mean = _check.real_array("x", x).astype(np.float64)
        if mean.min() < 0:
            raise ValueError(f"x must be >= 0, being the mean of counts, got {mean.min():g}")
        with np.errstate(over="ignore"):
            return _finite("x", self.gain * mean + self.sigma**2)

    def stabilize(self, y: Any) -> np.ndarray:
        """The generalised Anscombe transform, 2/gain sqrt(max(0, gain y + 3/8 gain^2 + sigma^2)).

        Parameters
        ----------
        y : array_like of any shape, real
            Noisy data; negative values too, which the Gaussian part makes.

        Returns
        -------
        ndarray of float64, shape of y
            Data with noise of a standard deviation near 1: within 4 per cent where x > 4 gain, within 10 per cent
            where gain x + sigma^2 > 4 gain^2, down to 0 where there are neither counts nor Gaussian noise.

        Raises
        ------
        TypeError, ValueError
            If y is not a finite real array, is empty, or is too large for float64.

        Examples
        --------
        >>> counts = np.random.default_rng(0).poisson([[10], [1000]], (2, 5000))
        >>> nf.PoissonGaussian(1).stabilize(counts).std(axis=1).round(1)
        array([1., 1.])
        """
        # In units of gain, so that the squares of a small gain do not vanish.
        data = _check.real_array("y", y).astype(np.float64)
        with np.errstate(over="ignore"):
            root = np.sqrt(np.maximum(0.0, data / self.gain + (ANSCOMBE + (self.sigma / self.gain) ** 2)))
        return _finite("y", 2.0 * root)

    def invert(self, u: Any) -> np.ndarray:
        """The exact unbiased inverse: the x >= 0 at which the mean of :meth:`stabilize` of the data is u.

        Parameters
        ----------
        u : array_like of any shape, real
            Estimates of the means of stabilised data, such as a denoiser gives.

        Returns
        -------
        ndarray of float64, shape of u
            In the image's units, increasing with u; 0 where u is below all such means.

        Raises
        ------
        TypeError, ValueError
            If u is not a finite real array, is empty, or is too large for float64.

        Examples
        --------
        >>> noise = nf.PoissonGaussian(1)
        >>> counts = np.random.default_rng(0).poisson(3.0, 100000)
        >>> print(f"{noise.invert(noise.stabilize(counts).mean()):.1f}")
        3.0
        """
        means = _check.real_array("u", u).astype(np.float64)
        ratio = self.sigma / self.gain
        with np.errstate(over="ignore"):
            counts = self._series(means, ratio)
        if ratio**2 < SERIES_FROM:
            table = _table(ratio)
            first, last = table.x[0], table.x[-1]
            # The parts meet to 1e-11 counts; the bounds keep even that from breaking the order.
            low = np.minimum(table(np.clip(means, first, last)), SERIES_FROM)
            counts = np.where(means < last, low, np.maximum(counts, SERIES_FROM))
        with np.errstate(over="ignore"):
            return _finite("u", self.gain * np.maximum(0.0, counts))

    @staticmethod
    def _series(u: np.ndarray, s: float) -> np.ndarray:
        """The inverse of F in powers of 1/q, where q = u^2/4 and tau = s^2/q:

            lambda = q - s^2 + sum_n d_n(tau) / q^n

        From F, the expansion of the root about v = lambda + s^2 and the moments of Y, whose cumulants are v and, from
        the third on, lambda; solved for lambda, order by order.
        """
        # A mean is at least F(0) > 2 s; what is below (with s = 0, below the table) only has to stay small.
        q = np.maximum(u, 2.0 * max(s, 1.0)) ** 2 / 4
        tau = s**2 / q
        rest = np.zeros_like(q)
        for d in reversed(SERIES):
            rest = rest / q + np.polynomial.polynomial.polyval(tau, d)
        return np.asarray(q - s**2 + rest)


def _finite(name: str, result: np.ndarray) -> np.ndarray:
    """``result`` as an array, or an error naming the argument that made it overflow."""
    if not np.isfinite(result).all():
        raise ValueError(f"{name} is so large that the result exceeds float64")
    return np.asarray(result)


def _conditional_means(s: float, largest: int) -> np.ndarray:
    """g(k) = E[f(k + s Z)], k = 0 to ``largest``.

    With m = k + 3/8 + s^2 and the root w = sqrt(m + s z) as the variable, phi the normal density,

        g(k) = 2 int_0^oo w phi((w^2 - m) / s) (2 w / s) dw

    The integrand is even and analytic in w, so that the trapezoidal rule converges exponentially, to 1e-14.  As a
    function of z the root has a branch point, at z = -m/s <= -1.2, and a Gauss-Hermite rule of 64 nodes was measured to
    err by 4e-3 (s = 1), 1e-4 (s = 2), 6e-9 (s = 5).
    """
    m = np.arange(largest + 1) + (ANSCOMBE + s**2)
    if s < NEGLIGIBLE_RATIO:
        return np.asarray(2.0 * np.sqrt(m))
    centre, reach = np.sqrt(m), NORMAL_DEVIATIONS * s
    # delta = w - sqrt(m), without the cancellation of that difference where s is small.
    below = -np.minimum(reach, m) / (centre + np.sqrt(np.maximum(0.0, m - reach)))
    above = reach / (centre + np.sqrt(m + reach))
    step = (above - below) / (NORMAL_NODES - 1)
    delta = below[:, None] + step[:, None] * np.arange(NORMAL_NODES)
    w = centre[:, None] + delta
    z = delta * (w + centre[:, None]) / s
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return np.asarray(np.sum(4.0 * w**2 * density, axis=1) * (step / s))


@lru_cache(maxsize=16)
def _table(s: float) -> CubicHermiteSpline:
    """lambda as a function of F(lambda), for 0 <= lambda <= SERIES_FROM.

        F(lambda)  = sum_k  g(k)            e^-lambda lambda^k / k!
        F'(lambda) = sum_k (g(k+1) - g(k))  e^-lambda lambda^k / k!

    F increases since g does.  The nodes are even in sqrt(lambda), as F is nearly linear in it.
    """
    last = math.ceil(SERIES_FROM + POISSON_DEVIATIONS * math.sqrt(SERIES_FROM) + POISSON_MARGIN)
    g = _conditional_means(s, last + 1)
    k = np.arange(last + 1)
    rate = SERIES_FROM * (np.arange(TABLE_INTERVALS + 1) / TABLE_INTERVALS) ** 2
    law = np.zeros((len(rate), len(k)))
    law[0, 0] = 1.0  # lambda = 0
    np.exp(np.log(rate[1:, None]) * k - rate[1:, None] - gammaln(k + 1.0), out=law[1:])
    mean, slope = (law @ np.stack([g[:-1], np.diff(g)], axis=1)).T
    return CubicHermiteSpline(mean, rate, 1.0 / slope)
