#include "engine.h"

#include <algorithm>
#include <memory>
#include <stdexcept>

#include "columns.h"
#include "dispatch.h"
#include "pipeline.h"
#include "threads.h"

namespace ntkfast {
namespace {

// v (pixels, columns, batch) as padded rows with one plane per column.
template <class Real>
PaddedRows<Real> padded_columns(const Real* v, const Shape& shape, int columns, bool circular) {
    PaddedRows<Real> rows(shape, columns, circular, 0);
    const std::ptrdiff_t width = std::ptrdiff_t(shape.width) * shape.batch;
    for (int y = 0; y < shape.height; ++y)
        for (int x = 0; x < shape.width; ++x)
            for (int c = 0; c < columns; ++c)
                for (int n = 0; n < shape.batch; ++n) {
                    Real* to = rows.row(y) + c * rows.plane_stride() + std::ptrdiff_t(x) * shape.batch + n;
                    *to = *v++;
                    if (circular) to[width] = *to;
                }
    return rows;
}

// out (pixels, columns, batch) = unit * (diagonal v + sum of the threads' totals, in the order of the threads).
template <class Real>
void combine(const Fields<Real>& fields, const std::vector<std::unique_ptr<ProductSink<Real>>>& sinks, const Real* v,
             Real* out, int columns) {
    const Shape& shape = fields.shape;
    std::int64_t at = 0;
    for (int y = 0; y < shape.height; ++y)
        for (int x = 0; x < shape.width; ++x)
            for (int c = 0; c < columns; ++c)
                for (int n = 0; n < shape.batch; ++n, ++at) {
                    const std::int64_t pixel = std::int64_t(y) * shape.width + x;
                    const std::int64_t total = ((std::int64_t(y) * columns + c) * shape.width + x) * shape.batch + n;
                    double sum = fields.diagonal[std::size_t(pixel * shape.batch + n)] * double(v[at]);
                    for (const auto& sink : sinks)
                        if (sink) sum += sink->totals()[std::size_t(total)];
                    out[at] = Real(sum * fields.unit);
                }
}

}  // namespace

template <class Real>
Engine<Real>::Engine(Program program, const Shape& shape, const double* image, const EngineOptions& options)
    : program_(std::move(program)), options_(options), kernels_(row_kernels<Real>(options.isa)) {
    program_.check();
    if (shape.height < 1 || shape.width < 1 || shape.channels < 1 || shape.batch < 1)
        throw std::invalid_argument("image must not be empty");
    options_.lanes = std::clamp(options.lanes, 1, max_lanes);
    options_.threads = std::max(1, options.threads);
    fields_ = Fields<Real>::make(program_, shape, image);
}

template <class Real> void Engine<Real>::diagonal(double* out) const {
    for (std::size_t n = 0; n < fields_.diagonal.size(); ++n) out[n] = fields_.diagonal[n] * fields_.unit;
}

// Blocks are dealt round robin: thread n of the team takes blocks n, n + team, ..., so that the same team gives the same
// bits, and neighbouring blocks, nearly equal in cost, go to different threads.
template <class Real>
template <class SinkOf>
void Engine<Real>::sweep(const HalfPlane& plane, SinkOf sink_of, Poll poll) const {
    Monitor monitor(std::move(poll), plane.pairs());
    parallel(options_.threads, [&](int thread, int team) {
        RowSink<Real>& sink = sink_of(thread);
        std::unique_ptr<Pipeline<Real>> pipeline;
        if (!stored())
            pipeline = std::make_unique<Pipeline<Real>>(program_, fields_, kernels_, plane.lanes_per_block());
        for (std::int64_t n = thread; n < plane.blocks() && !monitor.stopped(); n += team) {
            const Block block = plane.block(n);
            sink.begin_block(block, n);
            if (pipeline) {
                pipeline->run(block, sink, monitor, thread == 0);
            } else {
                replay(packed_.data() + packed_offsets_[std::size_t(n)], fields_.shape.batch, block, sink);
                monitor.advance(block.pairs() * fields_.shape.batch, thread == 0);
            }
            sink.end_block(block);
        }
    });
    monitor.finish();
}

template <class Real>
void Engine<Real>::product(const Real* v, Real* out, int columns, Poll poll) const {
    if (columns < 1) throw std::invalid_argument("columns must be at least 1");
    const bool circular = program_.circular();
    const PaddedRows<Real> rows = padded_columns(v, fields_.shape, columns, circular);
    std::vector<std::unique_ptr<ProductSink<Real>>> sinks(std::size_t(options_.threads));
    const auto sink_of = [&](int thread) -> RowSink<Real>& {
        auto& sink = sinks[std::size_t(thread)];  // made by its thread, so that its memory is near
        sink = std::make_unique<ProductSink<Real>>(kernels_, rows, fields_.shape, columns, circular);
        return *sink;
    };
    sweep(HalfPlane(fields_.shape, program_.padding, options_.lanes), sink_of, std::move(poll));
    for (const auto& sink : sinks)
        if (sink) sink->flush();
    combine(fields_, sinks, v, out, columns);
}

template <class Real> void Engine<Real>::store(Poll poll) {
    if (stored()) return;
    const HalfPlane plane(fields_.shape, program_.padding, options_.lanes);
    std::vector<std::int64_t> offsets(std::size_t(plane.blocks()) + 1, 0);
    for (std::int64_t n = 0; n < plane.blocks(); ++n)
        offsets[std::size_t(n) + 1] = offsets[std::size_t(n)] + packed_elements(plane.block(n), fields_.shape.batch);
    std::vector<Real> packed(std::size_t(offsets.back()));
    std::vector<std::unique_ptr<StoreSink<Real>>> sinks(std::size_t(options_.threads));
    const auto sink_of = [&](int thread) -> RowSink<Real>& {
        auto& sink = sinks[std::size_t(thread)];
        sink = std::make_unique<StoreSink<Real>>(packed.data(), offsets, fields_.shape.batch);
        return *sink;
    };
    sweep(plane, sink_of, std::move(poll));
    packed_ = std::move(packed);
    packed_offsets_ = std::move(offsets);
}

template <class Real> void Engine<Real>::dense(Real* out, Poll poll) const {
    const Shape& shape = fields_.shape;
    const std::int64_t d = shape.pixels();
    DenseSink<Real> sink(out, shape, program_.circular(), Real(fields_.unit));  // no state: one for all threads
    const auto sink_of = [&](int) -> RowSink<Real>& { return sink; };
    // What is stored is in blocks of the width it was stored with.
    const int lanes = stored() ? options_.lanes : max_lanes;
    sweep(HalfPlane(shape, program_.padding, lanes), sink_of, std::move(poll));
    constexpr std::int64_t rows = 64;  // a task of the mirror
    const std::int64_t tasks = (d + rows - 1) / rows;
    parallel(options_.threads, [&](int thread, int team) {
        for (int n = 0; n < shape.batch; ++n) {
            Real* matrix = out + n * d * d;
            for (std::int64_t i = thread; i < d; i += team)
                matrix[i * d + i] = Real(fields_.diagonal[std::size_t(i * shape.batch + n)] * fields_.unit);
            if (program_.circular()) continue;
            for (std::int64_t task = thread; task < tasks; task += team)
                mirror_upper(matrix, d, task * rows, std::min(d, (task + 1) * rows));
        }
    });
}

template <class Real>
void Engine<Real>::columns(const std::int64_t* pixels, std::int64_t count, Real* out, Poll poll) const {
    const Shape& shape = fields_.shape;
    if (shape.batch != 1) throw std::invalid_argument("columns: the engine holds a batch of images");
    for (std::int64_t n = 0; n < count; ++n)
        if (pixels[n] < 0 || pixels[n] >= shape.pixels()) throw std::invalid_argument("columns: pixel out of range");
    Monitor monitor(std::move(poll), count * shape.pixels());
    const std::int64_t rows = count * shape.height;
    parallel(options_.threads, [&](int thread, int team) {
        PixelPyramid<Real> pyramid(program_, fields_, kernels_);
        for (std::int64_t n = thread; n < rows && !monitor.stopped(); n += team) {
            pyramid.row(pixels[n / shape.height], int(n % shape.height), out + n * shape.width);
            monitor.advance(shape.width, thread == 0);
        }
    });
    monitor.finish();
}

template <class Real>
MemoryEstimate Engine<Real>::estimate(const Program& program, const Shape& shape, int columns,
                                      const EngineOptions& options) {
    MemoryEstimate bytes;
    const bool circular = program.circular();
    bytes.fields = Fields<Real>::bytes(program, shape);
    bytes.product = PaddedRows<Real>::bytes(shape, columns, circular, 0) +
                    options.threads * (ProductSink<Real>::bytes(shape, columns, circular) +
                                       Pipeline<Real>::bytes(program, shape, options.lanes));
    const HalfPlane plane(shape, program.padding, options.lanes);
    bytes.store = plane.packed_elements() * std::int64_t(sizeof(Real)) + plane.blocks() * 8;
    return bytes;
}

template class Engine<float>;
template class Engine<double>;

}  // namespace ntkfast
