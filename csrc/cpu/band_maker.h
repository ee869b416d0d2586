// A BandMaker makes the bands of one target by sweeping its segment.
#pragma once

#include <memory>
#include <vector>

#include "cpu/bands.h"
#include "cpu/pipeline.h"
#include "plan/fields.h"
#include "plan/monitor.h"
#include "plan/plan.h"
#include "plan/schedule.h"

namespace ntkfast {

// A BandTask is the coarse displacements dx, [first, first + count), that one thread sweeps.
struct BandTask {
    int first, count;
};

// Counts the pairs that the tasks of a step visit.  Neighbouring tasks of a pool both sweep the displacements between
// theirs.
std::int64_t pairs_of(const Program& program, const Target& target, const Shape& image, int lanes,
                      const MakeBands& step);

template <class Real> class BandMaker {
public:
    BandMaker(const Program& program, const std::vector<Target>& targets, int target, const Fields<Real>& fields,
              const Stores<Real>& stores, const RowKernels<Real>& kernels, int lanes, int threads);

    // Threads take tasks by coarse dx as they come free: each row of a band is written by one task, in ascending dy, so
    // that the bits do not depend on who does it.
    void run(const MakeBands& step, Monitor& monitor);

private:
    const Program& program_;
    const Fields<Real>& fields_;
    const RowKernels<Real>& kernels_;
    const Stores<Real>& stores_;
    Plan plan_;
    int target_, lanes_, threads_;
    std::vector<std::unique_ptr<Pipeline<Real>>> pipelines_;  // by thread, made when first needed
};

// Returns what is known of the displacement 0 in a band of a target, at element l of row y: E = 0 (in a pool's raw form
// 2 v) and the diagonal of T'.  `shape` is that of the target's level.
template <class Real>
Pair<Real> same_pixel(const Program& program, const Target& target, const Fields<Real>& fields, const Shape& shape,
                      int y, std::ptrdiff_t l);

// Writes into a finished band what is known of the displacement 0: E = 0 (in a pool's raw form) and the diagonal of T'.
template <class Real>
void seal(const Program& program, const Target& target, const Fields<Real>& fields, BandStore<Real>& store, int dy);

}  // namespace ntkfast
