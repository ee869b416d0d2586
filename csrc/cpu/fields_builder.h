// A FieldsBuilder computes the diagonals of every node, in double precision.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "cpu/pipeline.h"
#include "cpu/rows/row_kernels.h"
#include "plan/fields.h"
#include "plan/monitor.h"
#include "plan/near_bands.h"

namespace ntkfast {

// NearBands holds the bands around D = 0 of all targets, as far as the local variances v behind average pools and
// bilinear upsampling need them, computed by the same pipeline that sweeps all displacements afterwards.
template <class Real> class NearBands {
public:
    NearBands(const Program& program, Fields<Real>& fields, const RowKernels<Real>& kernels, int threads,
              Monitor& monitor);

    // This is the raw field at D = 0 behind an average pool or a bilinear upsampling: A E A^T = 2 v, and A T' A^T.
    struct Raw {
        Plane e, t;
    };
    Raw raw(int node);
    // Is to be called for every node, in order, when its diagonals are known (for an average its spread too).
    void finish(int node);

    // Returns the bytes of all bands, which are held to the end, and of the lines of the segment that takes most.
    static std::int64_t bytes(const Program& program, const Shape& shape, int threads);

private:
    static constexpr int lanes = 8;  // most bands are a few displacements wide

    void make(int target);
    void seal(int target);

    const Program& program_;
    Fields<Real>& fields_;
    const RowKernels<Real>& kernels_;
    int threads_;
    Monitor& monitor_;
    std::vector<Target> targets_;
    Stores<Real> stores_;
    std::vector<NearStep> steps_;  // by target
};

// Goes node by node, with the recursion of docs/math.md on the diagonal.
class FieldsBuilder {
public:
    // The image is (batch, height, width, channels), contiguous, finite; nullptr stands for noise.  With
    // `single_precision` the pixels are rounded to float first, as an engine of that type will see them.  Throws
    // std::invalid_argument where no double holds what the network makes of the image, and Cancelled when the monitor is stopped; the pairs near D = 0 are counted to it.
    FieldsBuilder(const Program& program, const Shape& shape, const double* image, bool single_precision,
                  const RowKernels<double>& kernels, int threads, Monitor& monitor);

    const Fields<double>& fields() const { return fields_; }
    // Returns the program with the units of its nodes, which the fields are in.
    const Program& program() const { return program_; }
    // Hands the same over.
    Fields<double> take() { return std::move(fields_); }

private:
    void read_image(const double* image);
    void add(int n, NearBands<double>& near);
    void add_conv(int n, const Shape& shape);
    void add_halves(int n, const Shape& before);
    void add_activation(int n, const Shape& shape);
    void smooth(int n, Plane& q, Plane& t);
    void add_merge(int n);
    void add_pooled_image(int n, const Shape& shape);
    void add_average(int n, const Shape& shape, NearBands<double>& near);
    void settle(int n, Plane variance, Plane tangent);
    void push(Plane variance, Plane tangent);
    void choose_result_unit();

    Program program_;
    Shape shape_;
    bool single_precision_;
    Monitor& monitor_;
    Fields<double> fields_;
};

// Makes the fields of an engine in float: everything is rounded, but the local variances v are those of the engine's
// own raw fields at D = 0.  Features that are alike then cancel in E' = A E A^T - v - v to the last bit, since both
// sides were rounded in the same way; with v from double precision a rounding error would stay, and the root in the
// angle would amplify it.
Fields<float> float_fields(const Fields<double>& from, const Program& program, const RowKernels<float>& kernels,
                           int threads, Monitor& monitor);

// Returns the bytes that building and holding the fields takes; `single` stands for fields in float, which are made of
// those in double.
std::int64_t fields_bytes(const Program& program, const Shape& shape, bool single);
// Returns the most that building them takes beyond these: the bands around D = 0.
std::int64_t building_bytes(const Program& program, const Shape& shape, bool single, int threads);

}  // namespace ntkfast
