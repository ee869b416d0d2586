#pragma once

#include "sweep_kernel.h"
#include "sweep_launch.h"

namespace ntkfast::cuda {

template <class Real>
void launch_sweep(const Sweep<Real>& sweep, bool general, int dx_step, int tasks, int threads, Stream stream) {
    const std::int64_t shared = sweep.scratch != nullptr ? 0 : sweep.words * std::int64_t(sizeof(Real));
    const Launch how{tasks, threads, shared, stream};
    if (dx_step == 2)
        launch<SweepKernel<Real, true, 2>>("sweep", how, sweep);
    else if (general)
        launch<SweepKernel<Real, true, 1>>("sweep", how, sweep);
    else
        launch<SweepKernel<Real, false, 1>>("sweep", how, sweep);
}

}  // namespace ntkfast::cuda
