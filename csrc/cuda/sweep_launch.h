// Launches of the sweep kernel, compiled apart since they take the compiler longest.
#pragma once

#include "sweep.h"

namespace ntkfast::cuda {

// A block for each task.
template <class Real>
void launch_sweep(const Sweep<Real>& sweep, bool general, int dx_step, int tasks, int threads, Stream stream);

}  // namespace ntkfast::cuda
