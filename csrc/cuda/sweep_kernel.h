// The sweep runs on a block of threads: for each dy of its task, row by row through the stages of a segment.
#pragma once

#include "cuda/sweep_results.h"
#include "cuda/sweep_stages.h"

namespace ntkfast::cuda {

template <class Real, Scope scope> struct SweepKernel {
    using Arguments = Sweep<Real>;
    using Stages = SweepStages<Real, scope>;
    using Results = SweepResults<Real, scope>;
    static constexpr int most_threads = most_sweep_threads(sizeof(Real));

    static NTKFAST_DEVICE void run(Team& team, int block, double* shared, const Sweep<Real>& a) {
        Frame<Real> f;
        // The other kernels know that it is shared memory, which makes for shorter addresses.
        f.memory = reinterpret_cast<Real*>(shared);
        if constexpr (scope == Scope::all)
            if (a.scratch != nullptr) f.memory = a.scratch + block * a.words;
        f.task = a.tasks[block];
        for (int m = 0; m < f.task.dy_count; ++m) {
            f.first = m == 0;
            f.dy = f.task.dy + m * f.task.dy_step;
            f.row0 = a.geometry.circular ? 0 : larger(0, -f.dy);
            f.rows = a.geometry.circular ? a.geometry.height : a.geometry.height - (f.dy < 0 ? -f.dy : f.dy);
            for (int step = a.begin; step < f.rows + a.beyond; step += rows_per_step) {
                for (int s = 0; s < a.stage_count; ++s) {
                    Stages::stage(team, a, f, a.stages + s, step - a.stages[s].lag);
                    team.barrier();
                }
                // The first stage of the next step may run beside it: it writes other rows, unless it is the last one
                // too.
                Results::deliver(team, a, f, step - a.end_lag, block);
                if (a.stage_count == 1) team.barrier();
            }
        }
    }
};

}  // namespace ntkfast::cuda
