// DeviceBands are bands in the memory of a device, with the table of them that kernels read.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "cuda/runtime.h"
#include "cuda/sweep.h"
#include "plan/fields.h"
#include "plan/geometry.h"
#include "plan/near_bands.h"
#include "plan/program.h"

namespace ntkfast::cuda {

// DeviceBands holds the bands of one target that are there at present.
template <class Real> class DeviceBands {
public:
    // This one is for bands of all displacements.
    DeviceBands(const Program& program, const Target& target, const Shape& shape);
    // This one is for bands of the displacements up to `extent` along either axis.
    DeviceBands(const Program& program, const Target& target, const Shape& shape, int extent);

    Bands<Real> view() const;
    const Shape& shape() const { return shape_; }
    int extent() const { return extent_; }
    bool exists(int dy) const;
    // Makes the band, of zeros, if it is not there.
    void make(int dy, Stream stream);
    // Writes the pairs i = j of dy = 0, and on the torus of whole turns; `known` is (fields, pixels).
    void seal(int dy, const Array<Real>& known, Stream stream);
    // Returns E of the pairs i = j, which lie in the band of dy = 0.
    std::vector<Real> same_pixels(Stream stream);
    void drop_below(int dy) { bands_.erase(bands_.begin(), bands_.lower_bound(dy)); }
    void clear() { bands_.clear(); }
    void publish(Stream stream);

    // Predicts bytes from the sizes alone: of one band of all displacements, of all bands near D = 0 with their table,
    // of the table and what is known of i = j.
    static std::int64_t band_bytes(const Program& program, const Target& target, const Shape& at, int dy);
    static std::int64_t near_bytes(const Program& program, const Target& target, const Shape& shape,
                                   const NearStep& near);
    static std::int64_t table_bytes(const Program& program, const Target& target, const Shape& shape);

private:
    Array<Real>* find(int dy);

    const Program& program_;
    Target target_;
    Shape shape_;
    int first_key_, extent_ = Bands<Real>::whole_rows;
    Array<Real*> table_;
    std::map<int, Array<Real>> bands_;
};

template <class Real> using DeviceStores = std::vector<std::unique_ptr<DeviceBands<Real>>>;  // by target

// Returns what is known of the pairs i = j of a target, as seal() takes it.
template <class Real>
Array<Real> known_of(const Program& program, const Target& target, const Fields<Real>& fields, Stream stream);

}  // namespace ntkfast::cuda
