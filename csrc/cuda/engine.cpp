#include "cuda/engine.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <stdexcept>

#include "cpu/band_maker.h"
#include "cpu/fields_builder.h"
#include "cpu/rows/dispatch.h"
#include "cuda/device_fields.h"
#include "cuda/segment.h"
#include "cuda/small_kernels.h"
#include "cuda/sweep_launch.h"
#include "plan/groups.h"
#include "plan/map_choice.h"

namespace ntkfast::cuda {
namespace {

// Partial sums of a task, in Real, are added in double after so many displacements dy, each with all lanes at once.
constexpr int most_dy = 64;
// Work of one launch for each multiprocessor, in pairs times stages: 0.1 s if it does a quarter of the floor.  An estimate until
// measured on a card.
constexpr double launch_work = 2e8;
// Columns of v in one sweep, at most.
constexpr int most_columns = 64;
// Share of the device's memory that tiles and scratch may take.
constexpr int memory_share = 8;

template <class Kernel>
void launch_items(const char* name, const typename Kernel::Arguments& arguments, Stream stream) {
    launch<Kernel>(name, {(arguments.count + items_per_block - 1) / items_per_block, items_per_block, 0, stream},
                   arguments);
}

// Displacements dx0 <= dx < dx0 + count of some dy, at the sweep level of a segment.
struct Range {
    int dy, dy_step, dy_count;
    int dx, dx_count;
};

// What a device holds for a network, without computing anything: the layouts of its segments and the sizes that follow.
struct Plans {
    // What bilinear upsampling makes of a field, before v is subtracted.
    struct Raw {
        int node;
        std::vector<Target> targets;  // the last is the raw field
        Segment segment;
        Layout layout;
    };

    std::vector<Target> targets;
    std::vector<Segment> segments;
    std::vector<Layout> layouts;
    std::vector<Raw> raws;   // of each bilinear upsampling
    int margin = 0;          // columns beside the image that the sweeps may read
    int most_tasks = 0;      // in one launch
    std::int64_t words = 0;  // of scratch for the tasks of one launch, at most

    Plans(const Program& program, const Shape& shape, bool noise, const Device& device, const Tuning& tuning,
          std::size_t real)
        : targets(targets_of(program)) {
        const auto lay_out = [&](const Segment& segment) {
            const Layout layout = segment.layout(device, real, tuning);
            const int tasks = tasks_at_once(device, layout, tuning, real);
            margin = std::max(margin, layout.columns + 2 * layout.halo + 2 * guard + 2 * columns_per_item +
                                          2 * layout.lanes() * segment.dx_step());
            most_tasks = std::max(most_tasks, tasks);
            if (!layout.shared) words = std::max(words, layout.words * tasks);
            return layout;
        };
        for (int t = 0; t < int(targets.size()); ++t) {
            segments.emplace_back(program, targets, t, shape, noise);
            layouts.push_back(lay_out(segments.back()));
        }
        for (int n = 0; n < program.size(); ++n) {
            if (program[n].op != Op::upsample || !program[n].bilinear) continue;
            std::vector<Target> extended = targets;
            extended.push_back({TargetKind::stored, n, program[n].level});
            const Segment segment(program, extended, int(targets.size()), shape, noise);
            raws.push_back({n, extended, segment, lay_out(segment)});
        }
    }

    // Enough for every multiprocessor a few times over, so that the last ones to end do not wait long.
    static int tasks_at_once(const Device& device, const Layout& layout, const Tuning& tuning, std::size_t real) {
        std::int64_t tasks =
            tuning.tasks_at_once > 0 ? tuning.tasks_at_once : std::int64_t(4) * device.multiprocessors * layout.blocks;
        if (!layout.shared) tasks = std::min(tasks, device.bytes / memory_share / (layout.words * std::int64_t(real)));
        return int(std::max<std::int64_t>(1, tasks));
    }
};

// The tiles of one product.
struct Tiles {
    int columns, tasks;  // columns of v in one sweep, tasks in one launch
    int pitch_i, pitch_j;
    std::int64_t tile, tile_i;

    Tiles(const Plans& plans, const Shape& shape, int all_columns, const Device& device, const Tuning& tuning,
          std::size_t real) {
        const Layout& layout = plans.layouts.back();
        pitch_i = layout.columns;
        pitch_j = layout.columns + layout.lanes();
        columns = std::min(all_columns, most_columns);
        const std::int64_t budget = device.bytes / memory_share;
        const auto bytes = [&] {
            return std::int64_t(shape.height) * columns * (pitch_i + pitch_j) * std::int64_t(real);
        };
        while (columns > 4 && bytes() * device.multiprocessors * layout.blocks > budget) columns = (columns + 1) / 2;
        tasks = Plans::tasks_at_once(device, layout, tuning, real);
        tasks = int(std::clamp<std::int64_t>(budget / bytes(), 1, tasks));
        tile_i = std::int64_t(shape.height) * columns * pitch_i;
        tile = tile_i + std::int64_t(shape.height) * columns * pitch_j;
    }
};

// Of one dy; with a reach of the displacements dx up to it.
std::int64_t band_elements(const Program& program, const Target& target, const Shape& at, int dy, int reach) {
    const std::int64_t rows = Block::of_rows(at, program.circular(), dy).rows;
    const int columns = reach == Bands<float>::no_reach ? at.width : 2 * reach + 1;
    return rows * (program.has_tangent(target.node) ? 2 : 1) * at.width * columns;
}

// Bands that reach all displacements along a row have no reach.
int reach_of(const Shape& at, int reach) { return 2 * reach + 1 < at.width ? reach : Bands<float>::no_reach; }

// Values of dy for which the table of a target has a place: below zero at most one height, and on the torus a few turns above.
int first_key(const Shape& at) { return -at.height - 8; }
int key_count(const Shape& at) { return 3 * at.height + 24; }

// The bands of a target that are held, and the table of them that kernels read.
template <class Real> class DeviceBands {
public:
    // Of all displacements.
    DeviceBands(const Program& program, const Target& target, const Shape& shape)
        : program_(program), target_(target), shape_(at_level(shape, target.level)), first_key_(first_key(shape_)),
          table_(key_count(shape_)) {}
    // Of those up to a reach along either axis.
    DeviceBands(const Program& program, const Target& target, const Shape& shape, int reach)
        : program_(program), target_(target), shape_(at_level(shape, target.level)), first_key_(-reach),
          reach_(reach_of(shape_, reach)), table_(2 * reach + 1) {}

    Bands<Real> view() const {
        Bands<Real> out{};
        out.bands = table_.data();
        out.first_dy = first_key_;
        out.count = int(table_.size());
        out.height = shape_.height;
        out.width = shape_.width;
        out.fields = program_.has_tangent(target_.node) ? 2 : 1;
        out.circular = program_.circular();
        out.reach = reach_;
        return out;
    }
    const Shape& shape() const { return shape_; }
    int reach() const { return reach_; }
    bool exists(int dy) const { return program_.circular() || std::abs(dy) < shape_.height; }
    Array<Real>* find(int dy) {
        const auto found = bands_.find(dy);
        return found == bands_.end() ? nullptr : &found->second;
    }
    // Of zeros, if it is not there.
    void make(int dy, Stream stream) {
        if (find(dy) != nullptr) return;
        const Bands<Real> all = view();
        const std::int64_t rows = Block::of_rows(shape_, program_.circular(), dy).rows;
        Array<Real>& band = bands_[dy] = Array<Real>(rows * all.fields * Bands<Real>::field_size(all));
        launch_items<Fill<Real>>("fill", {band.data(), Real(0), band.size()}, stream);
    }
    // The pairs i = j of dy = 0, and on the torus of whole turns: known (fields, pixels).
    void seal(int dy, const Array<Real>& known, Stream stream) {
        if (find(dy) == nullptr || (program_.circular() ? wrap(dy, shape_.height) != 0 : dy != 0)) return;
        launch_items<SealBand<Real>>("seal", {view(), dy, known.data(), shape_.pixels()}, stream);
    }
    // E of the pairs i = j, of dy = 0.
    std::vector<Real> same_pixels(Stream stream) {
        const Array<Real>& band = *find(0);
        std::vector<Real> host(std::size_t(band.size())), out;
        to_host(host.data(), band.data(), band.size() * std::int64_t(sizeof(Real)), stream);
        const Bands<Real> all = view();
        for (int y = 0; y < shape_.height; ++y)
            for (int x = 0; x < shape_.width; ++x)
                out.push_back(
                    host[std::size_t(y * all.fields * Bands<Real>::field_size(all) + Bands<Real>::pair(all, x, 0))]);
        return out;
    }
    void drop_below(int dy) { bands_.erase(bands_.begin(), bands_.lower_bound(dy)); }
    void clear() { bands_.clear(); }
    void publish(Stream stream) {
        std::vector<Real*> table(std::size_t(table_.size()), nullptr);
        for (const auto& [dy, band] : bands_) table.at(std::size_t(dy - first_key_)) = band.data();
        to_device(table_.data(), table.data(), table_.size() * std::int64_t(sizeof(Real*)), stream);
    }

private:
    const Program& program_;
    Target target_;
    Shape shape_;
    int first_key_, reach_ = Bands<Real>::no_reach;
    Array<Real*> table_;
    std::map<int, Array<Real>> bands_;
};

template <class Real> using DeviceStores = std::vector<std::unique_ptr<DeviceBands<Real>>>;  // by target

MapKind kind_of(Op op) { return MapKind(int(MapKind::rectifier) + int(op) - int(Op::rectifier)); }

}  // namespace

template <class Real> struct Engine<Real>::Impl {
    Program program;
    Fields<Real> fields;
    int device_number;
    Tuning tuning;
    Device device;
    Plans plans;
    DeviceFields<Real> planes;
    DeviceStores<Real> bands;                // none for the output
    std::vector<Array<Real>> known;          // by target: what seal() writes
    std::vector<Array<Stage<Real>>> stages;  // by target
    Array<Task> tasks;
    Array<Real> scratch;
    Array<Real> matrix;
    bool coarse_kept = false;
    std::mutex mutex;  // of a call: bands, tasks and scratch are those of one at a time

    static constexpr Stream setup = 0;  // the stream of what the constructor does

    Impl(const Program& of_program, Fields<Real> of_fields, int number, const Tuning& of_tuning)
        : program(of_program), fields(std::move(of_fields)), device_number(number), tuning(of_tuning),
          device(devices().at(std::size_t(number))),
          plans(program, fields.shape, fields.noise, device, tuning, sizeof(Real)),
          planes(program, fields, plans.margin, setup), tasks(plans.most_tasks),
          scratch(plans.words > 0 ? Array<Real>(plans.words) : Array<Real>()) {
        known.resize(plans.targets.size() - 1);
        choose_spreads();
        for (std::size_t t = 0; t + 1 < plans.targets.size(); ++t)
            bands.push_back(std::make_unique<DeviceBands<Real>>(program, plans.targets[t], fields.shape));
        for (const Segment& segment : plans.segments) stages.push_back(stages_of(segment, bands));
        synchronize(setup);
    }

    static std::int64_t held_bytes(const Program& program, const Shape& shape, const Plans& plans) {
        std::int64_t sum = DeviceFields<Real>::bytes(program, shape, false, plans.margin);
        sum += Array<Task>::bytes(plans.most_tasks);
        if (plans.words > 0) sum += Array<Real>::bytes(plans.words);
        for (std::size_t t = 0; t < plans.targets.size(); ++t) {
            const Target& target = plans.targets[t];
            sum += Array<Stage<Real>>::bytes(std::int64_t(plans.segments[t].stages().size()));
            if (target.kind == TargetKind::output) continue;
            const Shape at = at_level(shape, target.level);
            sum += Array<Real*>::bytes(key_count(at));
            sum += Array<Real>::bytes(at.pixels() * (program.has_tangent(target.node) ? 2 : 1));
        }
        return sum;
    }

    // What choose_spreads() takes and gives back.
    static std::int64_t building_bytes(const Program& program, const Shape& shape, const Plans& plans) {
        const std::vector<int> reaches = near_reaches(program, plans.targets);
        const auto bands = [&](const Target& target, int reach) {
            const Shape at = at_level(shape, target.level);
            const int most = program.circular() ? reach : std::min(reach, at.height - 1);
            std::int64_t sum = Array<Real*>::bytes(2 * reach + 1);
            for (int dy = -most; dy <= most; ++dy)
                sum += Array<Real>::bytes(band_elements(program, target, at, dy, reach_of(at, reach)));
            return sum;
        };
        std::int64_t near = 0, raw = 0;
        for (std::size_t t = 0; t < plans.targets.size(); ++t)
            if (reaches[t] >= 0) near += bands(plans.targets[t], reaches[t]);
        for (const Plans::Raw& of : plans.raws) raw = std::max(raw, bands(of.targets.back(), 0));
        return near + raw;
    }

    // --- Stages -------------------------------------------------------------------------------------------------------

    Array<Real> known_of(const Target& target) const {
        const Shape at = at_level(fields.shape, target.level);
        std::vector<Real> e, t;
        for (int y = 0; y < at.height; ++y)
            for (int x = 0; x < at.width; ++x) {
                const Pair<Real> pair = same_pixel(program, target, fields, at, y, x);
                e.push_back(pair.e);
                t.push_back(pair.t);
            }
        if (program.has_tangent(target.node)) e.insert(e.end(), t.begin(), t.end());
        return Array<Real>(e, setup);
    }

    Array<Stage<Real>> stages_of(const Segment& segment, const DeviceStores<Real>& sources) const {
        std::vector<Stage<Real>> out;
        for (const StagePlan& plan : segment.stages()) out.push_back(make_stage(segment, plan, sources));
        return Array<Stage<Real>>(out, setup);
    }

    Map<Real> make_map(const Plan& plan, const Value& value) const {
        Map<Real> map{};
        map.kind = MapKind::sums;
        map.tangent = value.tangent;
        if (value.sums) return map;
        const MapChoice<Real> choice = choose_map(program, plan, fields, value);
        const Node& node = program[value.node];
        map.kind = is_activation(node.op) ? kind_of(node.op) : choice.output ? MapKind::output : MapKind::linear;
        map.tangent = has_tangent(choice.flow);
        map.refined = choice.refined && sizeof(Real) == 4;
        map.always_refined = choice.always_refined;
        map.constants = choice.constants;
        map.smooth = choice.smooth;
        map.scale = Real(value.gain);
        const Node& before = program[plan.boxes[std::size_t(value.box)].node];
        map.box_scale = before.op == Op::conv ? before.scale() : 1;
        map.roots = planes.roots(value.node);
        return map;
    }

    Stage<Real> make_stage(const Segment& segment, const StagePlan& from, const DeviceStores<Real>& sources) const {
        const Plan& plan = segment.plan();
        const Value& value = plan.values[std::size_t(from.value)];
        Stage<Real> stage{};
        stage.lag = value.lag;
        stage.halo = value.reach;
        stage.last = plan.target.kind == TargetKind::output && &value == &plan.end();
        stage.tangent = value.tangent;
        stage.out = from.out;
        stage.gain = Real(value.gain);
        for (const int b : value.boxes)
            if (const Box& box = plan.boxes[std::size_t(b)]; box.radius() > 0 && !program.circular())
                stage.halves = planes.halves(box.node);
        switch (value.kind) {
            case ValueKind::image:
                stage.kind = StageKind::image;
                stage.image = planes.image(value.node);
                stage.channels = fields.shape.channels;
                break;
            case ValueKind::noise:
                stage.kind = StageKind::noise;
                stage.different = Real(value.gain * fields.variance[std::size_t(value.node)][0]);
                break;
            case ValueKind::banded:
            case ValueKind::upsampled:
                stage.kind = value.kind == ValueKind::banded ? StageKind::banded : StageKind::upsampled;
                stage.source = sources[std::size_t(value.target)]->view();
                stage.bilinear = program[value.node].op == Op::upsample && program[value.node].bilinear;
                if (program[value.node].op == Op::avg_pool || stage.bilinear) stage.spread = planes.spread(value.node);
                break;
            case ValueKind::map: make_window(plan, from, stage); break;
            case ValueKind::merge: {
                stage.kind = StageKind::merge;
                stage.a = from.a;
                stage.b = from.b;
                stage.has_b = value.b >= 0;
                stage.share_a = Real(value.share_a * value.gain / plan.values[std::size_t(value.a)].gain);
                if (stage.has_b)
                    stage.share_b = Real(value.share_b * value.gain / plan.values[std::size_t(value.b)].gain);
                break;
            }
        }
        return stage;
    }

    void make_window(const Plan& plan, const StagePlan& from, Stage<Real>& stage) const {
        const Box& box = plan.boxes[std::size_t(plan.values[std::size_t(from.maps[0])].box)];
        const Value& before = plan.values[std::size_t(box.value)];
        stage.kind = StageKind::map;
        stage.in = from.in;
        stage.tangent_in = before.tangent;
        stage.kernel_size = box.slots;
        stage.ring = from.ring;
        for (const int v : from.maps) stage.map[stage.maps++] = make_map(plan, plan.values[std::size_t(v)]);
        if (before.kind != ValueKind::image) return;
        stage.image = planes.image(before.node);
        stage.channels = fields.shape.channels;
    }

    // --- Tasks --------------------------------------------------------------------------------------------------------

    // Tasks of a range: `grid` displacements after another, of which the first `lanes` are wanted, and strips of columns.
    void add_tasks(const Layout& layout, const Shape& shape, const Range& range, int dx_step, int grid, int lanes,
                   bool pooled, std::vector<Task>& out) const {
        const int end = range.dx + range.dx_count * dx_step;
        // Products read v in fours.
        const int start = pooled || dx_step > 1 ? range.dx : range.dx - modulo(range.dx, 4);
        for (int dx = start; dx < end; dx += grid * dx_step) {
            const int first_lane = std::max(0, range.dx - dx),
                      end_lane = std::min(lanes, (end - dx + dx_step - 1) / dx_step);
            const int low = dx + first_lane * dx_step, high = dx + (end_lane - 1) * dx_step;
            for (int x = 0; x < shape.width; x += layout.columns) {
                int begin = x, finish = std::min(x + layout.columns, shape.width);
                if (!program.circular()) {
                    begin = std::max(begin, -high) & ~3;
                    finish = std::min(finish, shape.width - std::max(0, low));
                }
                if (begin >= finish) continue;
                out.push_back({begin, (finish - begin + 3) / 4 * 4, dx, first_lane, end_lane, range.dy, range.dy_step,
                               range.dy_count});
            }
        }
    }

    // Pairs of displacements dx + b*dx_step for the wanted lanes b, in one row of the image's columns [begin, end).
    std::int64_t pairs_in_row(const Shape& shape, int dx, int dx_step, int first, int last, int begin, int end) const {
        std::int64_t sum = 0;
        for (int b = first; b < last; ++b) {
            const int d = dx + b * dx_step;
            const int low = program.circular() ? 0 : std::max(0, -d);
            const int high = program.circular() ? shape.width : shape.width - std::max(0, d);
            sum += std::max(0, std::min(end, high) - std::max(begin, low));
        }
        return sum;
    }
    std::int64_t rows_of(const Shape& shape, int dy, int step, int count) const {
        std::int64_t sum = 0;
        for (int n = 0; n < count; ++n) sum += Block::of_rows(shape, program.circular(), dy + n * step).rows;
        return sum;
    }
    std::int64_t pairs_of(const Segment& segment, const Task& task) const {
        const Shape& shape = segment.plan().shape;
        return rows_of(shape, task.dy, task.dy_step, task.dy_count) *
               pairs_in_row(shape, task.dx, segment.dx_step(), task.first_lane, task.end_lane, task.x,
                            std::min(task.x + task.columns, shape.width));
    }

    // Of the output: [first, last] are bands of the half plane.
    std::vector<Task> output_tasks(const HalfPlane& plane, int first, int last) const {
        const Layout& layout = plans.layouts.back();
        const Shape& shape = fields.shape;
        // Long enough runs of dy that tiles are added seldom, and short enough that all multiprocessors have some.
        const std::int64_t groups =
            std::int64_t(2 * shape.width / layout.lanes() + 1) * ((shape.width + layout.columns - 1) / layout.columns);
        const std::int64_t wanted = std::int64_t(4) * device.multiprocessors * layout.blocks;
        int run = int(std::clamp<std::int64_t>((last - first + 1) * groups / wanted, 1, most_dy));
        if (tuning.displacements > 0) run = std::min(tuning.displacements, most_dy);
        std::vector<Task> out;
        for (int band = first; band <= last;) {
            int end = band;
            while (end <= last && end - band < run && plane.first_dx(end) == plane.first_dx(band) &&
                   plane.dx_count(end) == plane.dx_count(band))
                ++end;
            const Range range{plane.band_dy(band), 1, end - band, plane.first_dx(band), plane.dx_count(band)};
            if (range.dx_count > 0) add_tasks(layout, shape, range, 1, layout.lanes(), layout.lanes(), false, out);
            band = end;
        }
        return out;
    }

    // Of the bands of a target with the displacements [first, first + count).
    std::vector<Task> band_tasks(const Target& target, const Segment& segment, const Layout& layout,
                                 const std::vector<int>& sweep, int first, int count) const {
        std::vector<Task> out;
        if (sweep.empty()) return out;
        const Shape& shape = segment.plan().shape;
        Range range{sweep.front(), target.sweep_step(), int(sweep.size()), first, count};
        if (target.kind == TargetKind::strided) range.dx = 2 * first;
        if (target.kind != TargetKind::pooled) {
            add_tasks(layout, shape, range, segment.dx_step(), layout.lanes(), layout.lanes(), false, out);
            return out;
        }
        // Coarse displacements c from 2c - 1, 2c and 2c + 1: a task has one more lane than it moves on.
        const int coarse = (layout.lanes() - 1) / 2;
        for (int c = 0; c < count; c += coarse) {
            range.dx = 2 * (first + c) - 1;
            range.dx_count = 2 * std::min(coarse, count - c) + 1;
            add_tasks(layout, shape, range, 1, layout.lanes(), layout.lanes(), true, out);
        }
        return out;
    }
    std::vector<Task> band_tasks(const MakeBands& step) const {
        const std::size_t t = std::size_t(step.target);
        const int width = at_level(fields.shape, plans.targets[t].level).width;
        const int first = program.circular() ? 0 : 1 - width, count = program.circular() ? width : 2 * width - 1;
        return band_tasks(plans.targets[t], plans.segments[t], plans.layouts[t], step.sweep, first, count);
    }

    // --- Sweeps -------------------------------------------------------------------------------------------------------

    // Runs tasks in waves; after_wave(tasks of the wave) follows each.
    template <class AfterWave>
    void run(const Segment& segment, const Layout& layout, const Array<Stage<Real>>& of_segment,
             const std::vector<Task>& all, const Result<Real>& result, int at_once, Stream stream, Monitor& monitor,
             AfterWave after_wave) {
        Sweep<Real> sweep{};
        sweep.geometry = planes.geometry(segment.plan().target.sweep_level());
        sweep.stages = of_segment.data();
        sweep.stage_count = int(of_segment.size());
        sweep.dx_step = segment.dx_step();
        sweep.end_lag = segment.plan().end().lag;
        sweep.begin = segment.begin();
        sweep.beyond = segment.beyond();
        sweep.lane_bits = layout.lane_bits;
        sweep.stride = layout.stride;
        sweep.halo = layout.halo;
        sweep.positions = layout.positions;
        sweep.out_pitch = layout.out_pitch;
        sweep.results = layout.results;
        sweep.words = layout.words;
        sweep.scratch = layout.shared ? nullptr : scratch.data();
        sweep.tasks = tasks.data();
        sweep.end = segment.end();
        sweep.result = result;
        Reach reach = segment.reach();
        if (result.kind != ResultKind::product) reach = std::max(reach, Reach::rectifiers);
        if (!layout.shared || layout.lane_bits != usual_lane_bits) reach = Reach::all;
        for (std::size_t first = 0; first < all.size() && !monitor.stopped();) {
            std::size_t last = first;
            std::int64_t pairs = 0;
            double work = 0;
            while (last < all.size() && int(last - first) < at_once &&
                   (last == first || work < launch_work * device.multiprocessors)) {
                const std::int64_t more = pairs_of(segment, all[last++]);
                pairs += more;
                work += double(more) * sweep.stage_count;
            }
            const int count = int(last - first);
            to_device(tasks.data(), all.data() + first, count * std::int64_t(sizeof(Task)), stream);
            launch_sweep(sweep, reach, count, layout.threads, stream);
            after_wave(count);
            synchronize(stream);
            monitor.advance(pairs, true);
            first = last;
        }
    }

    void make_bands(const MakeBands& step, Stream stream, Monitor& monitor) {
        const std::size_t t = std::size_t(step.target);
        const Target& target = plans.targets[t];
        DeviceBands<Real>& store = *bands[t];
        const bool pooled = target.kind == TargetKind::pooled;
        for (int dy = step.first; dy <= step.last + (pooled ? 1 : 0); ++dy)
            if (store.exists(dy)) store.make(dy, stream);
        store.publish(stream);
        fill_bands(target, plans.segments[t], plans.layouts[t], stages[t], band_tasks(step), store, stream, monitor);
        for (int dy = step.first; dy <= step.last; ++dy) store.seal(dy, known[t], stream);
    }

    void fill_bands(const Target& target, const Segment& segment, const Layout& layout,
                    const Array<Stage<Real>>& of_segment, const std::vector<Task>& all, const DeviceBands<Real>& store,
                    Stream stream, Monitor& monitor) {
        Result<Real> result{};
        result.kind = target.kind == TargetKind::pooled    ? ResultKind::pooled
                      : target.kind == TargetKind::strided ? ResultKind::strided
                                                           : ResultKind::stored;
        result.bands = store.view();
        const int at_once = Plans::tasks_at_once(device, layout, tuning, sizeof(Real));
        run(segment, layout, of_segment, all, result, at_once, stream, monitor, [](int) {});
    }

    // --- Local variances ------------------------------------------------------------------------------------------------

    // v of every pool and bilinear upsampling from the device's own raw field at D = 0, by the kernels that sweep all other
    // displacements, so that pixels that are alike cancel to the last bit (docs/math.md); and what is known of i = j.
    void choose_spreads() {
        const std::vector<int> reaches = near_reaches(program, plans.targets);
        DeviceStores<Real> near(plans.targets.size());
        for (int n = 0; n < program.size(); ++n) {
            const int pooled = find_target(plans.targets, TargetKind::pooled, n);
            if (pooled >= 0) {
                make_near(pooled, reaches[std::size_t(pooled)], near);
                set_spread(n, near[std::size_t(pooled)]->same_pixels(setup));
            }
            for (const Plans::Raw& raw : plans.raws)
                if (raw.node == n) set_spread(n, raw_field(raw, near));
            for (const TargetKind kind : {TargetKind::pooled, TargetKind::strided, TargetKind::stored}) {
                const int found = find_target(plans.targets, kind, n);
                if (found < 0) continue;
                const std::size_t t = std::size_t(found);
                known[t] = known_of(plans.targets[t]);
                if (kind != TargetKind::pooled) make_near(found, reaches[t], near);
                for (int dy = -reaches[t]; near[t] != nullptr && dy <= reaches[t]; ++dy)
                    near[t]->seal(dy, known[t], setup);
            }
        }
    }

    void make_near(int t, int reach, DeviceStores<Real>& near) {
        if (reach < 0) return;
        const Target& target = plans.targets[std::size_t(t)];
        auto store = std::make_unique<DeviceBands<Real>>(program, target, fields.shape, reach);
        const Shape& coarse = store->shape();
        const int rows = at_level(fields.shape, target.sweep_level()).height;
        const int most = program.circular() ? reach : std::min(reach, coarse.height - 1);
        for (int dy = -most; dy <= most; ++dy) store->make(dy, setup);
        store->publish(setup);
        std::vector<int> sweep;
        const int far = target.last_sweep(most);
        for (int dy = -far; dy <= far; dy += target.sweep_step())
            if (program.circular() || std::abs(dy) < rows) sweep.push_back(dy);
        int first = -reach, count = 2 * reach + 1;
        if (store->reach() == Bands<Real>::no_reach) {
            // On the torus once around, on either side of 0 as the bands of the sources are.
            first = program.circular() ? -(coarse.width / 2) : 1 - coarse.width;
            count = program.circular() ? coarse.width : 2 * coarse.width - 1;
        }
        const Segment& segment = plans.segments[std::size_t(t)];
        const Layout& layout = plans.layouts[std::size_t(t)];
        Monitor monitor(nullptr, 0);
        const Array<Stage<Real>> of_segment = stages_of(segment, near);
        fill_bands(target, segment, layout, of_segment, band_tasks(target, segment, layout, sweep, first, count),
                   *store, setup, monitor);
        near[std::size_t(t)] = std::move(store);
    }

    std::vector<Real> raw_field(const Plans::Raw& raw, const DeviceStores<Real>& near) {
        const Target& target = raw.targets.back();
        DeviceBands<Real> store(program, target, fields.shape, 0);
        store.make(0, setup);
        store.publish(setup);
        std::vector<Stage<Real>> host;
        for (const StagePlan& plan : raw.segment.stages()) {
            host.push_back(make_stage(raw.segment, plan, near));
            host.back().spread = nullptr;
        }
        Monitor monitor(nullptr, 0);
        fill_bands(target, raw.segment, raw.layout, Array<Stage<Real>>(host, setup),
                   band_tasks(target, raw.segment, raw.layout, {0}, 0, 1), store, setup, monitor);
        return store.same_pixels(setup);
    }

    // raw: 2 v
    void set_spread(int n, const std::vector<Real>& raw) {
        PaddedRows<Real>& rows = fields.spread.at(n);
        const Shape at = at_level(fields.shape, program[n].level);
        for (int y = 0; y < at.height; ++y)
            for (int x = 0; x < at.width; ++x) {
                const Real v = raw[std::size_t(y) * std::size_t(at.width) + std::size_t(x)] / 2;
                rows.row(y)[x] = v;
                if (program.circular()) rows.row(y)[x + at.width] = v;
            }
        planes.set_spread(n, program[n].level, rows, setup);
    }

    // --- All displacements ------------------------------------------------------------------------------------------------

    std::int64_t coarse_pairs(const HalfPlane& plane) const {
        std::int64_t sum = 0;
        each_group(program, plans.targets, plane, fields.shape, false,
                   [&](const auto& steps, const Schedule&, int, int) {
                       for (const MakeBands& step : steps)
                           for (const Task& task : band_tasks(step))
                               sum += pairs_of(plans.segments[std::size_t(step.target)], task);
                   });
        return sum;
    }

    // As Engine::make_bands of the CPU.
    template <class Output>
    void make_all_bands(const HalfPlane& plane, bool keep, Stream stream, Monitor& monitor, Output output) {
        each_group(program, plans.targets, plane, fields.shape, keep,
                   [&](const auto& steps, const Schedule& schedule, int first, int last) {
                       for (const MakeBands& step : steps) {
                           if (monitor.stopped()) return;
                           make_bands(step, stream, monitor);
                       }
                       for (std::size_t t = 0; t < bands.size(); ++t) {
                           bands[t]->drop_below(schedule.drop(int(t)));
                           bands[t]->publish(stream);
                       }
                       if (!monitor.stopped()) output(first, last);
                   });
    }

    void clear_bands() {
        for (const auto& store : bands) store->clear();
    }

    // Every displacement of the half plane into `result`.
    template <class AfterWave>
    void sweep_output(const Result<Real>& result, int at_once, Stream stream, Monitor& monitor, AfterWave after_wave) {
        const HalfPlane plane(fields.shape, program.padding, max_lanes);
        const std::size_t target = plans.targets.size() - 1;
        const auto output = [&](int first, int last) {
            run(plans.segments[target], plans.layouts[target], stages[target], output_tasks(plane, first, last), result,
                at_once, stream, monitor, after_wave);
        };
        if (coarse_kept || bands.empty()) {
            output(0, plane.bands() - 1);
            return;
        }
        try {
            make_all_bands(plane, false, stream, monitor, output);
        } catch (...) {
            clear_bands();
            throw;
        }
        clear_bands();
    }

    std::int64_t all_pairs() const {
        const HalfPlane plane(fields.shape, program.padding, max_lanes);
        return plane.pairs() + (coarse_kept || bands.empty() ? 0 : coarse_pairs(plane));
    }

    // The matrix but for its diagonal, and then that too.
    void fill_matrix(Real* out, Stream stream, Monitor& monitor) {
        Result<Real> result{};
        result.kind = ResultKind::matrix;
        result.matrix = out;
        result.unit = Real(fields.unit);
        const int at_once = Plans::tasks_at_once(device, plans.layouts.back(), tuning, sizeof(Real));
        sweep_output(result, at_once, stream, monitor, [](int) {});
        launch_items<MatrixDiagonal<Real>>("diagonal", {planes.diagonal(), fields.unit, out, fields.shape.pixels()},
                                           stream);
        synchronize(stream);
    }

    void multiply(const Real* v, Real* out, int all_columns, Stream stream, Monitor& monitor) {
        const Tiles sizes(plans, fields.shape, all_columns, device, tuning, sizeof(Real));
        const Geometry& geometry = planes.geometry(0);
        const std::int64_t pixels = fields.shape.pixels();
        Array<Real> padded(geometry.elements(sizes.columns)), tiles(sizes.tile * sizes.tasks);
        Array<double> totals(pixels * sizes.columns);
        for (int first = 0; first < all_columns && !monitor.stopped(); first += sizes.columns) {
            const int columns = std::min(sizes.columns, all_columns - first);
            launch_items<PadColumns<Real>>(
                "pad", {geometry, v, padded.data(), first, columns, all_columns, geometry.elements(columns)}, stream);
            Result<Real> result{};
            result.kind = ResultKind::product;
            result.v = padded.data();
            result.columns = columns;
            result.tiles = tiles.data();
            result.tile = sizes.tile;
            result.tile_i = sizes.tile_i;
            result.pitch_i = sizes.pitch_i;
            result.pitch_j = sizes.pitch_j;
            bool any = false;
            sweep_output(result, sizes.tasks, stream, monitor, [&](int count) {
                const int groups = (columns + 3) / 4;
                launch_items<AddTiles<Real>>(
                    "add tiles",
                    {geometry, tasks.data(), count, plans.layouts.back().lanes(), tiles.data(), sizes.tile,
                     sizes.tile_i, sizes.pitch_i, sizes.pitch_j, columns, totals.data(), groups, !any, pixels * groups},
                    stream);
                any = true;
            });
            launch_items<FinishProduct<Real>>("finish product",
                                              {v, totals.data(), planes.diagonal(), fields.unit, out, first, columns,
                                               all_columns, any, pixels * columns},
                                              stream);
            synchronize(stream);
        }
    }

    static std::int64_t product_bytes(const Program& program, const Shape& shape, const Plans& plans,
                                      const Tiles& sizes) {
        const Geometry geometry = DeviceFields<Real>::geometry(program, shape, plans.margin);
        return Array<Real>::bytes(geometry.elements(sizes.columns)) + Array<Real>::bytes(sizes.tile * sizes.tasks) +
               Array<double>::bytes(shape.pixels() * sizes.columns);
    }
};

namespace {

template <class Real>
Fields<Real> make_fields(const Program& program, const Shape& shape, const double* image, int threads, Poll poll) {
    const Isa isa = supported_isas().back();
    Monitor monitor(std::move(poll), 0);
    FieldsBuilder builder(program, shape, image, sizeof(Real) == 4, row_kernels<double>(isa), threads, monitor);
    if constexpr (sizeof(Real) == 4)
        return float_fields(builder.fields(), program, row_kernels<float>(isa), threads, monitor);
    else
        return builder.take();
}

}  // namespace

template <class Real>
Engine<Real>::Engine(const Program& program, const Shape& shape, const double* image, int device, int threads,
                     const Tuning& tuning, Poll poll) {
    program.check();
    if (shape.height < 1 || shape.width < 1 || shape.channels < 1 || shape.batch != 1)
        throw std::invalid_argument("image must not be empty, and there must be one");
    const int multiple = 1 << program.levels();
    if (shape.height % multiple != 0 || shape.width % multiple != 0)
        throw std::invalid_argument("image must have sides that are multiples of " + std::to_string(multiple));
    const std::string missing = why_unavailable();
    if (!missing.empty()) throw std::runtime_error(missing);
    if (device < 0 || device >= int(devices().size()))
        throw std::invalid_argument("device must be below " + std::to_string(devices().size()) + ", got " +
                                    std::to_string(device));
    const CurrentDevice current(device);
    impl_ = std::make_unique<Impl>(
        program, make_fields<Real>(program, shape, image, std::max(1, threads), std::move(poll)), device, tuning);
}

// At the end of a process the driver may be gone before the engine: then there is nothing to make current.
template <class Real> Engine<Real>::~Engine() {
    if (impl_ == nullptr) return;
    try {
        const CurrentDevice current(impl_->device_number);
        impl_.reset();
    } catch (...) {
        impl_.reset();
    }
}
template <class Real> Engine<Real>::Engine(Engine&&) noexcept = default;

template <class Real> const Shape& Engine<Real>::shape() const { return impl_->fields.shape; }
template <class Real> int Engine<Real>::device() const { return impl_->device_number; }
template <class Real> bool Engine<Real>::stored() const { return impl_->matrix.data() != nullptr; }
template <class Real> bool Engine<Real>::coarse_kept() const { return impl_->coarse_kept; }

template <class Real> void Engine<Real>::diagonal(double* out) const {
    const Plane& diagonal = impl_->fields.diagonal(impl_->program);
    for (std::size_t n = 0; n < diagonal.size(); ++n) out[n] = diagonal[n] * impl_->fields.unit;
}

template <class Real>
void Engine<Real>::product(const Real* v, Real* out, int columns, Stream stream, Poll poll) const {
    if (columns < 1) throw std::invalid_argument("columns must be at least 1");
    const std::lock_guard<std::mutex> lock(impl_->mutex);
    const CurrentDevice current(impl_->device_number);
    const std::int64_t pixels = shape().pixels();
    if (!stored()) {
        const int at_once = Tiles(impl_->plans, shape(), columns, impl_->device, impl_->tuning, sizeof(Real)).columns;
        Monitor monitor(std::move(poll), impl_->all_pairs() * ((columns + at_once - 1) / at_once));
        impl_->multiply(v, out, columns, stream, monitor);
        monitor.finish();
        return;
    }
    Monitor monitor(std::move(poll), pixels * pixels);
    const int groups = (columns + 3) / 4;
    launch<MatrixProduct<Real>>("matrix product",
                                {pixels * groups, items_per_block, MatrixProduct<Real>::shared_bytes(), stream},
                                {impl_->matrix.data(), v, out, columns, groups, pixels});
    synchronize(stream);
    monitor.finish();
}

template <class Real> void Engine<Real>::store(Poll poll) {
    if (stored()) return;
    const std::lock_guard<std::mutex> lock(impl_->mutex);
    const CurrentDevice current(impl_->device_number);
    Monitor monitor(std::move(poll), impl_->all_pairs());
    Array<Real> matrix(shape().pixels() * shape().pixels());
    impl_->fill_matrix(matrix.data(), Impl::setup, monitor);
    monitor.finish();
    impl_->matrix = std::move(matrix);
}

template <class Real> void Engine<Real>::keep_coarse(Poll poll) {
    if (coarse_kept() || impl_->bands.empty()) return;
    const std::lock_guard<std::mutex> lock(impl_->mutex);
    const CurrentDevice current(impl_->device_number);
    const HalfPlane plane(shape(), impl_->program.padding, max_lanes);
    Monitor monitor(std::move(poll), impl_->coarse_pairs(plane));
    try {
        impl_->make_all_bands(plane, true, Impl::setup, monitor, [](int, int) {});
        synchronize(Impl::setup);
        monitor.finish();
    } catch (...) {
        impl_->clear_bands();
        throw;
    }
    impl_->coarse_kept = true;
}

template <class Real> void Engine<Real>::dense(Real* out, Stream stream, Poll poll) const {
    const std::lock_guard<std::mutex> lock(impl_->mutex);
    const CurrentDevice current(impl_->device_number);
    Monitor monitor(std::move(poll), impl_->all_pairs());
    if (stored()) {
        launch_items<Copy<Real>>("copy", {out, impl_->matrix.data(), impl_->matrix.size()}, stream);
        synchronize(stream);
    } else {
        impl_->fill_matrix(out, stream, monitor);
    }
    monitor.finish();
}

template <class Real>
MemoryEstimate Engine<Real>::estimate(const Program& program, const Shape& shape, int columns, const Device& device,
                                      const Tuning& tuning) {
    const Plans plans(program, shape, false, device, tuning, sizeof(Real));
    const Tiles sizes(plans, shape, columns, device, tuning, sizeof(Real));
    MemoryEstimate bytes{};
    bytes.fields = Impl::held_bytes(program, shape, plans);
    bytes.building = Impl::building_bytes(program, shape, plans);
    bytes.product = Impl::product_bytes(program, shape, plans, sizes);
    const HalfPlane plane(shape, program.padding, max_lanes);
    const auto band_bytes = [&](const Target& target, const Shape& at, int dy) {
        return Array<Real>::bytes(band_elements(program, target, at, dy, Bands<Real>::no_reach));
    };
    bytes.bands = most_band_bytes(program, plans.targets, plane, shape, false, band_bytes);
    bytes.coarse = most_band_bytes(program, plans.targets, plane, shape, true, band_bytes);
    bytes.store = Array<Real>::bytes(shape.pixels() * shape.pixels());
    return bytes;
}

template class Engine<float>;
template class Engine<double>;

}  // namespace ntkfast::cuda
