#include "columns.h"

#include <algorithm>

#include "pipeline.h"

namespace ntkfast {

template <class Real>
PixelPyramid<Real>::PixelPyramid(const Program& program, const Fields<Real>& fields, const RowKernels<Real>& kernels)
    : program_(program), fields_(fields), kernels_(kernels), height_(fields.shape.height), width_(fields.shape.width),
      margin_(program.max_radius()), left_(round_up(margin_)),
      stride_(left_ + round_up(width_ + 2 * margin_) + 2 * chunk) {
    lane_.count = 1;
    lane_.length[0] = width_;
    const std::ptrdiff_t side = 2 * program.reach(0) + 1;
    e_.assign(std::size_t(side * side * stride_), Real(0));
    t_ = e_;
    sums_ = e_;
    constant_.assign(std::size_t(3 * stride_), Real(0));
    zero_.assign(std::size_t(fields.shape.channels * fields.image.plane_stride() + stride_), Real(0));
    result_.assign(std::size_t(2 * stride_), Real(0));
}

template <class Real> void PixelPyramid<Real>::row(std::int64_t pixel, int y, Real* out) {
    pixel_y_ = int(pixel / width_);
    pixel_x_ = int(pixel % width_);
    row_y_ = y;
    const int last = program_.size() - 1;
    for (int s = 0; s <= last; ++s) {
        const int reach = program_.reach(s);
        std::ptrdiff_t index = 0;
        for (int dy = -reach; dy <= reach; ++dy)
            for (int dx = -reach; dx <= reach; ++dx, ++index)
                enter(s, dy, dx, window_row(e_, index), window_row(t_, index));
        box(s, e_);
        if (program_.tangent_enters(s)) box(s, t_);
    }
    MapArgs<Real> args = map_args(last, place(0, 0), window_row(e_, 0), window_row(t_, 0));
    args.t_out = result_.data();
    kernels_.output[row_count_index(1)][int(flow_of(program_, last))](lane_, args);
    for (int x = 0; x < width_; ++x) out[x] = Real(double(result_[std::size_t(x)]) * fields_.unit);
    if (y == pixel_y_) out[pixel_x_] = Real(fields_.diagonal[std::size_t(pixel)] * fields_.unit);
}

template <class Real>
typename PixelPyramid<Real>::Place PixelPyramid<Real>::place(int delta_y, int delta_x) const {
    const auto wrap = [](int n, int period) { return ((n % period) + period) % period; };
    Place at{pixel_y_ + delta_y, pixel_x_ + delta_x, row_y_ + delta_y, false};
    if (program_.circular()) return {wrap(at.i_y, height_), wrap(at.i_x, width_), wrap(at.j_y, height_), false};
    at.outside = at.i_y < 0 || at.i_y >= height_ || at.i_x < 0 || at.i_x >= width_ || at.j_y < 0 || at.j_y >= height_;
    return at;
}

// Row y of a padded field, or a row of zeros where the padding ends: so far outside nothing inside the image is reached.
template <class Real>
const Real* PixelPyramid<Real>::outside_or(const PaddedRows<Real>& rows, int y) const {
    if (y >= -margin_ && y < height_ + margin_) return rows.row(y);
    return zero_.data() + left_;
}

// Raw row of stage s at one offset, in place: on entry e and t hold the box sums of stage s - 1 at the same offset.
template <class Real> void PixelPyramid<Real>::enter(int s, int delta_y, int delta_x, Real* e, Real* t) {
    const Place at = place(delta_y, delta_x);
    if (s == 0) {
        enter_input(at, e);
    } else {
        const std::ptrdiff_t halo = program_.circular() ? 0 : margin_;
        const StageFields<Real>& fields = fields_.stages[std::size_t(s)];
        const bool i_inside = at.i_y >= 0 && at.i_y < height_ && at.i_x >= 0 && at.i_x < width_;
        const Real half_i = i_inside ? fields.half.row(at.i_y)[at.i_x] : Real(0);
        const Real* half_j = outside_or(fields.half, at.j_y);
        const auto known = [&](std::ptrdiff_t from, std::ptrdiff_t to) {
            for (std::ptrdiff_t x = from; x < to; ++x) e[x] = half_i + half_j[x];
            std::fill(t + from, t + to, Real(0));
        };
        if (at.outside) {
            known(-halo, width_ + halo);
        } else {
            enter_map(s - 1, at, e, t);
            known(-halo, 0);
            known(width_, width_ + halo);
        }
    }
    if (!program_.circular()) return;
    for (int x = 0; x < margin_; ++x)
        for (Real* row : {e, t}) {
            row[-1 - x] = row[width_ - 1 - x % width_];
            row[width_ + x] = row[x % width_];
        }
}

template <class Real> void PixelPyramid<Real>::enter_input(const Place& at, Real* e) {
    const std::ptrdiff_t halo = program_.circular() ? 0 : margin_;
    const std::ptrdiff_t plane = fields_.image.plane_stride();
    const bool i_inside = at.i_y >= 0 && at.i_y < height_ && at.i_x >= 0 && at.i_x < width_;
    const Real* x_j = outside_or(fields_.image, at.j_y);
    for (std::ptrdiff_t x = -halo; x < width_ + halo; ++x) {
        Real sum = 0;
        for (int c = 0; c < fields_.shape.channels; ++c) {
            const Real x_i = i_inside ? fields_.image.row(at.i_y)[c * plane + at.i_x] : Real(0);
            const Real diff = x_i - x_j[c * plane + x];
            sum += diff * diff;
        }
        e[x] = sum;
    }
}

template <class Real>
MapArgs<Real> PixelPyramid<Real>::map_args(int s, const Place& at, const Real* e_sum, const Real* t_sum) {
    const StageFields<Real>& fields = fields_.stages[std::size_t(s)];
    Real* constant = constant_.data();  // the values of I, once for each j of the row
    const Root<const Real*> roots = fields.roots(at.i_y);
    for (const Real* values : {roots.p, roots.inverse, roots.rest}) {
        std::fill(constant, constant + round_up(width_), values[at.i_x]);
        constant += stride_;
    }
    MapArgs<Real> args{};
    args.e[0] = e_sum;
    args.t[0] = t_sum;
    args.i = {constant_.data(), constant_.data() + stride_, constant_.data() + 2 * stride_};
    args.j = fields.roots(at.j_y);
    args.constants = constants_of(program_, fields_, s);
    args.scale = Real(program_.scale_after(s));
    return args;
}

template <class Real>
void PixelPyramid<Real>::enter_map(int s, const Place& at, Real* e, Real* t) {
    MapArgs<Real> args = map_args(s, at, e, t);
    args.e_out = result_.data();  // the kernels do not work in place
    args.t_out = result_.data() + stride_;
    const auto& table = program_.stages[std::size_t(s)].has_activation ? kernels_.activation : kernels_.linear;
    table[row_count_index(1)][int(flow_of(program_, s))](lane_, args);
    std::copy(args.e_out, args.e_out + width_, e);
    std::copy(args.t_out, args.t_out + width_, t);
}

// Box sum over the window, the same delta on both sides: I moves by a place of the window, J by a shift of the row.
// The window shrinks from (2 reach(s) + 1)^2 to (2 reach(s+1) + 1)^2 rows, in place.
template <class Real> void PixelPyramid<Real>::box(int s, std::vector<Real>& window) {
    const Stage& stage = program_.stages[std::size_t(s)];
    const int k = stage.kernel_size, radius = stage.radius();
    if (k == 1) return;
    const std::ptrdiff_t side = 2 * program_.reach(s) + 1, inner = side - 2 * radius;
    for (std::ptrdiff_t y = 0; y < side; ++y)
        for (std::ptrdiff_t x = 0; x < inner; ++x) {
            Real* to = window_row(sums_, y * inner + x);
            const Real* from = window_row(window, y * side + x);
            kernels_.add(lane_, to, from - radius, from + stride_ - radius + 1);
            for (int n = 2; n < k; ++n) kernels_.add(lane_, to, to, from + n * stride_ - radius + n);
        }
    for (std::ptrdiff_t y = 0; y < inner; ++y)
        for (std::ptrdiff_t x = 0; x < inner; ++x) {
            Real* to = window_row(window, y * inner + x);
            kernels_.add(lane_, to, window_row(sums_, y * inner + x), window_row(sums_, (y + 1) * inner + x));
            for (int n = 2; n < k; ++n) kernels_.add(lane_, to, to, window_row(sums_, (y + n) * inner + x));
        }
}

template class PixelPyramid<float>;
template class PixelPyramid<double>;

}  // namespace ntkfast
