#include "bands.h"

namespace ntkfast {

template <class Real>
Band<Real>::Band(const Shape& shape, bool circular, int dy, int reach, bool tangent)
    : shape_(shape), circular_(circular), tangent_(tangent), rows_(Block::of_rows(shape, circular, dy)) {
    int count = 2 * reach + 1;
    first_dx_ = -reach;
    if (circular && count >= shape.width) first_dx_ = 0, count = shape.width;
    if (!circular && reach >= shape.width) first_dx_ = 1 - shape.width, count = 2 * shape.width - 1;
    std::ptrdiff_t end = 0;
    for (int n = 0; n < count; ++n) {
        const std::ptrdiff_t row_stride = tangent_offset(shape, circular, first_dx_ + n) * (tangent ? 2 : 1);
        lanes_.push_back({end, row_stride});
        end += rows_.rows * row_stride;
    }
    data_.assign(std::size_t(end + chunk), Real(0));
}

template <class Real>
std::int64_t Band<Real>::bytes(const Shape& shape, bool circular, int dy, bool tangent) {
    std::int64_t row = 0;
    for (int dx = circular ? 0 : 1 - shape.width; dx < shape.width; ++dx) row += tangent_offset(shape, circular, dx);
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
