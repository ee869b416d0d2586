#include "cpu/engine.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <stdexcept>

#include "cpu/band_maker.h"
#include "cpu/columns.h"
#include "cpu/fields_builder.h"
#include "cpu/rows/dispatch.h"
#include "cpu/sinks.h"
#include "cpu/threads.h"
#include "plan/groups.h"
#include "plan/resampling.h"
#include "plan/schedule.h"

namespace ntkfast {
namespace {

// Returns v (pixels, columns, batch) as padded rows with one plane per column.
template <class Real>
PaddedRows<Real> padded_columns(const Real* v, const Shape& shape, int columns, bool circular, Monitor& monitor) {
    PaddedRows<Real> rows(shape, columns, circular, 0);
    const std::ptrdiff_t width = std::ptrdiff_t(shape.width) * shape.batch;
    for (int y = 0; y < shape.height; ++y) {
        monitor.check();
        for (int x = 0; x < shape.width; ++x)
            for (int c = 0; c < columns; ++c)
                for (int n = 0; n < shape.batch; ++n) {
                    Real* to = rows.row(y) + c * rows.plane_stride() + std::ptrdiff_t(x) * shape.batch + n;
                    *to = *v++;
                    if (circular) to[width] = *to;
                }
    }
    return rows;
}

// This bounds the bytes of the squares that the threads of dense() gather bands in, all together.
constexpr std::int64_t most_square_bytes = std::int64_t(1) << 26;

// Makes what a thread keeps for later parallel regions, when the thread first needs it.
template <class Sink, class Make> Sink& made_once(std::unique_ptr<Sink>& sink, Make make) {
    if (!sink) sink = make();
    return *sink;
}

// Computes out (pixels, columns, batch) = unit * (diagonal v + sum of the threads' totals, in the order of the
// threads).
template <class Real>
void combine(const Fields<Real>& fields, const Plane& diagonal,
             const std::vector<std::unique_ptr<ProductSink<Real>>>& sinks, const Real* v, Real* out, int columns,
             Monitor& monitor) {
    const Shape& shape = fields.shape;
    std::int64_t at = 0;
    for (int y = 0; y < shape.height; ++y) {
        monitor.check();
        for (int x = 0; x < shape.width; ++x)
            for (int c = 0; c < columns; ++c)
                for (int n = 0; n < shape.batch; ++n, ++at) {
                    const std::int64_t pixel = std::int64_t(y) * shape.width + x;
                    const std::int64_t total = ((std::int64_t(y) * columns + c) * shape.width + x) * shape.batch + n;
                    double sum = diagonal[std::size_t(pixel * shape.batch + n)] * double(v[at]);
                    for (const auto& sink : sinks)
                        if (sink) sum += sink->totals()[std::size_t(total)];
                    out[at] = Real(sum * fields.result_unit);
                }
    }
}

// Makes the stores for bands of all displacements.
template <class Real>
Stores<Real> make_stores(const Program& program, const std::vector<Target>& targets, const Shape& shape) {
    Stores<Real> stores;
    for (const Target& target : targets) {
        if (target.kind == TargetKind::output) break;
        const int all = shape.height + shape.width + 8;  // on the torus upsampling reads some beyond the last, again
        stores.push_back(std::make_unique<BandStore<Real>>(at_level(program, shape, target.level), program.circular(),
                                                           all, program.has_tangent(target.node)));
    }
    return stores;
}

}  // namespace

template <class Real>
CpuEngine<Real>::CpuEngine(Program program, const Shape& shape, const double* image, const EngineOptions& options,
                           Poll poll)
    : program_(std::move(program)), options_(options), kernels_(row_kernels<Real>(options.isa)) {
    check_sizes(program_, shape);
    targets_ = targets_of(program_);
    options_.lanes = std::clamp(options.lanes, 1, max_lanes);
    options_.threads = std::max(1, options.threads);
    Monitor monitor(std::move(poll), 0);
    FieldsBuilder builder(program_, shape, image, sizeof(Real) == 4, row_kernels<double>(options.isa), options_.threads,
                          monitor);
    program_ = builder.program();
    if constexpr (sizeof(Real) == 4) {
        fields_ = float_fields(builder.fields(), program_, kernels_, options_.threads, monitor);
        if (image != nullptr) image_.assign(image, image + shape.elements() * shape.channels);
    } else {
        fields_ = builder.take();
    }
    monitor.finish();
}

template <class Real> void CpuEngine<Real>::diagonal(double* out) const { fields_.write_diagonal(program_, out); }

template <class Real>
template <class Output>
void CpuEngine<Real>::make_bands_in(const Stores<Real>& stores, const HalfPlane& plane, bool keep, Monitor& monitor,
                                    Output output) const {
    std::vector<std::unique_ptr<BandMaker<Real>>> makers;
    for (int t = 0; t + 1 < int(targets_.size()); ++t)
        makers.push_back(std::make_unique<BandMaker<Real>>(program_, targets_, t, fields_, stores, kernels_,
                                                           options_.lanes, options_.threads));
    const auto make = [&](const MakeBands& step) {
        const std::size_t t = std::size_t(step.target);
        makers[t]->run(step, monitor);
        for (int dy = step.first; dy <= step.last; ++dy) seal(program_, targets_[t], fields_, *stores[t], dy);
    };
    const auto drop = [&](int target, int dy) { stores[std::size_t(target)]->drop_below(dy); };
    make_bands(program_, targets_, plane, fields_.shape, keep, monitor, make, drop, output);
}

template <class Real> std::int64_t CpuEngine<Real>::coarse_pairs_of(const HalfPlane& plane) const {
    return coarse_pairs(program_, targets_, plane, fields_.shape, [&](const MakeBands& step) {
        return pairs_of(program_, targets_[std::size_t(step.target)], fields_.shape, plane.lanes_per_block(), step);
    });
}

// Deals the blocks in turn: thread n of the team takes blocks n, n + team, ..., so that the same team gives the same
// bits, and neighbouring blocks, nearly equal in cost, go to different threads.  With several resolutions some bands of
// the output alternate with the coarse bands that they read.
template <class Real>
template <class SinkOf>
void CpuEngine<Real>::sweep(const HalfPlane& plane, Deal deal, SinkOf sink_of, Monitor& monitor) const {
    const Shape& shape = fields_.shape;
    const Stores<Real> made = all_there() ? Stores<Real>() : make_stores<Real>(program_, targets_, shape);
    const Stores<Real>& stores = coarse_kept_ ? coarse_ : made;
    const Plan plan(program_, targets_, int(targets_.size()) - 1, shape, fields_.noise);
    std::vector<std::unique_ptr<Pipeline<Real>>> pipelines(std::size_t(options_.threads));
    const auto output = [&](int first_band, int last_band) {
        std::atomic<int> next_band{first_band};
        parallel(options_.threads, [&](int thread, int team) {
            RowSink<Real>& sink = sink_of(thread);
            if (!stored())
                made_once(pipelines[std::size_t(thread)], [&] {
                    return std::make_unique<Pipeline<Real>>(program_, plan, fields_, stores, kernels_,
                                                            plane.lanes_per_block());
                });
            const auto take = [&](std::int64_t n) {
                const Block block = plane.block(n);
                sink.begin_block(block, n);
                if (stored()) {
                    replay(packed_.data() + packed_offsets_[std::size_t(n)], shape.batch, block, sink);
                    monitor.advance(block.pairs() * shape.batch, thread == 0);
                } else {
                    pipelines[std::size_t(thread)]->run(block, sink, monitor, thread == 0);
                }
                sink.end_block(block);
            };
            if (deal == Deal::bands_as_free) {
                for (int band; (band = next_band.fetch_add(1)) <= last_band && !monitor.stopped();) {
                    for (std::int64_t n = plane.first_block(band); n < plane.first_block(band + 1); ++n) take(n);
                    if (!monitor.stopped()) sink.end_band(plane.band_dy(band));
                }
                return;
            }
            const std::int64_t begin = plane.first_block(first_band), end = plane.first_block(last_band + 1);
            const std::int64_t start = begin + modulo(thread - begin, team);
            for (std::int64_t n = start; n < end && !monitor.stopped(); n += team) take(n);
        });
    };
    if (all_there())
        output(0, plane.bands() - 1);
    else
        make_bands_in(stores, plane, false, monitor, output);
    monitor.check();
}

template <class Real> std::int64_t CpuEngine<Real>::sweep_pairs(const HalfPlane& plane) const {
    return plane.pairs() + (all_there() ? 0 : coarse_pairs_of(plane));
}

template <class Real> void CpuEngine<Real>::keep_coarse(Poll poll) {
    if (coarse_kept_ || targets_.size() == 1) return;
    const HalfPlane plane(fields_.shape, program_.padding, options_.lanes);
    Monitor monitor(std::move(poll), coarse_pairs_of(plane));
    Stores<Real> stores = make_stores<Real>(program_, targets_, fields_.shape);
    make_bands_in(stores, plane, true, monitor, [](int, int) {});
    monitor.finish();
    coarse_ = std::move(stores);
    coarse_kept_ = true;
}

template <class Real>
void CpuEngine<Real>::product(const Real* v, Real* out, int columns, Poll poll) const {
    if (columns < 1) throw std::invalid_argument("columns must be at least 1");
    const bool circular = program_.circular();
    const HalfPlane plane(fields_.shape, program_.padding, options_.lanes);
    Monitor monitor(std::move(poll), sweep_pairs(plane));
    const PaddedRows<Real> rows = padded_columns(v, fields_.shape, columns, circular, monitor);
    std::vector<std::unique_ptr<ProductSink<Real>>> sinks(std::size_t(options_.threads));
    const auto watch = [&](int thread) { return Watch{monitor, thread == 0}; };
    const auto sink_of = [&](int thread) -> RowSink<Real>& {
        // Each thread makes its own sink, so that the memory is near.
        return made_once(sinks[std::size_t(thread)], [&] {
            return std::make_unique<ProductSink<Real>>(kernels_, rows, fields_.shape, columns, circular, !stored(),
                                                       watch(thread));
        });
    };
    sweep(plane, Deal::blocks_in_turn, sink_of, monitor);
    for (const auto& sink : sinks)
        if (sink) sink->flush(watch(0));
    monitor.check();
    combine(fields_, fields_.diagonal(program_), sinks, v, out, columns, monitor);
    monitor.finish();
}

template <class Real> void CpuEngine<Real>::store(Poll poll) {
    if (stored()) return;
    const HalfPlane plane(fields_.shape, program_.padding, options_.lanes);
    std::vector<std::int64_t> offsets(std::size_t(plane.blocks()) + 1, 0);
    for (std::int64_t n = 0; n < plane.blocks(); ++n)
        offsets[std::size_t(n) + 1] = offsets[std::size_t(n)] + packed_elements(plane.block(n), fields_.shape.batch);
    RawVector<Real> packed(std::size_t(offsets.back()));
    Monitor monitor(std::move(poll), sweep_pairs(plane));
    std::vector<std::unique_ptr<StoreSink<Real>>> sinks(std::size_t(options_.threads));
    const auto sink_of = [&](int thread) -> RowSink<Real>& {
        return made_once(sinks[std::size_t(thread)], [&] {
            return std::make_unique<StoreSink<Real>>(packed.data(), offsets, fields_.shape.batch);
        });
    };
    sweep(plane, Deal::blocks_in_turn, sink_of, monitor);
    monitor.finish();
    packed_ = std::move(packed);
    packed_offsets_ = std::move(offsets);
}

template <class Real> void CpuEngine<Real>::dense(Real* out, Poll poll) const {
    const Shape& shape = fields_.shape;
    const std::int64_t d = shape.pixels();
    const bool circular = program_.circular();
    // A stored kernel lies in blocks of the width it was stored with.
    const HalfPlane plane(shape, program_.padding, stored() ? options_.lanes : max_lanes);
    Monitor monitor(std::move(poll), sweep_pairs(plane));
    const auto watch = [&](int thread) { return Watch{monitor, thread == 0}; };
    // Whole bands go to a thread where there are enough for all, and where the squares do not outgrow the caches by
    // much.
    const std::int64_t squares = options_.threads * DenseBandSink<Real>::numbers(shape) * std::int64_t(sizeof(Real));
    const bool by_bands =
        !circular && all_there() && shape.height >= 4 * options_.threads && squares <= most_square_bytes;
    if (by_bands) {
        std::vector<std::unique_ptr<DenseBandSink<Real>>> sinks(std::size_t(options_.threads));
        const auto sink_of = [&](int thread) -> RowSink<Real>& {
            return made_once(sinks[std::size_t(thread)], [&] {
                return std::make_unique<DenseBandSink<Real>>(out, shape, Real(fields_.result_unit), watch(thread));
            });
        };
        sweep(plane, Deal::bands_as_free, sink_of, monitor);
    } else {
        // These sinks have no state: one serves the calling thread, which asks, and one all others.
        DenseSink<Real> asking(out, shape, circular, Real(fields_.result_unit), watch(0));
        DenseSink<Real> silent(out, shape, circular, Real(fields_.result_unit), watch(1));
        const auto sink_of = [&](int thread) -> RowSink<Real>& { return thread == 0 ? asking : silent; };
        sweep(plane, Deal::blocks_in_turn, sink_of, monitor);
    }
    const Plane& diagonal = fields_.diagonal(program_);
    parallel(options_.threads, [&](int thread, int team) {
        for (int n = 0; n < shape.batch; ++n) {
            Real* matrix = out + n * d * d;
            for (std::int64_t i = thread; i < d; i += team)
                matrix[i * d + i] = Real(diagonal[std::size_t(i * shape.batch + n)] * fields_.result_unit);
            if (circular || by_bands) continue;
            for (std::int64_t j = thread * line_rows; j < d && !monitor.stopped(); j += team * line_rows) {
                mirror_rows(matrix, d, j);
                if (thread == 0) monitor.ask();
            }
        }
        finish_lines();
    });
    monitor.finish();
}

// An engine in float makes them when they are first wanted, and keeps them: with several resolutions they take as long
// as the engine's own.  Threads that want them at once may each make them, with the same bits: a lock would be held
// while the poll runs a caller's code.
template <class Real>
typename CpuEngine<Real>::ExactView CpuEngine<Real>::exact_fields(const Poll& poll) const {
    if constexpr (sizeof(Real) == sizeof(double)) {
        (void)poll;
        return {program_, fields_};
    } else {
        if (std::atomic_load(&exact_) == nullptr) {
            Monitor monitor(poll, 0);
            FieldsBuilder builder(program_, fields_.shape, image_.empty() ? nullptr : image_.data(), false,
                                  row_kernels<double>(options_.isa), options_.threads, monitor);
            Fields<double> made = builder.take();
            made.halves.clear(), made.half_sums.clear(), made.pooled_images.clear();  // read by sweeps only
            made.result_unit = std::ldexp(made.result_unit, made.exponent - fields_.exponent);
            std::shared_ptr<const Exact> none;
            std::atomic_compare_exchange_strong(
                &exact_, &none,
                std::shared_ptr<const Exact>(std::make_shared<Exact>(Exact{builder.program(), std::move(made)})));
        }
        const Exact& exact = *std::atomic_load(&exact_);
        return {exact.program, exact.fields};
    }
}

template <class Real>
void CpuEngine<Real>::columns(const std::int64_t* pixels, std::int64_t count, Real* out, Poll poll) const {
    const Shape& shape = fields_.shape;
    if (shape.batch != 1) throw std::invalid_argument("columns: the engine holds a batch of images");
    for (std::int64_t n = 0; n < count; ++n)
        if (pixels[n] < 0 || pixels[n] >= shape.pixels()) throw std::invalid_argument("columns: pixel out of range");
    const ExactView exact = exact_fields(poll);
    const Columns one(exact.program, exact.fields);
    const std::int64_t strips = (shape.height + one.strip() - 1) / one.strip();
    Monitor monitor(std::move(poll), count * shape.pixels());
    parallel(options_.threads, [&](int thread, int team) {
        Columns rows(exact.program, exact.fields);
        std::vector<double> strip(std::size_t(one.strip()) * std::size_t(shape.width));
        for (std::int64_t n = thread; n < count * strips && !monitor.stopped(); n += team) {
            const std::int64_t pixel = n / strips;
            const int y0 = int(n % strips) * one.strip(), y1 = std::min(shape.height, y0 + one.strip());
            rows.rows(pixels[pixel], y0, y1, strip.data(), monitor, thread == 0);
            Real* to = out + pixel * shape.pixels() + std::int64_t(y0) * shape.width;
            for (int e = 0; e < (y1 - y0) * shape.width; ++e) to[e] = Real(strip[std::size_t(e)]);
            monitor.advance((y1 - y0) * shape.width, thread == 0);
        }
    });
    monitor.finish();
}

template <class Real> std::int64_t CpuEngine<Real>::columns_bytes() const {
    const bool there = sizeof(Real) == sizeof(double) || std::atomic_load(&exact_) != nullptr;
    const std::int64_t windows = options_.threads * Columns::bytes(program_, fields_.shape);
    if (there) return windows;
    return fields_bytes(program_, fields_.shape, false) +
           std::max(windows, building_bytes(program_, fields_.shape, false, options_.threads));
}

template <class Real>
MemoryEstimate CpuEngine<Real>::estimate(const Program& program, const Shape& shape, int columns,
                                         const EngineOptions& options) {
    MemoryEstimate bytes;
    const bool circular = program.circular();
    const std::vector<Target> targets = targets_of(program);
    constexpr bool single = sizeof(Real) == 4;
    bytes.fields = fields_bytes(program, shape, single);
    if (single) bytes.fields += shape.elements() * shape.channels * std::int64_t(sizeof(double));  // kept for columns()
    bytes.building = building_bytes(program, shape, single, options.threads);
    std::int64_t pipelines = 0;
    for (int t = 0; t < int(targets.size()); ++t)
        pipelines += Pipeline<Real>::bytes(program, Plan(program, targets, t, shape, false), options.lanes);
    bytes.product = PaddedRows<Real>::bytes(shape, columns, circular, 0) +
                    options.threads * (ProductSink<Real>::bytes(shape, columns, circular) + pipelines);
    const HalfPlane plane(shape, program.padding, options.lanes);
    const auto band_bytes = [&](const Target& target, const Shape& at, int dy) {
        return Band<Real>::bytes(at, circular, dy, at.width, program.has_tangent(target.node));
    };
    bytes.bands = most_band_bytes(program, targets, plane, shape, false, band_bytes);
    bytes.coarse = most_band_bytes(program, targets, plane, shape, true, band_bytes);
    bytes.store = plane.packed_elements() * std::int64_t(sizeof(Real)) + plane.blocks() * 8;
    return bytes;
}

template class CpuEngine<float>;
template class CpuEngine<double>;

}  // namespace ntkfast
