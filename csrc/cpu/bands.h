// Fields that cross from one resolution to another, kept band by band: all displacements of one dy.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <vector>

#include "geometry.h"
#include "row_kernels.h"

namespace ntkfast {

// The displacements (dy, dx) of one dy, |dx| <= reach, in rows of whole chunks: first all E, then all T'.
template <class Real> class Band {
public:
    Band(const Shape& shape, bool circular, int dy, int reach, bool tangent);

    const Block& rows() const { return rows_; }
    // Whether the displacement is kept; on the torus any number of turns.
    bool holds(int dx) const { return lane_of(dx) < int(offsets_.size()) - 1 && lane_of(dx) >= 0; }
    // Column 0 of the lane, which is that of pixel i = (y, col0); y counts from the image's top.
    Real* e(int y, int dx) { return data_.data() + offset(y, dx); }
    Real* t(int y, int dx) { return data_.data() + half_ + offset(y, dx); }
    const Real* e(int y, int dx) const { return data_.data() + offset(y, dx); }
    const Real* t(int y, int dx) const { return data_.data() + half_ + offset(y, dx); }
    std::ptrdiff_t row_stride(int dx) const {
        const std::size_t lane = std::size_t(lane_of(dx));
        return (offsets_[lane + 1] - offsets_[lane]) / rows_.rows;
    }
    int first_dx() const { return first_dx_; }
    int count() const { return int(offsets_.size()) - 1; }
    bool has_tangent() const { return tangent_; }

    static std::int64_t bytes(const Shape& shape, bool circular, int dy, bool tangent);

private:
    int lane_of(int dx) const { return circular_ ? wrap(dx - first_dx_, width_) : dx - first_dx_; }
    std::ptrdiff_t offset(int y, int dx) const {
        return offsets_[std::size_t(lane_of(dx))] + (y - rows_.row0) * row_stride(dx);
    }

    bool circular_, tangent_;
    int width_, first_dx_;
    Block rows_;
    std::vector<std::ptrdiff_t> offsets_;
    std::ptrdiff_t half_;
    std::vector<Real> data_;
};

// The bands of one target that are held at present.
template <class Real> class BandStore {
public:
    BandStore(const Shape& shape, bool circular, int reach, bool tangent)
        : shape_(shape), circular_(circular), reach_(reach), tangent_(tangent) {}

    const Shape& shape() const { return shape_; }
    int reach() const { return reach_; }
    bool tangent() const { return tangent_; }
    // Whether there are pairs with this displacement among those that are kept.
    bool exists(int dy) const {
        return std::abs(dy) <= reach_ && (circular_ || (dy < shape_.height && -dy < shape_.height));
    }
    // The band, made of zeros if it is not there.
    Band<Real>& make(int dy);
    Band<Real>* find(int dy) {
        const auto found = bands_.find(dy);
        return found == bands_.end() ? nullptr : found->second.get();
    }
    const Band<Real>& at(int dy) const { return *bands_.at(dy); }
    void drop_below(int dy) { bands_.erase(bands_.begin(), bands_.lower_bound(dy)); }

private:
    Shape shape_;
    bool circular_;
    int reach_;
    bool tangent_;
    std::map<int, std::unique_ptr<Band<Real>>> bands_;
};

}  // namespace ntkfast
