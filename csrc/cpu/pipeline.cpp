#include "pipeline.h"

#include <algorithm>

namespace ntkfast {
namespace {

constexpr int E = 0, T = 1;

int ring_rows(int kernel_size) { return kernel_size > max_direct_rows ? kernel_size + 1 : kernel_size; }

// Positions l < 0 and l >= length of a row that repeats with period `length`.
template <class Real> void wrap_columns(Real* row, std::ptrdiff_t length, std::ptrdiff_t halo) {
    for (std::ptrdiff_t l = 0; l < halo; ++l) {
        row[-1 - l] = row[length - 1 - l % length];
        row[length + l] = row[l % length];
    }
}

}  // namespace

template <class Real>
typename Pipeline<Real>::Layout Pipeline<Real>::make_layout(const Program& program, const Shape& shape) {
    Layout layout;
    const std::ptrdiff_t halo = std::ptrdiff_t(program.max_radius()) * shape.batch;
    layout.left = round_up(halo);
    layout.row_stride = layout.left + round_up(std::ptrdiff_t(shape.width) * shape.batch + 2 * halo) + 2 * chunk;
    std::ptrdiff_t end = 0;
    const auto take = [&](int rows) {
        const std::ptrdiff_t start = end;
        end += rows * layout.row_stride;
        return start;
    };
    int lag = 0;
    for (const Stage& stage : program.stages) {
        Ring ring{};
        ring.slots = stage.kernel_size;
        ring.rows = ring_rows(stage.kernel_size);
        ring.lag = lag;
        ring.base = take(2 * ring.rows);
        layout.rings.push_back(ring);
        lag += stage.radius();
    }
    layout.raw_e = take(1);
    layout.raw_t = take(1);
    layout.output = take(1);
    layout.lane_stride = end;
    return layout;
}

template <class Real>
Pipeline<Real>::Pipeline(const Program& program, const Fields<Real>& fields, const RowKernels<Real>& kernels, int lanes)
    : program_(program), fields_(fields), kernels_(kernels), layout_(make_layout(program, fields.shape)) {
    for (int s = 0; s < program.size(); ++s) constants_.push_back(constants_of(program, fields, s));
    // Zeros, so that chunks that run past a row's end compute on numbers, never on what memory happened to hold.
    buffers_.assign(std::size_t(lanes * layout_.lane_stride), Real(0));
    scratch_.assign(std::size_t(2 * layout_.row_stride), Real(0));
    exact_.assign(std::size_t(layout_.row_stride), 0.0);
}

template <class Real>
std::int64_t Pipeline<Real>::bytes(const Program& program, const Shape& shape, int lanes) {
    const Layout layout = make_layout(program, shape);
    return (lanes * layout.lane_stride + 2 * layout.row_stride) * std::int64_t(sizeof(Real)) +
           layout.row_stride * std::int64_t(sizeof(double));
}

// With zeros a stage sees the image's rows and k//2 rows outside at either end, which are known in closed form; on the
// torus it sees as many rows beyond the image as the later stages reach, computed like all others.
template <class Real> void Pipeline<Real>::start(const Block& block) {
    lanes_ = block.row_lanes(fields_.shape.batch, layout_.lane_stride);
    for (int s = 0; s < program_.size(); ++s) {
        const int beyond = program_.circular() ? program_.reach(s) : program_.stages[std::size_t(s)].radius();
        layout_.rings[std::size_t(s)].first = -beyond;
        layout_.rings[std::size_t(s)].last = block.rows + beyond;
    }
}

template <class Real>
void Pipeline<Real>::run(const Block& block, RowSink<Real>& sink, Monitor& monitor, bool leader) {
    start(block);
    const int last = program_.size() - 1;
    int step = 0, end = 0;
    for (const Ring& ring : layout_.rings) {
        step = std::min(step, ring.first + ring.lag);
        end = std::max(end, ring.last + ring.lag);
    }
    const int total_lag = layout_.rings[std::size_t(last)].lag + program_.stages[std::size_t(last)].radius();
    const std::int64_t pairs_per_row = block.pairs_per_row() * fields_.shape.batch;
    std::int64_t unreported = 0;
    Real* output = at(layout_.output);
    const Real* rows[max_lanes];
    for (int b = 0; b < block.lanes; ++b) rows[b] = output + b * layout_.lane_stride;
    for (; step < end && !monitor.stopped(); ++step) {
        for (int s = 0; s <= last; ++s) {
            const Ring& ring = layout_.rings[std::size_t(s)];
            const int y = step - ring.lag;
            if (y >= ring.first && y < ring.last) feed(block, s, y);
        }
        const int y = step - total_lag;
        if (y < 0 || y >= block.rows) continue;
        map(kernels_.output, block, last, y, output, output);
        sink.row(block, y, rows);
        unreported += pairs_per_row;
        if (unreported >= Monitor::stride) {
            monitor.advance(unreported, leader);
            unreported = 0;
        }
    }
    monitor.advance(unreported, leader);
}

// Takes row y of stage s into its ring.
template <class Real> void Pipeline<Real>::feed(const Block& block, int s, int y) {
    const Ring& ring = layout_.rings[std::size_t(s)];
    if (ring.slots == 1) return raw_row(block, s, y, ring_row(ring, E, 0), ring_row(ring, T, 0));
    const int slot = (y - ring.first) % ring.slots;
    Real *e = at(layout_.raw_e), *t = at(layout_.raw_t);
    raw_row(block, s, y, e, t);
    push(ring, slot, E, e);
    if (program_.tangent_enters(s)) push(ring, slot, T, t);
}

// Horizontal sum into the ring.  Large kernels keep two-ended sums: when the k rows of a block of rows are complete they
// are replaced by their suffix sums, and `prefix` gathers the rows since; any window of k rows is one suffix plus the
// prefix, each a fresh sum of at most k rows: no difference is ever taken, so nothing drifts.
template <class Real> void Pipeline<Real>::push(const Ring& ring, int slot, int field, const Real* raw) {
    Real* row = ring_row(ring, field, slot);
    kernels_.box_row(lanes_, row, raw, ring.slots, fields_.shape.batch, scratch_.data());
    if (!ring.blockwise()) return;
    Real* prefix = ring_row(ring, field, ring.slots);
    if (slot == ring.slots - 1) {
        for (int n = slot - 1; n >= 0; --n)
            kernels_.add(lanes_, ring_row(ring, field, n), ring_row(ring, field, n), ring_row(ring, field, n + 1));
    } else if (slot == 0) {
        for (int b = 0; b < lanes_.count; ++b)
            std::copy_n(row + b * lanes_.stride, round_up(lanes_.length[b]), prefix + b * lanes_.stride);
    } else {
        kernels_.add(lanes_, prefix, prefix, row);
    }
}

// E and T' of the pairs in row y as they enter stage s, with the columns that its kernel reaches beyond each lane.
template <class Real> void Pipeline<Real>::raw_row(const Block& block, int s, int y, Real* e, Real* t) {
    if (s == 0) return input_row(block, y, e);
    if (!program_.circular() && (y < 0 || y >= block.rows)) return outside_row(block, s, y, e, t);
    const bool active = program_.stages[std::size_t(s) - 1].has_activation;
    map(active ? kernels_.activation : kernels_.linear, block, s - 1, y, e, t);
    if (halo(s) > 0) complete_columns(block, s, y, e, t);
}

// E = sum_c (x_c(i) - x_c(j))^2.  The padded image is zero outside, which is what E is to be there.
template <class Real> void Pipeline<Real>::input_row(const Block& block, int y, Real* e) {
    const PaddedRows<Real>& image = fields_.image;
    const std::ptrdiff_t beyond = program_.circular() ? 0 : halo(0);
    kernels_.input(lanes_, e, image.row(y), image.row(y + block.dy), image.plane_stride(), fields_.shape.channels,
                   beyond);
    if (!program_.circular()) return;
    for (int b = 0; b < lanes_.count; ++b) wrap_columns(e + b * lanes_.stride, lanes_.length[b], halo(0));
}

// A row in which i or j lies outside the image: E = (Q_ii + Q_jj)/2 with the one outside zero, and T' = 0.
template <class Real> void Pipeline<Real>::outside_row(const Block& block, int s, int y, Real* e, Real* t) {
    const PaddedRows<Real>& half = fields_.stages[std::size_t(s)].half;
    const Real *h_i = half.row(y), *h_j = half.row(y + block.dy);
    const std::ptrdiff_t beyond = halo(s);
    for (int b = 0; b < lanes_.count; ++b) {
        const Real *i = h_i + lanes_.at_i[b], *j = h_j + lanes_.at_j[b];
        for (std::ptrdiff_t l = -beyond; l < lanes_.length[b] + beyond; ++l) e[l] = i[l] + j[l];
        if (program_.tangent_enters(s)) std::fill(t - beyond, t + lanes_.length[b] + beyond, Real(0));
        e += lanes_.stride, t += lanes_.stride;
    }
}

template <class Real> void Pipeline<Real>::complete_columns(const Block& block, int s, int y, Real* e, Real* t) {
    const std::ptrdiff_t beyond = halo(s);
    const bool tangent = program_.tangent_enters(s);
    const PaddedRows<Real>& half = fields_.stages[std::size_t(s)].half;
    const Real *h_i = half.row(y), *h_j = half.row(y + block.dy);
    for (int b = 0; b < lanes_.count; ++b, e += lanes_.stride, t += lanes_.stride) {
        const std::ptrdiff_t length = lanes_.length[b];
        if (program_.circular()) {
            wrap_columns(e, length, beyond);
            if (tangent) wrap_columns(t, length, beyond);
            continue;
        }
        const Real *i = h_i + lanes_.at_i[b], *j = h_j + lanes_.at_j[b];
        for (std::ptrdiff_t l = 0; l < beyond; ++l) {
            e[-1 - l] = i[-1 - l] + j[-1 - l];
            e[length + l] = i[length + l] + j[length + l];
            t[-1 - l] = t[length + l] = Real(0);
        }
    }
}

// The pointwise map of stage s at row y, from the rows of its ring.
template <class Real>
void Pipeline<Real>::map(const MapTable<Real>& table, const Block& block, int s, int y, Real* e, Real* t) {
    const Ring& ring = layout_.rings[std::size_t(s)];
    const StageFields<Real>& diagonals = fields_.stages[std::size_t(s)];
    MapArgs<Real> args;
    args.i = diagonals.roots(y);
    args.j = diagonals.roots(y + block.dy);
    args.e_out = e;
    args.t_out = t;
    args.constants = constants_[std::size_t(s)];
    args.scale = Real(program_.scale_after(s));

    // The newest row of the window y - k//2 .. y + k//2 lies in `slot`; the oldest follows it.
    const int slot = (y + ring.slots / 2 - ring.first) % ring.slots;
    const int oldest = slot + 1 < ring.slots ? slot + 1 : 0;
    int rows = ring.slots;
    if (ring.blockwise()) {
        rows = oldest == 0 ? 1 : 2;  // a complete block, or a suffix and the prefix
        args.e[0] = ring_row(ring, E, oldest);
        args.t[0] = ring_row(ring, T, oldest);
        args.e[1] = ring_row(ring, E, ring.slots);
        args.t[1] = ring_row(ring, T, ring.slots);
    } else {
        for (int n = 0, from = oldest; n < rows; ++n) {
            args.e[n] = ring_row(ring, E, from);
            args.t[n] = ring_row(ring, T, from);
            from = from + 1 < rows ? from + 1 : 0;
        }
    }
    const std::uint32_t doubts = table[row_count_index(rows)][int(flow_of(program_, s))](lanes_, args);
    if (doubts != 0) refine(args, doubts, block, y);
}

// Does row y of the first activation again for some lanes, with E summed in double from the image: where patches of
// different brightness are nearly parallel, or nearly opposite, the rounding of E would show.  Rare in natural images, so
// that the plain sum over the window's rows will do.
template <class Real>
void Pipeline<Real>::refine(const MapArgs<Real>& args, std::uint32_t lanes, const Block& block, int y) {
    const PaddedRows<Real>& image = fields_.image;
    const int radius = program_.stages[0].radius();
    const std::ptrdiff_t beyond = program_.circular() ? 0 : halo(0);
    double* sums = exact_.data() + layout_.left;
    for (int b = 0; b < block.lanes; ++b) {
        if ((lanes >> b & 1) == 0) continue;
        std::fill(sums - beyond, sums + lanes_.length[b] + beyond, 0.0);
        for (int n = y - radius; n <= y + radius; ++n)
            kernels_.input_exact(sums - beyond, image.row(n) + lanes_.at_i[b] - beyond,
                                 image.row(n + block.dy) + lanes_.at_j[b] - beyond, image.plane_stride(),
                                 fields_.shape.channels, lanes_.length[b] + 2 * beyond);
        if (program_.circular()) wrap_columns(sums, lanes_.length[b], halo(0));
        kernels_.activation_exact[program_.kernel == Kernel::ntk](lanes_, b, args, sums, 2 * radius + 1,
                                                                  fields_.shape.batch);
    }
}

template class Pipeline<float>;
template class Pipeline<double>;

}  // namespace ntkfast
