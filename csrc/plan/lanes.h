// This file says what the lanes of a block are and how long their rows are; who plans the rows and who computes them
// share it.
#pragma once

#include <cstddef>

namespace ntkfast {

constexpr int chunk = 16;           // elements; one AVX-512 register of floats, two of AVX2
constexpr int max_lanes = 32;       // displacements that go through the loops together
constexpr int max_direct_rows = 5;  // largest kernel whose rows are summed afresh for each output row

inline std::ptrdiff_t chunks_of(std::ptrdiff_t length) { return (length + chunk - 1) / chunk; }
inline std::ptrdiff_t round_up(std::ptrdiff_t length) { return chunks_of(length) * chunk; }

// Lanes say where the rows of a block's displacements lie, in elements.  A buffer of lane b starts b*stride behind that
// of lane 0, for every buffer.
struct Lanes {
    int count;
    std::ptrdiff_t stride;
    std::ptrdiff_t at_i[max_lanes];    // first pixel i of the lane in a row of the image
    std::ptrdiff_t at_j[max_lanes];    // first pixel j = i + D
    std::ptrdiff_t length[max_lanes];  // pairs in the row
};

}  // namespace ntkfast
