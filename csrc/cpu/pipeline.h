// The line pipeline: one block of displacements through all stages, row by row.
//
// Row y of stage s is its raw input (E and T' of the pairs (i, i + D) with i in row y); it is summed horizontally and pushed
// into the stage's ring of k rows; the vertical sum of the ring, k//2 rows later, goes through the pointwise map and is the
// raw row of stage s + 1.  Only the rings are kept: O(width * sum of k) numbers a displacement.
#pragma once

#include <vector>

#include "fields.h"
#include "geometry.h"
#include "monitor.h"
#include "row_kernels.h"
#include "sinks.h"

namespace ntkfast {

template <class Real> class Pipeline {
public:
    Pipeline(const Program& program, const Fields<Real>& fields, const RowKernels<Real>& kernels, int lanes);

    // Runs one block; returns early when the monitor has stopped.
    void run(const Block& block, RowSink<Real>& sink, Monitor& monitor, bool leader);

    static std::int64_t bytes(const Program& program, const Shape& shape, int lanes);

private:
    // A stage's rows, for one field (E or T'): slots 0..k-1 and, for large k, the running prefix.
    struct Ring {
        int slots, rows;          // rows = slots, or slots + 1 with the prefix
        int lag;                  // row y enters at step y + lag
        int first = 0, last = 0;  // rows of input of the block under way: first <= y < last
        std::ptrdiff_t base;      // of slot 0 of E in a lane's buffers; T' follows behind the rows of E
        bool blockwise() const { return rows > slots; }
    };
    // Where the buffers of one lane lie, in elements from the lane's start.
    struct Layout {
        std::ptrdiff_t left, row_stride, raw_e, raw_t, output, lane_stride;
        std::vector<Ring> rings;
    };
    static Layout make_layout(const Program& program, const Shape& shape);

    Real* at(std::ptrdiff_t offset) { return buffers_.data() + offset + layout_.left; }  // in lane 0
    Real* ring_row(const Ring& ring, int field, int slot) {
        return at(ring.base + (std::ptrdiff_t(field) * ring.rows + slot) * layout_.row_stride);
    }
    void start(const Block& block);
    void feed(const Block& block, int s, int y);
    void raw_row(const Block& block, int s, int y, Real* e, Real* t);
    void input_row(const Block& block, int y, Real* e);
    void outside_row(const Block& block, int s, int y, Real* e, Real* t);
    void complete_columns(const Block& block, int s, int y, Real* e, Real* t);
    void push(const Ring& ring, int slot, int field, const Real* raw);
    void map(const MapTable<Real>& table, const Block& block, int s, int y, Real* e, Real* t);
    void refine(const MapArgs<Real>& args, std::uint32_t lanes, const Block& block, int y);
    std::ptrdiff_t halo(int s) const {
        return std::ptrdiff_t(program_.stages[std::size_t(s)].radius()) * fields_.shape.batch;
    }

    const Program& program_;
    const Fields<Real>& fields_;
    const RowKernels<Real>& kernels_;
    std::vector<ActivationConstants<Real>> constants_;
    Layout layout_;
    Lanes lanes_{};  // of the block under way
    std::vector<Real> buffers_, scratch_;
    std::vector<double> exact_;  // one row of column sums
};

// What travels through stage s.
inline Flow flow_of(const Program& program, int s) {
    if (program.kernel == Kernel::nngp) return s > 0 ? Flow::covariance : Flow::first_covariance;
    return s > 0 ? Flow::tangent : Flow::first_tangent;
}

// The constants of stage s's pointwise map; the scale of stage s + 1 is folded in.
template <class Real>
ActivationConstants<Real> constants_of(const Program& program, const Fields<Real>& fields, int s) {
    using Constants = ActivationConstants<Real>;
    const Stage& stage = program.stages[std::size_t(s)];
    const auto form = [&](int n) {
        return program.keeps_angles(n) ? Constants::Form::angle : Constants::Form::distance;
    };
    return Constants::make(stage.slope, program.scale_after(s), stage.trainable,
                           fields.stages[std::size_t(s)].largest_root, stage.kernel_size == 1, form(s), form(s + 1));
}

}  // namespace ntkfast
