// The bands around D = 0 are made before all others, since the local variances v behind average pools and bilinear
// upsampling come from them.
#pragma once

#include <vector>

#include "plan/geometry.h"
#include "plan/program.h"
#include "plan/schedule.h"

namespace ntkfast {

// A NearStep is what one target needs: its displacements up to `extent` along either axis.
struct NearStep {
    int extent;      // -1: none are needed
    MakeBands made;  // the whole of them, in one step

    bool needed() const { return extent >= 0; }
};

// Makes the step of the target with an index among all, out to a given displacement.
NearStep near_step(const Program& program, const Target& target, int index, const Shape& image, int extent);

// Makes the steps of all targets, as far as the local variances need them.
std::vector<NearStep> near_steps(const Program& program, const std::vector<Target>& targets, const Shape& image);

}  // namespace ntkfast
