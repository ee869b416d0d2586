// The scalar maps of one pixel pair (i, j), for host and device, in float and double.
//
// State of a pair between two layers, after docs/math.md:
//   E(i,j) = (S(i,i) + S(j,j))/2 - S(i,j)    half the squared distance of the features
//   T(i,j)                                   the tangent kernel
// p_i = sqrt(S(i,i)) comes from the diagonal, which is computed once in double precision.
#pragma once

#include <cmath>

#include "arccos_coefficients.h"

// Forced inlining is not only for speed: these functions are compiled once per instruction set, and an out-of-line copy
// would let the linker pick one that the running CPU cannot execute.
#if defined(__CUDACC__)
#define NTKFAST_HD static __host__ __device__ __forceinline__
#else
#define NTKFAST_HD static inline __attribute__((always_inline))
#endif

namespace ntkfast {

// Relative error below which E cannot tell parallel patches from nearly parallel ones: the half-distance carries the
// rounding of its sums, and arccos turns an error e into sqrt(2 e) at angle 0.  N (or 2A - N) below this
// level is taken as 0, which makes exactly parallel patches of different brightness exact.  The value is a few ulps; measured in
// docs/math.md.
template <class Real> struct Snap;
template <> struct Snap<float> {
    static constexpr float level = 4e-7f;
};
template <> struct Snap<double> {
    static constexpr double level = 1e-15;
};

// p = sqrt(S(i,i)) of one pixel: rounded, its inverse, and what the rounding left over.  The remainder matters where patches
// are parallel: N = E - (p_i - p_j)^2/2 then cancels, and the rounding of p alone would leave an angle of 1e-4.
template <class Real> struct Root {
    Real p, inverse, rest;
};

// Constants of one activation max(x, ax), with the scale c = w/k^2 of the convolution that follows folded in.  Two sides: the
// angle t is acute (t <= pi/2) or obtuse; x is A(1 - cos t) or A(1 + cos t), whichever is small, and t' the angle t or pi - t.
//   c E' = acute:  near*x + arc*(A*(t' cos t' - sin t')) + diff*d^2
//          obtuse: flat*A - far*x + arc*(the same) + diff*d^2
//   c Q' = acute:  near - turn*t'
//          obtuse: far + turn*t'
template <class Real> struct ActivationConstants {
    Real near, far, flat, arc, diff, turn;
    Real trainable;  // 1 where the convolution before the activation is trained, else 0

    static ActivationConstants make(double slope, double scale, bool trainable) {
        const double pi = 3.14159265358979323846;
        const double bend = scale * (1 - slope) * (1 - slope) / (2 * pi);
        ActivationConstants k;
        k.near = Real(scale * (1 + slope * slope) / 2);
        k.far = Real(scale * slope);
        k.flat = Real(scale * (1 + slope) * (1 + slope) / 2);
        k.arc = Real(bend);
        k.diff = Real(scale * (1 + slope * slope) / 4);
        k.turn = Real(bend);
        k.trainable = trainable ? Real(1) : Real(0);
        return k;
    }
};

// sum_n c[n] m^n by Horner's rule; the loop has a constant length and is unrolled.
template <class Real, int Terms> NTKFAST_HD Real polynomial(const Real (&c)[Terms], Real m) {
    Real sum = c[Terms - 1];
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#pragma GCC unroll 32  // unrolled late, the loop around it is not vectorised (18 terms, double: 24 instead of 7 ns)
#endif
    for (int n = Terms - 2; n >= 0; --n) sum = sum * m + c[n];
    return sum;
}

// Result of an activation on a pair: E' and T', both times the scale of the next convolution.
template <class Real> struct Pair {
    Real e, t;
};

// One pair through max(x, ax), source: Cho & Saul 2009 for a = 0, written in the half-distance (docs/math.md).
//
//   A = p_i p_j,  d = p_i - p_j,  N = E - d^2/2 = A (1 - cos t)
//   x = min(N, 2A - N),  m = x/A,  t' = arccos(1 - m) = sqrt(m) P(m) is t or pi - t, whichever is acute
//   A (t' cos t' - sin t') = x sqrt(m) R(m)
//   ReLU:  Q  = A (sin t + (pi - t) cos t) / (2 pi),  Q' = (pi - t)/(2 pi)
//          E' = (Q_ii + Q_jj)/2 - Q_ij = min(N, A)/2 + A (t' cos t' - sin t')/(2 pi) + d^2/4
//   T' = Q' (trainable*S + sum T')  with  S = A - N
// On each side everything is written in x, which is 0 at the side's end, so that nothing cancels there for any slope.
//
// e, t:   the box sums of E and T' (already scaled by w/k^2)
// i, j:   the diagonals; all 0 for a patch of zeros
template <bool with_tangent, class Real>
NTKFAST_HD Pair<Real> activate(Real e, Real t, const Root<Real>& i, const Root<Real>& j,
                               const ActivationConstants<Real>& k) {
    using C = ArccosCoefficients<Real>;
    const Real area = i.p * j.p;
    const Real diff = (i.p - j.p) + (i.rest - j.rest);
    const Real diff2 = diff * diff;
    const Real near = e - Real(0.5) * diff2;
    const Real far = Real(2) * area - near;
    const bool acute = near < far;
    const Real closer = acute ? near : far;
    const Real x = closer > Snap<Real>::level * e ? closer : Real(0);
    const Real m = x * (i.inverse * j.inverse);
    const Real root = std::sqrt(m);

    Pair<Real> out;
    const Real linear = acute ? k.near : -k.far;
    const Real flat = acute ? Real(0) : k.flat;
    out.e = x * (linear + k.arc * (root * polynomial(C::r, m))) + (flat * area + k.diff * diff2);
    if (with_tangent) {
        const Real angle = root * polynomial(C::p, m);
        const Real at_end = acute ? k.near : k.far;
        const Real turn = acute ? -k.turn : k.turn;
        out.t = (at_end + turn * angle) * (k.trainable * (area - near) + t);
    } else {
        out.t = Real(0);
    }
    return out;
}

// S(i,j) from the half-distance.
template <class Real> NTKFAST_HD Real covariance(Real e, Real p_i, Real p_j) {
    return Real(0.5) * (p_i * p_i + p_j * p_j) - e;
}

}  // namespace ntkfast
