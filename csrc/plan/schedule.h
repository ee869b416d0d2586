// A Schedule says in which order the bands of all targets are made and dropped while the output is swept from dy = 0
// on.
#pragma once

#include <vector>

#include "plan/geometry.h"
#include "plan/program.h"

namespace ntkfast {

// This is one step: the bands [first, last] of a target are made by sweeping the displacements dy of its segment; a
// band of a pool that was begun before is completed, and the one after `last` is begun.
struct MakeBands {
    int target;
    int first, last;
    std::vector<int> sweep;  // dy at the sweep level, ascending
};

class Schedule {
public:
    // `keep` says that bands that the output reads are not dropped, so that a second sweep finds them.
    Schedule(const Program& program, const std::vector<Target>& targets, const Shape& shape, bool keep);

    // Counts the output's dy that are swept between two calls of prepare(), of `bands` in all: a multiple of the factor
    // of the first level, since so many read the same coarse bands; more where bands are small, so that threads seldom
    // wait for each other.
    int outputs_at_once(int bands) const;

    // Returns what is to be made before the output's displacements dy in [low, high] can be computed, in order.  After
    // these steps the bands of every target below drop() are not needed any more.
    std::vector<MakeBands> prepare(int low, int high);
    int drop(int target) const { return drop_[std::size_t(target)]; }

private:
    struct State {
        int next_band, next_sweep;
    };
    void need(int target, int high, std::vector<MakeBands>& steps);
    int lowest_read(const Source& source, int dy) const;
    int highest_read(const Source& source, int dy) const;
    int clip(int target, int dy) const;
    void update_drops(int output_dy);

    const Program& program_;
    const std::vector<Target>& targets_;
    Shape shape_;
    bool keep_;
    std::vector<std::vector<Source>> sources_;  // by target
    std::vector<State> states_;
    std::vector<int> drop_;
};

}  // namespace ntkfast
