// These functions compute the diagonals and the constants of the pointwise map of a node that is an activation.
#pragma once

#include "math/activation_table.h"
#include "math/pair_math.h"
#include "plan/program.h"

namespace ntkfast {

// Gains are Q(i,i) and Q'(i,i), made from S(i,i), which is in true units but for rectifiers.
struct Gains {
    double q, dq;
};

inline Gains diagonal_gains(const Node& node, double S) {
    if (node.op == Op::rectifier) {
        const double half = (1 + node.slope * node.slope) / 2;
        return {half * S, half};
    }
    return with_smooth<double>(activation_of(node.op), [S](auto activation) {
        return Gains{decltype(activation)::gain_q(S), decltype(activation)::gain_dq(S)};
    });
}

template <class Real>
SmoothConstants<Real> smooth_constants(Op op, const SmoothUnits& units, double scale, double trained) {
    return with_smooth<Real>(activation_of(op),
                             [=](auto activation) { return decltype(activation)::make(units, scale, trained); });
}

// Returns the three numbers of a pixel that the pointwise map of a smooth activation reads.
template <class Real> Root<double> smooth_number(Op op, double S) {
    return with_smooth<Real>(activation_of(op), [S](auto activation) { return decltype(activation)::diagonal(S); });
}

}  // namespace ntkfast
