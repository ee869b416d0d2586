#include "plan/schedule.h"

#include <algorithm>
#include <cstdint>
#include <limits>

namespace ntkfast {

Schedule::Schedule(const Program& program, const std::vector<Target>& targets, const Shape& shape, bool keep)
    : program_(program), targets_(targets), shape_(shape), keep_(keep), states_(targets.size()),
      drop_(targets.size(), std::numeric_limits<int>::min()) {
    for (const Target& target : targets) sources_.push_back(sources_of(program, targets, target));
    // Going backwards from the output, this finds the first band that any segment reads.
    std::vector<int> first(targets.size(), std::numeric_limits<int>::max());
    first.back() = 0;
    for (int t = int(targets.size()) - 1; t >= 0; --t) {
        const int start = clip(t, first[std::size_t(t)]);
        states_[std::size_t(t)] = {start, targets[std::size_t(t)].first_sweep(start)};
        for (const Source& source : sources_[std::size_t(t)]) {
            if (source.target < 0) continue;
            int& read = first[std::size_t(source.target)];
            read = std::min(read, lowest_read(source, states_[std::size_t(t)].next_sweep));
        }
    }
}

int Schedule::outputs_at_once(int bands) const {
    if (targets_.size() == 1) return bands;
    constexpr std::int64_t budget = 32 << 20, most = 8;  // bytes for bands beyond the fewest
    const int factor = program_.downsampling(1);
    const Shape coarse = downsampled(shape_, factor);
    const std::int64_t band = 2 * std::int64_t(sizeof(float)) * coarse.elements() * coarse.width;
    return factor * int(std::clamp<std::int64_t>(budget / band, 1, most));
}

// Returns the nearest displacement that exists, since others are not read; on the torus all exist.
int Schedule::clip(int target, int dy) const {
    if (program_.circular()) return dy;
    const int last = at_level(program_, shape_, targets_[std::size_t(target)].level).height - 1;
    return std::clamp(dy, -last, last);
}

int Schedule::lowest_read(const Source& source, int dy) const {
    return clip(source.target, source.sampling.reads({dy, dy}).low);
}

int Schedule::highest_read(const Source& source, int dy) const {
    return clip(source.target, source.sampling.reads({dy, dy}).high);
}

std::vector<MakeBands> Schedule::prepare(int low, int high) {
    std::vector<MakeBands> steps;
    for (const Source& source : sources_.back())
        if (source.target >= 0) need(source.target, highest_read(source, high), steps);
    states_.back().next_sweep = low;
    update_drops(low);
    return steps;
}

void Schedule::need(int target, int high, std::vector<MakeBands>& steps) {
    State& state = states_[std::size_t(target)];
    high = clip(target, high);
    if (high < state.next_band) return;
    MakeBands step{target, state.next_band, high, {}};
    const Target& made = targets_[std::size_t(target)];
    const int last = made.last_sweep(high);
    const int rows = at_level(program_, shape_, made.sweep_level()).height;
    for (int dy = state.next_sweep; dy <= last; dy += made.sweep_step())
        if (program_.circular() || (dy < rows && -dy < rows)) step.sweep.push_back(dy);
    for (const Source& source : sources_[std::size_t(target)])
        if (source.target >= 0) need(source.target, highest_read(source, last), steps);
    state = {high + 1, last + made.sweep_step()};
    steps.push_back(std::move(step));
}

void Schedule::update_drops(int output_dy) {
    std::fill(drop_.begin(), drop_.end(), std::numeric_limits<int>::max());
    for (int t = 0; t < int(targets_.size()); ++t) {
        const bool output = t + 1 == int(targets_.size());
        const int next = output ? output_dy : states_[std::size_t(t)].next_sweep;
        for (const Source& source : sources_[std::size_t(t)]) {
            if (source.target < 0) continue;
            int& drop = drop_[std::size_t(source.target)];
            const int read = output && keep_ ? std::numeric_limits<int>::min() : lowest_read(source, next);
            drop = std::min(drop, read);
        }
    }
}

}  // namespace ntkfast
