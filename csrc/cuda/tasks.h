// The sweeps of a network are cut for a device here: into the layouts of its segments, lists of tasks, the tiles of a
// product.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/device.h"
#include "cuda/device_segment.h"
#include "cuda/sweep.h"
#include "cuda/tuning.h"
#include "plan/geometry.h"
#include "plan/program.h"
#include "plan/schedule.h"

namespace ntkfast::cuda {

// A Partition says what a device holds for a network, without computing anything: the layouts of its segments and the
// sizes that follow.  The program must outlive it.
class Partition {
public:
    // Raw is what bilinear upsampling makes of a field, before v is subtracted.
    struct Raw {
        int node;
        DeviceSegment segment;  // the raw field's, which is a target of its own
        Layout layout;
    };

    Partition(const Program& program, const Shape& shape, bool noise, const Device& device, const Tuning& tuning,
              std::size_t real);

    const Program& program;
    Shape shape;
    Device device;
    std::vector<Target> targets;
    std::vector<DeviceSegment> segments;
    std::vector<Layout> layouts;
    std::vector<Raw> raws;   // one for each bilinear upsampling
    int margin = 0;          // columns beside the image that the sweeps may read
    int most_tasks = 0;      // in one launch
    std::int64_t words = 0;  // scratch for the tasks of one launch, at most

    // Returns enough tasks for every multiprocessor a few times over, so that the last ones to end do not wait long.
    int tasks_at_once(const Layout& layout) const;

    // Returns the tasks of the output: [first, last] are bands of the half plane.
    std::vector<Task> output_tasks(const HalfPlane& plane, int first, int last) const;
    // Returns the tasks of the bands of the segment's target with the displacements [first, first + count), for the dy
    // of a sweep.
    std::vector<Task> band_tasks(const DeviceSegment& segment, const Layout& layout, const std::vector<int>& sweep,
                                 int first, int count) const;
    std::vector<Task> band_tasks(const MakeBands& step) const;

    // Counts the pairs that a task visits, or that the bands of all targets take.
    std::int64_t pairs_of(const DeviceSegment& segment, const Task& task) const;
    std::int64_t coarse_pairs(const HalfPlane& plane) const;

private:
    // A Range holds displacements dx0 <= dx < dx0 + count of some dy, at the sweep level of a segment.
    struct Range {
        int dy, dy_step, dy_count;
        int dx, dx_count;
    };

    Layout lay_out(const DeviceSegment& segment);
    void add_tasks(const Layout& layout, const Shape& at, const Range& range, int dx_step, bool pooled,
                   std::vector<Task>& out) const;

    Tuning tuning_;
    std::size_t real_;
};

// Tiles are those of one product.
struct Tiles {
    int columns, tasks;  // columns of v in one sweep, tasks in one launch
    int pitch_i, pitch_j;
    std::int64_t tile, tile_i;

    Tiles(const Partition& partition, int all_columns, std::size_t real);
};

}  // namespace ntkfast::cuda
