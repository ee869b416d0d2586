// Rows of a field at twice the resolution of the bands that hold it.
#pragma once

#include <algorithm>

#include "cpu/bands.h"
#include "cpu/rows/row_kernels.h"
#include "plan/aligned.h"
#include "plan/fields.h"
#include "plan/geometry.h"

namespace ntkfast {

// Bilinear weights (torch's align_corners=False): fine pixel 2A is 3/4 A + 1/4 (A - 1), pixel 2A + 1 is 3/4 A + 1/4 (A + 1),
// indices clamped to the image, or wrapped on the torus.  For the pair of fine rows (y, y + dy) at most four pairs of coarse
// rows are combined first, once for all lanes; then, for each lane, at most four neighbours in (column, lane).
//
//   E'(p,r) = sum_ab A_pa A_rb E(a,b) - v(p) - v(r),   T'(p,r) = sum_ab A_pa A_rb T'(a,b)
template <class Real> class UpsampledRows {
public:
    // spread: v, or nullptr where it is zero (nearest)
    UpsampledRows(const Shape& fine, bool circular, bool bilinear, const PaddedRows<Real>* spread, double gain,
                  const RowKernels<Real>& kernels, int lanes);

    // Row y (of pixel i, from the image's top) of the lanes of a block; lane b of e and t lies b*stride behind lane 0.
    // One column more than the lane has may be written on either side.
    void row(const Block& block, const BandStore<Real>& store, int y, Real* e, Real* t, bool tangent,
             std::ptrdiff_t stride);

    static std::int64_t bytes(const Shape& fine, int lanes);

private:
    struct Taps {  // of one pair of fine rows
        int count = 0;
        int a[4], dy[4];
        Real weights[4];
    };
    Taps taps(const Block& block, int y) const;
    void combine_rows(const Taps& taps, const BandStore<Real>& store);
    void complete(int field);
    void lane_row(const Block& block, int b, int y, int field, Real* out);
    int first_column(int c) const { return circular_ ? 0 : std::max(0, -c); }
    // Column a of coarse displacement c, -1 <= a <= width; T' lies behind E as in a band.
    Real* at(int field, int c, int a) {
        Real* e = buffer_.data() + (c - first_) * stride_ + (std::ptrdiff_t(a) + 1) * coarse_.batch + chunk;
        return field == 0 ? e : e + Band<Real>::tangent_offset(coarse_, circular_, c);
    }
    bool exists(int c) const { return circular_ || (c < coarse_.width && -c < coarse_.width); }

    Shape fine_, coarse_;
    bool circular_, bilinear_;
    const PaddedRows<Real>* spread_;
    Real gain_;
    const RowKernels<Real>& kernels_;
    int max_count_;
    std::ptrdiff_t stride_;
    int first_ = 0, count_ = 0;  // coarse displacements under way
    AlignedVector<Real> buffer_;
};

}  // namespace ntkfast
