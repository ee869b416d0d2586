// Tests may set these properties of the emulation.
#pragma once

#include "cuda/device.h"

namespace ntkfast::cuda::emulation {

// Sets the seed of the shuffled order of items and blocks, which goes on from launch to launch.
void seed(unsigned number);
// Returns what devices() tells of the emulated device, to be changed.
Device& device();

}  // namespace ntkfast::cuda::emulation
