// The CPU engine: the exact kernel of one network on one image, or on a batch of images of equal size.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/pipeline.h"
#include "cpu/rows/row_kernels.h"
#include "plan/aligned.h"
#include "plan/fields.h"
#include "plan/geometry.h"
#include "plan/monitor.h"
#include "plan/program.h"

namespace ntkfast {

struct EngineOptions {
    Isa isa;
    int threads;
    int lanes;  // displacements swept together, 1..max_lanes
};

// Bytes of each part, predicted from the sizes alone.
struct MemoryEstimate {
    std::int64_t fields;    // held from construction on
    std::int64_t building;  // during construction, beyond `fields`
    std::int64_t product;   // during a product, beyond its input and output, without `bands`
    std::int64_t bands;     // during a sweep: coarse bands, at their most, if they are not kept
    std::int64_t coarse;    // held after keep_coarse()
    std::int64_t store;     // held after store()
};

template <class Real> class Engine {
public:
    // image: (batch, height, width, channels), contiguous, finite; nullptr for iid noise, with batch and channels 1.  The poll
    // is given 0 until the end, since how long it takes is not known.
    Engine(Program program, const Shape& shape, const double* image, const EngineOptions& options, Poll poll = nullptr);

    const Shape& shape() const { return fields_.shape; }

    // Theta(i,i) in the image's units: out (pixels, batch)
    void diagonal(double* out) const;

    // out = Theta v for every image.  v, out: (pixels, columns, batch), contiguous.
    void product(const Real* v, Real* out, int columns, Poll poll) const;

    // Computes every displacement once and keeps it; sweeps then read memory.
    void store(Poll poll);
    bool stored() const { return !packed_offsets_.empty(); }

    // Computes the coarse bands that the output reads and keeps them; sweeps then compute the finest resolution only.
    void keep_coarse(Poll poll);
    bool coarse_kept() const { return coarse_kept_; }

    // The whole matrix: out (batch, pixels, pixels).
    void dense(Real* out, Poll poll) const;

    // Rows (or columns) of Theta for single pixels: out (count, pixels); batch 1 only.
    void columns(const std::int64_t* pixels, std::int64_t count, Real* out, Poll poll) const;
    // Bytes that it takes beyond its result: the fields in double, which are kept once they are there, and each thread's windows.
    std::int64_t columns_bytes() const;

    static MemoryEstimate estimate(const Program& program, const Shape& shape, int columns,
                                   const EngineOptions& options);

private:
    // How the blocks of the half plane come to the threads: in turn, so that the same team gives the same sums; or all of a
    // band to the thread that is free, for sinks whose results do not depend on it.
    enum class Deal { blocks_in_turn, bands_as_free };
    // Every block of the half plane through the sink of the thread that takes it; sink_of(thread) gives the same sink whenever
    // it is called, and that outlives the call.
    template <class SinkOf> void sweep(const HalfPlane& plane, Deal deal, SinkOf sink_of, Monitor& monitor) const;
    // Pairs that it visits.
    std::int64_t sweep_pairs(const HalfPlane& plane) const;
    bool all_there() const { return stored() || coarse_kept_ || targets_.size() == 1; }
    // All coarse bands, in the order of the output's; output(first, last) is called when its bands [first, last] can be computed.
    template <class Output>
    void make_bands(const HalfPlane& plane, const Stores<Real>& stores, bool keep, Monitor& monitor,
                    Output output) const;
    // What the columns read of the diagonals, in double of the image as it came.
    const Fields<double>& exact_fields(const Poll& poll) const;

    Program program_;
    std::vector<Target> targets_;
    EngineOptions options_;
    const RowKernels<Real>& kernels_;
    Fields<Real> fields_;
    std::vector<double> image_;  // as it came, for exact_fields(); an engine in double has them
    mutable std::shared_ptr<const Fields<double>>
        exact_;  // made when first wanted, never replaced; read and set atomically
    Stores<Real> coarse_;
    bool coarse_kept_ = false;
    RawVector<Real> packed_;
    std::vector<std::int64_t> packed_offsets_;  // of each block of the half plane
};

}  // namespace ntkfast
