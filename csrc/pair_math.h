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
// rounding of its sums, and arccos turns an error e into sqrt(2 e) at angle 0.  Angles below this level are snapped to 0
// (or pi), which makes exactly parallel patches of different brightness exact.  The value is a few ulps; measured in
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

// Constants of one activation max(x, ax), with the scale c = w/k^2 of the convolution that follows folded in.
//   E'   = lin*N + low*min(N, A) + arc*(A*(t cos t - sin t)) + diff*d^2      A = p_i p_j,  d = p_i - p_j,  N = A(1 - cos t)
//   Q'c  = acute - turn*t  for t <= pi/2,   obtuse + turn*(pi - t)  beyond
template <class Real> struct ActivationConstants {
    Real lin, low, arc, diff;
    Real acute, obtuse, turn;
    Real trainable;  // 1 where the convolution before the activation is trained, else 0

    static ActivationConstants make(double slope, double scale, bool trainable) {
        const double pi = 3.14159265358979323846;
        const double bend = scale * (1 - slope) * (1 - slope);
        ActivationConstants k;
        k.lin = Real(scale * slope);
        k.low = Real(bend / 2);
        k.arc = Real(bend / (2 * pi));
        k.diff = Real(scale * (1 + slope * slope) / 4);
        k.acute = Real(scale * slope + bend / 2);
        k.obtuse = Real(scale * slope);
        k.turn = Real(bend / (2 * pi));
        k.trainable = trainable ? Real(1) : Real(0);
        return k;
    }
};

// sum_n c[n] m^n by Horner's rule; the loop has a constant length and is unrolled.
template <class Real, int Terms> NTKFAST_HD Real polynomial(const Real (&c)[Terms], Real m) {
    Real sum = c[Terms - 1];
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
//   m = min(1 - cos t, 1 + cos t),  t' = arccos(1 - m) = sqrt(m) P(m) is t or pi - t, whichever is acute
//   A (t' cos t' - sin t') = A m sqrt(m) R(m)
//   ReLU:  Q  = A (sin t + (pi - t) cos t) / (2 pi),  Q' = (pi - t)/(2 pi)
//          E' = (Q_ii + Q_jj)/2 - Q_ij = min(N, A)/2 + A (t' cos t' - sin t')/(2 pi) + d^2/4
//   T' = Q' (trainable*S + sum T')  with  S = A - N
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
    const Real cancelled = e - Real(0.5) * diff2;
    const Real unsure = Snap<Real>::level * e;
    const Real near = cancelled > unsure ? cancelled : Real(0);
    const Real far = Real(2) * area - cancelled;
    const Real closer = cancelled < far ? cancelled : far;
    const Real arc_num = closer > unsure ? closer : Real(0);
    const Real m = arc_num * (i.inverse * j.inverse);
    const Real root = std::sqrt(m);

    Pair<Real> out;
    const Real low = near < area ? near : area;
    out.e = k.arc * (arc_num * root * polynomial(C::r, m));
    out.e += k.low * low + (k.lin * near + k.diff * diff2);
    if (with_tangent) {
        const Real angle = root * polynomial(C::p, m);
        const Real at_0 = near < area ? k.acute : k.obtuse;
        const Real turn = near < area ? -k.turn : k.turn;
        out.t = (at_0 + turn * angle) * (k.trainable * (area - near) + t);
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
