#include "plan/near_bands.h"

#include <algorithm>
#include <cstdlib>

namespace ntkfast {
namespace {

// Computes how far from D = 0 each target's bands must extend, along either axis; -1 says that they are not needed.
std::vector<int> extents_of(const Program& program, const std::vector<Target>& targets) {
    std::vector<int> extents(targets.size(), -1);
    const auto raise = [&](int target, int extent) {
        int& known = extents[std::size_t(target)];
        known = std::max(known, extent);
    };
    for (std::size_t t = targets.size(); t-- > 0;) {
        const Target& target = targets[t];
        if (target.kind == TargetKind::pooled) raise(int(t), 0);
        const int sweep = target.last_sweep(extents[t]);
        for (const Source& source : sources_of(program, targets, target)) {
            if (source.target < 0) continue;
            // Behind bilinear upsampling v is needed even where the segment itself is not.
            const bool bilinear = source.sampling.kind == Resampling::Kind::bilinear;
            const int needed = bilinear ? std::max(sweep, 0) : sweep;
            if (needed >= 0) raise(source.target, source.sampling.reads({needed, needed}).high);
        }
    }
    return extents;
}

}  // namespace

NearStep near_step(const Program& program, const Target& target, int index, const Shape& image, int extent) {
    if (extent < 0) return {extent, {index, 0, -1, {}}};
    const int most = program.circular() ? extent : std::min(extent, at_level(program, image, target.level).height - 1);
    const int rows = at_level(program, image, target.sweep_level()).height, far = target.last_sweep(most);
    NearStep step{extent, {index, -most, most, {}}};
    for (int dy = -far; dy <= far; dy += target.sweep_step())
        if (program.circular() || std::abs(dy) < rows) step.made.sweep.push_back(dy);
    return step;
}

std::vector<NearStep> near_steps(const Program& program, const std::vector<Target>& targets, const Shape& image) {
    std::vector<NearStep> out;
    const std::vector<int> extents = extents_of(program, targets);
    for (std::size_t t = 0; t < targets.size(); ++t)
        out.push_back(near_step(program, targets[t], int(t), image, extents[t]));
    return out;
}

}  // namespace ntkfast
