"""Write csrc/math/smooth_coefficients.h: the polynomials of arc tangent and exponential in smooth_activations.h.

    arc tangent   r - atan(r) = r^3 G(r^2),          0 <= r <= 1,             G(0) = 1/3
    exponential   exp(r) - 1  = r + r^2 H(r),        |r| <= ln(2)/2,          H(0) = 1/2

G is analytic up to r^2 = -1, so each coefficient gains a factor of about 5.8; H is entire.  Both stand behind a leading
term that is exact, so that their errors count at most 0.27 (in the arc tangent) and 0.17 times.

Run ``python tools/fit_smooth.py > csrc/math/smooth_coefficients.h``; needs mpmath.
"""

from fit_arccos import fit
from mpmath import atan, exp, log, mpf, nstr, sqrt

# Each row is (type, literal suffix, terms of G, terms of H, digits): the error that it leaves in the functions is below
# half an ulp.
TYPES = [("float", "f", 9, 5, 10), ("double", "", 20, 11, 20)]
HALF_LOG2 = log(2) / 2


def arc(m):
    if m < mpf(10) ** -12:  # the closed form cancels: the omitted term is m^3/9
        return mpf(1) / 3 - m / 5 + m * m / 7
    r = sqrt(m)
    return (r - atan(r)) / (m * r)


def exponential(r):
    if abs(r) < mpf(10) ** -12:
        return mpf(1) / 2 + r / 6 + r * r / 24
    return (exp(r) - 1 - r) / (r * r)


def main():
    print("// Made by tools/fit_smooth.py, which states what G and H are.  Do not edit.")
    print("// clang-format off")
    print("#pragma once\n\nnamespace ntkfast {\n")
    print("template <class Real> struct SmoothCoefficients;")
    for name, suffix, terms_g, terms_h, digits in TYPES:
        print(f"\ntemplate <> struct SmoothCoefficients<{name}> {{")
        fits = (("g", fit(arc, terms_g)), ("h", fit(exponential, terms_h, -HALF_LOG2, HALF_LOG2)))
        for label, (coefficients, worst) in fits:
            print(f"    // {label.upper()}: relative error {nstr(worst, 2)}")
            print(f"    {name} {label}[{len(coefficients)}] = {{")
            for c in coefficients:
                print(f"        {nstr(c, digits)}{suffix},")
            print("    };")
        print("};")
    print("\n}  // namespace ntkfast")


if __name__ == "__main__":
    main()
