// The row kernels compiled for the level "avx512"; CMakeLists.txt gives this file its flags.
#include "cpu/rows/row_kernels_impl.h"

namespace ntkfast {

template <> const RowKernels<float>* row_kernels_avx512<float>() { return &table<float>; }
template <> const RowKernels<double>* row_kernels_avx512<double>() { return &table<double>; }

}  // namespace ntkfast
