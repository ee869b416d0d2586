// Launches of the sweep kernel, compiled apart since they take the compiler longest.
#pragma once

#include "cuda/sweep.h"

namespace ntkfast::cuda {

// A block for each task.
template <class Real>
void launch_sweep(const Sweep<Real>& sweep, Reach reach, int tasks, int threads, Stream stream);

}  // namespace ntkfast::cuda
