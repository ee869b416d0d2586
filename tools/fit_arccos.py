"""Write csrc/math/arccos_coefficients.h: the polynomials of the angle and the arc-cosine kernel in pair_math.h.

With m = 1 - |cos t| in [0, 1] and s = sqrt(m), both functions of the angle t' = arccos(1 - m) are s times a function
that is analytic on [0, 1] (the nearest singularity is at m = 2, so each coefficient gains a factor of about 5.8):

    t'                       = s * P(m),        P(0) = sqrt(2)
    t' cos t' - sin t'       = m * s * R(m),    R(0) = -2 sqrt(2) / 3

Run ``python tools/fit_arccos.py > csrc/math/arccos_coefficients.h``; needs mpmath.
"""

from mpmath import acos, chebyfit, mp, mpf, nstr, polyval, sqrt

mp.dps = 50

# Each row is (type, literal suffix, terms of P, terms of R, digits). In float an error of 1e-7 in the angle is 1e-8 to
# 5e-8 of the kernel, a tenth of what the sums round; each term more is one multiply-add of some 27 of the activation.
# In double the error is half an ulp.
TYPES = [("float", "f", 7, 6, 10), ("double", "", 18, 18, 20)]


def angle(m):
    return acos(1 - m) / sqrt(m) if m > mpf(10) ** -30 else sqrt(mpf(2))


def kernel(m):
    if m < mpf(10) ** -12:  # the closed form cancels: two terms of the series are exact to 50 digits times m^2
        return -2 * sqrt(mpf(2)) / 3 * (1 - 3 * m / 20)
    t = acos(1 - m)
    return (t * (1 - m) - sqrt(m * (2 - m))) / (m * sqrt(m))


def fit(function, terms, low=0, high=1):
    """Return coefficients, lowest power first, and the largest relative error on a grid over [low, high]."""
    coefficients = chebyfit(function, [low, high], terms)
    grid = [low + (high - low) * mpf(n) / 400 for n in range(401)]
    worst = max(abs(polyval(coefficients, m) / function(m) - 1) for m in grid)
    return coefficients[::-1], worst


def main():
    print("// Made by tools/fit_arccos.py, which states what P and R are.  Do not edit.")
    print("#pragma once\n\nnamespace ntkfast {\n")
    print("template <class Real> struct ArccosCoefficients;")
    for name, suffix, terms_p, terms_r, digits in TYPES:
        print(f"\ntemplate <> struct ArccosCoefficients<{name}> {{")
        for label, function, terms in (("P", angle, terms_p), ("R", kernel, terms_r)):
            coefficients, worst = fit(function, terms)
            print(f"    // {label}: relative error {nstr(worst, 2)}")
            print(f"    {name} {label.lower()}[{terms}] = {{")
            for c in coefficients:
                print(f"        {nstr(c, digits)}{suffix},")
            print("    };")
        print("};")
    print("\n}  // namespace ntkfast")


if __name__ == "__main__":
    main()
