// The tuning says how a sweep is cut into tasks; zeros leave the choice to DeviceSegment::layout.
#pragma once

namespace ntkfast::cuda {

struct Tuning {
    int lanes = 0;           // displacements in a block: 4, 8, 16 or 32
    int columns = 0;         // width of a block's strip: a multiple of 4
    int displacements = 0;   // how many dy in a task, at most
    int tasks_at_once = 0;   // in one launch, at most
    int threads = 0;         // how many in a block
    bool no_shared = false;  // rows lie in a global buffer, as where they are too many for the shared memory
};

}  // namespace ntkfast::cuda
