// The spreads are the local variances v of pools and bilinear upsamplings.
#pragma once

#include <vector>

#include "cuda/device_fields.h"
#include "cuda/waves.h"
#include "plan/fields.h"

namespace ntkfast::cuda {

// Computes v of every pool and bilinear upsampling from the device's own raw field at D = 0, by the kernels that sweep
// all other displacements, so that pixels that are alike cancel to the last bit (docs/math.md). It writes them into the
// fields and their planes, and returns what is known of i = j, by target.
template <class Real>
std::vector<Array<Real>> choose_spreads(const Partition& partition, Fields<Real>& fields, DeviceFields<Real>& planes,
                                        Waves<Real>& waves, Stream stream);

// Returns the bytes that this takes and gives back.
template <class Real> std::int64_t spreads_bytes(const Partition& partition);

}  // namespace ntkfast::cuda
