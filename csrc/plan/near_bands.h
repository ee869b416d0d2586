// The bands around D = 0 that are made before all others: the local variances v behind average pools and bilinear upsampling
// come from them.
#pragma once

#include <vector>

#include "plan/geometry.h"
#include "plan/program.h"
#include "plan/schedule.h"

namespace ntkfast {

// Of one target: its displacements up to `reach` along either axis.
struct NearStep {
    int reach;       // -1: none are needed
    MakeBands made;  // the whole of them, in one step

    bool needed() const { return reach >= 0; }
};

// Of the target with an index among all, out to a reach.
NearStep near_step(const Program& program, const Target& target, int index, const Shape& image, int reach);

// Of all targets, as far as the local variances need them.
std::vector<NearStep> near_steps(const Program& program, const std::vector<Target>& targets, const Shape& image);

}  // namespace ntkfast
