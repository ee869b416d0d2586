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

constexpr int f = supported_factor;

// Terms are the coarse pairs that a fine pixel i of one phase of cell 0 and j, r pixels further, read, far from any
// border: of their taps both nearest, both others, then one of each.  Sums round in this order; of the last two the
// larger displacement is first.  With a single tap a side the first is all.
struct Terms {
    int displacement[4], column[4];  // where i is read
};
constexpr Terms terms_of(Resampling::Kind kind, int r, int phase) {
    const Resampling layer{kind, f};
    const Taps i = layer.taps(phase, 1, true), j = layer.taps(phase + r, 1, true);
    const int other_j = j.index(1) - i.index(0) > j.index(0) - i.index(1) ? 1 : 0;  // in the third
    const int of_i[4] = {0, 1, 1 - other_j, other_j}, of_j[4] = {0, 1, other_j, 1 - other_j};
    Terms out{};
    for (int m = 0; m < 4; ++m) {
        out.displacement[m] = j.index(of_j[m]) - i.index(of_i[m]);
        out.column[m] = i.index(of_i[m]);
    }
    return out;
}

// These tables are indexed by r and phase.
constexpr auto bilinear_kind = Resampling::Kind::bilinear, nearest_kind = Resampling::Kind::nearest;
constexpr Terms bilinear_terms[f][f] = {{terms_of(bilinear_kind, 0, 0), terms_of(bilinear_kind, 0, 1)},
                                        {terms_of(bilinear_kind, 1, 0), terms_of(bilinear_kind, 1, 1)}};
constexpr Terms nearest_terms[f][f] = {{terms_of(nearest_kind, 0, 0), terms_of(nearest_kind, 0, 1)},
                                       {terms_of(nearest_kind, 1, 0), terms_of(nearest_kind, 1, 1)}};
constexpr Taps even_taps = Resampling{bilinear_kind, f}.taps(0, 1, true);
constexpr Taps odd_taps = Resampling{bilinear_kind, f}.taps(1, 1, true);
constexpr double near = even_taps.first_weight, far = even_taps.other_weight;
static_assert(f == 2 && near == odd_taps.first_weight, "RowKernels::upsample has two phases, with the same weights");

}  // namespace

template <class Real>
UpsampledRows<Real>::UpsampledRows(const Shape& fine, bool circular, const Resampling& sampling,
                                   const PaddedRows<Real>* spread, double gain, const RowKernels<Real>& kernels,
                                   int lanes)
    : fine_(fine), coarse_(downsampled(fine, sampling.factor)), circular_(circular), kind_(sampling.kind),
      spread_(spread), gain_(Real(gain)), kernels_(kernels), max_count_(most_displacements(lanes)),
      stride_(row_stride(coarse_)), starts_(std::size_t(max_count_)),
      buffer_(std::size_t(max_count_ * stride_), Real(0)) {}

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
        for (int n = 0; n < count_; ++n) starts_[std::size_t(n)] = at(field, first_ + n, 0);
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

// Fills the columns that lie one pixel outside the image: clamping moves them to another displacement.
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
    static constexpr Real bilinear_weights[4] = {Real(near * near), Real(far * far), Real(near * far),
                                                 Real(near * far)};
    static constexpr Real nearest_weight[1] = {1};
    const Displacement& lane = block.lane[b];
    const int c = floor_div<f>(lane.dx), a = lane.col0 / f, count = bilinear() ? 4 : 1;
    const Terms* terms = (bilinear() ? bilinear_terms : nearest_terms)[modulo<f>(lane.dx)];
    const std::ptrdiff_t n = (lane.col0 + lane.cols - 1) / f - a + 1;
    const Real *even[4], *odd[4];
    const std::ptrdiff_t batch = fine_.batch;
    const Real* const* starts = starts_.data() + (c - first_);
    for (int m = 0; m < count; ++m) {
        even[m] = starts[terms[0].displacement[m]] + (a + terms[0].column[m]) * batch;
        odd[m] = starts[terms[1].displacement[m]] + (a + terms[1].column[m]) * batch;
    }
    const Real *v_i = nullptr, *v_j = nullptr;
    if (field == 0 && spread_ != nullptr) {
        v_i = spread_->row(y) + f * a * batch;
        v_j = spread_->row(y + block.dy) + (f * a + (circular_ ? modulo(lane.dx, fine_.width) : lane.dx)) * batch;
    }
    kernels_.upsample(out + (f * a - lane.col0) * batch, even, odd, bilinear() ? bilinear_weights : nearest_weight,
                      count, v_i, v_j, gain_, n, fine_.batch);
}

template class UpsampledRows<float>;
template class UpsampledRows<double>;

}  // namespace ntkfast
