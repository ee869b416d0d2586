#include "cpu/bands.h"

namespace ntkfast {
namespace {

// A Span holds the displacements of a band: all dx with |dx| <= extent, each once.
struct Span {
    int first, count;
};
Span span_of(const Shape& shape, bool circular, int extent) {
    if (circular && 2 * extent + 1 >= shape.width) return {0, shape.width};
    if (!circular && extent >= shape.width) return {1 - shape.width, 2 * shape.width - 1};
    return {-extent, 2 * extent + 1};
}

}  // namespace

template <class Real>
Band<Real>::Band(const Shape& shape, bool circular, int dy, int extent, bool tangent)
    : shape_(shape), circular_(circular), tangent_(tangent), rows_(Block::of_rows(shape, circular, dy)) {
    const Span span = span_of(shape, circular, extent);
    first_dx_ = span.first;
    std::ptrdiff_t end = 0;
    for (int n = 0; n < span.count; ++n) {
        const std::ptrdiff_t row_stride = tangent_offset(shape, circular, first_dx_ + n) * (tangent ? 2 : 1);
        lanes_.push_back({end, row_stride});
        end += rows_.rows * row_stride;
    }
    data_.assign(std::size_t(end + chunk), Real(0));
}

template <class Real>
std::int64_t Band<Real>::bytes(const Shape& shape, bool circular, int dy, int extent, bool tangent) {
    const Span span = span_of(shape, circular, extent);
    std::int64_t row = 0;
    for (int dx = span.first; dx < span.first + span.count; ++dx) row += tangent_offset(shape, circular, dx);
    return row * Block::of_rows(shape, circular, dy).rows * (tangent ? 2 : 1) * std::int64_t(sizeof(Real));
}

template <class Real> Band<Real>& BandStore<Real>::make(int dy) {
    std::unique_ptr<Band<Real>>& band = bands_[dy];
    if (!band) band = std::make_unique<Band<Real>>(shape_, circular_, dy, extent_, tangent_);
    return *band;
}

template class Band<float>;
template class Band<double>;
template class BandStore<float>;
template class BandStore<double>;

}  // namespace ntkfast
