#include "cuda/sweep_launch_impl.h"

namespace ntkfast::cuda {

template void launch_sweep(const Sweep<double>&, Scope, int, int, Stream);

}  // namespace ntkfast::cuda
