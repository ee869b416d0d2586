#include "cuda/tasks.h"

#include <algorithm>

#include "plan/groups.h"

namespace ntkfast::cuda {
namespace {

// Partial sums of a task, in Real, are added in double after so many displacements dy, each with all lanes at once.
constexpr int most_dy = 64;
// A sweep takes at most so many columns of v.
constexpr int most_columns = 64;
// Tiles and scratch may take one part in so many of the device's memory.
constexpr int memory_share = 8;

// Counts the pairs of displacements dx + b*dx_step for the lanes that a task wants, in one row of its columns.
std::int64_t pairs_in_row(const Program& program, const Shape& at, const Task& task, int dx_step) {
    const int end = std::min(task.x + task.columns, at.width);
    std::int64_t sum = 0;
    for (int b = task.first_lane; b < task.end_lane; ++b) {
        const int d = task.dx + b * dx_step;
        const int low = program.circular() ? 0 : std::max(0, -d);
        const int high = program.circular() ? at.width : at.width - std::max(0, d);
        sum += std::max(0, std::min(end, high) - std::max(task.x, low));
    }
    return sum;
}

std::int64_t rows_of(const Program& program, const Shape& at, const Task& task) {
    std::int64_t sum = 0;
    for (int n = 0; n < task.dy_count; ++n)
        sum += Block::of_rows(at, program.circular(), task.dy + n * task.dy_step).rows;
    return sum;
}

}  // namespace

Partition::Partition(const Program& of_program, const Shape& of_shape, bool noise, const Device& of_device,
                     const Tuning& tuning, std::size_t real)
    : program(of_program), shape(of_shape), device(of_device), targets(targets_of(program)), tuning_(tuning),
      real_(real) {
    for (int t = 0; t < int(targets.size()); ++t) {
        segments.emplace_back(program, targets, t, shape, noise);
        layouts.push_back(lay_out(segments.back()));
    }
    for (int n = 0; n < program.size(); ++n) {
        if (program[n].op != Op::upsample || !program[n].bilinear) continue;
        std::vector<Target> extended = targets;
        extended.push_back({TargetKind::features, n, program[n].level});
        const DeviceSegment segment(program, extended, int(targets.size()), shape, noise);
        raws.push_back({n, segment, lay_out(segment)});
    }
}

Layout Partition::lay_out(const DeviceSegment& segment) {
    const Layout layout = segment.layout(device, real_, tuning_);
    const int tasks = tasks_at_once(layout);
    margin = std::max(margin, layout.columns + 2 * layout.halo + 2 * guard + 2 * columns_per_item +
                                  2 * layout.lanes() * segment.dx_step());
    most_tasks = std::max(most_tasks, tasks);
    if (!layout.shared) words = std::max(words, layout.words * tasks);
    return layout;
}

int Partition::tasks_at_once(const Layout& layout) const {
    std::int64_t tasks =
        tuning_.tasks_at_once > 0 ? tuning_.tasks_at_once : std::int64_t(4) * device.multiprocessors * layout.blocks;
    if (!layout.shared) tasks = std::min(tasks, device.bytes / memory_share / (layout.words * std::int64_t(real_)));
    return int(std::max<std::int64_t>(1, tasks));
}

// Adds the tasks of a range: as many displacements as there are lanes after another, and strips of columns.
void Partition::add_tasks(const Layout& layout, const Shape& at, const Range& range, int dx_step, bool pooled,
                          std::vector<Task>& out) const {
    const int end = range.dx + range.dx_count * dx_step, lanes = layout.lanes();
    // Products read v in fours.
    const int start = pooled || dx_step > 1 ? range.dx : range.dx - modulo(range.dx, 4);
    for (int dx = start; dx < end; dx += lanes * dx_step) {
        const int first_lane = std::max(0, range.dx - dx),
                  end_lane = std::min(lanes, (end - dx + dx_step - 1) / dx_step);
        const int low = dx + first_lane * dx_step, high = dx + (end_lane - 1) * dx_step;
        for (int x = 0; x < at.width; x += layout.columns) {
            int begin = x, finish = std::min(x + layout.columns, at.width);
            if (!program.circular()) {
                begin = std::max(begin, -high) & ~3;
                finish = std::min(finish, at.width - std::max(0, low));
            }
            if (begin >= finish) continue;
            out.push_back({begin, (finish - begin + 3) / 4 * 4, dx, first_lane, end_lane, range.dy, range.dy_step,
                           range.dy_count});
        }
    }
}

std::vector<Task> Partition::output_tasks(const HalfPlane& plane, int first, int last) const {
    const Layout& layout = layouts.back();
    // Runs of dy are to be long enough that tiles are added seldom, and short enough that all multiprocessors have
    // some.
    const std::int64_t groups =
        std::int64_t(2 * shape.width / layout.lanes() + 1) * ((shape.width + layout.columns - 1) / layout.columns);
    const std::int64_t wanted = std::int64_t(4) * device.multiprocessors * layout.blocks;
    int run = int(std::clamp<std::int64_t>((last - first + 1) * groups / wanted, 1, most_dy));
    if (tuning_.displacements > 0) run = std::min(tuning_.displacements, most_dy);
    std::vector<Task> out;
    for (int band = first; band <= last;) {
        int end = band;
        while (end <= last && end - band < run && plane.first_dx(end) == plane.first_dx(band) &&
               plane.dx_count(end) == plane.dx_count(band))
            ++end;
        const Range range{plane.band_dy(band), 1, end - band, plane.first_dx(band), plane.dx_count(band)};
        if (range.dx_count > 0) add_tasks(layout, shape, range, 1, false, out);
        band = end;
    }
    return out;
}

std::vector<Task> Partition::band_tasks(const DeviceSegment& segment, const Layout& layout,
                                        const std::vector<int>& sweep, int first, int count) const {
    std::vector<Task> out;
    if (sweep.empty()) return out;
    const Target& target = segment.plan().target;
    const Shape& at = segment.plan().shape;
    Range range{sweep.front(), target.sweep_step(), int(sweep.size()), first, count};
    if (target.kind != TargetKind::pooled) {
        range.dx = target.first_sweep(first);
        add_tasks(layout, at, range, segment.dx_step(), false, out);
        return out;
    }
    // Neighbouring coarse displacements share fine ones: a task has more lanes than it moves on.
    const int coarse = target.sampling.displacements_within(layout.lanes());
    for (int c = 0; c < count; c += coarse) {
        range.dx = target.first_sweep(first + c);
        range.dx_count = target.sampling.displacements_read(std::min(coarse, count - c));
        add_tasks(layout, at, range, 1, true, out);
    }
    return out;
}

std::vector<Task> Partition::band_tasks(const MakeBands& step) const {
    const std::size_t t = std::size_t(step.target);
    const int width = at_level(program, shape, targets[t].level).width;
    const int first = program.circular() ? 0 : 1 - width, count = program.circular() ? width : 2 * width - 1;
    return band_tasks(segments[t], layouts[t], step.sweep, first, count);
}

std::int64_t Partition::pairs_of(const DeviceSegment& segment, const Task& task) const {
    const Shape& at = segment.plan().shape;
    return rows_of(program, at, task) * pairs_in_row(program, at, task, segment.dx_step());
}

std::int64_t Partition::coarse_pairs(const HalfPlane& plane) const {
    return ntkfast::coarse_pairs(program, targets, plane, shape, [&](const MakeBands& step) {
        std::int64_t sum = 0;
        for (const Task& task : band_tasks(step)) sum += pairs_of(segments[std::size_t(step.target)], task);
        return sum;
    });
}

Tiles::Tiles(const Partition& partition, int all_columns, std::size_t real) {
    const Layout& layout = partition.layouts.back();
    const int height = partition.shape.height;
    pitch_i = layout.columns;
    pitch_j = layout.columns + layout.lanes();
    columns = std::min(all_columns, most_columns);
    const std::int64_t budget = partition.device.bytes / memory_share;
    const auto bytes = [&] { return std::int64_t(height) * columns * (pitch_i + pitch_j) * std::int64_t(real); };
    while (columns > 4 && bytes() * partition.device.multiprocessors * layout.blocks > budget)
        columns = (columns + 1) / 2;
    tasks = int(std::clamp<std::int64_t>(budget / bytes(), 1, partition.tasks_at_once(layout)));
    tile_i = std::int64_t(height) * columns * pitch_i;
    tile = tile_i + std::int64_t(height) * columns * pitch_j;
}

}  // namespace ntkfast::cuda
