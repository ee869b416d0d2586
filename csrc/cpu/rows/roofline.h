// The roofline is the floor of the CPU engine on this machine: its row kernels are timed alone, in L1.
#pragma once

#include <string>
#include <tuple>
#include <vector>

namespace ntkfast {

// Returns the seconds per pixel pair of one float32 product with the tangent kernel: the sum over the kernels that one
// row of one displacement calls, each timed by itself over `length` pairs, best of `repeats`.  All `threads` do so at
// once, each on its own rows, and the mean is returned: cores that share units or a clock are slower together than one
// alone.
double roofline(const std::vector<std::tuple<int, double, double, bool, bool, double>>& stages, int channels,
                int columns, const std::string& isa, int length, int repeats, int threads);

}  // namespace ntkfast
