#include "cpu/band_maker.h"

#include <algorithm>
#include <atomic>

#include "cpu/threads.h"

namespace ntkfast {
namespace {

// Writes rows of a segment into bands at the same resolution (stored), or those of even pixels into bands at half of it.
template <class Real> class StoreBands final : public RowSink<Real> {
public:
    StoreBands(BandStore<Real>& store, const RowKernels<Real>& kernels, bool strided)
        : store_(store), kernels_(kernels), strided_(strided) {}

    void row(const Block& block, int y, const Real* const* e, const Real* const* t) override {
        const int batch = store_.shape().batch;
        if (strided_ && (y & 1) != 0) return;
        Band<Real>& band = *store_.find(strided_ ? block.dy / 2 : block.dy);
        for (int b = 0; b < block.lanes; ++b) {
            const Displacement& lane = block.lane[b];
            const int to_y = strided_ ? y / 2 : y, to_dx = strided_ ? lane.dx / 2 : lane.dx;
            const std::ptrdiff_t n = strided_ ? (lane.cols + 1) / 2 : lane.cols;
            write(band.e(to_y, to_dx), e[b], n, batch);
            if (band.has_tangent()) write(band.t(to_y, to_dx), t[b], n, batch);
        }
    }

private:
    void write(Real* to, const Real* from, std::ptrdiff_t n, int batch) const {
        if (!strided_) {
            std::copy_n(from, n * batch, to);
            return;
        }
        std::fill_n(to, n * batch, Real(0));
        kernels_.pool(to, from, Real(1), false, n, batch);
    }

    BandStore<Real>& store_;
    const RowKernels<Real>& kernels_;
    bool strided_;
};

// A E A^T of the average over cells of 2 x 2: the pair of pixels (a, b) counts to the pair of cells (a/2, b/2).  Only the coarse
// displacements [first, first + count) are written.
template <class Real> class PoolBands final : public RowSink<Real> {
public:
    PoolBands(BandStore<Real>& store, const RowKernels<Real>& kernels, int first, int count, bool circular)
        : store_(store), kernels_(kernels), first_(first), count_(count), circular_(circular) {}

    void row(const Block& block, int y, const Real* const* e, const Real* const* t) override {
        Band<Real>* band = store_.find(floor_half(y + block.dy) - floor_half(y));
        if (band == nullptr) return;
        for (int b = 0; b < block.lanes; ++b) {
            const Displacement& lane = block.lane[b];
            const int c = floor_half(lane.dx);
            if ((lane.dx & 1) == 0) {
                add(*band, y / 2, c, true, 0, e[b], t[b]);
            } else {
                const int even = lane.col0 & 1;  // where the first even column lies
                add(*band, y / 2, c, false, even, e[b], t[b]);
                add(*band, y / 2, c + 1, false, 1 - even, e[b], t[b]);
            }
        }
    }

private:
    void add(Band<Real>& band, int y, int c, bool both, int offset, const Real* e, const Real* t) const {
        if (c < first_ || c >= first_ + count_) return;
        const Shape& shape = store_.shape();
        const std::ptrdiff_t n = circular_ ? shape.width : shape.width - std::abs(c);
        const std::ptrdiff_t start = std::ptrdiff_t(offset) * shape.batch;
        kernels_.pool(band.e(y, c), e + start, Real(1) / 16, both, n, shape.batch);
        if (band.has_tangent()) kernels_.pool(band.t(y, c), t + start, Real(1) / 16, both, n, shape.batch);
    }

    BandStore<Real>& store_;
    const RowKernels<Real>& kernels_;
    int first_, count_;
    bool circular_;
};

// Lanes of the pipelines: at least the three that one coarse displacement of a pool needs.
int sweep_lanes(int lanes) { return std::max(3, lanes); }

std::vector<BandTask> tasks_of(const Target& target, int lanes, int first_dx, int count) {
    const int at_once = target.kind == TargetKind::pooled ? (lanes - 1) / 2 : lanes;
    std::vector<BandTask> tasks;
    for (int n = 0; n < count; n += at_once) tasks.push_back({first_dx + n, std::min(at_once, count - n)});
    return tasks;
}

// What a task sweeps of one dy; shape is that of the sweep level.  A pool's coarse displacement c reads the fine ones 2c - 1,
// 2c and 2c + 1.
Block block_of(const Target& target, const Shape& shape, bool circular, int dy, const BandTask& task) {
    Block block = Block::of_rows(shape, circular, dy);
    const bool pooled = target.kind == TargetKind::pooled, strided = target.kind == TargetKind::strided;
    const int first = pooled ? 2 * task.first - 1 : strided ? 2 * task.first : task.first;
    const int count = pooled ? 2 * task.count + 1 : task.count;
    for (int n = 0; n < count; ++n) {
        const int dx = first + (strided ? 2 * n : n);
        if (circular || std::abs(dx) < shape.width) block.add_lane(shape, circular, dx);
    }
    return block;
}

}  // namespace

std::int64_t pairs_of(const Program& program, const Target& target, const Shape& image, int lanes,
                      const MakeBands& step) {
    const Shape shape = at_level(image, target.sweep_level());
    const int width = at_level(image, target.level).width;
    const int first = program.circular() ? 0 : 1 - width, count = program.circular() ? width : 2 * width - 1;
    std::int64_t per_row = 0, rows = 0;  // the same displacements for every dy
    for (const BandTask& task : tasks_of(target, sweep_lanes(lanes), first, count))
        per_row += block_of(target, shape, program.circular(), 0, task).pairs_per_row();
    for (const int dy : step.sweep) rows += Block::of_rows(shape, program.circular(), dy).rows;
    return rows * per_row * shape.batch;
}

template <class Real>
BandMaker<Real>::BandMaker(const Program& program, const std::vector<Target>& targets, int target,
                           const Fields<Real>& fields, const Stores<Real>& stores, const RowKernels<Real>& kernels,
                           int lanes, int threads)
    : program_(program), fields_(fields), kernels_(kernels), stores_(stores),
      plan_(program, targets, target, fields.shape, fields.noise), target_(target), lanes_(sweep_lanes(lanes)),
      threads_(threads), pipelines_(std::size_t(threads)) {}

template <class Real> void BandMaker<Real>::run(const MakeBands& step, Monitor& monitor) {
    BandStore<Real>& store = *stores_[std::size_t(target_)];
    const bool pooled = plan_.target.kind == TargetKind::pooled;
    for (int dy = step.first; dy <= plan_.target.last_begun(step.last); ++dy)
        if (store.exists(dy)) store.make(dy);
    const Band<Real>& band = store.at(step.first);
    const std::vector<BandTask> tasks = tasks_of(plan_.target, lanes_, band.first_dx(), band.count());
    std::atomic<std::size_t> next{0};
    parallel(threads_, [&](int thread, int) {
        auto& pipeline = pipelines_[std::size_t(thread)];
        if (!pipeline) pipeline = std::make_unique<Pipeline<Real>>(program_, plan_, fields_, stores_, kernels_, lanes_);
        for (std::size_t n; (n = next.fetch_add(1)) < tasks.size() && !monitor.stopped();) {
            StoreBands<Real> stored(store, kernels_, plan_.target.kind == TargetKind::strided);
            PoolBands<Real> pool(store, kernels_, tasks[n].first, tasks[n].count, program_.circular());
            RowSink<Real>& sink = pooled ? static_cast<RowSink<Real>&>(pool) : stored;
            for (const int dy : step.sweep) {
                const Block part = block_of(plan_.target, plan_.shape, program_.circular(), dy, tasks[n]);
                if (part.lanes > 0) pipeline->run(part, sink, monitor, thread == 0);
            }
        }
    });
}

template <class Real>
Pair<Real> same_pixel(const Program& program, const Target& target, const Fields<Real>& fields, const Shape& shape,
                      int y, std::ptrdiff_t l) {
    const std::size_t node = std::size_t(target.node);
    const std::size_t at = std::size_t(std::ptrdiff_t(y) * shape.width * shape.batch + l);
    // The sums of a strided convolution: S is not yet added to T.
    const bool subtract = target.kind == TargetKind::strided && program[target.node].trainable;
    return {target.kind == TargetKind::pooled ? 2 * fields.spread.at(target.node).row(y)[l] : Real(0),
            Real(fields.tangent[node][at] - (subtract ? fields.variance[node][at] : 0.0))};
}

template <class Real>
void seal(const Program& program, const Target& target, const Fields<Real>& fields, BandStore<Real>& store, int dy) {
    const Shape& shape = store.shape();
    if (program.circular() ? wrap(dy, shape.height) != 0 : dy != 0) return;
    Band<Real>& band = *store.find(dy);
    const std::ptrdiff_t width = std::ptrdiff_t(shape.width) * shape.batch;
    for (int dx = band.first_dx(); dx < band.first_dx() + band.count(); ++dx) {
        if (program.circular() ? wrap(dx, shape.width) != 0 : dx != 0) continue;
        for (int y = 0; y < shape.height; ++y)
            for (std::ptrdiff_t l = 0; l < width; ++l) {
                const Pair<Real> known = same_pixel(program, target, fields, shape, y, l);
                band.e(y, dx)[l] = known.e;
                if (band.has_tangent()) band.t(y, dx)[l] = known.t;
            }
    }
}

template class BandMaker<float>;
template class BandMaker<double>;
template Pair<float> same_pixel(const Program&, const Target&, const Fields<float>&, const Shape&, int, std::ptrdiff_t);
template Pair<double> same_pixel(const Program&, const Target&, const Fields<double>&, const Shape&, int,
                                 std::ptrdiff_t);
template void seal(const Program&, const Target&, const Fields<float>&, BandStore<float>&, int);
template void seal(const Program&, const Target&, const Fields<double>&, BandStore<double>&, int);

}  // namespace ntkfast
