#include "cuda/device_segment.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace ntkfast::cuda {
namespace {

int up_to(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace

DeviceSegment::DeviceSegment(const Program& program, const std::vector<Target>& targets, int target, const Shape& shape,
                             bool noise)
    : plan_(program, targets, target, shape, noise) {
    find_stages(program);
    place_rows();
}

// A map whose window is one row, over a value that nothing else reads, is done in the stage that makes the value.
void DeviceSegment::find_stages(const Program& program) {
    const auto maps_of = [&](int box) {
        std::vector<int> maps;
        for (std::size_t v = 0; v < plan_.values.size(); ++v)
            if (plan_.values[v].kind == ValueKind::map && plan_.values[v].box == box) maps.push_back(int(v));
        return maps;
    };
    std::vector<bool> done(plan_.values.size(), false);
    for (std::size_t v = 0; v < plan_.values.size(); ++v) {
        const Value& value = plan_.values[v];
        const Op op = program[value.node].op;
        if (value.kind != ValueKind::map && value.kind != ValueKind::image)
            scope_ = std::max(scope_, Scope::rectifiers);
        if (value.kind == ValueKind::map && is_activation(op) && op != Op::rectifier) scope_ = Scope::all;
        if (done[v]) continue;
        StageParts stage{int(v), {}, {}, {}, {}, {}, 0};
        if (value.kind == ValueKind::map) stage.maps.push_back(int(v));
        while (!stage.maps.empty() && int(stage.maps.size()) < most_maps) {
            const Value& last = plan_.values[std::size_t(stage.value)];
            if (last.boxes.size() != 1 || last.merged || plan_.boxes[std::size_t(last.boxes[0])].slots != 1) break;
            const std::vector<int> readers = maps_of(last.boxes[0]);
            if (readers.size() != 1) break;
            stage.value = readers[0];
            stage.maps.push_back(stage.value);
            done[std::size_t(stage.value)] = true;
        }
        stages_.push_back(stage);
    }
}

Rows DeviceSegment::take(int slots, bool tangent) {
    const Rows rows{rows_, slots, tangent ? 2 : 1};
    rows_ += rows.slots * rows.fields;
    return rows;
}

// Rows that are read in the step in which they are made share a few buffers; those that wait for a merge, and the last
// ones, have their own.
void DeviceSegment::place_rows() {
    const int count = int(stages_.size()), last = int(plan_.values.size()) - 1;
    std::vector<Rows> rows_of(plan_.values.size());
    struct Buffer {
        Rows rows;
        int read_until;  // stage
    };
    std::vector<Buffer> buffers;
    for (int s = 0; s < count; ++s) {
        StageParts& stage = stages_[std::size_t(s)];
        const Value& value = plan_.values[std::size_t(stage.value)];
        int read_until = s, wait = 0;
        for (int reader = s + 1; reader < count; ++reader) {
            const StageParts& other = stages_[std::size_t(reader)];
            const Value& made = plan_.values[std::size_t(other.value)];
            const bool by_window =
                !other.maps.empty() &&
                plan_.boxes[std::size_t(plan_.values[std::size_t(other.maps[0])].box)].value == stage.value;
            const bool by_merge = made.kind == ValueKind::merge && (made.a == stage.value || made.b == stage.value);
            if (by_window || by_merge) read_until = reader;
            if (by_merge) wait = std::max(wait, made.lag - value.lag);
        }
        if (stage.value == last) {
            if (plan_.target.kind != TargetKind::output) stage.out = end_ = take(rows_per_step, value.tangent);
        } else if (wait > 0) {
            stage.out = take(wait + rows_per_step, value.tangent);
        } else {
            const auto free = std::find_if(buffers.begin(), buffers.end(), [&](const Buffer& buffer) {
                return buffer.read_until < s && buffer.rows.fields >= (value.tangent ? 2 : 1);
            });
            if (free == buffers.end()) {
                stage.out = take(rows_per_step, value.tangent);
                buffers.push_back({stage.out, read_until});
            } else {
                stage.out = free->rows;
                free->read_until = read_until;
            }
            stage.out.fields = value.tangent ? 2 : 1;
        }
        rows_of[std::size_t(stage.value)] = stage.out;
        if (value.a >= 0) stage.a = rows_of[std::size_t(value.a)];
        if (value.b >= 0) stage.b = rows_of[std::size_t(value.b)];
        if (stage.maps.empty()) continue;
        const Box& box = plan_.boxes[std::size_t(plan_.values[std::size_t(stage.maps[0])].box)];
        const Value& before = plan_.values[std::size_t(box.value)];
        stage.in = rows_of[std::size_t(box.value)];
        stage.ring = rows_;
        // The ring has as many rows as a window has beside the newest; with two-ended sums it has all, and the prefix.
        const int ring = box.blockwise() ? box.slots + 1 : box.slots - 1;
        rows_ += ring * (before.tangent ? 2 : 1);
    }
}

Layout DeviceSegment::lay_out(int lanes, int columns, std::size_t real) const {
    Layout out;
    while ((1 << out.lane_bits) < lanes) ++out.lane_bits;
    // The threads of a warp beyond its lanes are 4 columns on; then a quarter more keeps them out of each other's
    // banks.
    out.stride = lanes == 32 ? lanes : lanes + lanes / 4;
    out.columns = columns;
    int halo = 0;
    for (const Value& value : plan_.values) halo = std::max(halo, value.halo);
    out.halo = up_to(halo, 4);
    out.positions = columns + 2 * (out.halo + guard);
    // 4 columns of neighbouring lanes are read in one access: rows lie 4 words apart modulo the 32 banks.
    out.out_pitch = columns;
    while (out.out_pitch % 32 != 4) out.out_pitch += 4;
    out.results = (std::int64_t(rows_) * out.positions * out.stride + 3) / 4 * 4;
    out.words = out.results;
    if (plan_.target.kind == TargetKind::output) out.words += std::int64_t(rows_per_step) * lanes * out.out_pitch;
    out.words = (out.words + 3) / 4 * 4;
    const int items = (columns + 2 * out.halo) / columns_per_item * lanes, most = most_sweep_threads(real);
    const int passes = (items + most - 1) / most;
    out.threads = std::clamp(up_to((items + passes - 1) / passes, 32), 64, most);
    return out;
}

// Returns the share of a block's work that is wanted, times what lets the multiprocessor work at its rate.  It is an
// estimate, to be measured on a card: the two roots and the factors of `reading` are guesses.
double DeviceSegment::score(const Layout& layout, const Device& device, std::size_t real) const {
    double done = 0;
    for (const StageParts& stage : stages_)
        done += up_to(layout.columns + 2 * plan_.values[std::size_t(stage.value)].halo, columns_per_item);
    const double in_strips = double(stages_.size()) * layout.columns / done;
    // Strips cross the ends of the lanes: half of the lanes, on average, are beyond.
    const double in_lanes = plan_.shape.width / (plan_.shape.width + layout.lanes() / 2.0);
    // Fewer lanes read and write the sums more often, and 32 are the width of a warp.
    const double reading = layout.lanes() == 32 ? 1 : layout.lanes() == 16 ? 0.8 : layout.lanes() == 8 ? 0.65 : 0.5;
    const double warps = std::min(1.0, double(layout.blocks * layout.threads) / most_sweep_threads(real));
    // The pixels j of a strip are more than its pixels i, by the lanes.
    const double sums =
        plan_.target.kind == TargetKind::output ? layout.columns / (layout.columns + 0.15 * layout.lanes()) : 1;
    // While one of two blocks waits at a barrier the other works.
    const double waiting = layout.blocks > 1 ? 1 : 0.9;
    const double tasks = double(plan_.shape.width) / layout.columns * 2 * plan_.shape.width / layout.lanes();
    const double spread = std::min(1.0, tasks * plan_.shape.height / (2.0 * device.multiprocessors * layout.blocks));
    return in_strips * in_lanes * reading * sums * std::sqrt(warps) * waiting * std::sqrt(spread) *
           (layout.shared ? 1 : 0.01);
}

Layout DeviceSegment::layout(const Device& device, std::size_t real, const Tuning& tuning) const {
    if (tuning.lanes != 0 && (tuning.lanes < 4 || tuning.lanes > 32 || (tuning.lanes & (tuning.lanes - 1)) != 0))
        throw std::invalid_argument("lanes must be 4, 8, 16 or 32");
    if (tuning.columns % 4 != 0) throw std::invalid_argument("columns must be a multiple of 4");
    const int width = up_to(plan_.shape.width, 4);
    constexpr std::int64_t reserved = 1024;  // bytes of every block that the driver takes
    Layout best;
    double best_score = -1;
    for (const int lanes : {32, 16, 8, 4}) {
        if (tuning.lanes != 0 && lanes != tuning.lanes) continue;
        for (int columns : {256, 192, 128, 96, 64, 48, 32, 24, 16, 8}) {
            if (tuning.columns != 0) columns = tuning.columns;
            columns = std::min(columns, width);
            Layout layout = lay_out(lanes, columns, real);
            const std::int64_t bytes = layout.words * std::int64_t(real);
            layout.shared = bytes <= device.shared_per_block && !tuning.no_shared;
            const int threads = most_sweep_threads(real);  // a multiprocessor's, by the registers
            layout.blocks = std::max(1, threads / layout.threads);
            if (layout.shared)
                layout.blocks =
                    std::min<int>(layout.blocks, int(device.shared_per_multiprocessor / (bytes + reserved)));
            const double score = this->score(layout, device, real);
            if (score > best_score) best = layout, best_score = score;
        }
    }
    if (tuning.threads != 0) best.threads = tuning.threads;
    return best;
}

}  // namespace ntkfast::cuda
