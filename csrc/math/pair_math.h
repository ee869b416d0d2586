// These are the scalar maps of one pixel pair (i, j), for host and device, in float and double.
//
// The state of a pair between two layers is, after docs/math.md:
//   E(i,j) = (S(i,i) + S(j,j))/2 - S(i,j)    half the squared distance of the features
//   T(i,j)                                   the tangent kernel
// p_i = sqrt(S(i,i)) comes from the diagonal, which is computed once in double precision.
#pragma once

#include <cmath>

#include "math/arccos_coefficients.h"
#include "math/loops.h"

// Forced inlining is not only for speed: these functions are compiled once per instruction set, and an out-of-line copy
// would let the linker pick one that the running CPU cannot execute.
#if defined(__CUDACC__)
#define NTKFAST_HD static __host__ __device__ __forceinline__
#else
#define NTKFAST_HD static inline __attribute__((always_inline))
#endif

namespace ntkfast {

// Resolution says what a type can tell apart where patches are parallel or opposite; docs/math.md has the measurements.
//   snap:   the relative error of E, a few ulps.  Where N (or 2A - N) is below this share of E it counts as 0, which
//           makes exactly parallel patches of different brightness exact.
//   doubt:  where N (or 2A - N) is below this share of both E and A, the rounding of E may move T by more than 1e-6 of
//           its maximum, unless E or A is ...
//   slight: ... below this share of max p^2.  Such pairs are computed again with E in double (Pipeline::redo);
//           in double precision there are none.
template <class Real> struct Resolution;
template <> struct Resolution<float> {
    static constexpr double snap = 4e-7, doubt = 1e-4, slight = 1e-3;
};
template <> struct Resolution<double> {
    static constexpr double snap = 1e-15, doubt = 0, slight = INFINITY;
};

// A Root is p = sqrt(S(i,i)) of one pixel: p rounded, its inverse, and what the rounding left over.  The remainder
// matters where patches are parallel: N = E - (p_i - p_j)^2/2 then cancels, and the rounding of p alone would leave an
// angle of 1e-4.
template <class Real> struct Root {
    Real p, inverse, rest;
};

// These are the constants of one activation max(x, ax), with the scale c = w/k^2 of the convolution that follows folded
// in, and what leads to the activation's units. There are two sides: the angle t is acute (t <= pi/2) or obtuse; x is
// A(1 - cos t) or A(1 + cos t), whichever is small, and t' is the angle t or pi - t.
//   c E' = acute:  near*x + arc*(A*(t' cos t' - sin t')) + diff*d^2
//          obtuse: flat*A - far*x + arc*(the same) + diff*d^2
//   c Q' = acute:  near - turn*t'
//          obtuse: far + turn*t'
template <class Real> struct ActivationConstants {
    Real near, far, flat, arc, diff, turn;
    Real trained;        // S counts so much in T of the convolution before the activation; 0 where that is not trained
    Real spread, snap;   // applied to what enters: N = E - spread*d^2, and Resolution::snap
    Real doubt, slight;  // Resolution::doubt; doubt times slight times max p^2

    // The form says how the half-distance enters or leaves.  A 1x1 convolution without bias keeps the angles, so that
    // the next stage's N is E' without its d^2: carried in that form, N is not the difference of two larger numbers
    // there.
    enum class Form { distance, angle };

    // `single` says that the stage's patches are single pixels, whose colours are nearly parallel so often that all are
    // doubtful.
    static ActivationConstants make(double slope, double scale, double trained, double largest_root, bool single,
                                    Form entering = Form::distance, Form leaving = Form::distance) {
        const double pi = 3.14159265358979323846;
        const double bend = scale * (1 - slope) * (1 - slope) / (2 * pi);
        ActivationConstants k;
        k.near = Real(scale * (1 + slope * slope) / 2);
        k.far = Real(scale * slope);
        k.flat = Real(scale * (1 + slope) * (1 + slope) / 2);
        k.arc = Real(bend);
        k.diff = leaving == Form::angle ? Real(0) : Real(scale * (1 + slope * slope) / 4);
        k.turn = Real(bend);
        k.trained = Real(trained);
        k.spread = entering == Form::angle ? Real(0) : Real(0.5);
        k.snap = entering == Form::angle ? Real(0) : Real(Resolution<Real>::snap);
        k.doubt = Real(Resolution<Real>::doubt);
        const double least = Resolution<Real>::slight * largest_root * largest_root;
        k.slight = sizeof(Real) == 8 ? Real(INFINITY) : single ? -Real(INFINITY) : Real(k.doubt * least);
        return k;
    }
};

// Computes sum_n c[n] m^n by Horner's rule; the loop has a constant length and is unrolled.
template <class Real, int Terms> NTKFAST_HD Real polynomial(const Real (&c)[Terms], Real m) {
    Real sum = c[Terms - 1];
    NTKFAST_UNROLLED_LOOP
    for (int n = Terms - 2; n >= 0; --n) sum = sum * m + c[n];
    return sum;
}

// A Pair is the result of an activation on a pair: E' and T', both times the scale of the next convolution.
template <class Real> struct Pair {
    Real e, t;
};

// These are the two ends of a pair's angle: near = N = A (1 - cos t), far = A (1 + cos t) with A = p_i p_j, and
// d^2 = (p_i - p_j)^2.
template <class Real> struct Ends {
    Real near, far, area, diff2;
};

// In Wide, E may be more precise than the diagonals; d and A then gain what `rest` holds.
template <class Wide, class Real>
NTKFAST_HD Ends<Wide> ends_of(Wide e, const Root<Real>& i, const Root<Real>& j, Wide spread) {
    const bool widened = sizeof(Wide) > sizeof(Real);
    const Wide p_i = widened ? Wide(i.p) + Wide(i.rest) : Wide(i.p);
    const Wide p_j = widened ? Wide(j.p) + Wide(j.rest) : Wide(j.p);
    const Wide diff = widened ? p_i - p_j : (p_i - p_j) + (Wide(i.rest) - Wide(j.rest));
    const Wide diff2 = diff * diff, area = p_i * p_j;
    const Wide near = e - spread * diff2;
    return {near, Wide(2) * area - near, area, diff2};
}

// Sends one pair through max(x, ax).  The formulas are those of Cho & Saul 2009 for a = 0, written in the half-distance
// (docs/math.md):
//
//   x = min(N, 2A - N),  m = x/A,  t' = arccos(1 - m) = sqrt(m) P(m) is t or pi - t, whichever is acute
//   A (t' cos t' - sin t') = x sqrt(m) R(m)
//   ReLU:  Q  = A (sin t + (pi - t) cos t) / (2 pi),  Q' = (pi - t)/(2 pi)
//          E' = (Q_ii + Q_jj)/2 - Q_ij = min(N, A)/2 + A (t' cos t' - sin t')/(2 pi) + d^2/4
//   T' = Q' (trained*S + sum T')  with  S = A - N
// On each side everything is written in x, which is 0 at the side's end, so that nothing cancels there for any slope.
//
// least:    an x below it counts as 0
// t:        the box sum of T' (already scaled by w/k^2)
// inverse:  1/A; 0 for a patch of zeros
template <bool with_tangent, class Real>
NTKFAST_HD Pair<Real> respond(const Ends<Real>& ends, Real least, Real t, Real inverse,
                              const ActivationConstants<Real>& k) {
    constexpr ArccosCoefficients<Real> c;  // a local variable: device code cannot refer to a static array of the host
    const bool acute = ends.near < ends.far;
    const Real closer = acute ? ends.near : ends.far;
    const Real x = closer > least ? closer : Real(0);
    const Real m = x * inverse;
    const Real root = std::sqrt(m);

    Pair<Real> out;
    const Real linear = acute ? k.near : -k.far;
    const Real flat = acute ? Real(0) : k.flat;
    out.e = x * (linear + k.arc * (root * polynomial(c.r, m))) + (flat * ends.area + k.diff * ends.diff2);
    if (with_tangent) {
        const Real angle = root * polynomial(c.p, m);
        const Real at_end = acute ? k.near : k.far;
        const Real turn = acute ? -k.turn : k.turn;
        out.t = (at_end + turn * angle) * (k.trained * (ends.area - ends.near) + t);
    } else {
        out.t = Real(0);
    }
    return out;
}

// Sends a pair through a rectifier.
// e, t:   the box sums of E and T' (already scaled by w/k^2)
// i, j:   the diagonals; all 0 for a patch of zeros
template <bool with_tangent, class Real>
NTKFAST_HD Pair<Real> activate(Real e, Real t, const Root<Real>& i, const Root<Real>& j,
                               const ActivationConstants<Real>& k) {
    return respond<with_tangent>(ends_of(e, i, j, k.spread), k.snap * e, t, i.inverse * j.inverse, k);
}

// Does the same with E in double.
template <bool with_tangent, class Real>
NTKFAST_HD Pair<Real> activate_exact(double e, Real t, const Root<Real>& i, const Root<Real>& j,
                                     const ActivationConstants<Real>& k) {
    const Ends<double> ends = ends_of(e, i, j, 0.5);
    const Ends<Real> rounded{Real(ends.near), Real(ends.far), Real(ends.area), Real(ends.diff2)};
    return respond<with_tangent>(rounded, Real(0), t, i.inverse * j.inverse, k);
}

// Is negative where the rounding of E shows in the result; see Resolution.
template <class Real>
NTKFAST_HD Real certainty(Real e, const Root<Real>& i, const Root<Real>& j, const ActivationConstants<Real>& k) {
    const Ends<Real> ends = ends_of(e, i, j, k.spread);
    const Real closer = ends.near < ends.far ? ends.near : ends.far;
    const Real x = closer > k.snap * e ? closer : Real(0);  // as in respond(): E may be anything behind a row's end
    const Real large = e < ends.area ? e : ends.area;
    return (x - k.doubt * large) + k.slight;
}

// Computes S(i,j) from the half-distance.
template <class Real> NTKFAST_HD Real covariance(Real e, Real p_i, Real p_j) {
    return Real(0.5) * (p_i * p_i + p_j * p_j) - e;
}

}  // namespace ntkfast
