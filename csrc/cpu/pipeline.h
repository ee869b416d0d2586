// The line pipeline sends one block of displacements through a segment, row by row.
//
// Row y of a value (E and T' of the pairs (i, i + D) with i in row y) is summed horizontally and pushed into the ring
// of the box that takes it in; the vertical sum of the ring, k//2 rows later, goes through the pointwise map and is a
// row of the next value.  Only the rings are kept: O(width * sum of k) numbers a displacement.
#pragma once

#include <memory>
#include <vector>

#include "cpu/bands.h"
#include "cpu/exact_rows.h"
#include "cpu/rows/row_kernels.h"
#include "cpu/sinks.h"
#include "cpu/upsampled_rows.h"
#include "plan/fields.h"
#include "plan/geometry.h"
#include "plan/monitor.h"
#include "plan/plan.h"

namespace ntkfast {

template <class Real> using Stores = std::vector<std::unique_ptr<BandStore<Real>>>;  // by target; none for the output

template <class Real> class Pipeline {
public:
    Pipeline(const Program& program, const Plan& plan, const Fields<Real>& fields, const Stores<Real>& stores,
             const RowKernels<Real>& kernels, int lanes);

    // Runs one block; returns early when the monitor has stopped.  Every row of the block goes to the sink, from the
    // top.
    void run(const Block& block, RowSink<Real>& sink, Monitor& monitor, bool leader);

    static std::int64_t bytes(const Program& program, const Plan& plan, int lanes);

private:
    // These are the rows of E and T' in lane 0.
    struct Rows {
        Real *e, *t;
    };
    struct Map {  // a value of kind `map` needs this
        const MapTable<Real>* table;
        const MapFields<Real>* fields;
        MapArgs<Real> args;  // all but the rows
        Flow flow;
        bool redone, always_redone;  // doubtful pairs, or all, are computed again with E in double
        int last = -1;               // the segment's end, where this map does the last convolution as well
        bool done = false;           // by the map before
    };

    Real* at(std::ptrdiff_t offset) { return buffers_.data() + offset + plan_.left; }
    Real* ring_row(const Box& box, int field, int slot) {
        return at(box.base + (std::ptrdiff_t(field) * box.rows + slot) * plan_.row_stride);
    }
    Rows rows_of(const Value& value, int y) {
        const int slot = modulo(y, value.depth);
        return {at(value.base + slot * plan_.row_stride), at(value.base + (value.depth + slot) * plan_.row_stride)};
    }
    Map make_map(const Value& value) const;
    void join_last();
    std::ptrdiff_t halo(const Box& box) const { return std::ptrdiff_t(box.radius()) * plan_.shape.batch; }

    void step(std::size_t v, int y);
    void compute(std::size_t v, int y, Rows out);
    void image_row(const Value& value, int y, Real* e);
    void banded_row(const Value& value, int y, Rows out);
    void push(const Box& box, bool tangent, int y, const Rows* raw);
    void gather(const Box& box, int field, int slot);
    void complete(const Box& box, int y, Real* e, Real* t);
    void map(const Value& value, const Map& map, int y, Rows out);
    void redo(const Value& value, const Map& map, const MapArgs<Real>& args, int rows, std::uint32_t lanes, int y);

    const Program& program_;
    const Plan& plan_;
    const Fields<Real>& fields_;
    const Stores<Real>& stores_;
    const RowKernels<Real>& kernels_;
    std::vector<Map> maps_;                                        // by value
    std::vector<std::unique_ptr<UpsampledRows<Real>>> upsampled_;  // by value
    const Block* block_ = nullptr;                                 // the block under way
    Lanes lanes_{};
    AlignedVector<Real> buffers_, scratch_;
    ExactRows<Real> exact_rows_;
};

}  // namespace ntkfast
