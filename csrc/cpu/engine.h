// CpuEngine is the engine that computes on the CPU.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/pipeline.h"
#include "cpu/rows/row_kernels.h"
#include "plan/aligned.h"
#include "plan/engine.h"
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

template <class Real> class CpuEngine final : public Engine<Real> {
public:
    // The image is (batch, height, width, channels), contiguous, finite; nullptr stands for iid noise, with batch and
    // channels 1.  The poll is given 0 until the end, since how long it takes is not known.
    CpuEngine(Program program, const Shape& shape, const double* image, const EngineOptions& options,
              Poll poll = nullptr);

    const Shape& shape() const override { return fields_.shape; }
    void diagonal(double* out) const override;
    void product(const Real* v, Real* out, int columns, Poll poll) const override;
    void store(Poll poll) override;
    bool stored() const override { return !packed_offsets_.empty(); }
    void keep_coarse(Poll poll) override;
    bool coarse_kept() const override { return coarse_kept_; }
    void dense(Real* out, Poll poll) const override;
    int exponent() const override { return fields_.exponent; }

    // Writes rows (or columns) of Theta for single pixels to out (count, pixels); the batch must be 1.
    void columns(const std::int64_t* pixels, std::int64_t count, Real* out, Poll poll) const;
    // Returns the bytes that it takes beyond its result: the fields in double, which are kept once they are there, and
    // each thread's windows.
    std::int64_t columns_bytes() const;

    static MemoryEstimate estimate(const Program& program, const Shape& shape, int columns,
                                   const EngineOptions& options);

private:
    // A Deal says how the blocks of the half plane come to the threads: in turn, so that the same team gives the same
    // sums; or all of a band to the thread that is free, for sinks whose results do not depend on it.
    enum class Deal { blocks_in_turn, bands_as_free };
    // Sends every block of the half plane through the sink of the thread that takes it; sink_of(thread) gives the same
    // sink whenever it is called, and that outlives the call.
    template <class SinkOf> void sweep(const HalfPlane& plane, Deal deal, SinkOf sink_of, Monitor& monitor) const;
    // Counts the pairs that it visits.
    std::int64_t sweep_pairs(const HalfPlane& plane) const;
    bool all_there() const { return stored() || coarse_kept_ || targets_.size() == 1; }
    // Makes all coarse bands in the stores; see make_bands() of plan/groups.h.
    template <class Output>
    void make_bands_in(const Stores<Real>& stores, const HalfPlane& plane, bool keep, Monitor& monitor,
                       Output output) const;
    std::int64_t coarse_pairs_of(const HalfPlane& plane) const;
    struct Exact {  // diagonals in double, and the program with the units that they are in
        Program program;
        Fields<double> fields;
    };
    struct ExactView {
        const Program& program;
        const Fields<double>& fields;
    };
    // Returns what the columns read, made of the image as it came.
    ExactView exact_fields(const Poll& poll) const;

    Program program_;
    std::vector<Target> targets_;
    EngineOptions options_;
    const RowKernels<Real>& kernels_;
    Fields<Real> fields_;
    std::vector<double> image_;                   // as it came, for exact_fields(); an engine in double has them
    mutable std::shared_ptr<const Exact> exact_;  // made when first wanted, never replaced; read and set atomically
    Stores<Real> coarse_;
    bool coarse_kept_ = false;
    RawVector<Real> packed_;
    std::vector<std::int64_t> packed_offsets_;  // where each block of the half plane begins
};

}  // namespace ntkfast
