#include "bands.h"

#include <algorithm>
#include <cstdlib>

namespace ntkfast {

template <class Real>
Band<Real>::Band(const Shape& shape, bool circular, int dy, int reach, bool tangent)
    : circular_(circular), tangent_(tangent), width_(shape.width), rows_(Block::of_rows(shape, circular, dy)) {
    int count = 2 * reach + 1;
    first_dx_ = -reach;
    if (circular && count >= shape.width) first_dx_ = 0, count = shape.width;
    if (!circular && reach >= shape.width) first_dx_ = 1 - shape.width, count = 2 * shape.width - 1;
    offsets_.push_back(0);
    for (int n = 0; n < count; ++n) {
        const int cols = circular ? shape.width : shape.width - std::abs(first_dx_ + n);
        offsets_.push_back(offsets_.back() + rows_.rows * round_up(std::ptrdiff_t(cols) * shape.batch));
    }
    half_ = offsets_.back();
    data_.assign(std::size_t(half_ * (tangent ? 2 : 1) + chunk), Real(0));
}

template <class Real>
std::int64_t Band<Real>::bytes(const Shape& shape, bool circular, int dy, bool tangent) {
    std::int64_t row = 0;
    if (circular)
        row = std::int64_t(shape.width) * round_up(std::ptrdiff_t(shape.width) * shape.batch);
    else
        for (int dx = 1 - shape.width; dx < shape.width; ++dx)
            row += round_up(std::ptrdiff_t(shape.width - std::abs(dx)) * shape.batch);
    return row * Block::of_rows(shape, circular, dy).rows * (tangent ? 2 : 1) * std::int64_t(sizeof(Real));
}

template <class Real> Band<Real>& BandStore<Real>::make(int dy) {
    std::unique_ptr<Band<Real>>& band = bands_[dy];
    if (!band) band = std::make_unique<Band<Real>>(shape_, circular_, dy, reach_, tangent_);
    return *band;
}

template class Band<float>;
template class Band<double>;
template class BandStore<float>;
template class BandStore<double>;

}  // namespace ntkfast
