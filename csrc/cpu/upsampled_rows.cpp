#include "cpu/upsampled_rows.h"

#include <algorithm>

#include "plan/resampling.h"

namespace ntkfast {
namespace {

// Blocks of `lanes` displacements span at most `factor` times as many columns; up to 2 more on either side are read.
int most_displacements(int lanes) { return lanes + 6; }

std::ptrdiff_t row_stride(const Shape& coarse) {
    return 3 * round_up((std::ptrdiff_t(coarse.width) + 3) * coarse.batch) + 2 * chunk;
}

}  // namespace

template <class Real>
UpsampledRows<Real>::UpsampledRows(const Shape& fine, bool circular, const Resampling& sampling,
                                   const PaddedRows<Real>* spread, double gain, const RowKernels<Real>& kernels,
                                   int lanes)
    : fine_(fine), coarse_(downsampled(fine, sampling.factor)), circular_(circular), kind_(sampling.kind),
      spread_(spread), gain_(Real(gain)), kernels_(kernels), max_count_(most_displacements(lanes)),
      stride_(row_stride(coarse_)), buffer_(std::size_t(max_count_ * stride_), Real(0)) {}

template <class Real> std::int64_t UpsampledRows<Real>::bytes(const Shape& fine, int factor, int lanes) {
    return most_displacements(lanes) * row_stride(downsampled(fine, factor)) * std::int64_t(sizeof(Real));
}

template <class Real>
void UpsampledRows<Real>::row(const Block& block, const BandStore<Real>& store, int y, Real* e, Real* t, bool tangent,
                              std::ptrdiff_t stride) {
    int low = block.lane[0].dx, high = low;
    for (int b = 1; b < block.lanes; ++b) {
        low = std::min(low, block.lane[b].dx);
        high = std::max(high, block.lane[b].dx);
    }
    const Range read = sampling().reads({low, high});
    first_ = read.low;
    count_ = read.size();
    combine_rows(row_pairs(block, y), store);
    for (int field = 0; field < (tangent ? 2 : 1); ++field) {
        if (bilinear()) complete(field);
        for (int b = 0; b < block.lanes; ++b) lane_row(block, b, y, field, (field == 0 ? e : t) + b * stride);
    }
}

template <class Real>
typename UpsampledRows<Real>::RowPairs UpsampledRows<Real>::row_pairs(const Block& block, int y) const {
    const Taps a = sampling().taps(y, coarse_.height, circular_);
    const Taps b = sampling().taps(y + block.dy, coarse_.height, circular_);
    RowPairs out;
    for (int m = 0; m < a.count; ++m)
        for (int k = 0; k < b.count; ++k) {
            out.a[out.count] = circular_ ? modulo(a.index(m), coarse_.height) : a.index(m);
            out.dy[out.count] = b.index(k) - a.index(m);
            out.weights[out.count++] = Real(a.weight(m)) * Real(b.weight(k));
        }
    return out;
}

template <class Real> void UpsampledRows<Real>::combine_rows(const RowPairs& pairs, const BandStore<Real>& store) {
    const Real* rows[4];
    const Band<Real>* bands[4];
    for (int m = 0; m < pairs.count; ++m) bands[m] = &store.at(pairs.dy[m]);
    for (int c = first_; c < first_ + count_; ++c) {
        if (!exists(c)) continue;
        for (int m = 0; m < pairs.count; ++m) rows[m] = bands[m]->e(pairs.a[m], c);
        const std::ptrdiff_t e_only = std::ptrdiff_t(coarse_.width - (circular_ ? 0 : std::abs(c))) * coarse_.batch;
        const std::ptrdiff_t n = e_only + (store.tangent() ? Band<Real>::tangent_offset(coarse_, circular_, c) : 0);
        kernels_.weighted(at(0, c, first_column(c)), rows, pairs.weights, pairs.count, n);
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

// Rows of the coarse bands that the fine pixels of one phase read, from coarse column a on: of the taps of i and j both
// nearest, both others, then one of each.  Sums round in this order; of the last two the larger displacement is first.
template <class Real>
void UpsampledRows<Real>::neighbours(int field, int phase, int dx, int a, const Real* (&terms)[4]) {
    // Of the pixel in cell 0.  What lies beyond the image has been completed, so that nothing is clamped here.
    const Taps i = sampling().taps(phase, coarse_.width, true), j = sampling().taps(phase + dx, coarse_.width, true);
    const auto displacement = [&](int m, int k) { return j.index(k) - i.index(m); };
    const auto term = [&](int m, int k) { return at(field, displacement(m, k), a + i.index(m)); };
    terms[0] = term(0, 0);
    if (!bilinear()) return;
    terms[1] = term(1, 1);
    const bool other_j_first = displacement(0, 1) > displacement(1, 0);
    terms[2] = other_j_first ? term(0, 1) : term(1, 0);
    terms[3] = other_j_first ? term(1, 0) : term(0, 1);
}

template <class Real>
void UpsampledRows<Real>::lane_row(const Block& block, int b, int y, int field, Real* out) {
    constexpr int f = supported_factor;
    constexpr Resampling bilinear_layer{Resampling::Kind::bilinear, f};
    constexpr Taps even_taps = bilinear_layer.taps(0, 1, true), odd_taps = bilinear_layer.taps(1, 1, true);
    constexpr Real near = Real(even_taps.weight(0)), far = Real(even_taps.weight(1));
    static_assert(f == 2 && near == Real(odd_taps.weight(0)),
                  "RowKernels::upsample takes two phases, with one set of weights");
    static constexpr Real bilinear_weights[4] = {near * near, far * far, near * far, near * far};
    static constexpr Real nearest_weight[1] = {1};
    const Displacement& lane = block.lane[b];
    const int a = lane.col0 / f;
    const std::ptrdiff_t n = (lane.col0 + lane.cols - 1) / f - a + 1;
    const Real *even[4], *odd[4];
    neighbours(field, 0, lane.dx, a, even);
    neighbours(field, 1, lane.dx, a, odd);
    const std::ptrdiff_t batch = fine_.batch;
    const Real *v_i = nullptr, *v_j = nullptr;
    if (field == 0 && spread_ != nullptr) {
        v_i = spread_->row(y) + f * a * batch;
        v_j = spread_->row(y + block.dy) + (f * a + (circular_ ? modulo(lane.dx, fine_.width) : lane.dx)) * batch;
    }
    kernels_.upsample(out + (f * a - lane.col0) * batch, even, odd, bilinear() ? bilinear_weights : nearest_weight,
                      bilinear() ? 4 : 1, v_i, v_j, gain_, n, fine_.batch);
}

template class UpsampledRows<float>;
template class UpsampledRows<double>;

}  // namespace ntkfast
