#include "cuda/engine.h"

#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "cpu/fields_builder.h"
#include "cpu/rows/dispatch.h"
#include "cuda/device_bands.h"
#include "cuda/device_fields.h"
#include "cuda/small_kernels.h"
#include "cuda/spreads.h"
#include "cuda/stages.h"
#include "cuda/tasks.h"
#include "cuda/waves.h"
#include "plan/groups.h"

namespace ntkfast::cuda {

template <class Real> struct Engine<Real>::Impl {
    Program program;
    Fields<Real> fields;
    int device_number;
    Partition partition;
    DeviceFields<Real> planes;
    Waves<Real> waves;
    DeviceStores<Real> bands;                // none for the output
    std::vector<Array<Real>> known;          // by target: what seal() writes
    std::vector<Array<Stage<Real>>> stages;  // by target
    Array<Real> matrix;
    bool coarse_kept = false;
    std::mutex mutex;  // a call holds it: bands and waves are those of one at a time

    static constexpr Stream setup = 0;  // the stream of the constructor, and of calls with arrays of the host

    Impl(const Program& of_program, Fields<Real> of_fields, int number, const Tuning& tuning)
        : program(of_program), fields(std::move(of_fields)), device_number(number),
          partition(program, fields.shape, fields.noise, devices().at(std::size_t(number)), tuning, sizeof(Real)),
          planes(program, fields, partition.margin, setup), waves(partition) {
        known = choose_spreads(partition, fields, planes, waves, setup);
        for (std::size_t t = 0; t + 1 < partition.targets.size(); ++t)
            bands.push_back(std::make_unique<DeviceBands<Real>>(program, partition.targets[t], fields.shape));
        const StageMaker<Real> maker(program, fields, planes);
        for (const DeviceSegment& segment : partition.segments)
            stages.emplace_back(maker.stages_of(segment, bands), setup);
        synchronize(setup);
    }

    static std::int64_t held_bytes(const Partition& partition) {
        std::int64_t sum = DeviceFields<Real>::bytes(partition.program, partition.shape, false, partition.margin);
        sum += Waves<Real>::bytes(partition);
        for (std::size_t t = 0; t < partition.targets.size(); ++t) {
            const Target& target = partition.targets[t];
            sum += Array<Stage<Real>>::bytes(std::int64_t(partition.segments[t].stages().size()));
            if (target.kind != TargetKind::output)
                sum += DeviceBands<Real>::table_bytes(partition.program, target, partition.shape);
        }
        return sum;
    }

    Staged<Real> staged(std::size_t t) const {
        return {partition.segments[t], partition.layouts[t], planes.geometry(partition.targets[t].sweep_level()),
                stages[t]};
    }

    void make_step(const MakeBands& step, Stream stream, Monitor& monitor) {
        const std::size_t t = std::size_t(step.target);
        DeviceBands<Real>& store = *bands[t];
        for (int dy = step.first; dy <= partition.targets[t].last_begun(step.last); ++dy)
            if (store.exists(dy)) store.make(dy, stream);
        store.publish(stream);
        waves.fill_bands(staged(t), partition.band_tasks(step), store, stream, monitor);
        for (int dy = step.first; dy <= step.last; ++dy) store.seal(dy, known[t], stream);
    }

    // Makes all coarse bands; see make_bands() of plan/groups.h.
    template <class Output>
    void make_all_bands(const HalfPlane& plane, bool keep, Stream stream, Monitor& monitor, Output output) {
        const auto make = [&](const MakeBands& step) { make_step(step, stream, monitor); };
        const auto drop = [&](int target, int dy) {
            bands[std::size_t(target)]->drop_below(dy);
            bands[std::size_t(target)]->publish(stream);
        };
        make_bands(program, partition.targets, plane, fields.shape, keep, monitor, make, drop, output);
    }

    void clear_bands() {
        for (const auto& store : bands) store->clear();
    }

    // Sweeps every displacement of the half plane into `result`.
    void sweep_output(const Result<Real>& result, int at_once, Stream stream, Monitor& monitor,
                      const typename Waves<Real>::AfterWave& after_wave = nullptr) {
        const HalfPlane plane(fields.shape, program.padding, max_lanes);
        const std::size_t target = partition.targets.size() - 1;
        const auto output = [&](int first, int last) {
            waves.run(staged(target), partition.output_tasks(plane, first, last), result, at_once, stream, monitor,
                      after_wave);
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
        return plane.pairs() + (coarse_kept || bands.empty() ? 0 : partition.coarse_pairs(plane));
    }

    // Fills the matrix but for its diagonal, and then that too.
    void fill_matrix(Real* out, Stream stream, Monitor& monitor) {
        Result<Real> result{};
        result.kind = ResultKind::matrix;
        result.matrix = out;
        result.unit = Real(fields.result_unit);
        const int at_once = partition.tasks_at_once(partition.layouts.back());
        sweep_output(result, at_once, stream, monitor);
        launch_items<MatrixDiagonal<Real>>("diagonal",
                                           {planes.diagonal(), fields.result_unit, out, fields.shape.pixels()}, stream);
        synchronize(stream);
    }

    void multiply(const Real* v, Real* out, int all_columns, Stream stream, Monitor& monitor) {
        const Tiles sizes(partition, all_columns, sizeof(Real));
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
                    {geometry, waves.tasks(), count, partition.layouts.back().lanes(), tiles.data(), sizes.tile,
                     sizes.tile_i, sizes.pitch_i, sizes.pitch_j, columns, totals.data(), groups, !any, pixels * groups},
                    stream);
                any = true;
            });
            launch_items<FinishProduct<Real>>("finish product",
                                              {v, totals.data(), planes.diagonal(), fields.result_unit, out, first,
                                               columns, all_columns, any, pixels * columns},
                                              stream);
            synchronize(stream);
        }
    }

    static std::int64_t product_bytes(const Partition& partition, const Tiles& sizes) {
        const Geometry geometry = DeviceFields<Real>::geometry(partition.program, partition.shape, partition.margin);
        return Array<Real>::bytes(geometry.elements(sizes.columns)) + Array<Real>::bytes(sizes.tile * sizes.tasks) +
               Array<double>::bytes(partition.shape.pixels() * sizes.columns);
    }
};

namespace {

template <class Real>
std::pair<Program, Fields<Real>> make_fields(const Program& program, const Shape& shape, const double* image,
                                             int threads, Poll poll) {
    const Isa isa = supported_isas().back();
    Monitor monitor(std::move(poll), 0);
    FieldsBuilder builder(program, shape, image, sizeof(Real) == 4, row_kernels<double>(isa), threads, monitor);
    if constexpr (sizeof(Real) == 4)
        return {builder.program(),
                float_fields(builder.fields(), builder.program(), row_kernels<float>(isa), threads, monitor)};
    else
        return {builder.program(), builder.take()};
}

}  // namespace

template <class Real>
Engine<Real>::Engine(const Program& program, const Shape& shape, const double* image, int device, int threads,
                     const Tuning& tuning, Poll poll) {
    check_sizes(program, shape);
    if (shape.batch != 1) throw std::invalid_argument("there must be one image, got " + std::to_string(shape.batch));
    const std::string missing = why_unavailable();
    if (!missing.empty()) throw std::runtime_error(missing);
    if (device < 0 || device >= int(devices().size()))
        throw std::invalid_argument("device must be below " + std::to_string(devices().size()) + ", got " +
                                    std::to_string(device));
    const CurrentDevice current(device);
    auto [in_units, fields] = make_fields<Real>(program, shape, image, std::max(1, threads), std::move(poll));
    impl_ = std::make_unique<Impl>(in_units, std::move(fields), device, tuning);
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

template <class Real> const Shape& Engine<Real>::shape() const { return impl_->fields.shape; }
template <class Real> int Engine<Real>::exponent() const { return impl_->fields.exponent; }
template <class Real> int Engine<Real>::device() const { return impl_->device_number; }
template <class Real> bool Engine<Real>::stored() const { return impl_->matrix.data() != nullptr; }
template <class Real> bool Engine<Real>::coarse_kept() const { return impl_->coarse_kept; }

template <class Real> void Engine<Real>::diagonal(double* out) const {
    impl_->fields.write_diagonal(impl_->program, out);
}

template <class Real> void Engine<Real>::product(const Real* v, Real* out, int columns, Poll poll) const {
    if (columns < 1) throw std::invalid_argument("columns must be at least 1");
    const CurrentDevice current(impl_->device_number);
    const std::int64_t size = shape().pixels() * columns, bytes = size * std::int64_t(sizeof(Real));
    const Array<Real> in(size), result(size);
    to_device(in.data(), v, bytes, Impl::setup);
    product_on_device(in.data(), result.data(), columns, Impl::setup, std::move(poll));
    to_host(out, result.data(), bytes, Impl::setup);
}

template <class Real>
void Engine<Real>::product_on_device(const Real* v, Real* out, int columns, Stream stream, Poll poll) const {
    if (columns < 1) throw std::invalid_argument("columns must be at least 1");
    const std::lock_guard<std::mutex> lock(impl_->mutex);
    const CurrentDevice current(impl_->device_number);
    const std::int64_t pixels = shape().pixels();
    if (!stored()) {
        const int at_once = Tiles(impl_->partition, columns, sizeof(Real)).columns;
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
    Monitor monitor(std::move(poll), impl_->partition.coarse_pairs(plane));
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

template <class Real> void Engine<Real>::dense(Real* out, Poll poll) const {
    const std::lock_guard<std::mutex> lock(impl_->mutex);
    const CurrentDevice current(impl_->device_number);
    Monitor monitor(std::move(poll), impl_->all_pairs());
    const std::int64_t d = shape().pixels(), bytes = d * d * std::int64_t(sizeof(Real));
    Array<Real> made;
    if (!stored()) {
        made = Array<Real>(d * d);
        impl_->fill_matrix(made.data(), Impl::setup, monitor);
    }
    monitor.finish();
    to_host(out, stored() ? impl_->matrix.data() : made.data(), bytes, Impl::setup);
}

template <class Real>
MemoryEstimate Engine<Real>::estimate(const Program& program, const Shape& shape, int columns, const Device& device,
                                      const Tuning& tuning) {
    const Partition partition(program, shape, false, device, tuning, sizeof(Real));
    const Tiles sizes(partition, columns, sizeof(Real));
    MemoryEstimate bytes{};
    bytes.fields = Impl::held_bytes(partition);
    bytes.building = spreads_bytes<Real>(partition);
    bytes.product = Impl::product_bytes(partition, sizes);
    const HalfPlane plane(shape, program.padding, max_lanes);
    const auto band_bytes = [&](const Target& target, const Shape& at, int dy) {
        return DeviceBands<Real>::band_bytes(program, target, at, dy);
    };
    bytes.bands = most_band_bytes(program, partition.targets, plane, shape, false, band_bytes);
    bytes.coarse = most_band_bytes(program, partition.targets, plane, shape, true, band_bytes);
    bytes.store = Array<Real>::bytes(shape.pixels() * shape.pixels());
    return bytes;
}

template class Engine<float>;
template class Engine<double>;

}  // namespace ntkfast::cuda
