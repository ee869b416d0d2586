// The dispatch knows which instruction sets were compiled, which this CPU has, and their kernels.
#pragma once

#include <string>
#include <vector>

#include "cpu/rows/row_kernels.h"

namespace ntkfast {

const char* isa_name(Isa isa);
// Throws std::invalid_argument for a name that is none of ours.
Isa isa_from_name(const std::string& name);
std::vector<Isa> compiled_isas();
// Returns the compiled levels that this CPU can run, weakest first.
std::vector<Isa> supported_isas();
// Throws std::invalid_argument if the level is not supported here.
template <class Real> const RowKernels<Real>& row_kernels(Isa isa);

}  // namespace ntkfast
