// Builds the diagonals of every node, in double precision.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "band_maker.h"
#include "fields.h"

namespace ntkfast {

// Node by node, with the recursion of docs/math.md on the diagonal.  Average pools and bilinear upsampling mix neighbours, so
// that their diagonals need the pairs near it: the bands around D = 0 are computed in double by the same pipeline that sweeps
// all displacements afterwards.
class FieldsBuilder {
public:
    // image: (batch, height, width, channels), contiguous, finite; nullptr for noise.  single_precision: the pixels are
    // rounded to float first, as an engine of that type will see them.
    FieldsBuilder(const Program& program, const Shape& shape, const double* image, bool single_precision,
                  const RowKernels<double>& kernels, int threads);

    const Fields<double>& fields() const { return fields_; }

private:
    void read_image(const double* image, bool single_precision);
    void choose_reaches();
    void make_bands(int target);
    void seal_bands(int target);
    int target_of(TargetKind kind, int node) const;
    void add(int n);
    void add_conv(int n, const Shape& shape);
    void add_average(int n, const Shape& shape);
    void push(Plane variance, Plane tangent);

    const Program& program_;
    Shape shape_;
    const RowKernels<double>& kernels_;
    int threads_;
    std::vector<Target> targets_;
    Stores<double> stores_;   // bands near D = 0
    std::vector<int> reach_;  // how near, by target
    Fields<double> fields_;
};

// The same in another type.  For double a copy.
template <class Real> Fields<Real> round_fields(const Fields<double>& from, const Program& program);

// Bytes that building and holding the fields takes; real: of the engine's type.
std::int64_t fields_bytes(const Program& program, const Shape& shape, std::size_t real);

}  // namespace ntkfast
