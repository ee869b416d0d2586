// DeviceFields are fields in the memory of the device: padded planes of the image and of the diagonals.
#pragma once

#include <map>
#include <vector>

#include "cuda/sweep.h"
#include "plan/fields.h"

namespace ntkfast::cuda {

template <class Real> class DeviceFields {
public:
    DeviceFields() = default;
    // `columns` counts those beyond the image that a sweep may read, on either side.
    DeviceFields(const Program& program, const Fields<Real>& fields, int columns, Stream stream);

    const Geometry& geometry(int level) const { return geometry_[std::size_t(level)]; }
    const Real* image(int node) const { return images_.at(node).data(); }
    const Real* roots(int node) const { return roots_.at(node).data(); }
    const Real* halves(int node) const { return halves_.at(node).data(); }
    const Real* spread(int node) const { return spread_.at(node).data(); }
    void set_spread(int node, int level, const PaddedRows<Real>& rows, Stream stream);
    const double* diagonal() const { return diagonal_.data(); }

    static Geometry geometry(const Program& program, const Shape& shape, int columns);
    static std::int64_t bytes(const Program& program, const Shape& shape, bool noise, int columns);

private:
    std::vector<Geometry> geometry_;  // by level
    std::map<int, Array<Real>> images_, roots_, halves_, spread_;
    Array<double> diagonal_;
};

}  // namespace ntkfast::cuda
