// These functions walk the sweep over several resolutions, group by group of the output's bands.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <vector>

#include "plan/geometry.h"
#include "plan/monitor.h"
#include "plan/schedule.h"

namespace ntkfast {

// Calls visit(steps, schedule, first band, last band) for the groups of bands of the output, in order.
template <class Visit>
void each_group(const Program& program, const std::vector<Target>& targets, const HalfPlane& plane, const Shape& shape,
                bool keep, Visit visit) {
    Schedule schedule(program, targets, shape, keep);
    const int group = schedule.outputs_at_once(plane.bands());
    for (int first = 0; first < plane.bands(); first += group) {
        const int last = std::min(plane.bands(), first + group) - 1;
        const auto steps = schedule.prepare(plane.band_dy(first), plane.band_dy(last));
        visit(steps, schedule, first, last);
    }
}

// Makes the coarse bands: make(step) where one is due, drop(target, dy) for what is not needed any more below dy, and
// output(first, last) when the output's bands [first, last] can be computed.
template <class Make, class Drop, class Output>
void make_bands(const Program& program, const std::vector<Target>& targets, const HalfPlane& plane, const Shape& shape,
                bool keep, const Monitor& monitor, Make make, Drop drop, Output output) {
    each_group(program, targets, plane, shape, keep,
               [&](const auto& steps, const Schedule& schedule, int first, int last) {
                   for (const MakeBands& step : steps) {
                       if (monitor.stopped()) return;
                       make(step);
                   }
                   for (int t = 0; t + 1 < int(targets.size()); ++t) drop(t, schedule.drop(t));
                   if (!monitor.stopped()) output(first, last);
               });
}

// Counts the pairs that the segments of the coarse bands visit; pairs_of(step) counts those of one step.
template <class PairsOf>
std::int64_t coarse_pairs(const Program& program, const std::vector<Target>& targets, const HalfPlane& plane,
                          const Shape& shape, PairsOf pairs_of) {
    std::int64_t sum = 0;
    each_group(program, targets, plane, shape, false, [&](const auto& steps, const Schedule&, int, int) {
        for (const MakeBands& step : steps) sum += pairs_of(step);
    });
    return sum;
}

// Returns the most bytes that the bands of all targets hold at once; bytes_of(target, shape, dy) are those of one band.
template <class BytesOf>
std::int64_t most_band_bytes(const Program& program, const std::vector<Target>& targets, const HalfPlane& plane,
                             const Shape& shape, bool keep, BytesOf bytes_of) {
    std::vector<std::map<int, std::int64_t>> held(targets.size());
    std::int64_t sum = 0, most = 0;
    each_group(program, targets, plane, shape, keep, [&](const auto& steps, const Schedule& schedule, int, int) {
        for (const MakeBands& step : steps) {
            const Target& target = targets[std::size_t(step.target)];
            const Shape at = at_level(program, shape, target.level);
            for (int dy = step.first; dy <= target.last_begun(step.last); ++dy) {
                if (!program.circular() && std::abs(dy) >= at.height) continue;
                std::int64_t& bytes = held[std::size_t(step.target)][dy];
                sum -= bytes;
                bytes = bytes_of(target, at, dy);
                sum += bytes;
            }
        }
        most = std::max(most, sum);
        for (std::size_t t = 0; t < held.size(); ++t) {
            const auto end = held[t].lower_bound(schedule.drop(int(t)));
            for (auto band = held[t].begin(); band != end; band = held[t].erase(band)) sum -= band->second;
        }
    });
    return most;
}

}  // namespace ntkfast
