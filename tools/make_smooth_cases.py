"""Write tests/cpp/smooth_cases.h: exact values of the smooth activations on pixel pairs, to test the C++ against.

Each row is {S_ii, S_jj, E, E', Q', Q''} of one pair, from the covariance form in 60 digits:

    S_ij = (S_ii + S_jj)/2 - E,   E' = (Q(S_ii) + Q(S_jj))/2 - Q(S_ij),   Q' = dQ/dS_ij,   Q'' = dQ'/dS_ij

E is a float32 number between the half-distances of parallel and of opposite patches: both types see the same pair.
Before anything is written, Q and Q' are checked against two-dimensional quadrature of their definitions.

Run ``python tools/make_smooth_cases.py > tests/cpp/smooth_cases.h``; needs mpmath and NumPy.
"""

import math

import numpy as np
from mpmath import asin, cosh, diff, exp, mp, mpf, nstr, pi, sinh, sqrt

mp.dps = 60

PAIRS = [
    (0, 0), (0, 0.5), (0, 2000), (1e-6, 1e-6), (1e-6, 3e-6), (1e-6, 1e4), (1e-3, 1), (0.3, 0.3), (0.3, 0.3003), (2, 5),
    (40, 40), (100, 1e4), (1e4, 9e3), (1e4, 1e4),
]  # fmt: skip
ONE_MINUS_COSINES = [0, 1e-6, 1e-2, 0.3, 1, 2]


# Erf (Williams 1997):  Q = 2/pi asin(2 S_ij / sqrt((1 + 2 S_ii)(1 + 2 S_jj)))
def q_erf(a, b, s):
    return 2 / pi * asin(2 * s / sqrt((1 + 2 * a) * (1 + 2 * b)))


# GELU, with h = 1 + S_ii and D = sqrt(h_i h_j - S_ij^2):
#   Q = S_ij/4 + [D (1 - 1/h_i - 1/h_j) + 1/D + S_ij asin(S_ij/sqrt(h_i h_j))] / (2 pi)
def q_gelu(a, b, s):
    h, g = 1 + a, 1 + b
    root = sqrt(h * g - s * s)
    return s / 4 + (root * (1 - 1 / h - 1 / g) + 1 / root + s * asin(s / sqrt(h * g))) / (2 * pi)


# Gaussian, f(x) = exp(-x^2/2):  Q = 1/sqrt((1 + S_ii)(1 + S_jj) - S_ij^2)
def q_gaussian(a, b, s):
    return 1 / sqrt((1 + a) * (1 + b) - s * s)


# Sin and Cos:  Q = exp(-(S_ii + S_jj)/2) sinh(S_ij), cosh(S_ij)
def q_sin(a, b, s):
    return exp(-(a + b) / 2) * sinh(s)


def q_cos(a, b, s):
    return exp(-(a + b) / 2) * cosh(s)


def normal_distribution(x):
    return (1 + np.vectorize(math.erf)(x / np.sqrt(2))) / 2


def normal_density(x):
    return np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


# Each entry is Q and, for the check by quadrature, f and f'.
ACTIVATIONS = {
    "Erf": (q_erf, np.vectorize(math.erf), lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x)),
    "Gelu": (q_gelu, lambda x: x * normal_distribution(x), lambda x: normal_distribution(x) + x * normal_density(x)),
    "Sin": (q_sin, np.sin, np.cos),
    "Cos": (q_cos, np.cos, lambda x: -np.sin(x)),
    "Gaussian": (q_gaussian, lambda x: np.exp(-x * x / 2), lambda x: -x * np.exp(-x * x / 2)),
}


def expectation(f, a, b, s):
    """Return E[f(u) f(v)] for Gaussian (u, v) of variances a, b and covariance s, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    weights = weights / weights.sum()
    slope = s / np.sqrt(a)
    values = f(slope * nodes[:, None] + np.sqrt(b - slope**2) * nodes) @ weights
    return weights @ (f(np.sqrt(a) * nodes) * values)


def check_by_quadrature(q, f, derivative):
    a, b, s = 1.0, 0.4, 0.3
    assert abs(expectation(f, a, b, s) - q(mpf(a), mpf(b), mpf(s))) < 1e-12
    assert abs(expectation(derivative, a, b, s) - diff(lambda x: q(mpf(a), mpf(b), x), mpf(s))) < 1e-12


def half_distance(a, b, one_minus_cosine):
    """Return the float32 number nearest to the half-distance of this angle, among those that some angle has."""
    low, high = (sqrt(a) - sqrt(b)) ** 2 / 2, (sqrt(a) + sqrt(b)) ** 2 / 2
    e = np.float32(low + one_minus_cosine * sqrt(a * b))
    if mpf(float(e)) < low:
        e = np.nextafter(e, np.float32(np.inf))
    if mpf(float(e)) > high:
        e = np.nextafter(e, np.float32(0))
    return mpf(float(e)) if low <= mpf(float(e)) <= high else None


def literal(x, digits=17):
    return "0" if abs(x) < 1e-300 else nstr(x, digits)


def rows(q):
    for a, b in PAIRS:
        a, b = mpf(a), mpf(b)
        angles = ONE_MINUS_COSINES if a * b > 0 else [0]
        for e in (half_distance(a, b, c) for c in angles):
            if e is None:
                continue
            s = (a + b) / 2 - e
            distance = (q(a, a, a) + q(b, b, b)) / 2 - q(a, b, s)
            slopes = [diff(lambda x: q(a, b, x), s, n, h=mpf(10) ** -20) for n in (1, 2)]  # noqa: B023
            yield "{" + ", ".join([*map(literal, (a, b, e, distance, slopes[0])), literal(slopes[1], 3)]) + "},"


def main():
    print("// Made by tools/make_smooth_cases.py, which states what the columns are.  Do not edit.")
    print("// clang-format off")
    print("#pragma once\n\nstruct SmoothCase {\n    double s_i, s_j, e, distance, derivative, second;\n};")
    for name, (q, f, derivative) in ACTIVATIONS.items():
        check_by_quadrature(q, f, derivative)
        print(f"\nconstexpr SmoothCase cases_{name.lower()}[] = {{")
        for row in rows(q):
            print(f"    {row}")
        print("};")


if __name__ == "__main__":
    main()
