// The floor of the CPU engine on this machine: its row kernels timed alone, in L1, on one core.
#pragma once

#include <string>
#include <tuple>
#include <vector>

namespace ntkfast {

// Seconds per pixel pair of one float32 product with the tangent kernel: the sum over the kernels that one row of one
// displacement calls, each timed by itself over `length` pairs, best of `repeats`.
double roofline(const std::vector<std::tuple<int, double, double, bool, bool, double>>& stages, int channels,
                int columns, const std::string& isa, int length, int repeats);

}  // namespace ntkfast
