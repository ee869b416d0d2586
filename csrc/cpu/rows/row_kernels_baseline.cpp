// The row kernels compiled for the level "baseline"; CMakeLists.txt gives this file its flags.
#include "cpu/rows/row_kernels_impl.h"

namespace ntkfast {

template <> const RowKernels<float>* row_kernels_baseline<float>() { return &table<float>; }
template <> const RowKernels<double>* row_kernels_baseline<double>() { return &table<double>; }

}  // namespace ntkfast
