// This is the table of activations, one row each.  The operations of a program and their names, the tables of row
// kernels, the maps of the device and every dispatch are made of it.
//
//   rectifier_row(name, struct)   max(x, 0) + slope min(x, 0), which is homogeneous: its constants in pair_math.h
//   smooth_row(name, struct)      any other f: a struct as those of smooth_activations.h
//
// The name of a row is that of the operation in a program, and the enumerator.
#pragma once

#include <stdexcept>

#include "math/smooth_activations.h"

// clang-format off
#define NTKFAST_ACTIVATIONS(rectifier_row, smooth_row) \
    rectifier_row(rectifier, ActivationConstants)      \
    smooth_row(erf, ErfActivation)                     \
    smooth_row(gelu, GeluActivation)                   \
    smooth_row(sin, SinActivation)                     \
    smooth_row(cos, CosActivation)                     \
    smooth_row(gaussian, GaussianActivation)
// clang-format on

// A user of the table gives NTKFAST_NO_ROW for the kind of rows that it leaves out, and NTKFAST_ENUMERATOR for
// enumerators.
#define NTKFAST_NO_ROW(name, Activation)
#define NTKFAST_ENUMERATOR(name, Activation) name,

namespace ntkfast {

enum class ActivationKind { NTKFAST_ACTIVATIONS(NTKFAST_ENUMERATOR, NTKFAST_ENUMERATOR) };

#define NTKFAST_ONE(name, Activation) +1
constexpr int activation_kinds = NTKFAST_ACTIVATIONS(NTKFAST_ONE, NTKFAST_ONE);
#undef NTKFAST_ONE

// Returns call(Activation<Real>()) for an activation that is not a rectifier.
template <class Real, class Call> auto with_smooth(ActivationKind kind, Call call) {
    switch (kind) {
#define NTKFAST_CASE(name, Activation) \
    case ActivationKind::name: return call(Activation<Real>());
        NTKFAST_ACTIVATIONS(NTKFAST_NO_ROW, NTKFAST_CASE)
#undef NTKFAST_CASE
        default: throw std::logic_error("no smooth activation");
    }
}

}  // namespace ntkfast
