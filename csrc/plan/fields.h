// Fields are what a sweep reads: the padded image and the diagonals of every node.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

#include "math/pair_math.h"
#include "plan/aligned.h"
#include "plan/geometry.h"
#include "plan/lanes.h"
#include "plan/program.h"

namespace ntkfast {

// PaddedRows are planes of rows with slack around them, so that no row loop tests for a border.  Rows of the planes
// alternate: plane c of row y starts plane_stride() elements behind plane c - 1.
//
// zeros:     rows [-margin, height + margin), columns [-margin, width + margin), zero outside the image
// circular:  rows wrap by index; columns [0, 2*width) repeat the image, since i + dx goes that far
template <class Real> class PaddedRows {
public:
    PaddedRows() = default;
    PaddedRows(const Shape& shape, int planes, bool circular, int margin)
        : height_(shape.height), planes_(planes), circular_(circular), margin_(circular ? 0 : margin),
          left_(left_of(shape, margin_)),
          plane_stride_(left_ + round_up(std::ptrdiff_t(circular ? 2 : 1) * shape.width * shape.batch) + left_ + chunk),
          data_(std::size_t((height_ + 2 * margin_) * planes * plane_stride_ + 2 * chunk)) {}

    // Returns the pointer to column 0 of plane 0.
    Real* row(int y) { return data_.data() + offset(y); }
    const Real* row(int y) const { return data_.data() + offset(y); }
    std::ptrdiff_t plane_stride() const { return plane_stride_; }
    // Rounds rows of the same geometry.
    template <class Other> void copy_from(const PaddedRows<Other>& from) {
        for (int y = -margin_; y < height_ + margin_; ++y)
            for (int c = 0; c < planes_; ++c)
                for (std::ptrdiff_t l = -left_; l < plane_stride_ - left_; ++l)
                    row(y)[c * plane_stride_ + l] = Real(from.row(y)[c * plane_stride_ + l]);
    }
    // Clears all planes of a row, with the slack around them.
    void clear_row(int y) {
        Real* begin = row(y) - left_;
        std::fill(begin, begin + planes_ * plane_stride_, Real(0));
    }

    static std::int64_t bytes(const Shape& shape, int planes, bool circular, int margin) {
        const std::ptrdiff_t left = left_of(shape, circular ? 0 : margin);
        const std::ptrdiff_t width = round_up(std::ptrdiff_t(circular ? 2 : 1) * shape.width * shape.batch);
        const std::int64_t rows = shape.height + (circular ? 0 : 2 * std::int64_t(margin));
        return rows * planes * (2 * left + width + chunk) * std::int64_t(sizeof(Real));
    }

private:
    // The slack is at least a chunk: `accumulate` reads that much before a row.
    static std::ptrdiff_t left_of(const Shape& shape, int margin) {
        return round_up(std::ptrdiff_t(std::max(1, margin)) * shape.batch);
    }
    std::ptrdiff_t offset(int y) const {
        const int index = circular_ ? modulo(y, height_) : y + margin_;
        return std::ptrdiff_t(index) * planes_ * plane_stride_ + left_;
    }

    int height_ = 0, planes_ = 0;
    bool circular_ = false;
    int margin_ = 0;
    std::ptrdiff_t left_ = 0, plane_stride_ = 0;
    ZeroedVector<Real> data_;
};

using Plane = std::vector<double>;  // (height, width, batch) of a node's level

// MapFields are the diagonals that one pointwise map reads.  Their key is the activation, or the convolution whose
// output nothing follows.
template <class Real> struct MapFields {
    Root<PaddedRows<Real>>
        root;             // rectifiers and convolutions: p_i = sqrt(S(i,i)), 1/p_i and the rounding of p_i, all 0 for a
                          // patch of zeros; other activations: their own three numbers
    double largest_root;  // max sqrt(S(i,i))

    Root<const Real*> roots(int y) const { return {root.p.row(y), root.inverse.row(y), root.rest.row(y)}; }
};

template <class Real> struct Fields {
    Shape shape;             // the image's
    bool noise;              // the input's covariance is the identity; there is no image
    PaddedRows<Real> image;  // scaled so that the input's E is a plain sum of squared differences
    std::map<int, PaddedRows<Real>> pooled_images;  // key: average pool of an image
    double unit;                                    // the image's squares are over it: a power of 4 (see plan/units.h)
    // Kernel entries in the image's units = engine's entries * result_unit * 2^exponent. The exponent is 0 where the
    // entries are well within the range of the engine's type; else whoever takes the results carries it.
    double result_unit = 1;
    int exponent = 0;

    // These are indexed by node and in units of the node:
    std::vector<Plane> variance;          // Q(i,i); S(i,i) for a convolution and what it is pooled or upsampled to
    std::vector<Plane> tangent;           // T'(i,i); T(i,i) for a convolution
    std::map<int, MapFields<Real>> maps;  // key: activation, or convolution without one
    std::map<int, PaddedRows<Real>>
        halves;  // by convolution: w/k^2 Q(i,i)/2 of its input, the half-distance to a pixel outside
    std::map<int, PaddedRows<Real>> half_sums;  // with zeros: the same summed over the k columns around each
    std::map<int, PaddedRows<Real>>
        spread;  // by average pool and bilinear upsampling: v(p) = 1/2 sum_aa' A_pa A_pa' E(a,a')

    const PaddedRows<Real>& image_of(int node) const { return node == 0 ? image : pooled_images.at(node); }

    // Returns Theta(i,i), or the covariance; (pixels, batch).
    const Plane& diagonal(const Program& program) const {
        return (program.kernel == Kernel::ntk ? tangent : variance).back();
    }
    // Writes the same in the image's units, over 2^exponent.
    void write_diagonal(const Program& program, double* out) const {
        const Plane& numbers = diagonal(program);
        for (std::size_t n = 0; n < numbers.size(); ++n) out[n] = numbers[n] * result_unit;
    }
};

}  // namespace ntkfast
