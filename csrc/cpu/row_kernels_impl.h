// Bodies of the row kernels.  Included by one translation unit per instruction set, each with flags of its own; all is in an
// unnamed namespace and nothing from the standard library is instantiated here, so that no symbol of one level can be
// linked into another.
#pragma once

#include "row_kernels.h"

namespace ntkfast {
namespace {

// Rows of one call never overlap except where a kernel says so.
#define NTKFAST_VECTOR_LOOP _Pragma("GCC ivdep")

// Length in whole steps of this level's vectors, in a form from which the compiler sees that no remainder loop is needed.
// Half a chunk where the vectors are shorter: at 128 elements a row, the mean of a 256 wide image, it saves 3%.
#if defined(__AVX512F__)
constexpr int vector_step = chunk;
#else
constexpr int vector_step = chunk / 2;
#endif
NTKFAST_HD std::ptrdiff_t whole(std::ptrdiff_t length) {
    return (length + vector_step - 1) & -std::ptrdiff_t(vector_step);
}

template <class Real, int Channels>
void input_channels(Real* __restrict e, const Real* x_i, const Real* x_j, std::ptrdiff_t plane, Real gain,
                    std::ptrdiff_t n) {
    NTKFAST_VECTOR_LOOP
    for (std::ptrdiff_t l = 0; l < n; ++l) {
        Real sum = 0;
        for (int c = 0; c < Channels; ++c) {
            const Real diff = x_i[c * plane + l] - x_j[c * plane + l];
            sum += diff * diff;
        }
        e[l] = gain * sum;
    }
}

template <class Real>
void input_any(Real* __restrict e, const Real* x_i, const Real* x_j, std::ptrdiff_t plane, int channels, Real gain,
               std::ptrdiff_t n) {
    for (std::ptrdiff_t l = 0; l < n; ++l) e[l] = 0;
    for (int c = 0; c < channels; ++c) {
        NTKFAST_VECTOR_LOOP
        for (std::ptrdiff_t l = 0; l < n; ++l) {
            const Real diff = x_i[c * plane + l] - x_j[c * plane + l];
            e[l] += gain * diff * diff;
        }
    }
}

template <class Real>
void input(const Lanes& lanes, Real* e, const Real* x_i, const Real* x_j, std::ptrdiff_t plane, int channels,
           std::ptrdiff_t halo, Real gain) {
    for (int b = 0; b < lanes.count; ++b, e += lanes.stride) {
        const std::ptrdiff_t n = whole(lanes.length[b] + 2 * halo);
        const Real *from_i = x_i + lanes.at_i[b] - halo, *from_j = x_j + lanes.at_j[b] - halo;
        if (channels == 3)
            input_channels<Real, 3>(e - halo, from_i, from_j, plane, gain, n);
        else if (channels == 1)
            input_channels<Real, 1>(e - halo, from_i, from_j, plane, gain, n);
        else
            input_any(e - halo, from_i, from_j, plane, channels, gain, n);
    }
}

template <class Real> void add(const Lanes& lanes, Real* out, const Real* a, const Real* b) {
    for (int lane = 0; lane < lanes.count; ++lane) {
        const std::ptrdiff_t n = whole(lanes.length[lane]);
        NTKFAST_VECTOR_LOOP
        for (std::ptrdiff_t l = 0; l < n; ++l) out[l] = a[l] + b[l];
        out += lanes.stride, a += lanes.stride, b += lanes.stride;
    }
}

// k loads and k - 1 additions; for small k nothing is cheaper.
template <class Real, int K>
void box_direct(Real* __restrict out, const Real* __restrict in, std::ptrdiff_t shift, std::ptrdiff_t n) {
    const Real* first = in - (K / 2) * shift;
    NTKFAST_VECTOR_LOOP
    for (std::ptrdiff_t l = 0; l < n; ++l) {
        Real sum = first[l];
        for (int m = 1; m < K; ++m) sum += first[l + m * shift];
        out[l] = sum;
    }
}

// Sums over 3 neighbours first, then over groups of them: 3 + 5 loads instead of 11 at k = 11.
template <class Real, int K>
void box_by_threes(Real* __restrict out, const Real* __restrict in, std::ptrdiff_t shift, Real* __restrict scratch,
                   std::ptrdiff_t n) {
    const Real* first = in - (K / 2) * shift;
    constexpr int groups = K / 3;
    const std::ptrdiff_t reach = whole(n + 3 * (groups - 1) * shift);
    NTKFAST_VECTOR_LOOP
    for (std::ptrdiff_t l = 0; l < reach; ++l) scratch[l] = first[l] + first[l + shift] + first[l + 2 * shift];
    NTKFAST_VECTOR_LOOP
    for (std::ptrdiff_t l = 0; l < n; ++l) {
        Real sum = scratch[l];
        for (int g = 1; g < groups; ++g) sum += scratch[l + 3 * g * shift];
        for (int m = 3 * groups; m < K; ++m) sum += first[l + m * shift];
        out[l] = sum;
    }
}

// Any k: out gathers the windows of 1, 2, 4, ... neighbours that the binary digits of k ask for, while scratch doubles.
template <class Real>
void box_by_doubling(Real* __restrict out, const Real* __restrict in, int k, std::ptrdiff_t shift,
                     Real* __restrict scratch, std::ptrdiff_t n) {
    const Real* first = in - (k / 2) * shift;
    const std::ptrdiff_t span = whole(n + k * shift);
    for (std::ptrdiff_t l = 0; l < n + (k - 1) * shift; ++l) scratch[l] = first[l];
    for (std::ptrdiff_t l = n + (k - 1) * shift; l < span; ++l) scratch[l] = 0;
    for (std::ptrdiff_t l = 0; l < n; ++l) out[l] = 0;
    std::ptrdiff_t done = 0;
    for (int window = 1; window <= k; window *= 2) {
        if (k & window) {
            const Real* from = scratch + done * shift;
            NTKFAST_VECTOR_LOOP
            for (std::ptrdiff_t l = 0; l < n; ++l) out[l] += from[l];
            done += window;
        }
        // In place: position l reads l and l + window*shift, which lies ahead and is not yet doubled.
        if (2 * window <= k) {
            const std::ptrdiff_t last = n + (k - 2 * window) * shift;
            for (std::ptrdiff_t l = 0; l < last; ++l) scratch[l] += scratch[l + window * shift];
        }
    }
}

template <class Real>
void box_row(const Lanes& lanes, Real* out, const Real* in, int k, std::ptrdiff_t shift, Real* scratch) {
    for (int b = 0; b < lanes.count; ++b, out += lanes.stride, in += lanes.stride) {
        const std::ptrdiff_t n = whole(lanes.length[b]);
        switch (k) {
            case 3: box_direct<Real, 3>(out, in, shift, n); break;
            case 5: box_direct<Real, 5>(out, in, shift, n); break;
            case 7: box_by_threes<Real, 7>(out, in, shift, scratch, n); break;
            case 9: box_by_threes<Real, 9>(out, in, shift, scratch, n); break;
            case 11: box_by_threes<Real, 11>(out, in, shift, scratch, n); break;
            default: box_by_doubling<Real>(out, in, k, shift, scratch, n); break;
        }
    }
}

template <int Rows, class Real>
NTKFAST_HD Real sum_rows(const Real* const (&rows)[Rows], std::ptrdiff_t l) {
    Real sum = rows[0][l];
    for (int n = 1; n < Rows; ++n) sum += rows[n][l];
    return sum;
}

// Operands of one lane, copied so that the loops see constants.
template <class Real, int Rows> struct LaneOperands {
    const Real *e[Rows], *t[Rows];
    Root<const Real*> i, j;
    Real *e_out, *t_out;
    std::ptrdiff_t n;

    LaneOperands(const Lanes& lanes, const MapArgs<Real>& a, int b) {
        const std::ptrdiff_t offset = b * lanes.stride;
        for (int m = 0; m < Rows; ++m) e[m] = a.e[m] + offset, t[m] = a.t[m] + offset;
        i = {a.i.p + lanes.at_i[b], a.i.inverse + lanes.at_i[b], a.i.rest + lanes.at_i[b]};
        j = {a.j.p + lanes.at_j[b], a.j.inverse + lanes.at_j[b], a.j.rest + lanes.at_j[b]};
        e_out = a.e_out + offset, t_out = a.t_out + offset;
        n = whole(lanes.length[b]);
    }
};

// An int as wide as Real, so that the two share a vector's lanes.
template <class Real> struct Mask;
template <> struct Mask<float> {
    using Int = std::int32_t;
};
template <> struct Mask<double> {
    using Int = std::int64_t;
};

template <class Real> NTKFAST_HD Root<Real> root_at(const Root<const Real*>& rows, std::ptrdiff_t l) {
    return {rows.p[l], rows.inverse[l], rows.rest[l]};
}

template <class Real, int Rows, Flow flow> std::uint32_t rectifier(const Lanes& lanes, const MapArgs<Real>& args) {
    const ActivationConstants<Real> k = args.constants;
    std::uint32_t doubts = 0;
    for (int b = 0; b < lanes.count; ++b) {
        const LaneOperands<Real, Rows> a(lanes, args, b);
        typename Mask<Real>::Int doubt = 0;
        NTKFAST_VECTOR_LOOP
        for (std::ptrdiff_t l = 0; l < a.n; ++l) {
            const Real e = sum_rows<Rows>(a.e, l);
            const Real t = flow == Flow::tangent ? sum_rows<Rows>(a.t, l) : Real(0);
            const Root<Real> i = root_at<Real>(a.i, l), j = root_at<Real>(a.j, l);
            const Pair<Real> out = activate<has_tangent(flow)>(e, t, i, j, k);
            a.e_out[l] = out.e;
            if (has_tangent(flow)) a.t_out[l] = out.t;
            if (is_first(flow)) doubt |= certainty(e, i, j, k) < 0 ? 1 : 0;
        }
        doubts |= std::uint32_t(doubt) << b;
    }
    return doubts;
}

template <template <class> class Activation, class Real, int Rows, Flow flow>
std::uint32_t smooth(const Lanes& lanes, const MapArgs<Real>& args) {
    const SmoothConstants<Real> k = args.smooth;
    for (int b = 0; b < lanes.count; ++b) {
        const LaneOperands<Real, Rows> a(lanes, args, b);
        NTKFAST_VECTOR_LOOP
        for (std::ptrdiff_t l = 0; l < a.n; ++l) {
            const Real e = sum_rows<Rows>(a.e, l);
            const Real t = flow == Flow::tangent ? sum_rows<Rows>(a.t, l) : Real(0);
            const Pair<Real> out = Activation<Real>::template apply<has_tangent(flow)>(e, t, root_at<Real>(a.i, l),
                                                                                       root_at<Real>(a.j, l), k);
            a.e_out[l] = out.e;
            if (has_tangent(flow)) a.t_out[l] = out.t;
        }
    }
    return 0;
}

template <class Real, int Rows, Flow flow> std::uint32_t erf(const Lanes& lanes, const MapArgs<Real>& args) {
    return smooth<ErfActivation, Real, Rows, flow>(lanes, args);
}
template <class Real, int Rows, Flow flow> std::uint32_t gelu(const Lanes& lanes, const MapArgs<Real>& args) {
    return smooth<GeluActivation, Real, Rows, flow>(lanes, args);
}
template <class Real, int Rows, Flow flow> std::uint32_t sine(const Lanes& lanes, const MapArgs<Real>& args) {
    return smooth<SinActivation, Real, Rows, flow>(lanes, args);
}
template <class Real, int Rows, Flow flow> std::uint32_t cosine(const Lanes& lanes, const MapArgs<Real>& args) {
    return smooth<CosActivation, Real, Rows, flow>(lanes, args);
}

template <class Real>
void input_exact(double* __restrict sums, const Real* x_i, const Real* x_j, std::ptrdiff_t plane, int channels,
                 std::ptrdiff_t n) {
    for (int c = 0; c < channels; ++c) {
        NTKFAST_VECTOR_LOOP
        for (std::ptrdiff_t l = 0; l < n; ++l) {
            const double diff = double(x_i[c * plane + l]) - double(x_j[c * plane + l]);
            sums[l] += diff * diff;
        }
    }
}

// Only doubtful pairs are written, so that the bits of a pair do not depend on its neighbours.
template <class Real, bool with_tangent>
void rectifier_exact(const Lanes& lanes, int lane, const MapArgs<Real>& args, int rows, const double* columns,
                     int kernel_size, std::ptrdiff_t shift, double scale) {
    const ActivationConstants<Real> k = args.constants;
    const LaneOperands<Real, 1> a(lanes, args, lane);
    const Real* from[max_direct_rows];
    for (int m = 0; m < rows; ++m) from[m] = args.e[m] + lane * lanes.stride;
    const double* first = columns - (kernel_size / 2) * shift;
    NTKFAST_VECTOR_LOOP
    for (std::ptrdiff_t l = 0; l < a.n; ++l) {
        Real rounded = from[0][l];
        for (int m = 1; m < rows; ++m) rounded += from[m][l];
        double e = first[l];
        for (int m = 1; m < kernel_size; ++m) e += first[l + m * shift];
        const Root<Real> i = root_at<Real>(a.i, l), j = root_at<Real>(a.j, l);
        const bool doubt = certainty(rounded, i, j, k) < 0;
        const Pair<Real> out = activate_exact<with_tangent>(scale * e, Real(0), i, j, k);
        a.e_out[l] = doubt ? out.e : a.e_out[l];
        if (with_tangent) a.t_out[l] = doubt ? out.t : a.t_out[l];
    }
}

// All pairs of one lane, with E and the activation in double.
template <template <class> class Activation, class Real, bool with_tangent>
void smooth_exact(const Lanes& lanes, int lane, const MapArgs<Real>& args, int, const double* columns, int kernel_size,
                  std::ptrdiff_t shift, double scale) {
    const SmoothConstants<double> k{args.smooth.unit, args.smooth.distance, args.smooth.derivative,
                                    args.smooth.covariance};
    const LaneOperands<Real, 1> a(lanes, args, lane);
    const double* first = columns - (kernel_size / 2) * shift;
    const auto widened = [](const Root<Real>& root) {
        return Root<double>{double(root.p) + double(root.rest), double(root.inverse), 0.0};
    };
    NTKFAST_VECTOR_LOOP
    for (std::ptrdiff_t l = 0; l < a.n; ++l) {
        double e = first[l];
        for (int m = 1; m < kernel_size; ++m) e += first[l + m * shift];
        const Pair<double> out = Activation<double>::template apply<with_tangent>(
            scale * e, 0.0, widened(root_at<Real>(a.i, l)), widened(root_at<Real>(a.j, l)), k);
        a.e_out[l] = Real(out.e);
        if (with_tangent) a.t_out[l] = Real(out.t);
    }
}

template <class Real>
void combine(const Lanes& lanes, Real* out, const Real* a, Real c_a, const Real* b, Real c_b) {
    for (int lane = 0; lane < lanes.count; ++lane, out += lanes.stride, a += lanes.stride) {
        const std::ptrdiff_t n = whole(lanes.length[lane]);
        if (b == nullptr) {
            NTKFAST_VECTOR_LOOP
            for (std::ptrdiff_t l = 0; l < n; ++l) out[l] = c_a * a[l];
        } else {
            NTKFAST_VECTOR_LOOP
            for (std::ptrdiff_t l = 0; l < n; ++l) out[l] = c_a * a[l] + c_b * b[l];
            b += lanes.stride;
        }
    }
}

template <class Real, int Count>
void weighted_rows(Real* __restrict out, const Real* const* rows, const Real* weights, std::ptrdiff_t n) {
    const Real* row[Count];
    Real w[Count];
    for (int m = 0; m < Count; ++m) row[m] = rows[m], w[m] = weights[m];
    const std::ptrdiff_t end = whole(n);
    NTKFAST_VECTOR_LOOP
    for (std::ptrdiff_t l = 0; l < end; ++l) {
        Real sum = w[0] * row[0][l];
        for (int m = 1; m < Count; ++m) sum += w[m] * row[m][l];
        out[l] = sum;
    }
}

template <class Real>
void weighted(Real* out, const Real* const* rows, const Real* weights, int count, std::ptrdiff_t n) {
    switch (count) {
        case 1: weighted_rows<Real, 1>(out, rows, weights, n); break;
        case 2: weighted_rows<Real, 2>(out, rows, weights, n); break;
        case 3: weighted_rows<Real, 3>(out, rows, weights, n); break;
        case 4: weighted_rows<Real, 4>(out, rows, weights, n); break;
        default: weighted_rows<Real, max_direct_rows>(out, rows, weights, n); break;
    }
}

template <class Real>
void finish(Real* __restrict out, const Real* raw, const Real* v_i, const Real* v_j, Real gain, std::ptrdiff_t length) {
    const std::ptrdiff_t n = whole(length);
    if (v_i == nullptr) {
        NTKFAST_VECTOR_LOOP
        for (std::ptrdiff_t l = 0; l < n; ++l) out[l] = gain * raw[l];
    } else {
        NTKFAST_VECTOR_LOOP
        for (std::ptrdiff_t l = 0; l < n; ++l) out[l] = gain * ((raw[l] - v_i[l]) - v_j[l]);
    }
}

template <class Real, bool both>
void pool_pixels(Real* __restrict out, const Real* in, Real weight, std::ptrdiff_t n) {
    NTKFAST_VECTOR_LOOP
    for (std::ptrdiff_t a = 0; a < n; ++a) out[a] += weight * (both ? in[2 * a] + in[2 * a + 1] : in[2 * a]);
}

template <class Real> void pool(Real* out, const Real* in, Real weight, bool both, std::ptrdiff_t n, int batch) {
    if (batch == 1)
        return both ? pool_pixels<Real, true>(out, in, weight, n) : pool_pixels<Real, false>(out, in, weight, n);
    for (std::ptrdiff_t a = 0; a < n; ++a, out += batch, in += 2 * std::ptrdiff_t(batch)) {
        NTKFAST_VECTOR_LOOP
        for (int m = 0; m < batch; ++m) out[m] += weight * (both ? in[m] + in[batch + m] : in[m]);
    }
}

// The gain comes last: features that are alike cancel in sum - v_i - v_j to the last bit only if all three are rounded alike.
template <class Real, int Count, bool spread>
void upsample_pixels(Real* __restrict out, const Real* const* even, const Real* const* odd, const Real* weights,
                     const Real* v_i, const Real* v_j, Real gain, std::ptrdiff_t n, int batch) {
    const Real *rows_even[Count], *rows_odd[Count];
    Real w[Count];
    for (int m = 0; m < Count; ++m) rows_even[m] = even[m], rows_odd[m] = odd[m], w[m] = weights[m];
    const auto at = [&](const Real* const(&rows)[Count], std::ptrdiff_t coarse, std::ptrdiff_t fine) {
        Real sum = w[0] * rows[0][coarse];
        for (int m = 1; m < Count; ++m) sum += w[m] * rows[m][coarse];
        return gain * (spread ? (sum - v_i[fine]) - v_j[fine] : sum);
    };
    if (batch == 1) {
        NTKFAST_VECTOR_LOOP
        for (std::ptrdiff_t a = 0; a < n; ++a) {
            out[2 * a] = at(rows_even, a, 2 * a);
            out[2 * a + 1] = at(rows_odd, a, 2 * a + 1);
        }
        return;
    }
    for (std::ptrdiff_t a = 0; a < n; ++a) {
        const std::ptrdiff_t first = 2 * a * batch;
        NTKFAST_VECTOR_LOOP
        for (int m = 0; m < batch; ++m) {
            out[first + m] = at(rows_even, a * batch + m, first + m);
            out[first + batch + m] = at(rows_odd, a * batch + m, first + batch + m);
        }
    }
}

template <class Real>
void upsample(Real* out, const Real* const* even, const Real* const* odd, const Real* weights, int count,
              const Real* v_i, const Real* v_j, Real gain, std::ptrdiff_t n, int batch) {
    const auto kernel = count == 1 ? (v_i ? upsample_pixels<Real, 1, true> : upsample_pixels<Real, 1, false>)
                                   : (v_i ? upsample_pixels<Real, 4, true> : upsample_pixels<Real, 4, false>);
    kernel(out, even, odd, weights, v_i, v_j, gain, n, batch);
}

template <class Real, int Rows, Flow flow> std::uint32_t linear(const Lanes& lanes, const MapArgs<Real>& args) {
    const Real scale = args.scale, trainable = args.constants.trainable;
    for (int b = 0; b < lanes.count; ++b) {
        const LaneOperands<Real, Rows> a(lanes, args, b);
        NTKFAST_VECTOR_LOOP
        for (std::ptrdiff_t l = 0; l < a.n; ++l) {
            const Real e = sum_rows<Rows>(a.e, l);
            const Real t = flow == Flow::tangent ? sum_rows<Rows>(a.t, l) : Real(0);
            a.e_out[l] = scale * e;
            if (has_tangent(flow)) a.t_out[l] = scale * (trainable * covariance(e, a.i.p[l], a.j.p[l]) + t);
        }
    }
    return 0;
}

template <class Real, int Rows, Flow flow> std::uint32_t output(const Lanes& lanes, const MapArgs<Real>& args) {
    const Real trainable = has_tangent(flow) ? args.constants.trainable : Real(1);
    for (int b = 0; b < lanes.count; ++b) {
        const LaneOperands<Real, Rows> a(lanes, args, b);
        NTKFAST_VECTOR_LOOP
        for (std::ptrdiff_t l = 0; l < a.n; ++l) {
            const Real e = sum_rows<Rows>(a.e, l);
            const Real t = flow == Flow::tangent ? sum_rows<Rows>(a.t, l) : Real(0);
            a.t_out[l] = trainable * covariance(e, a.i.p[l], a.j.p[l]) + t;
        }
        const std::ptrdiff_t end = (lanes.length[b] + chunk - 1) & -std::ptrdiff_t(chunk);
        for (std::ptrdiff_t l = lanes.length[b]; l < end; ++l) a.t_out[l] = 0;
    }
    return 0;
}

template <class Real, int Columns>
void accumulate_columns(const Real* __restrict t, const Real* __restrict v, std::ptrdiff_t v_plane,
                        Real* __restrict sums, std::ptrdiff_t plane, std::ptrdiff_t n) {
    NTKFAST_VECTOR_LOOP
    for (std::ptrdiff_t l = 0; l < n; ++l) {
        const Real weight = t[l];
        for (int c = 0; c < Columns; ++c) sums[c * plane + l] += weight * v[c * v_plane + l];
    }
}

template <class Real>
void accumulate(const Lanes& lanes, const Real* const* t, const Real* v, const std::ptrdiff_t* at_v,
                std::ptrdiff_t v_plane, Real* sums, const std::ptrdiff_t* at_sums, std::ptrdiff_t plane, int columns) {
    for (int c = 0; c < columns; c += max_columns_fused) {
        for (int b = 0; b < lanes.count; ++b) {
            const std::ptrdiff_t n = whole(lanes.length[b]);
            const Real* from = v + at_v[b] + c * v_plane;
            Real* to = sums + at_sums[b] + c * plane;
            switch (columns - c) {
                case 1: accumulate_columns<Real, 1>(t[b], from, v_plane, to, plane, n); break;
                case 2: accumulate_columns<Real, 2>(t[b], from, v_plane, to, plane, n); break;
                case 3: accumulate_columns<Real, 3>(t[b], from, v_plane, to, plane, n); break;
                default: accumulate_columns<Real, max_columns_fused>(t[b], from, v_plane, to, plane, n); break;
            }
        }
    }
}

template <class Real>
void accumulate_i(const Lanes& lanes, const Real* const* t, const Real* v_j, std::ptrdiff_t v_plane, Real* sums_i,
                  std::ptrdiff_t plane, int columns) {
    accumulate(lanes, t, v_j, lanes.at_j, v_plane, sums_i, lanes.at_i, plane, columns);
}

template <class Real>
void accumulate_j(const Lanes& lanes, const Real* const* t, const Real* v_i, std::ptrdiff_t v_plane, Real* sums_j,
                  std::ptrdiff_t plane, int columns) {
    accumulate(lanes, t, v_i, lanes.at_i, v_plane, sums_j, lanes.at_j, plane, columns);
}

#define NTKFAST_BY_FLOW(kernel, rows)                                         \
    {kernel<Real, rows, Flow::covariance>, kernel<Real, rows, Flow::tangent>, \
     kernel<Real, rows, Flow::first_covariance>, kernel<Real, rows, Flow::first_tangent>}
#define NTKFAST_BY_ROWS(kernel) \
    {NTKFAST_BY_FLOW(kernel, 1), NTKFAST_BY_FLOW(kernel, 2), NTKFAST_BY_FLOW(kernel, 3), NTKFAST_BY_FLOW(kernel, 5)}

template <class Real>
constexpr RowKernels<Real> table = {
    input<Real>,
    box_row<Real>,
    add<Real>,
    {NTKFAST_BY_ROWS(rectifier), NTKFAST_BY_ROWS(erf), NTKFAST_BY_ROWS(gelu), NTKFAST_BY_ROWS(sine),
     NTKFAST_BY_ROWS(cosine)},
    NTKFAST_BY_ROWS(linear),
    NTKFAST_BY_ROWS(output),
    input_exact<Real>,
    {{rectifier_exact<Real, false>, rectifier_exact<Real, true>},
     {smooth_exact<ErfActivation, Real, false>, smooth_exact<ErfActivation, Real, true>},
     {smooth_exact<GeluActivation, Real, false>, smooth_exact<GeluActivation, Real, true>},
     {smooth_exact<SinActivation, Real, false>, smooth_exact<SinActivation, Real, true>},
     {smooth_exact<CosActivation, Real, false>, smooth_exact<CosActivation, Real, true>}},
    combine<Real>,
    weighted<Real>,
    finish<Real>,
    pool<Real>,
    upsample<Real>,
    accumulate_i<Real>,
    accumulate_j<Real>,
};

}  // namespace
}  // namespace ntkfast
