// The sweep kernel is launched from files of its own, since it takes the compiler longest.
#pragma once

#include "cuda/sweep.h"

namespace ntkfast::cuda {

// Launches a block for each task.
template <class Real>
void launch_sweep(const Sweep<Real>& sweep, Scope scope, int tasks, int threads, Stream stream);

}  // namespace ntkfast::cuda
