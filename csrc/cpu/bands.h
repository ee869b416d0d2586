// Fields that cross from one resolution to another are kept band by band: a band is all displacements of one dy.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <vector>

#include "cpu/rows/row_kernels.h"
#include "plan/aligned.h"
#include "plan/geometry.h"

namespace ntkfast {

// A Band holds the displacements (dy, dx) of one dy, |dx| <= extent: for each one row after the other, E and then T' of
// the row, so that both are combined in one pass.
template <class Real> class Band {
public:
    Band(const Shape& shape, bool circular, int dy, int extent, bool tangent);

    // Returns column 0 of the lane, which is that of pixel i = (y, col0); y counts from the image's top, dx may take
    // any number of turns on the torus.
    Real* e(int y, int dx) { return data_.data() + offset(y, dx); }
    Real* t(int y, int dx) { return e(y, dx) + tangent_offset(shape_, circular_, dx); }
    const Real* e(int y, int dx) const { return data_.data() + offset(y, dx); }
    const Real* t(int y, int dx) const { return e(y, dx) + tangent_offset(shape_, circular_, dx); }
    // Leads from E of a row to T': there is room for one pixel beyond either end.
    static std::ptrdiff_t tangent_offset(const Shape& shape, bool circular, int dx) {
        const int cols = circular ? shape.width : shape.width - std::abs(dx);
        return round_up((std::ptrdiff_t(cols) + 2) * shape.batch);
    }
    int first_dx() const { return first_dx_; }
    int count() const { return int(lanes_.size()); }
    bool has_tangent() const { return tangent_; }

    static std::int64_t bytes(const Shape& shape, bool circular, int dy, int extent, bool tangent);

private:
    int lane_of(int dx) const {
        const int lane = dx - first_dx_;
        return circular_ && (lane < 0 || lane >= shape_.width) ? modulo(lane, shape_.width) : lane;
    }
    std::ptrdiff_t offset(int y, int dx) const {
        const Lane& lane = lanes_[std::size_t(lane_of(dx))];
        return lane.start + (y - rows_.row0) * lane.row_stride;
    }

    Shape shape_;
    bool circular_, tangent_;
    int first_dx_;
    Block rows_;
    struct Lane {
        std::ptrdiff_t start, row_stride;
    };
    std::vector<Lane> lanes_;
    AlignedVector<Real> data_;
};

// A BandStore holds the bands of one target that are there at present.
template <class Real> class BandStore {
public:
    BandStore(const Shape& shape, bool circular, int extent, bool tangent)
        : shape_(shape), circular_(circular), extent_(extent), tangent_(tangent) {}

    const Shape& shape() const { return shape_; }
    bool tangent() const { return tangent_; }
    // Tells whether there are pairs with this displacement among those that are kept.
    bool exists(int dy) const {
        return std::abs(dy) <= extent_ && (circular_ || (dy < shape_.height && -dy < shape_.height));
    }
    // Returns the band; it is made, of zeros, if it is not there.
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
    int extent_;
    bool tangent_;
    std::map<int, std::unique_ptr<Band<Real>>> bands_;
};

}  // namespace ntkfast
