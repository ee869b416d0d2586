// A DeviceSegment is the segment of a target on a device: its stages, where their rows lie, and how blocks are cut.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/device.h"
#include "cuda/sweep.h"
#include "cuda/tuning.h"
#include "plan/plan.h"

namespace ntkfast::cuda {

// StageParts are the values of one stage, as indices of the plan.
struct StageParts {
    int value;  // the value that it makes: the last of its chain
    std::vector<int>
        maps;  // in a pointwise stage: the values of its maps, each a window of one row over the one before
    Rows out, in, a, b;
    int ring;
};

// A Layout says how a block's memory is laid out, and how many blocks a multiprocessor holds.
struct Layout {
    int lane_bits = 0, stride = 0, columns = 0, halo = 0, positions = 0, out_pitch = 0;
    std::int64_t results = 0, words = 0;
    int threads = 0, blocks = 0;
    bool shared = false;

    int lanes() const { return 1 << lane_bits; }
};

class DeviceSegment {
public:
    DeviceSegment(const Program& program, const std::vector<Target>& targets, int target, const Shape& shape,
                  bool noise);

    const Plan& plan() const { return plan_; }
    const std::vector<StageParts>& stages() const { return stages_; }
    int rows() const { return rows_; }
    Rows end() const { return end_; }
    int dx_step() const { return plan_.target.sweep_step(); }
    // Returns the least kernel that can run the stages.
    Scope scope() const { return scope_; }
    // Returns the fastest layout by an estimate; it is forced where the tuning says so.
    Layout layout(const Device& device, std::size_t real, const Tuning& tuning) const;

private:
    void find_stages(const Program& program);
    void place_rows();
    Rows take(int slots, bool tangent);
    Layout lay_out(int lanes, int columns, std::size_t real) const;
    double score(const Layout& layout, const Device& device, std::size_t real) const;

    Plan plan_;
    std::vector<StageParts> stages_;
    int rows_ = 0;
    Rows end_{};
    Scope scope_ = Scope::plain;
};

}  // namespace ntkfast::cuda
