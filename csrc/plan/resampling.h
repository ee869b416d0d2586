// Average pools and upsampling by 2: what one resolution reads of the other.
#pragma once

#include "plan/geometry.h"

namespace ntkfast {

// Coarse displacements that an upsampling reads for the fine displacements [low, high], along one axis.
inline int lowest_coarse(int low, bool bilinear) { return floor_half(low) - (bilinear ? 1 : 0); }
inline int highest_coarse(int high, bool bilinear) { return floor_half(high + 1) + (bilinear ? 1 : 0); }

}  // namespace ntkfast
