// The entry of each activation, by its operation: what the diagonals and the constants of its pointwise map are.
#pragma once

#include <stdexcept>

#include "math/pair_math.h"
#include "math/smooth_activations.h"
#include "plan/program.h"

namespace ntkfast {

// call(Activation<double>()) for the activation of an operation that is not a rectifier.
template <class Real, class Call> auto with_smooth(Op op, Call call) {
    switch (op) {
        case Op::erf: return call(ErfActivation<Real>());
        case Op::gelu: return call(GeluActivation<Real>());
        case Op::sin: return call(SinActivation<Real>());
        case Op::cos: return call(CosActivation<Real>());
        default: throw std::logic_error("no smooth activation");
    }
}

// Q(i,i) and Q'(i,i) in true units, from S(i,i).
struct Gains {
    double q, dq;
};

inline Gains diagonal_gains(const Node& node, double S) {
    if (node.op == Op::rectifier) {
        const double half = (1 + node.slope * node.slope) / 2;
        return {half * S, half};
    }
    return with_smooth<double>(node.op, [S](auto activation) {
        return Gains{decltype(activation)::gain_q(S), decltype(activation)::gain_dq(S)};
    });
}

template <class Real>
SmoothConstants<Real> smooth_constants(Op op, double unit, double scale, bool trainable) {
    if (op == Op::rectifier) return {};
    return with_smooth<Real>(op, [=](auto activation) { return decltype(activation)::make(unit, scale, trainable); });
}

// The three numbers of a pixel that the pointwise map of a smooth activation reads.
template <class Real> Root<double> smooth_number(Op op, double S) {
    return with_smooth<Real>(op, [S](auto activation) { return decltype(activation)::diagonal(S); });
}

}  // namespace ntkfast
