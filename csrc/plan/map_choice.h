// A MapChoice says which pointwise map a value of a plan takes, in which form: it is the same for every engine.
#pragma once

#include "plan/activations.h"
#include "plan/fields.h"
#include "plan/flow.h"
#include "plan/plan.h"
#include "plan/units.h"

namespace ntkfast {

// This is the largest variance S(i,i) of a first layer's smooth activation whose pairs are not all computed again with
// E in double: the rounding of E counts S times there.  Without this, `python -m bench.accuracy --images spiked` shows
// 3e-3 for Erf.
constexpr double largest_rounded = 30;

template <class Real> struct MapChoice {
    ActivationConstants<Real> constants;  // a rectifier's; `trained` the others' too
    SmoothConstants<Real> smooth;         // the other activations'
    Flow flow;
    bool redone, always_redone;  // doubtful pairs, or all, are computed again with E in double
    bool output;                 // the last convolution, which gives T or S
};

// Chooses the map of a value of kind `map` that does not pass on the sums as they are.
template <class Real>
MapChoice<Real> choose_map(const Program& program, const Plan& plan, const Fields<Real>& fields, const Value& value) {
    using Constants = ActivationConstants<Real>;
    MapChoice<Real> map{};
    const Box& box = plan.boxes[std::size_t(value.box)];
    const Value& before = plan.values[std::size_t(box.value)];
    const Node &node = program[value.node], &conv = program[box.node];
    const bool smooth = is_activation(node.op) && node.op != Op::rectifier;
    const SmoothUnits units = smooth ? smooth_units<Real>(program, value.node, fields.unit) : SmoothUnits{};
    const double trained = conv.op == Op::conv ? program.trained(box.node) : 0.0;
    const double largest_root = fields.maps.at(value.node).largest_root;
    // Behind the other activations float32 manages with E rounded as long as their arguments are of moderate size.
    const double largest = units.in * largest_root * largest_root;
    map.always_redone = smooth && sizeof(Real) == 4 && before.kind == ValueKind::image && largest > largest_rounded;
    map.redone = map.always_redone || (before.kind == ValueKind::image && node.op == Op::rectifier);
    if (program.kernel == Kernel::nngp)
        map.flow = map.redone ? Flow::first_covariance : Flow::covariance;
    else
        map.flow = before.tangent ? Flow::tangent : Flow::first_tangent;
    const bool leaves_angles = value.boxes.size() == 1 && plan.boxes[std::size_t(value.boxes[0])].angles;
    const auto form = [](bool angles) { return angles ? Constants::Form::angle : Constants::Form::distance; };
    const bool rectifier = node.op == Op::rectifier;
    map.constants =
        Constants::make(rectifier ? node.slope : 1.0, rectifier ? value.gain * program.gain(value.node) : 0, trained,
                        largest_root, map.redone && box.slots == 1, form(box.angles), form(leaves_angles));
    if (smooth) map.smooth = smooth_constants<Real>(node.op, units, value.gain, trained);
    map.output = !is_activation(node.op) && plan.target.kind == TargetKind::output && &value == &plan.end();
    return map;
}

}  // namespace ntkfast
