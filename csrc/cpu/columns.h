// Single rows of the kernel, without a sweep.
//
// T(i, .) for one pixel i needs the pairs (i + delta, j + delta) with delta within the network's reach: at stage s a window
// of (2 reach(s) + 1)^2 pixels I = i + delta, each with one row of J.  The cost is d times the sum of those windows, which is
// far below the d/2 of a sweep per pixel.
#pragma once

#include <cstdint>
#include <vector>

#include "../program.h"
#include "fields.h"
#include "row_kernels.h"

namespace ntkfast {

template <class Real> class PixelPyramid {
public:
    PixelPyramid(const Program& program, const Fields<Real>& fields, const RowKernels<Real>& kernels);

    // out[x] = Theta(pixel, (y, x)) in the image's units, for all x
    void row(std::int64_t pixel, int y, Real* out);

private:
    // One offset delta of the window: I = i + delta and the row of J = j + delta.
    struct Place {
        int i_y, i_x, j_y;
        bool outside;  // I or the row of J lies outside the image (zeros only)
    };
    Place place(int delta_y, int delta_x) const;
    const Real* outside_or(const PaddedRows<Real>& rows, int y) const;
    void enter(int s, int delta_y, int delta_x, Real* e, Real* t);
    void enter_input(const Place& at, Real* e);
    void enter_map(int s, const Place& at, Real* e, Real* t);
    void box(int s, std::vector<Real>& window);
    MapArgs<Real> map_args(int s, const Place& at, const Real* e_sum, const Real* t_sum);
    Real* window_row(std::vector<Real>& window, std::ptrdiff_t index) {
        return window.data() + index * stride_ + left_;
    }

    const Program& program_;
    const Fields<Real>& fields_;
    const RowKernels<Real>& kernels_;
    int height_, width_, margin_;
    std::ptrdiff_t left_, stride_;
    Lanes lane_{};  // the one row under way: i is constant, j runs over all columns
    int pixel_y_ = 0, pixel_x_ = 0, row_y_ = 0;
    std::vector<Real> e_, t_, sums_;              // (window, row)
    std::vector<Real> constant_, zero_, result_;  // rows: broadcast values of I; what lies outside
};

}  // namespace ntkfast
