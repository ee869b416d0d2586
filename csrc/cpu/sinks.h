// A sink takes the finished rows of T: they are multiplied, stored, or written out as a matrix.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "cpu/rows/row_kernels.h"
#include "cpu/rows/transpose.h"
#include "plan/aligned.h"
#include "plan/fields.h"
#include "plan/geometry.h"
#include "plan/monitor.h"

namespace ntkfast {

// A RowSink receives each finished row of a block: t[b][l] = T(i, i + D_b) with i = (y, col0_b + l), in units of
// Fields::unit.  The rows of the output are zero from the lane's end to the next whole chunk, and have no E; only
// computed ones, not those that come from storage, have the slack that RowKernels::output leaves.
template <class Real> struct RowSink {
    virtual ~RowSink() = default;
    virtual void begin_block(const Block&, std::int64_t /*number*/) {}
    virtual void row(const Block& block, int y, const Real* const* e, const Real* const* t) = 0;
    virtual void end_block(const Block&) {}
    virtual void end_band(int /*dy*/) {}  // where all blocks of a band go to one sink
};

// A Watch is for a sink of which a few rows take long: the first ones that are written into new memory lie far apart,
// and the system makes all of its pages for them, 1 GB for a matrix over 128 x 128 pixels.
struct Watch {
    Monitor& monitor;
    bool leader;

    bool go_on() const {
        if (leader) monitor.ask();
        return !monitor.stopped();
    }
};

// A ProductSink adds out(i) += T v(j) and, by symmetry, out(j) += T v(i).
template <class Real> class ProductSink final : public RowSink<Real> {
public:
    // After so many displacements the sums, in Real, are added to the totals, in double.  Theta v is a sum of d terms:
    // taken 256 displacements at a time its rounding does not grow with the image.
    static constexpr int displacements_per_flush = 256;

    // `slack` says that rows are computed, and have slack around.
    ProductSink(const RowKernels<Real>& kernels, const PaddedRows<Real>& v, const Shape& shape, int columns,
                bool circular, bool slack, Watch watch)
        : kernels_(kernels), v_(v), shape_(shape), columns_(columns), circular_(circular), slack_(slack), watch_(watch),
          sums_(shape, columns, circular, 0), totals_(std::size_t(shape.elements() * columns)) {}

    static std::int64_t bytes(const Shape& shape, int columns, bool circular) {
        return PaddedRows<Real>::bytes(shape, columns, circular, 0) +
               shape.elements() * columns * std::int64_t(sizeof(double));
    }

    void begin_block(const Block& block, std::int64_t) override {
        lanes_ = block.row_lanes(shape_, circular_, 0);
        paired_ = Lanes{};
        for (int b = 0; b < block.lanes; ++b) {
            if (block.lane[b].self_paired) continue;
            const int n = paired_.count++;
            paired_.at_i[n] = lanes_.at_i[b], paired_.at_j[n] = lanes_.at_j[b], paired_.length[n] = lanes_.length[b];
        }
    }

    void row(const Block& block, int y, const Real* const*, const Real* const* t) override {
        const std::ptrdiff_t v_plane = v_.plane_stride(), plane = sums_.plane_stride();
        const int y_j = y + block.dy;
        kernels_.accumulate_i(lanes_, t, slack_, v_.row(y_j), v_plane, sums_.row(y), plane, columns_);
        if (paired_.count == lanes_.count) {
            kernels_.accumulate_j(paired_, t, slack_, v_.row(y), v_plane, sums_.row(y_j), plane, columns_);
        } else {
            const Real* rows[max_lanes];
            for (int b = 0, n = 0; b < block.lanes; ++b)
                if (!block.lane[b].self_paired) rows[n++] = t[b];
            kernels_.accumulate_j(paired_, rows, slack_, v_.row(y), v_plane, sums_.row(y_j), plane, columns_);
        }
    }

    void end_block(const Block& block) override {
        pending_ += block.lanes;
        if (pending_ >= displacements_per_flush) flush(watch_);
    }

    void flush(const Watch& watch) {
        const std::ptrdiff_t batch = shape_.batch, width = shape_.width * batch;
        double* total = totals_.data();
        for (int y = 0; y < shape_.height && watch.go_on(); ++y) {
            for (int c = 0; c < columns_; ++c) {
                const Real* from = sums_.row(y) + c * sums_.plane_stride();
                for (std::ptrdiff_t l = 0; l < width; ++l) total[l] += double(from[l]);
                if (circular_)
                    for (std::ptrdiff_t l = 0; l < width; ++l) total[l] += double(from[l + width]);
                total += width;
            }
            sums_.clear_row(y);
        }
        pending_ = 0;
    }

    // Returns the sums, (height, columns, width, batch).
    const ZeroedVector<double>& totals() const { return totals_; }

private:
    const RowKernels<Real>& kernels_;
    const PaddedRows<Real>& v_;
    Shape shape_;
    int columns_;
    bool circular_, slack_;
    Watch watch_;
    PaddedRows<Real> sums_;
    ZeroedVector<double> totals_;
    int pending_ = 0;
    Lanes lanes_{}, paired_{};  // the block under way; paired_ leaves out the self-paired
};

// Counts the numbers of the stored rows of a block, which lie one behind the other, each of whole chunks, in the order
// (lane, y, l).
inline std::int64_t packed_elements(const Block& block, int batch) {
    std::int64_t sum = 0;
    for (int b = 0; b < block.lanes; ++b) sum += block.rows * round_up(std::ptrdiff_t(block.lane[b].cols) * batch);
    return sum;
}

// Calls row(sink rows of the block) from storage, as Pipeline::run does from computation.
template <class Real> void replay(const Real* packed, int batch, const Block& block, RowSink<Real>& sink) {
    const Real* rows[max_lanes];
    std::ptrdiff_t length[max_lanes];
    for (int b = 0; b < block.lanes; ++b) {
        length[b] = round_up(std::ptrdiff_t(block.lane[b].cols) * batch);
        rows[b] = packed;
        packed += block.rows * length[b];
    }
    for (int y = 0; y < block.rows; ++y) {
        sink.row(block, block.row0 + y, nullptr, rows);
        for (int b = 0; b < block.lanes; ++b) rows[b] += length[b];
    }
}

template <class Real> class StoreSink final : public RowSink<Real> {
public:
    StoreSink(Real* packed, const std::vector<std::int64_t>& offsets, int batch)
        : packed_(packed), offsets_(offsets), batch_(batch) {}

    void begin_block(const Block&, std::int64_t number) override { to_ = packed_ + offsets_[std::size_t(number)]; }

    void row(const Block& block, int y, const Real* const*, const Real* const* t) override {
        Real* lane = to_;
        for (int b = 0; b < block.lanes; ++b) {
            const std::ptrdiff_t length = round_up(std::ptrdiff_t(block.lane[b].cols) * batch_);
            std::copy(t[b], t[b] + length, lane + y * length);
            lane += block.rows * length;
        }
    }

private:
    Real* packed_;
    const std::vector<std::int64_t>& offsets_;
    int batch_;
    Real* to_ = nullptr;
};

// Writes one row y of a block, of image n of the batch, into a matrix over (x_i, x_j) that begins at `corner`: with
// zeros the lanes lie side by side in row x_i.  It goes in blocks of 4 pixels x 4 lanes, and one by one through what is
// left.
template <class Real>
void write_lanes(const Block& block, const Real* const* t, int batch, int n, Real factor, Real* corner,
                 std::ptrdiff_t stride) {
    int first = 0, last = std::numeric_limits<int>::max();  // where all lanes have a pair
    const Real* from[max_lanes];
    for (int b = 0; b < block.lanes; ++b) {
        const Displacement& lane = block.lane[b];
        first = std::max(first, lane.col0);
        last = std::min(last, lane.col0 + lane.cols);
        from[b] = t[b] - std::ptrdiff_t(lane.col0) * batch + n;
    }
    const int whole_x = batch == 1 ? first + std::max(0, last - first) / 4 * 4 : first;
    const int whole_b = block.lanes / 4 * 4;
    for (int x = first; x < whole_x; x += 4) {
        Real* to = corner + x * (stride + 1) + block.lane[0].dx;
        for (int b = 0; b < whole_b; b += 4) {
            const Real* rows[] = {from[b] + x, from[b + 1] + x, from[b + 2] + x, from[b + 3] + x};
            transpose4(rows, to + b, stride + 1, factor);
        }
    }
    for (int x = first; x < last; ++x) {
        Real* to = corner + x * (stride + 1) + block.lane[0].dx;
        for (int b = x < whole_x ? whole_b : 0; b < block.lanes; ++b)
            to[b] = factor * from[b][std::ptrdiff_t(x) * batch];
    }
    for (int b = 0; b < block.lanes; ++b) {
        const int start = block.lane[b].col0, end = start + block.lane[b].cols;
        const auto write = [&](int x) {
            corner[x * (stride + 1) + block.lane[b].dx] = factor * from[b][std::ptrdiff_t(x) * batch];
        };
        for (int x = start; x < std::min(first, end); ++x) write(x);
        for (int x = std::max({last, first, start}); x < end; ++x) write(x);
    }
}

// A DenseSink writes T(i,j) into a batch of d x d matrices, in the image's units.  With zeros every pair of the half
// plane has i < j: only the upper triangle is written, and mirror_rows() fills the lower one afterwards.  On the torus
// both entries are written at once.
template <class Real> class DenseSink final : public RowSink<Real> {
public:
    DenseSink(Real* out, const Shape& shape, bool circular, Real unit, Watch watch)
        : out_(out), shape_(shape), circular_(circular), unit_(unit), watch_(watch) {}

    void row(const Block& block, int y, const Real* const*, const Real* const* t) override {
        if (!watch_.go_on()) return;
        const std::int64_t d = shape_.pixels();
        for (int n = 0; n < shape_.batch; ++n) {
            Real* matrix = out_ + n * d * d;
            if (circular_)
                torus_row(block, y, t, n, matrix);
            else
                write_lanes(block, t, shape_.batch, n, unit_, matrix + (y * d + y + block.dy) * shape_.width, d);
        }
    }

private:
    void torus_row(const Block& block, int y, const Real* const* t, int n, Real* matrix) const {
        const std::int64_t d = shape_.pixels();
        const int width = shape_.width, y_j = (y + block.dy) % shape_.height;
        for (int b = 0; b < block.lanes; ++b)
            for (int x = 0; x < width; ++x) {
                const int x_j = x + block.lane[b].dx - (x + block.lane[b].dx >= width ? width : 0);
                const std::int64_t i = std::int64_t(y) * width + x, j = std::int64_t(y_j) * width + x_j;
                matrix[i * d + j] = matrix[j * d + i] = unit_ * t[b][std::ptrdiff_t(x) * shape_.batch + n];
            }
    }

    Real* out_;
    Shape shape_;
    bool circular_;
    Real unit_;
    Watch watch_;
};

// Copies rows [j0, j0 + 16) of the upper triangle of a d x d matrix to columns of the lower one.  Along these rows the
// reads are sequential, and each line of the columns is written once and whole.
template <class Real> void mirror_rows(Real* matrix, std::int64_t d, std::int64_t j0) {
    const std::int64_t last = std::min(d, j0 + line_rows),
                       whole = j0 + line_rows + std::max<std::int64_t>(0, d - j0 - line_rows) / 4 * 4;
    const auto one_by_one = [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i)
            for (std::int64_t j = j0; j < std::min(last, i); ++j) matrix[i * d + j] = matrix[j * d + i];
    };
    one_by_one(j0, last);  // the square on the diagonal
    if (last < j0 + line_rows) return;
    for (std::int64_t i = last; i < whole; i += 4) transpose_lines(matrix + j0 * d + i, d, matrix + i * d + j0, d);
    one_by_one(whole, d);
}

// A DenseBandSink does the same with zeros, where all blocks of a band come to one sink: the pairs of the rows y and y
// + dy of the image make up a square of the matrix, which is gathered in the caches and then written, with its mirror
// image, in whole lines and once.  Written as the lanes come, each line would be fetched and written two or three
// times.
template <class Real> class DenseBandSink final : public RowSink<Real> {
public:
    DenseBandSink(Real* out, const Shape& shape, Real unit, Watch watch)
        : out_(out), shape_(shape), unit_(unit), watch_(watch), squares_(std::size_t(numbers(shape)), Real(0)) {}

    static std::int64_t numbers(const Shape& shape) { return shape.elements() * shape.width; }

    void row(const Block& block, int y, const Real* const*, const Real* const* t) override {
        for (int n = 0; n < shape_.batch; ++n)
            write_lanes(block, t, shape_.batch, n, unit_, square(y, n), shape_.width);
    }

    void end_band(int dy) override {
        const std::int64_t d = shape_.pixels(), width = shape_.width;
        for (int n = 0; n < shape_.batch; ++n)
            for (int y = 0; y + dy < shape_.height && watch_.go_on(); ++y) {
                Real* matrix = out_ + n * d * d;
                const std::int64_t i = y * width, j = (y + dy) * width;
                if (dy == 0)
                    on_diagonal(square(y, n), matrix + i * d + i);
                else
                    both_squares(square(y, n), matrix + i * d + j, matrix + j * d + i);
            }
        finish_lines();
    }

private:
    Real* square(int y, int n) {
        return squares_.data() + (std::int64_t(y) * shape_.batch + n) * shape_.width * shape_.width;
    }

    // The displacements 0 < dx make the upper triangle.
    void on_diagonal(const Real* from, Real* to) const {
        const std::int64_t width = shape_.width, d = shape_.pixels();
        for (std::int64_t i = 0; i < width; ++i)
            for (std::int64_t j = i + 1; j < width; ++j) to[i * d + j] = to[j * d + i] = from[i * width + j];
    }

    void both_squares(const Real* from, Real* to, Real* mirrored) const {
        const std::int64_t width = shape_.width, d = shape_.pixels();
        const std::int64_t whole = width / line_rows * line_rows;
        for (std::int64_t i = 0; i < width; ++i) copy_lines(from + i * width, to + i * d, width);
        for (std::int64_t j = 0; j < width / 4 * 4; j += 4)
            for (std::int64_t i = 0; i < whole; i += line_rows)
                transpose_lines(from + i * width + j, width, mirrored + j * d + i, d);
        for (std::int64_t j = 0; j < width; ++j)
            for (std::int64_t i = j < width / 4 * 4 ? whole : 0; i < width; ++i)
                mirrored[j * d + i] = from[i * width + j];
    }

    Real* out_;
    Shape shape_;
    Real unit_;
    Watch watch_;
    AlignedVector<Real> squares_;
};

}  // namespace ntkfast
