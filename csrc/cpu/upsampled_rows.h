// UpsampledRows makes rows of a field at a finer resolution than that of the bands that hold it.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/bands.h"
#include "cpu/rows/row_kernels.h"
#include "plan/aligned.h"
#include "plan/fields.h"
#include "plan/geometry.h"
#include "plan/resampling.h"

namespace ntkfast {

//   E'(p,r) = sum_ab A_pa A_rb E(a,b) - v(p) - v(r),   T'(p,r) = sum_ab A_pa A_rb T'(a,b)
//
// A is the matrix of a Resampling with two taps at most along either axis.  For the pair of fine rows (y, y + dy) at
// most four pairs of coarse rows are combined first, once for all lanes; then, for each lane, at most four neighbours
// in (column, lane).
template <class Real> class UpsampledRows {
public:
    // `spread` is v, or nullptr where it is zero (nearest).
    UpsampledRows(const Shape& fine, bool circular, const Resampling& sampling, const PaddedRows<Real>* spread,
                  double gain, const RowKernels<Real>& kernels, int lanes);

    // Makes row y (of pixel i, from the image's top) of the lanes of a block; lane b of e and t lies b*stride behind
    // lane 0.  Whole cells are written: up to factor - 1 columns more than the lane has on either side.
    void row(const Block& block, const BandStore<Real>& store, int y, Real* e, Real* t, bool tangent,
             std::ptrdiff_t stride);

    static std::int64_t bytes(const Shape& fine, int factor, int lanes);

private:
    struct RowPairs {  // the pairs of coarse rows that one pair of fine rows reads
        int count = 0;
        int a[4], dy[4];
        Real weights[4];
    };
    // Returns the resampling in the form in which the compiler sees the factor.
    Resampling sampling() const { return {kind_, supported_factor}; }
    bool bilinear() const { return kind_ == Resampling::Kind::bilinear; }
    RowPairs row_pairs(const Block& block, int y) const;
    void combine_rows(const RowPairs& pairs, const BandStore<Real>& store);
    void complete(int field);
    void lane_row(const Block& block, int b, int y, int field, Real* out);
    int first_column(int c) const { return circular_ ? 0 : std::max(0, -c); }
    // Returns column a of the coarse displacement c, -1 <= a <= width; T' lies behind E as in a band.
    Real* at(int field, int c, int a) {
        Real* e = buffer_.data() + (c - first_) * stride_ + (std::ptrdiff_t(a) + 1) * coarse_.batch + chunk;
        return field == 0 ? e : e + Band<Real>::tangent_offset(coarse_, circular_, c);
    }
    bool exists(int c) const { return circular_ || (c < coarse_.width && -c < coarse_.width); }

    Shape fine_, coarse_;
    bool circular_;
    Resampling::Kind kind_;
    const PaddedRows<Real>* spread_;
    Real gain_;
    const RowKernels<Real>& kernels_;
    int max_count_;
    std::ptrdiff_t stride_;
    int first_ = 0, count_ = 0;        // coarse displacements under way
    std::vector<const Real*> starts_;  // column 0 of each, of the field under way
    AlignedVector<Real> buffer_;
};

}  // namespace ntkfast
