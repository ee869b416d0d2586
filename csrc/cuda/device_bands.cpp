#include "cuda/device_bands.h"

#include <cstdlib>

#include "cpu/band_maker.h"
#include "cuda/small_kernels.h"

namespace ntkfast::cuda {
namespace {

// Counts the numbers of the band of one dy; with an extent they are those of the displacements dx up to it.
std::int64_t band_elements(const Program& program, const Target& target, const Shape& at, int dy, int extent) {
    const std::int64_t rows = Block::of_rows(at, program.circular(), dy).rows;
    const int columns = extent == Bands<float>::whole_rows ? at.width : 2 * extent + 1;
    return rows * (program.has_tangent(target.node) ? 2 : 1) * at.width * columns;
}

// Returns whole_rows for bands that hold all displacements along a row.
int extent_of(const Shape& at, int extent) { return 2 * extent + 1 < at.width ? extent : Bands<float>::whole_rows; }

// The table of a target has a place for these values of dy: below zero at most one height, and on the torus a few turns
// above.
int first_key(const Shape& at) { return -at.height - 8; }
int key_count(const Shape& at) { return 3 * at.height + 24; }

}  // namespace

template <class Real>
DeviceBands<Real>::DeviceBands(const Program& program, const Target& target, const Shape& shape)
    : program_(program), target_(target), shape_(at_level(program, shape, target.level)), first_key_(first_key(shape_)),
      table_(key_count(shape_)) {}

template <class Real>
DeviceBands<Real>::DeviceBands(const Program& program, const Target& target, const Shape& shape, int extent)
    : program_(program), target_(target), shape_(at_level(program, shape, target.level)), first_key_(-extent),
      extent_(extent_of(shape_, extent)), table_(2 * extent + 1) {}

template <class Real> Bands<Real> DeviceBands<Real>::view() const {
    Bands<Real> out{};
    out.bands = table_.data();
    out.first_dy = first_key_;
    out.count = int(table_.size());
    out.height = shape_.height;
    out.width = shape_.width;
    out.fields = program_.has_tangent(target_.node) ? 2 : 1;
    out.circular = program_.circular();
    out.extent = extent_;
    return out;
}

template <class Real> bool DeviceBands<Real>::exists(int dy) const {
    return program_.circular() || std::abs(dy) < shape_.height;
}

template <class Real> Array<Real>* DeviceBands<Real>::find(int dy) {
    const auto found = bands_.find(dy);
    return found == bands_.end() ? nullptr : &found->second;
}

template <class Real> void DeviceBands<Real>::make(int dy, Stream stream) {
    if (find(dy) != nullptr) return;
    Array<Real>& band = bands_[dy] = Array<Real>(band_elements(program_, target_, shape_, dy, extent_));
    launch_items<Fill<Real>>("fill", {band.data(), Real(0), band.size()}, stream);
}

template <class Real> void DeviceBands<Real>::seal(int dy, const Array<Real>& known, Stream stream) {
    if (find(dy) == nullptr || (program_.circular() ? modulo(dy, shape_.height) != 0 : dy != 0)) return;
    launch_items<SealBand<Real>>("seal", {view(), dy, known.data(), shape_.pixels()}, stream);
}

template <class Real> std::vector<Real> DeviceBands<Real>::same_pixels(Stream stream) {
    const Array<Real>& band = *find(0);
    std::vector<Real> host(std::size_t(band.size())), out;
    to_host(host.data(), band.data(), band.size() * std::int64_t(sizeof(Real)), stream);
    const Bands<Real> all = view();
    for (int y = 0; y < shape_.height; ++y)
        for (int x = 0; x < shape_.width; ++x)
            out.push_back(
                host[std::size_t(y * all.fields * Bands<Real>::field_size(all) + Bands<Real>::pair(all, x, 0))]);
    return out;
}

template <class Real> void DeviceBands<Real>::publish(Stream stream) {
    std::vector<Real*> table(std::size_t(table_.size()), nullptr);
    for (const auto& [dy, band] : bands_) table.at(std::size_t(dy - first_key_)) = band.data();
    to_device(table_.data(), table.data(), table_.size() * std::int64_t(sizeof(Real*)), stream);
}

template <class Real>
std::int64_t DeviceBands<Real>::band_bytes(const Program& program, const Target& target, const Shape& at, int dy) {
    return Array<Real>::bytes(band_elements(program, target, at, dy, Bands<Real>::whole_rows));
}

template <class Real>
std::int64_t DeviceBands<Real>::near_bytes(const Program& program, const Target& target, const Shape& shape,
                                           const NearStep& near) {
    const Shape at = at_level(program, shape, target.level);
    std::int64_t sum = Array<Real*>::bytes(2 * near.extent + 1);
    for (int dy = near.made.first; dy <= near.made.last; ++dy)
        sum += Array<Real>::bytes(band_elements(program, target, at, dy, extent_of(at, near.extent)));
    return sum;
}

template <class Real>
std::int64_t DeviceBands<Real>::table_bytes(const Program& program, const Target& target, const Shape& shape) {
    const Shape at = at_level(program, shape, target.level);
    return Array<Real*>::bytes(key_count(at)) +
           Array<Real>::bytes(at.pixels() * (program.has_tangent(target.node) ? 2 : 1));
}

template <class Real>
Array<Real> known_of(const Program& program, const Target& target, const Fields<Real>& fields, Stream stream) {
    const Shape at = at_level(program, fields.shape, target.level);
    std::vector<Real> e, t;
    for (int y = 0; y < at.height; ++y)
        for (int x = 0; x < at.width; ++x) {
            const Pair<Real> pair = same_pixel(program, target, fields, at, y, x);
            e.push_back(pair.e);
            t.push_back(pair.t);
        }
    if (program.has_tangent(target.node)) e.insert(e.end(), t.begin(), t.end());
    return Array<Real>(e, stream);
}

template class DeviceBands<float>;
template class DeviceBands<double>;
template Array<float> known_of(const Program&, const Target&, const Fields<float>&, Stream);
template Array<double> known_of(const Program&, const Target&, const Fields<double>&, Stream);

}  // namespace ntkfast::cuda
