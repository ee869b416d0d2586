// What tests may set of the emulation.
#pragma once

#include "cuda/device.h"

namespace ntkfast::cuda::emulation {

// Of the shuffled order of items and blocks, which goes on from launch to launch.
void seed(unsigned number);
// What devices() tells of the emulated device, to be changed.
Device& device();

}  // namespace ntkfast::cuda::emulation
