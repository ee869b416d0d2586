// The units of nodes keep the engine's numbers of order one, whatever the gain of the network: a convolution with a
// weight variance of 1e-6, or a hundred of them with 4, then changes nothing but the scale of what comes out.
//
// T obeys the same recursion as S, in the same units: where those of a node are 2^s times those of its input, w/k^2 and
// the constants of a rectifier are divided by 2^s, and nothing else is to be done. All units are powers of 4, so that
// neither a product nor a square root rounds otherwise, and a network whose numbers stay near order one keeps its bits.
// Smooth activations depend on S itself: they go through true units, and T leaves them in units of its own, since it
// may have grown far beyond S.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "plan/activations.h"
#include "plan/program.h"

namespace ntkfast {

// So many binary digits may the largest number of a node be away from 1 before the node takes other units. A float has
// 126: the squares of lengths of 1e-12 of the largest one fit in beside them.
constexpr int comfort = 16;

// Returns the even exponent of 2 by which a number is to be divided to come to order one; 0 where it is near enough.
inline int excess(double value) {
    if (!(value > 0) || !std::isfinite(value)) return 0;
    const int exponent = std::ilogb(value);
    return std::abs(exponent) <= comfort ? 0 : 2 * floor_div<2>(exponent);
}

// A Magnitude is a number times 2^exponent, which may lie beyond what a double holds.
struct Magnitude {
    double number;
    int exponent;

    bool zero() const { return !(number > 0); }
    int log2() const { return std::ilogb(number) + exponent; }
    // Returns the larger of two.
    friend const Magnitude& larger(const Magnitude& a, const Magnitude& b) {
        return a.zero() || (!b.zero() && b.log2() > a.log2()) ? b : a;
    }
};

// Returns the exponent of the units for a number: those of `usual` where it is near order one in them.
inline int units_for(const Magnitude& size, int usual) {
    if (size.zero() || std::abs(size.log2() - usual) <= comfort) return usual;
    return 2 * floor_div<2>(size.log2());
}

// Where an S is so small or so large that a smooth f is homogeneous to all digits, any other such S serves, with the
// results divided by as much: below 2^least_smooth for an f that vanishes at 0, and is nearly linear there; above
// 2^most_smooth for GELU, which is nearly a ReLU there. Where f(0) is not 0, Q is constant to all digits, and Q'
// proportional to S, long before S is as small as 2^least_even.
constexpr int least_smooth = -64, least_even = -960;
template <class Real> constexpr int most_smooth = sizeof(Real) == 4 ? 42 : 400;  // S^2 is a number of the type

// Returns the units that the smooth activation of a node works in; `unit` is Fields::unit.
template <class Real> SmoothUnits smooth_units(const Program& program, int n, double unit) {
    const Node& node = program[n];
    const Node& before = program[node.input()];
    const auto q = [&](int log2) { return diagonal_gains(node, std::ldexp(1.0, log2)).q; };
    const bool vanishes = q(least_smooth) < 0.5, grows = q(-least_smooth) > 1e9;
    const int true_unit = std::ilogb(unit), entering = true_unit + before.exponent;
    int taken = std::max(entering, vanishes ? least_smooth : least_even);
    if (grows) taken = std::min(taken, most_smooth<Real>);
    const int lent = entering - taken, grown = before.tangent_exponent - node.tangent_exponent;
    return {std::ldexp(1.0, taken), true_unit + node.exponent - (vanishes ? lent : 0),
            std::ldexp(1.0, vanishes ? grown : grown + lent)};
}

}  // namespace ntkfast
