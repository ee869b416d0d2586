#include "cpu/band_maker.h"

#include <algorithm>
#include <atomic>

#include "cpu/threads.h"

namespace ntkfast {
namespace {

constexpr int factor = supported_factor;  // both sinks'
constexpr Resampling pool{Resampling::Kind::pool, factor};

// Cells say what a fine displacement from 0 to f - 1 counts to: `count` coarse ones from 0 on, each by these pixels of
// its cells.
struct Cells {
    int count;
    Range pixels[2];
};
constexpr Cells cells_of(int displacement) {
    return {pool.read_by(displacement).size(), {pool.cell_pixels(displacement, 0), pool.cell_pixels(displacement, 1)}};
}
static_assert(factor == 2, "Cells holds two coarse displacements, RowKernels::pool adds one pixel of a cell or two");
constexpr Cells cells[factor] = {cells_of(0), cells_of(1)};  // a lane looks them up for every row

// Writes rows of a segment into bands at the same resolution (features), or those of every f-th pixel into coarser
// bands.
template <class Real> class WriteBands final : public RowSink<Real> {
public:
    WriteBands(BandStore<Real>& store, const RowKernels<Real>& kernels, bool strided)
        : store_(store), kernels_(kernels), strided_(strided) {}

    void row(const Block& block, int y, const Real* const* e, const Real* const* t) override {
        const int batch = store_.shape().batch;
        if (strided_ && modulo<factor>(y) != 0) return;
        Band<Real>& band = *store_.find(strided_ ? block.dy / factor : block.dy);
        for (int b = 0; b < block.lanes; ++b) {
            const Displacement& lane = block.lane[b];
            const int to_y = strided_ ? y / factor : y, to_dx = strided_ ? lane.dx / factor : lane.dx;
            const std::ptrdiff_t n = strided_ ? ceil_div(lane.cols, factor) : lane.cols;
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

// PoolBands computes A E A^T of the average over cells of f x f: the pair of pixels (a, b) counts to the pair of cells
// (a/f, b/f).  Only the coarse displacements [first, first + count) are written.
template <class Real> class PoolBands final : public RowSink<Real> {
public:
    PoolBands(BandStore<Real>& store, const RowKernels<Real>& kernels, int first, int count, bool circular)
        : store_(store), kernels_(kernels), first_(first), count_(count), circular_(circular) {}

    void row(const Block& block, int y, const Real* const* e, const Real* const* t) override {
        Band<Real>* band = store_.find(floor_div<factor>(y + block.dy) - floor_div<factor>(y));
        if (band == nullptr) return;
        for (int b = 0; b < block.lanes; ++b) {
            const Displacement& lane = block.lane[b];
            const Cells& of = cells[modulo<factor>(lane.dx)];
            const int c = floor_div<factor>(lane.dx);
            for (int m = 0; m < of.count; ++m) add(*band, y / factor, c + m, of.pixels[m], lane.col0, e[b], t[b]);
        }
    }

private:
    // `pixels` are one or both of each cell's; col0 says where e and t begin.
    void add(Band<Real>& band, int y, int c, Range pixels, int col0, const Real* e, const Real* t) const {
        if (c < first_ || c >= first_ + count_) return;
        constexpr Real weight = Real(1) / (factor * factor * factor * factor);
        const Shape& shape = store_.shape();
        const std::ptrdiff_t n = circular_ ? shape.width : shape.width - std::abs(c);
        const int first_cell = circular_ ? 0 : std::max(0, -c);
        const std::ptrdiff_t start = std::ptrdiff_t(factor * first_cell + pixels.low - col0) * shape.batch;
        const bool both = pixels.size() == 2;
        kernels_.pool(band.e(y, c), e + start, weight, both, n, shape.batch);
        if (band.has_tangent()) kernels_.pool(band.t(y, c), t + start, weight, both, n, shape.batch);
    }

    BandStore<Real>& store_;
    const RowKernels<Real>& kernels_;
    int first_, count_;
    bool circular_;
};

// Counts the lanes of the pipelines: at least those that one coarse displacement of a pool needs.
int sweep_lanes(int lanes) { return std::max(pool.displacements_read(1), lanes); }

std::vector<BandTask> tasks_of(const Target& target, int lanes, int first_dx, int count) {
    const int at_once = target.sampling.displacements_within(lanes);
    std::vector<BandTask> tasks;
    for (int n = 0; n < count; n += at_once) tasks.push_back({first_dx + n, std::min(at_once, count - n)});
    return tasks;
}

// Returns what a task sweeps of one dy; `shape` is that of the sweep level.
Block block_of(const Target& target, const Shape& shape, bool circular, int dy, const BandTask& task) {
    Block block = Block::of_rows(shape, circular, dy);
    const int first = target.first_sweep(task.first), count = target.sampling.displacements_read(task.count);
    for (int n = 0; n < count; ++n) {
        const int dx = first + n * target.sweep_step();
        if (circular || std::abs(dx) < shape.width) block.add_lane(shape, circular, dx);
    }
    return block;
}

}  // namespace

std::int64_t pairs_of(const Program& program, const Target& target, const Shape& image, int lanes,
                      const MakeBands& step) {
    const Shape shape = at_level(program, image, target.sweep_level());
    const int width = at_level(program, image, target.level).width;
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
            WriteBands<Real> writing(store, kernels_, plan_.target.kind == TargetKind::strided);
            PoolBands<Real> pooling(store, kernels_, tasks[n].first, tasks[n].count, program_.circular());
            RowSink<Real>& sink = pooled ? static_cast<RowSink<Real>&>(pooling) : writing;
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
    // These are the sums of a strided convolution: S is not yet added to T.
    const double added = target.kind == TargetKind::strided ? program.trained(target.node) : 0.0;
    return {target.kind == TargetKind::pooled ? 2 * fields.spread.at(target.node).row(y)[l] : Real(0),
            Real(fields.tangent[node][at] - added * fields.variance[node][at])};
}

template <class Real>
void seal(const Program& program, const Target& target, const Fields<Real>& fields, BandStore<Real>& store, int dy) {
    const Shape& shape = store.shape();
    if (program.circular() ? modulo(dy, shape.height) != 0 : dy != 0) return;
    Band<Real>& band = *store.find(dy);
    const std::ptrdiff_t width = std::ptrdiff_t(shape.width) * shape.batch;
    for (int dx = band.first_dx(); dx < band.first_dx() + band.count(); ++dx) {
        if (program.circular() ? modulo(dx, shape.width) != 0 : dx != 0) continue;
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
