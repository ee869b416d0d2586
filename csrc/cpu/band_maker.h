// Makes the bands of one target by sweeping its segment.
#pragma once

#include <memory>
#include <vector>

#include "bands.h"
#include "fields.h"
#include "monitor.h"
#include "pipeline.h"
#include "plan.h"
#include "schedule.h"

namespace ntkfast {

template <class Real> class BandMaker {
public:
    BandMaker(const Program& program, const std::vector<Target>& targets, int target, const Fields<Real>& fields,
              const Stores<Real>& stores, const RowKernels<Real>& kernels, int lanes, int threads);

    // Threads take tasks by coarse dx as they come free: each row of a band is written by one task, in ascending dy, so that
    // the bits do not depend on who does it.
    void run(const MakeBands& step, Monitor& monitor);

    // Writes what is known of the displacement 0: E = 0 (in a pool's raw form) and the diagonal of T'.
    void seal(int dy);

    // Bytes that the pipelines of all threads take.
    std::int64_t bytes() const { return threads_ * Pipeline<Real>::bytes(program_, plan_, lanes_); }

private:
    struct Task {  // coarse displacements [first, first + count)
        int first, count;
    };
    Block block(int dy, const Task& task) const;

    const Program& program_;
    const Fields<Real>& fields_;
    const RowKernels<Real>& kernels_;
    const Stores<Real>& stores_;
    Plan plan_;
    int target_, lanes_, threads_;
    std::vector<std::unique_ptr<Pipeline<Real>>> pipelines_;  // by thread, made when first needed
};

}  // namespace ntkfast
