#include "cpu/upsampled_rows.h"

#include <algorithm>

#include "plan/resampling.h"

namespace ntkfast {
namespace {

// Blocks of `lanes` displacements span at most twice as many columns; beside them up to 2 more on either side are read.
int most_displacements(int lanes) { return lanes + 6; }

std::ptrdiff_t row_stride(const Shape& coarse) {
    return 3 * round_up((std::ptrdiff_t(coarse.width) + 3) * coarse.batch) + 2 * chunk;
}

}  // namespace

template <class Real>
UpsampledRows<Real>::UpsampledRows(const Shape& fine, bool circular, bool bilinear, const PaddedRows<Real>* spread,
                                   double gain, const RowKernels<Real>& kernels, int lanes)
    : fine_(fine), coarse_(at_level(fine, 1)), circular_(circular), bilinear_(bilinear), spread_(spread),
      gain_(Real(gain)), kernels_(kernels), max_count_(most_displacements(lanes)), stride_(row_stride(coarse_)),
      buffer_(std::size_t(max_count_ * stride_), Real(0)) {}

template <class Real> std::int64_t UpsampledRows<Real>::bytes(const Shape& fine, int lanes) {
    return most_displacements(lanes) * row_stride(at_level(fine, 1)) * std::int64_t(sizeof(Real));
}

template <class Real>
void UpsampledRows<Real>::row(const Block& block, const BandStore<Real>& store, int y, Real* e, Real* t, bool tangent,
                              std::ptrdiff_t stride) {
    int low = block.lane[0].dx, high = low;
    for (int b = 1; b < block.lanes; ++b) {
        low = std::min(low, block.lane[b].dx);
        high = std::max(high, block.lane[b].dx);
    }
    first_ = lowest_coarse(low, bilinear_);
    count_ = highest_coarse(high, bilinear_) - first_ + 1;
    const Taps rows = taps(block, y);
    combine_rows(rows, store);
    for (int field = 0; field < (tangent ? 2 : 1); ++field) {
        if (bilinear_) complete(field);
        for (int b = 0; b < block.lanes; ++b) lane_row(block, b, y, field, (field == 0 ? e : t) + b * stride);
    }
}

template <class Real> typename UpsampledRows<Real>::Taps UpsampledRows<Real>::taps(const Block& block, int y) const {
    const auto neighbours = [&](int fine, int (&coarse)[2], Real(&weights)[2]) {
        coarse[0] = floor_half(fine);
        coarse[1] = coarse[0] + ((fine & 1) != 0 ? 1 : -1);
        weights[0] = bilinear_ ? Real(0.75) : Real(1);
        weights[1] = Real(0.25);
        if (!circular_) coarse[1] = std::clamp(coarse[1], 0, coarse_.height - 1);
        return bilinear_ ? 2 : 1;
    };
    int a[2], b[2];
    Real of_a[2], of_b[2];
    const int n = neighbours(y, a, of_a);
    neighbours(y + block.dy, b, of_b);
    Taps out;
    for (int m = 0; m < n; ++m)
        for (int k = 0; k < n; ++k) {
            out.a[out.count] = circular_ ? wrap(a[m], coarse_.height) : a[m];
            out.dy[out.count] = b[k] - a[m];
            out.weights[out.count++] = of_a[m] * of_b[k];
        }
    return out;
}

template <class Real> void UpsampledRows<Real>::combine_rows(const Taps& taps, const BandStore<Real>& store) {
    const Real* rows[4];
    const Band<Real>* bands[4];
    for (int m = 0; m < taps.count; ++m) bands[m] = &store.at(taps.dy[m]);
    for (int c = first_; c < first_ + count_; ++c) {
        if (!exists(c)) continue;
        for (int m = 0; m < taps.count; ++m) rows[m] = bands[m]->e(taps.a[m], c);
        const std::ptrdiff_t e_only = std::ptrdiff_t(coarse_.width - (circular_ ? 0 : std::abs(c))) * coarse_.batch;
        const std::ptrdiff_t n = e_only + (store.tangent() ? Band<Real>::tangent_offset(coarse_, circular_, c) : 0);
        kernels_.weighted(at(0, c, first_column(c)), rows, taps.weights, taps.count, n);
    }
}

// The columns that reach one pixel over the image: clamping moves them to another displacement.
template <class Real> void UpsampledRows<Real>::complete(int field) {
    const int w = coarse_.width;
    const auto copy = [&](Real* to, const Real* from) { std::copy(from, from + coarse_.batch, to); };
    for (int c = first_; c < first_ + count_; ++c) {
        if (circular_) {
            copy(at(field, c, -1), at(field, c, w - 1));
            copy(at(field, c, w), at(field, c, 0));
            continue;
        }
        const int low = std::max(-1, -1 - c), high = std::min(w, w - c);
        for (const int a : {low, high}) {
            if (low > high) continue;
            const int inside_a = std::clamp(a, 0, w - 1), inside_c = std::clamp(a + c, 0, w - 1) - inside_a;
            if (inside_c >= first_ && inside_c < first_ + count_) copy(at(field, c, a), at(field, inside_c, inside_a));
        }
    }
}

template <class Real>
void UpsampledRows<Real>::lane_row(const Block& block, int b, int y, int field, Real* out) {
    static constexpr Real bilinear_weights[4] = {Real(9) / 16, Real(1) / 16, Real(3) / 16, Real(3) / 16};
    static constexpr Real nearest_weight[1] = {1};
    const Displacement& lane = block.lane[b];
    const int c = floor_half(lane.dx);
    const bool shifted = (lane.dx & 1) != 0;
    const int a = lane.col0 / 2;
    const std::ptrdiff_t n = (lane.col0 + lane.cols - 1) / 2 - a + 1;
    const Real *even[4], *odd[4];
    const auto set = [&](const Real*(&to)[4], int c0, int c1, int a1, int c2, int a2, int c3, int a3) {
        to[0] = at(field, c0, a);
        if (!bilinear_) return;
        to[1] = at(field, c1, a1), to[2] = at(field, c2, a2), to[3] = at(field, c3, a3);
    };
    if (shifted) {
        set(even, c, c + 2, a - 1, c + 1, a - 1, c + 1, a);
        set(odd, c + 1, c - 1, a + 1, c, a + 1, c, a);
    } else {
        set(even, c, c, a - 1, c + 1, a - 1, c - 1, a);
        set(odd, c, c, a + 1, c + 1, a, c - 1, a + 1);
    }
    const std::ptrdiff_t batch = fine_.batch;
    const Real *v_i = nullptr, *v_j = nullptr;
    if (field == 0 && spread_ != nullptr) {
        v_i = spread_->row(y) + 2 * a * batch;
        v_j = spread_->row(y + block.dy) + (2 * a + (circular_ ? wrap(lane.dx, fine_.width) : lane.dx)) * batch;
    }
    kernels_.upsample(out + (2 * a - lane.col0) * batch, even, odd, bilinear_ ? bilinear_weights : nearest_weight,
                      bilinear_ ? 4 : 1, v_i, v_j, gain_, n, fine_.batch);
}

template class UpsampledRows<float>;
template class UpsampledRows<double>;

}  // namespace ntkfast
