#pragma once

#include "cuda/sweep_kernel.h"
#include "cuda/sweep_launch.h"

namespace ntkfast::cuda {

template <class Real>
void launch_sweep(const Sweep<Real>& sweep, Reach reach, int tasks, int threads, Stream stream) {
    const std::int64_t shared = sweep.scratch != nullptr ? 0 : sweep.words * std::int64_t(sizeof(Real));
    const Launch how{tasks, threads, shared, stream};
    switch (reach) {
        case Reach::plain: return launch<SweepKernel<Real, Reach::plain>>("sweep", how, sweep);
        case Reach::rectifiers: return launch<SweepKernel<Real, Reach::rectifiers>>("sweep", how, sweep);
        case Reach::all: return launch<SweepKernel<Real, Reach::all>>("sweep", how, sweep);
    }
}

}  // namespace ntkfast::cuda
