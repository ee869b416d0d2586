// An Engine is what computes the kernel of one network on one image, or on a batch of images of equal size.
#pragma once

#include <cstdint>

#include "plan/geometry.h"
#include "plan/monitor.h"
#include "plan/program.h"

namespace ntkfast {

// These are the bytes of each part of the memory that the engine computes in, predicted from the sizes alone.
struct MemoryEstimate {
    std::int64_t fields;    // held from construction on
    std::int64_t building;  // during construction, beyond `fields`
    std::int64_t product;   // during a product, beyond its input and output, without `bands`
    std::int64_t bands;     // during a sweep: coarse bands, at most, if they are not kept
    std::int64_t coarse;    // held after keep_coarse()
    std::int64_t store;     // held after store()
};

// The pointer to a member has a name since gcc warns of the parentheses that nvcc would write around it.
using MemoryBytes = std::int64_t MemoryEstimate::*;
struct MemoryPart {
    const char* name;
    MemoryBytes bytes;
};
constexpr MemoryPart memory_parts[] = {
    {"fields", &MemoryEstimate::fields}, {"building", &MemoryEstimate::building}, {"product", &MemoryEstimate::product},
    {"bands", &MemoryEstimate::bands},   {"coarse", &MemoryEstimate::coarse},     {"store", &MemoryEstimate::store},
};

// Throws std::invalid_argument where the program is none, the image is empty, or a side is no multiple of
// program.multiple().
void check_sizes(const Program& program, const Shape& shape);

// All pointers are to the host's memory, contiguous.  A poll that returns false ends the call with Cancelled.
template <class Real> class Engine {
public:
    virtual ~Engine() = default;

    virtual const Shape& shape() const = 0;

    // Says what all results are divided by: they are those of Theta / 2^exponent(). It is 0 where the entries of Theta
    // are well within the range of the engine's type.
    virtual int exponent() const = 0;

    // Writes Theta(i,i) in the image's units to out (pixels, batch).
    virtual void diagonal(double* out) const = 0;

    // Computes out = Theta v for every image; v and out are (pixels, columns, batch).
    virtual void product(const Real* v, Real* out, int columns, Poll poll) const = 0;

    // Computes every displacement once and keeps it; sweeps then read memory.
    virtual void store(Poll poll) = 0;
    virtual bool stored() const = 0;

    // Computes the coarse bands that the output reads and keeps them; sweeps then compute the finest resolution only.
    virtual void keep_coarse(Poll poll) = 0;
    virtual bool coarse_kept() const = 0;

    // Writes the whole matrix, stored or not, to out (batch, pixels, pixels).
    virtual void dense(Real* out, Poll poll) const = 0;
};

}  // namespace ntkfast
