// These are the scalar maps of one pixel pair (i, j) for the activations that are not homogeneous: Erf, GELU, Gaussian,
// Sin and Cos.
//
// The state of a pair is as in pair_math.h: E(i,j) = (S(i,i) + S(j,j))/2 - S(i,j) and sum T'.  Here S is in true units,
// S = unit * (the engine's S), since these activations change with the size of their argument.
//
//   Q(i,j) = E[f(u) f(v)],  Q'(i,j) = E[f'(u) f'(v)]    for Gaussian (u, v) with the covariance S of i and j
//   E'(i,j) = (Q(i,i) + Q(j,j))/2 - Q(i,j)
//   T'(i,j) = Q'(i,j) (trained*S(i,j) + sum T')
//
// In each form below the terms are of the size of E' (GELU: of the part of E' that is due to E/4), so that nothing
// cancels where two patches are alike.  Erf, GELU and Gaussian share the lengths and angles of the features (1, u) and
// (1, v):
//
//   alpha = sqrt(1 + c S(i,i)),  c = 4 for Erf, 2 for GELU and Gaussian
//   d = alpha_i - alpha_j,  s = (alpha_i + alpha_j)/2
//   W = (c/2) E - d^2/4,  Z = alpha_i alpha_j - 1 - W,  D = sqrt(s^2 + W Z),  delta = atan(W/(D + s))
//
// With cos psi = S(i,j)/sqrt(h_i h_j), h = (alpha^2 + 1)/2 (for Erf S and h doubled) and beta the mean of the two
// angles psi(i,i) and psi(j,j):
//
//   psi - beta = 2 delta,  D = sqrt(h_i h_j) sin psi,  s = sqrt(h_i h_j) sin beta,
//   W = sqrt(h_i h_j) (cos beta - cos psi),  Z = sqrt(h_i h_j) (cos beta + cos psi)
//
// D^2 >= (alpha_i^2 + alpha_j^2)/2 by Cauchy-Schwarz, and W >= 0.  Neither angle comes near 0: unlike in the ReLU there
// is no square root of a rounding error.
//
// docs/math.md has the accuracy and the range.  In float32, S must stay below 1e12.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "math/pair_math.h"
#include "math/smooth_coefficients.h"

namespace ntkfast {

// --- Functions without libm, so that loops are vectorised and host and device agree ----------------------------------

// Computes a*b + c in one rounding where the machine can. It is written out where the result depends on it: left to the
// compiler, the other product of an expression may be the fused one.
NTKFAST_HD float fused(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__CUDA_ARCH__)
    return std::fma(a, b, c);
#else
    return a * b + c;
#endif
}
NTKFAST_HD double fused(double a, double b, double c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__CUDA_ARCH__)
    return std::fma(a, b, c);
#else
    return a * b + c;
#endif
}

// An Arctangent holds atan(x) and x - atan(x), for x >= 0.
template <class Real> struct Arctangent {
    Real angle, excess;
};

// Takes x = above/below, with below > 0: atan(x) = pi/2 - atan(1/x) beyond x = 1, and r - atan(r) = r^3 G(r^2) up to
// there.  The relative errors are 1.5 ulps of the angle and 4 of the excess.
template <class Real> NTKFAST_HD Arctangent<Real> arctangent(Real above, Real below) {
    constexpr SmoothCoefficients<Real> c;  // a local variable: device code cannot refer to a static array of the host
    const bool steep = above > below;
    const Real r = (steep ? below : above) / (steep ? above : below);
    const Real m = r * r;
    const Real excess = r * (m * polynomial(c.g, m));
    const Real angle = steep ? Real(1.57079632679489661923) - (r - excess) : r - excess;
    return {angle, steep ? above / below - angle : excess};
}

template <class Real> struct FloatFormat;
template <> struct FloatFormat<float> {
    using Bits = std::uint32_t;
    static constexpr Bits fraction_bits = 23, bias = 127;
    static constexpr float rounder = 0x1.8p23f;  // x + rounder - rounder is x rounded to an integer
    static constexpr float log2_high = 0x1.63p-1f, log2_low = -2.12194440e-4f;
    static constexpr float most = 87;  // exp(-most) is still a normal number
};
template <> struct FloatFormat<double> {
    using Bits = std::uint64_t;
    static constexpr Bits fraction_bits = 52, bias = 1023;
    static constexpr double rounder = 0x1.8p52;
    static constexpr double log2_high = 0x1.62e4p-1, log2_low = 1.42860682030941723212e-6;
    static constexpr double most = 708;
};

// A Decay holds exp(-x) and 1 - exp(-x), for x >= 0.
template <class Real> struct Decay {
    Real left, lost;
};

// Computes -x = n ln 2 + r,  exp(-x) = 2^n + 2^n (r + r^2 H(r)).  The relative errors of both are 1.5 ulps (3 u).
template <class Real> NTKFAST_HD Decay<Real> decay(Real x) {
    using F = FloatFormat<Real>;
    constexpr SmoothCoefficients<Real> c;
    x = x > F::most ? F::most : x;
    const Real shifted = F::rounder - x * Real(1.44269504088896340736);
    const Real n = shifted - F::rounder;
    // log2_high has so few digits that n log2_high is exact.
    const Real r = (-x - n * F::log2_high) - n * F::log2_low;
    // The low bits of `shifted` hold n; the others leave the word.
    typename F::Bits bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + F::bias) << F::fraction_bits;
    Real power;
    std::memcpy(&power, &bits, sizeof power);
    const Real rest = power * (r + (r * r) * polynomial(c.h, r));
    return {power + rest, (1 - power) - rest};
}

// --- What the activations share --------------------------------------------------------------------------------------

// SmoothUnits lead from the engine's numbers to true ones and back.
struct SmoothUnits {
    double in;       // S = in * (the engine's S); a power of 4, so that nothing is rounded
    int out;         // E' = 2^out * (the engine's E')
    double tangent;  // leads from the units of T to those of T'
};

// These are the constants of one activation: its units, and the scale c = w/k^2 of the convolution that follows, folded
// in.
template <class Real> struct SmoothConstants {
    Real unit;        // SmoothUnits::in
    Real distance;    // c E' in the engine's units = distance * (the bracket of E')
    Real derivative;  // c Q' = derivative * (the bracket of Q')
    Real covariance;  // leads from S to what it counts in T; 0 where the convolution before is not trained

    // `factor` is what stands before the brackets of E' and Q', `trained` what the engine's S counts in its T.
    static SmoothConstants make(double factor, const SmoothUnits& units, double scale, double trained) {
        return {Real(units.in), Real(std::ldexp(scale * factor, -units.out)), Real(scale * factor * units.tangent),
                Real(trained / units.in)};
    }
};

// Makes the numbers of one pixel with p = alpha - 1 = c S/(1 + alpha), exact relative to a small S, and what its
// rounding left over.
template <class Real> inline Root<double> alpha_number(double alpha, double c_S, double second) {
    const double p = c_S / (1 + alpha);
    return {p, second, p - double(Real(p))};
}

// An AlphaPair holds the numbers of a pair that the first formulas above name.
template <class Real> struct AlphaPair {
    Real product, d, s, w, z, root;  // alpha_i alpha_j, d, s, W, Z, D
    Real lost;                       // lost by the rounding of d
};

// half_c_e is (c/2) E.
//
// W and Z are small differences of large numbers where patches of large S are parallel and opposite.  So d carries the
// rounding of its subtraction and of p (`lost`), squares and products are subtracted before they are rounded, and Z is
// not taken from the rounded W:
//   W = (c/2) E - (d/2)^2,   Z = p_i p_j - (c/2) E + (p_i + p_j) + (d/2)^2
template <class Real>
NTKFAST_HD AlphaPair<Real> alpha_pair(Real half_c_e, const Root<Real>& i, const Root<Real>& j) {
    const Real d = i.p - j.p, back = d - i.p;
    const Real lost = (i.p - (d - back)) - (j.p + back) + (i.rest - j.rest);
    const Real half = Real(0.5) * d;
    const Real w = fused(-half, lost, fused(-half, half, half_c_e));
    const Real z_rest = fused(i.rest, 1 + j.p, fused(j.rest, 1 + i.p, half * lost));

    AlphaPair<Real> out;
    out.product = i.p * j.p + (i.p + j.p) + 1;
    out.d = d + lost;
    out.lost = lost;
    out.s = 1 + Real(0.5) * (i.p + j.p);
    out.w = w > 0 ? w : Real(0);
    out.z = fused(half, half, fused(i.p, j.p, -half_c_e) + (i.p + j.p)) + z_rest;
    const Real least = out.product + half * d;  // (alpha_i^2 + alpha_j^2)/2
    const Real square = out.s * out.s + out.w * out.z;
    out.root = std::sqrt(square > least ? square : least);
    return out;
}

// --- Erf: f(x) = erf(x) ----------------------------------------------------------------------------------------------
//
// The closed form is that of Williams 1997:
//   Q  = (2/pi) asin(2 S_ij / sqrt((1 + 2 S_ii)(1 + 2 S_jj))) = (2/pi) (pi/2 - psi)
//   Q' = (4/pi) / sqrt((1 + 2 S_ii)(1 + 2 S_jj) - 4 S_ij^2)  = (4/pi) / D
//   E' = (2/pi) (psi - beta) = (4/pi) delta
//   S_ij = (Z - W)/4
template <class Real> struct ErfActivation {
    using Constants = SmoothConstants<Real>;

    static Constants make(const SmoothUnits& units, double scale, double trained) {
        return Constants::make(4 / 3.14159265358979323846, units, scale, trained);
    }

    // Gives p = alpha - 1; `inverse` is not used.
    static Root<double> diagonal(double S) { return alpha_number<Real>(std::sqrt(1 + 4 * S), 4 * S, 0); }

    static double gain_q(double S) { return 2 / 3.14159265358979323846 * std::atan2(2 * S, std::sqrt(1 + 4 * S)); }
    static double gain_dq(double S) { return 4 / 3.14159265358979323846 / std::sqrt(1 + 4 * S); }

    template <bool with_tangent>
    NTKFAST_HD Pair<Real> apply(Real e, Real t, const Root<Real>& i, const Root<Real>& j, const Constants& k) {
        const AlphaPair<Real> a = alpha_pair(2 * (k.unit * e), i, j);
        Pair<Real> out;
        out.e = k.distance * arctangent(a.w, a.root + a.s).angle;
        const Real covariance = Real(0.25) * (a.z - a.w);
        out.t = with_tangent ? k.derivative / a.root * (k.covariance * covariance + t) : Real(0);
        return out;
    }
};

// --- GELU: f(x) = x Phi(x), Phi the normal distribution function -----------------------------------------------------
//
// Two integrations by parts give (docs/math.md; also Tsuchida et al. 2021), with h = 1 + S_ii:
//   Q  = S_ij/4 + [D (1 - 1/h_i - 1/h_j) + 1/D + S_ij (pi/2 - psi)] / (2 pi)
//   Q' = 1/4 + [(pi/2 - psi) + S_ij/D (1/h_i + 1/h_j + 1/D^2)] / (2 pi)
// With theta = pi/2 - psi(i,i) = atan(S_ii/alpha), mean = (theta_i + theta_j)/2 and Delta = D - s = Z tan(delta):
//   2 pi E' = (pi/2) E + W (mean - delta) - Z (tan(delta) - delta)
//           + d^2 (mean/4 + s/(2 h_i h_j) + 1/(4 alpha_i alpha_j D)) + (d s/2) atan(d/(1 + alpha_i alpha_j))
//           + Delta (1/h_i + 1/h_j + s/(alpha_i alpha_j D))
//   S_ij = (Z - W)/2,   4 h_i h_j = (1 + alpha_i alpha_j)^2 + d^2,   h_i + h_j = 1 + s^2 + d^2/4
template <class Real> struct GeluActivation {
    using Constants = SmoothConstants<Real>;

    static Constants make(const SmoothUnits& units, double scale, double trained) {
        return Constants::make(1 / (2 * 3.14159265358979323846), units, scale, trained);
    }

    // Gives p = alpha - 1 and inverse = theta.
    static Root<double> diagonal(double S) {
        const double alpha = std::sqrt(1 + 2 * S);
        return alpha_number<Real>(alpha, 2 * S, std::atan2(S, alpha));
    }

    static double gain_q(double S) {
        const double alpha = std::sqrt(1 + 2 * S);
        const double bracket = 2 * S / (alpha * (1 + S)) + std::atan2(S, alpha);
        return S * (0.25 + bracket / (2 * 3.14159265358979323846));
    }
    static double gain_dq(double S) {
        const double alpha = std::sqrt(1 + 2 * S);
        const double bracket = std::atan2(S, alpha) + S / alpha * (2 / (1 + S) + 1 / (alpha * alpha));
        return 0.25 + bracket / (2 * 3.14159265358979323846);
    }

    template <bool with_tangent>
    NTKFAST_HD Pair<Real> apply(Real e, Real t, const Root<Real>& i, const Root<Real>& j, const Constants& k) {
        const Real half_pi = Real(1.57079632679489661923);
        const Real distance = k.unit * e;
        const AlphaPair<Real> a = alpha_pair(distance, i, j);
        const Real mean = Real(0.5) * (i.inverse + j.inverse);
        const Arctangent<Real> turn = arctangent(a.w, a.root + a.s);

        const Real next = 1 + a.product, size = a.d < 0 ? -a.d : a.d, d2 = a.d * a.d;
        const Real lengths = 1 / (Real(0.25) * (next * next + d2));             // 1/(h_i h_j)
        const Real inverses = (1 + a.s * a.s + Real(0.25) * d2) * lengths;      // 1/h_i + 1/h_j
        const Real inverse_root = 1 / a.root, weak = inverse_root / a.product;  // 1/D, 1/(alpha_i alpha_j D)
        const Real angular = a.w * (mean - turn.angle) - a.z * turn.excess;
        const Real unequal = d2 * (Real(0.25) * (mean + weak) + Real(0.5) * (a.s * lengths)) +
                             Real(0.5) * (size * a.s) * arctangent(size, next).angle;
        const Real small = a.z * (turn.excess + turn.angle) * (inverses + a.s * weak);

        Pair<Real> out;
        out.e = k.distance * (half_pi * distance + ((angular + unequal) + small));
        const Real covariance = Real(0.5) * (a.z - a.w);
        const Real bend = covariance * inverse_root * (inverses + inverse_root * inverse_root);
        const Real derivative = k.derivative * (half_pi + ((mean - 2 * turn.angle) + bend));
        out.t = with_tangent ? derivative * (k.covariance * covariance + t) : Real(0);
        return out;
    }
};

// --- Gaussian: f(x) = exp(-x^2/2) ------------------------------------------------------------------------------------
//
// E[exp(-(u^2 + v^2)/2)] = det(1 + S)^(-1/2) over the 2 x 2 matrix S, and f'(x) = -x f(x), with Q' = dQ/dS_ij:
//   Q  = 1/D,  Q' = S_ij/D^3,  Q(i,i) = 1/alpha_i
//   E' = (1/alpha_i + 1/alpha_j)/2 - 1/D = (s D - alpha_i alpha_j)/(alpha_i alpha_j D)
//      = (s (D - s) + d^2/4)/(alpha_i alpha_j D),   D - s = W Z/(D + s)
//   S_ij = (Z - W)/2
// f is even: E' is 0 for opposite patches too, where Z is.  The larger of W and Z (`far`) is taken from the smaller
// (`near`) and their sum: an error of W then moves E' by as much as Q' says, and by nothing where S_ij is 0.
template <class Real> struct GaussianActivation {
    using Constants = SmoothConstants<Real>;

    static Constants make(const SmoothUnits& units, double scale, double trained) {
        return Constants::make(1, units, scale, trained);
    }

    // Gives p = alpha - 1; `inverse` is not used.
    static Root<double> diagonal(double S) { return alpha_number<Real>(std::sqrt(1 + 2 * S), 2 * S, 0); }

    static double gain_q(double S) { return 1 / std::sqrt(1 + 2 * S); }
    static double gain_dq(double S) { return S / ((1 + 2 * S) * std::sqrt(1 + 2 * S)); }

    template <bool with_tangent>
    NTKFAST_HD Pair<Real> apply(Real e, Real t, const Root<Real>& i, const Root<Real>& j, const Constants& k) {
        const AlphaPair<Real> a = alpha_pair(k.unit * e, i, j);
        const Real w = fused(Real(-0.25) * a.lost, a.lost, a.w);  // less the square that alpha_pair() leaves out
        const Real smaller = w < a.z ? w : a.z, near = smaller > 0 ? smaller : Real(0);
        const Real far = fused(i.p, j.p, (i.p - near) + j.p);  // near + far = alpha_i alpha_j - 1
        const Real both = near * far;                          // W Z
        const Real root = std::sqrt(fused(a.s, a.s, both)), inverse_root = 1 / root;
        const Real bracket = fused(Real(0.25) * a.d, a.d, a.s * (both / (root + a.s)));
        Pair<Real> out;
        out.e = k.distance * (bracket / (a.product * root));
        const Real size = Real(0.5) * (far - near), covariance = w < a.z ? size : -size;
        // The factors are multiplied one after the other, since the cube of 1/D may be too small for the type.
        const Real derivative = k.derivative * (((covariance * inverse_root) * inverse_root) * inverse_root);
        out.t = with_tangent ? derivative * (k.covariance * covariance + t) : Real(0);
        return out;
    }
};

// --- Sin and Cos -----------------------------------------------------------------------------------------------------
//
// E[exp(i(u - v))] = exp(-E) and E[exp(i(u + v))] = exp(-F), with F = S_ii + S_jj - E the half-distance to the opposite
// patch and q = exp(-S_ii), q_i q_j = exp(-E - F), give:
//   Sin:  Q = (exp(-E) - exp(-F))/2,  Q' = (exp(-E) + exp(-F))/2
//         E' = (1 - exp(-E)) (1 + exp(-F))/2 - (q_i - q_j)^2/4
//   Cos:  Q = (exp(-E) + exp(-F))/2,  Q' = (exp(-E) - exp(-F))/2
//         E' = (1 - exp(-E)) (1 - exp(-F))/2 + (q_i - q_j)^2/4
//   S_ij = (F - E)/2
// No exponent is positive, so that nothing overflows.  In the E' of Sin the last term is at most 0.6 of the first two.
template <class Real> struct WavePair {
    Decay<Real> alike, opposite;  // at E, at F
    Real diff2, covariance;       // (q_i - q_j)^2, S_ij
};

// Gives p = S, inverse = q, and what the rounding of S left over.
template <class Real> inline Root<double> wave_number(double S) { return {S, std::exp(-S), S - double(Real(S))}; }

// Takes q_i - q_j = q_i (1 - exp(-(S_jj - S_ii))) from the smaller S_ii.  F is small where the patches are opposite:
// `lost` is what the rounding of S_ii + S_jj left over.
template <class Real> NTKFAST_HD WavePair<Real> wave_pair(Real e, const Root<Real>& i, const Root<Real>& j) {
    const Real sum = i.p + j.p, back = sum - i.p;
    const Real lost = (i.p - (sum - back)) + (j.p - back) + (i.rest + j.rest);
    const Real far = (sum - e) + lost;
    const Real longer = (i.p - j.p) + (i.rest - j.rest);
    const Real q = i.inverse > j.inverse ? i.inverse : j.inverse;
    const Real diff = q * decay(longer < 0 ? -longer : longer).lost;
    return {decay(e), decay(far > 0 ? far : Real(0)), diff * diff, Real(0.5) * (far - e)};
}

// The activation is f(x) = sin(x).
template <class Real> struct SinActivation {
    using Constants = SmoothConstants<Real>;

    static Constants make(const SmoothUnits& units, double scale, double trained) {
        return Constants::make(0.5, units, scale, trained);
    }
    static Root<double> diagonal(double S) { return wave_number<Real>(S); }
    static double gain_q(double S) { return -0.5 * std::expm1(-2 * S); }
    static double gain_dq(double S) { return 0.5 * (1 + std::exp(-2 * S)); }

    template <bool with_tangent>
    NTKFAST_HD Pair<Real> apply(Real e, Real t, const Root<Real>& i, const Root<Real>& j, const Constants& k) {
        const WavePair<Real> a = wave_pair(k.unit * e, i, j);
        const Real bracket = a.alike.lost * (1 + a.opposite.left) - Real(0.5) * a.diff2;
        Pair<Real> out;
        out.e = k.distance * (bracket > 0 ? bracket : Real(0));
        const Real derivative = k.derivative * (a.alike.left + a.opposite.left);
        out.t = with_tangent ? derivative * (k.covariance * a.covariance + t) : Real(0);
        return out;
    }
};

// The activation is f(x) = cos(x).
template <class Real> struct CosActivation {
    using Constants = SmoothConstants<Real>;

    static Constants make(const SmoothUnits& units, double scale, double trained) {
        return Constants::make(0.5, units, scale, trained);
    }
    static Root<double> diagonal(double S) { return wave_number<Real>(S); }
    static double gain_q(double S) { return 0.5 * (1 + std::exp(-2 * S)); }
    static double gain_dq(double S) { return -0.5 * std::expm1(-2 * S); }

    template <bool with_tangent>
    NTKFAST_HD Pair<Real> apply(Real e, Real t, const Root<Real>& i, const Root<Real>& j, const Constants& k) {
        const WavePair<Real> a = wave_pair(k.unit * e, i, j);
        Pair<Real> out;
        out.e = k.distance * (a.alike.lost * a.opposite.lost + Real(0.5) * a.diff2);
        // This is the difference of what is lost, not of what is left: E and F may both be small.
        const Real derivative = k.derivative * (a.opposite.lost - a.alike.lost);
        out.t = with_tangent ? derivative * (k.covariance * a.covariance + t) : Real(0);
        return out;
    }
};

}  // namespace ntkfast
