#pragma once

#include "cuda/sweep_kernel.h"
#include "cuda/sweep_launch.h"

namespace ntkfast::cuda {

template <class Real>
void launch_sweep(const Sweep<Real>& sweep, Scope scope, int tasks, int threads, Stream stream) {
    const std::int64_t shared = sweep.scratch != nullptr ? 0 : sweep.words * std::int64_t(sizeof(Real));
    const Launch how{tasks, threads, shared, stream};
    switch (scope) {
        case Scope::plain: return launch<SweepKernel<Real, Scope::plain>>("sweep", how, sweep);
        case Scope::rectifiers: return launch<SweepKernel<Real, Scope::rectifiers>>("sweep", how, sweep);
        case Scope::all: return launch<SweepKernel<Real, Scope::all>>("sweep", how, sweep);
    }
}

}  // namespace ntkfast::cuda
