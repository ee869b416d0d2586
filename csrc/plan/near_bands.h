// The bands around D = 0 that are made before all others: the local variances v behind average pools and bilinear upsampling
// come from them.
#pragma once

#include <vector>

#include "plan/geometry.h"
#include "plan/program.h"
#include "plan/schedule.h"

namespace ntkfast {

// How far from D = 0 each target's bands must reach, along either axis; -1: not needed.
std::vector<int> near_reaches(const Program& program, const std::vector<Target>& targets);

// Of one target: its displacements up to `reach` along either axis.
struct NearStep {
    int reach;       // -1: none are needed
    MakeBands made;  // the whole of them, in one step

    bool needed() const { return reach >= 0; }
};

// By target.
std::vector<NearStep> near_steps(const Program& program, const std::vector<Target>& targets, const Shape& image);

}  // namespace ntkfast
