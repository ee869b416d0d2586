// These are the bodies of the row kernels.  One translation unit per instruction set includes them, each with flags of
// its own; all is in an unnamed namespace and nothing from the standard library is instantiated here, so that no symbol
// of one level can be linked into another.
#pragma once

#include "cpu/rows/row_kernels.h"
#include "math/loops.h"

namespace ntkfast {
namespace {

// The length is taken in whole steps, in a form from which the compiler sees that no remainder loop is needed: a step
// is one AVX2 register, with AVX-512 a half.  Whole chunks would waste more of a short row.
constexpr int vector_step = chunk / 2;
NTKFAST_HD std::ptrdiff_t whole(std::ptrdiff_t length) {
    return (length + vector_step - 1) & -std::ptrdiff_t(vector_step);
}

template <class Real>
NTKFAST_HD void outside_pairs(Real* __restrict e, Real* __restrict t, const Real* i, const Real* j,
                              std::ptrdiff_t begin, std::ptrdiff_t end) {
    NTKFAST_VECTOR_LOOP
    for (std::ptrdiff_t l = begin; l < end; ++l) e[l] = i[l] + j[l];
    if (t == nullptr) return;
    NTKFAST_VECTOR_LOOP
    for (std::ptrdiff_t l = begin; l < end; ++l) t[l] = 0;
}

// Whole vectors are filled on either side, not the `halo` columns one by one.
template <class Real>
void outside(const Lanes& lanes, Real* e, Real* t, const Real* h_i, const Real* h_j, std::ptrdiff_t halo) {
    const std::ptrdiff_t covered = whole(halo);
    for (int b = 0; b < lanes.count; ++b, e += lanes.stride, t = t ? t + lanes.stride : t) {
        const Real *i = h_i + lanes.at_i[b], *j = h_j + lanes.at_j[b];
        const std::ptrdiff_t length = lanes.length[b];
        if (covered == vector_step) {
            outside_pairs(e, t, i, j, -vector_step, 0);
            outside_pairs(e + length, t ? t + length : t, i + length, j + length, 0, vector_step);
        } else {
            outside_pairs(e, t, i, j, -covered, 0);
            outside_pairs(e, t, i, j, length, length + covered);
        }
    }
}

template <class Real>
void outside_row(const Lanes& lanes, Real* e, Real* t, const Real* sum_i, const Real* sum_j) {
    for (int b = 0; b < lanes.count; ++b, e += lanes.stride, t = t ? t + lanes.stride : t)
        outside_pairs(e, t, sum_i + lanes.at_i[b], sum_j + lanes.at_j[b], 0, whole(lanes.length[b]));
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
           Real gain) {
    for (int b = 0; b < lanes.count; ++b, e += lanes.stride) {
        const std::ptrdiff_t n = whole(lanes.length[b]);
        const Real *from_i = x_i + lanes.at_i[b], *from_j = x_j + lanes.at_j[b];
        if (channels == 3)
            input_channels<Real, 3>(e, from_i, from_j, plane, gain, n);
        else if (channels == 1)
            input_channels<Real, 1>(e, from_i, from_j, plane, gain, n);
        else
            input_any(e, from_i, from_j, plane, channels, gain, n);
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

// This takes k loads and k - 1 additions; for small k nothing is cheaper.
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

// This sums over 3 neighbours first, then over groups of them: 3 + 5 loads instead of 11 at k = 11.
template <class Real, int K>
void box_by_threes(Real* __restrict out, const Real* __restrict in, std::ptrdiff_t shift, Real* __restrict scratch,
                   std::ptrdiff_t n) {
    const Real* first = in - (K / 2) * shift;
    constexpr int groups = K / 3;
    const std::ptrdiff_t covered = whole(n + 3 * (groups - 1) * shift);
    NTKFAST_VECTOR_LOOP
    for (std::ptrdiff_t l = 0; l < covered; ++l) scratch[l] = first[l] + first[l + shift] + first[l + 2 * shift];
    NTKFAST_VECTOR_LOOP
    for (std::ptrdiff_t l = 0; l < n; ++l) {
        Real sum = scratch[l];
        for (int g = 1; g < groups; ++g) sum += scratch[l + 3 * g * shift];
        for (int m = 3 * groups; m < K; ++m) sum += first[l + m * shift];
        out[l] = sum;
    }
}

// This serves any k: out gathers the windows of 1, 2, 4, ... neighbours that the binary digits of k ask for, while
// scratch doubles.
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
        // This works in place: position l reads l and l + window*shift, which lies ahead and is not yet doubled.
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

// These are the operands of one lane, copied so that the loops see constants.
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

// These are the bits of a number, its sign on top.  Or-ing them finds a negative one in one operation an element, where
// a comparison and a mask take two.
template <class Real> struct Bits;
template <> struct Bits<float> {
    using Int = std::int32_t;
};
template <> struct Bits<double> {
    using Int = std::int64_t;
};
template <class Real> NTKFAST_HD typename Bits<Real>::Int bits_of(Real value) {
    typename Bits<Real>::Int bits;
    __builtin_memcpy(&bits, &value, sizeof(bits));
    return bits;
}

template <class Real> NTKFAST_HD Root<Real> root_at(const Root<const Real*>& rows, std::ptrdiff_t l) {
    return {rows.p[l], rows.inverse[l], rows.rest[l]};
}

// The last convolution gives T at one pair, or S without a tangent.
template <class Real> NTKFAST_HD Real last_conv(const Pair<Real>& in, Real p_i, Real p_j, Real trained) {
    return trained * covariance(in.e, p_i, p_j) + in.t;
}

// Writes zeros for one chunk before the lane, and from its end on to one chunk behind the whole chunks, which may begin
// a chunk later.
template <class Real> void clear_slack(Real* t, std::ptrdiff_t length) {
    for (std::ptrdiff_t l = -chunk; l < 0; ++l) t[l] = 0;
    for (std::ptrdiff_t l = 0; l < chunk; ++l) t[length + l] = 0;
    for (std::ptrdiff_t l = 0; l < chunk; ++l) t[length + chunk + l] = 0;
}

// `last` says that the last convolution is done as well.
template <class Real, int Rows, Flow flow, bool last>
std::uint32_t rectify(const Lanes& lanes, const MapArgs<Real>& args) {
    const ActivationConstants<Real> k = args.constants;
    const Real trained = args.last_trained;
    std::uint32_t doubts = 0;
    for (int b = 0; b < lanes.count; ++b) {
        const LaneOperands<Real, Rows> a(lanes, args, b);
        const Real *last_i = last ? args.last_i + lanes.at_i[b] : nullptr,
                   *last_j = last ? args.last_j + lanes.at_j[b] : nullptr;
        typename Bits<Real>::Int doubt = 0;  // negative: there is one
        NTKFAST_VECTOR_LOOP
        for (std::ptrdiff_t l = 0; l < a.n; ++l) {
            const Real e = sum_rows<Rows>(a.e, l);
            const Real t = flow == Flow::tangent ? sum_rows<Rows>(a.t, l) : Real(0);
            const Root<Real> i = root_at<Real>(a.i, l), j = root_at<Real>(a.j, l);
            const Pair<Real> out = activate<has_tangent(flow)>(e, t, i, j, k);
            if (last) {
                a.t_out[l] = last_conv(out, last_i[l], last_j[l], trained);
            } else {
                a.e_out[l] = out.e;
                if (has_tangent(flow)) a.t_out[l] = out.t;
            }
            if (sizeof(Real) == 4) doubt |= bits_of(certainty(e, i, j, k));
        }
        if (last) clear_slack(a.t_out, lanes.length[b]);
        doubts |= std::uint32_t(doubt < 0) << b;
    }
    return doubts;
}

template <class Real, int Rows, Flow flow> std::uint32_t rectifier(const Lanes& lanes, const MapArgs<Real>& args) {
    return rectify<Real, Rows, flow, false>(lanes, args);
}
template <class Real, int Rows, Flow flow>
std::uint32_t rectifier_output(const Lanes& lanes, const MapArgs<Real>& args) {
    return rectify<Real, Rows, flow, true>(lanes, args);
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
template <class Real, bool with_tangent, bool last>
void rectifier_exact(const Lanes& lanes, int lane, const MapArgs<Real>& args, int rows, bool entering,
                     const double* columns, int kernel_size, std::ptrdiff_t shift, double scale) {
    const ActivationConstants<Real> k = args.constants;
    const LaneOperands<Real, 1> a(lanes, args, lane);
    const Real *last_i = last ? args.last_i + lanes.at_i[lane] : nullptr,
               *last_j = last ? args.last_j + lanes.at_j[lane] : nullptr;
    const Real *from[max_direct_rows], *from_t[max_direct_rows];
    for (int m = 0; m < rows; ++m) from[m] = args.e[m] + lane * lanes.stride;
    const int rows_t = entering ? rows : 0;
    for (int m = 0; m < rows_t; ++m) from_t[m] = args.t[m] + lane * lanes.stride;
    const double* first = columns - (kernel_size / 2) * shift;
    for (std::ptrdiff_t l = 0; l < a.n; ++l) {
        Real rounded = from[0][l];
        for (int m = 1; m < rows; ++m) rounded += from[m][l];
        Real t_in = 0;
        for (int m = 0; m < rows_t; ++m) t_in += from_t[m][l];
        double e = first[l];
        for (int m = 1; m < kernel_size; ++m) e += first[l + m * shift];
        const Root<Real> i = root_at<Real>(a.i, l), j = root_at<Real>(a.j, l);
        const bool doubt = certainty(rounded, i, j, k) < 0;
        const Pair<Real> out = activate_exact<with_tangent>(scale * e, t_in, i, j, k);
        if (last) {
            const Real t = last_conv(out, last_i[l], last_j[l], args.last_trained);
            a.t_out[l] = doubt ? t : a.t_out[l];
        } else {
            a.e_out[l] = doubt ? out.e : a.e_out[l];
            if (with_tangent) a.t_out[l] = doubt ? out.t : a.t_out[l];
        }
    }
    if (last) clear_slack(a.t_out, lanes.length[lane]);
}

inline void rectifier_distance(double* __restrict out, const double* columns, int kernel_size, std::ptrdiff_t shift,
                               double scale, const double* p_i, const double* p_j, double slope, double gain,
                               std::ptrdiff_t n) {
    const auto k = ActivationConstants<double>::make(slope, gain, 0.0, 1.0, false);
    const double* first = columns - (kernel_size / 2) * shift;
    for (std::ptrdiff_t l = 0; l < n; ++l) {
        double e = first[l];
        for (int m = 1; m < kernel_size; ++m) e += first[l + m * shift];
        const double area = p_i[l] * p_j[l];
        const double inverse = area > 0 ? 1 / area : 0.0;
        out[l] =
            activate<false>(scale * e, 0.0, Root<double>{p_i[l], inverse, 0.0}, Root<double>{p_j[l], 1.0, 0.0}, k).e;
    }
}

// Computes all pairs of one lane, with E and the activation in double.
template <template <class> class Activation, class Real, bool with_tangent>
void smooth_exact(const Lanes& lanes, int lane, const MapArgs<Real>& args, int, bool, const double* columns,
                  int kernel_size, std::ptrdiff_t shift, double scale) {
    const SmoothConstants<double> k{args.smooth.unit, args.smooth.distance, args.smooth.derivative,
                                    args.smooth.covariance};
    const LaneOperands<Real, 1> a(lanes, args, lane);
    const double* first = columns - (kernel_size / 2) * shift;
    const auto widened = [](const Root<Real>& root) {
        return Root<double>{double(root.p) + double(root.rest), double(root.inverse), 0.0};
    };
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
    constexpr int f = supported_factor;
    static_assert(f == 2, "`both` are all pixels of a cell");
    NTKFAST_VECTOR_LOOP
    for (std::ptrdiff_t a = 0; a < n; ++a) out[a] += weight * (both ? in[f * a] + in[f * a + 1] : in[f * a]);
}

template <class Real> void pool(Real* out, const Real* in, Real weight, bool both, std::ptrdiff_t n, int batch) {
    if (batch == 1)
        return both ? pool_pixels<Real, true>(out, in, weight, n) : pool_pixels<Real, false>(out, in, weight, n);
    for (std::ptrdiff_t a = 0; a < n; ++a, out += batch, in += supported_factor * std::ptrdiff_t(batch)) {
        NTKFAST_VECTOR_LOOP
        for (int m = 0; m < batch; ++m) out[m] += weight * (both ? in[m] + in[batch + m] : in[m]);
    }
}

// The gain comes last: features that are alike cancel in sum - v_i - v_j to the last bit only if all three are rounded
// alike.
template <class Real, int Count, bool spread>
void upsample_pixels(Real* __restrict out, const Real* const* even, const Real* const* odd, const Real* weights,
                     const Real* v_i, const Real* v_j, Real gain, std::ptrdiff_t n, int batch) {
    constexpr int f = supported_factor;
    static_assert(f == 2, "the even and the odd are all phases of a cell");
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
            out[f * a] = at(rows_even, a, f * a);
            out[f * a + 1] = at(rows_odd, a, f * a + 1);
        }
        return;
    }
    for (std::ptrdiff_t a = 0; a < n; ++a) {
        const std::ptrdiff_t first = f * a * batch;
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
    const Real scale = args.scale, trained = args.constants.trained;
    for (int b = 0; b < lanes.count; ++b) {
        const LaneOperands<Real, Rows> a(lanes, args, b);
        NTKFAST_VECTOR_LOOP
        for (std::ptrdiff_t l = 0; l < a.n; ++l) {
            const Real e = sum_rows<Rows>(a.e, l);
            const Real t = flow == Flow::tangent ? sum_rows<Rows>(a.t, l) : Real(0);
            a.e_out[l] = scale * e;
            if (has_tangent(flow)) a.t_out[l] = scale * (trained * covariance(e, a.i.p[l], a.j.p[l]) + t);
        }
    }
    return 0;
}

template <class Real, int Rows, Flow flow> std::uint32_t output(const Lanes& lanes, const MapArgs<Real>& args) {
    const Real trained = has_tangent(flow) ? args.constants.trained : Real(1);
    for (int b = 0; b < lanes.count; ++b) {
        const LaneOperands<Real, Rows> a(lanes, args, b);
        NTKFAST_VECTOR_LOOP
        for (std::ptrdiff_t l = 0; l < a.n; ++l) {
            const Real e = sum_rows<Rows>(a.e, l);
            const Real t = flow == Flow::tangent ? sum_rows<Rows>(a.t, l) : Real(0);
            a.t_out[l] = last_conv(Pair<Real>{e, t}, a.i.p[l], a.j.p[l], trained);
        }
        clear_slack(a.t_out, lanes.length[b]);
    }
    return 0;
}

// Adds sums_c[l] += sum_g t_g[l] v_g,c[l].
template <class Real, int Group, int Columns>
void accumulate_columns(const Real* const* t_of, const Real* const* v_of, std::ptrdiff_t v_plane, Real* __restrict sums,
                        std::ptrdiff_t plane, std::ptrdiff_t n) {
    const Real *t[Group], *v[Group];
    for (int g = 0; g < Group; ++g) t[g] = t_of[g], v[g] = v_of[g];
    NTKFAST_VECTOR_LOOP
    for (std::ptrdiff_t l = 0; l < n; ++l)
        for (int c = 0; c < Columns; ++c) {
            Real sum = sums[c * plane + l];
            for (int g = 0; g < Group; ++g) sum += t[g][l] * v[g][c * v_plane + l];
            sums[c * plane + l] = sum;
        }
}

template <class Real, int Group>
void accumulate_group(const Real* const* t, const Real* const* v, std::ptrdiff_t v_plane, Real* sums,
                      std::ptrdiff_t plane, std::ptrdiff_t n, int columns) {
    switch (columns) {
        case 1: return accumulate_columns<Real, Group, 1>(t, v, v_plane, sums, plane, n);
        case 2: return accumulate_columns<Real, Group, 2>(t, v, v_plane, sums, plane, n);
        case 3: return accumulate_columns<Real, Group, 3>(t, v, v_plane, sums, plane, n);
        default: return accumulate_columns<Real, Group, max_columns_fused>(t, v, v_plane, sums, plane, n);
    }
}

// Neighbouring lanes are added to the sums together, which are then read and written once for lanes_fused of them:
// their rows begin and end within a few pixels of each other, and T is zero there.
template <class Real>
void accumulate(const Lanes& lanes, const Real* const* t, bool slack, const Real* v, const std::ptrdiff_t* at_v,
                std::ptrdiff_t v_plane, Real* sums, const std::ptrdiff_t* at_sums, std::ptrdiff_t plane, int columns) {
    for (int c = 0; c < columns; c += max_columns_fused) {
        const int fused = columns - c < max_columns_fused ? columns - c : max_columns_fused;
        for (int b = 0; b < lanes.count;) {
            std::ptrdiff_t start = at_sums[b], last = start, end = start + lanes.length[b], first_end = end;
            int group = 1;
            for (; group < lanes_fused && b + group < lanes.count; ++group) {
                const std::ptrdiff_t at = at_sums[b + group];
                start = at < start ? at : start;
                last = at > last ? at : last;
                const std::ptrdiff_t end_of_lane = at + lanes.length[b + group];
                end = end_of_lane > end ? end_of_lane : end;
                first_end = end_of_lane < first_end ? end_of_lane : first_end;
            }
            // Each lane is read from `start`, at most a chunk before its own beginning, to less than two chunks
            // behind its end.
            const bool together = slack && group == lanes_fused && last - start <= chunk && end - first_end <= chunk;
            if (!together) group = 1, start = at_sums[b], end = start + lanes.length[b];
            const Real *rows[lanes_fused], *from[lanes_fused];
            for (int g = 0; g < group; ++g) {
                const std::ptrdiff_t shift = start - at_sums[b + g];
                rows[g] = t[b + g] + shift;
                from[g] = v + at_v[b + g] + shift + c * v_plane;
            }
            const auto add_up = together ? accumulate_group<Real, lanes_fused> : accumulate_group<Real, 1>;
            add_up(rows, from, v_plane, sums + start + c * plane, plane, whole(end - start), fused);
            b += group;
        }
    }
}

template <class Real>
void accumulate_i(const Lanes& lanes, const Real* const* t, bool slack, const Real* v_j, std::ptrdiff_t v_plane,
                  Real* sums_i, std::ptrdiff_t plane, int columns) {
    accumulate(lanes, t, slack, v_j, lanes.at_j, v_plane, sums_i, lanes.at_i, plane, columns);
}

template <class Real>
void accumulate_j(const Lanes& lanes, const Real* const* t, bool slack, const Real* v_i, std::ptrdiff_t v_plane,
                  Real* sums_j, std::ptrdiff_t plane, int columns) {
    accumulate(lanes, t, slack, v_i, lanes.at_i, v_plane, sums_j, lanes.at_j, plane, columns);
}

// `kernel` is a function template whose first parameters are given, and whose last two are the rows and the flow.
#define NTKFAST_BY_FLOW(rows, kernel, ...)                                                  \
    {kernel<__VA_ARGS__, rows, Flow::covariance>, kernel<__VA_ARGS__, rows, Flow::tangent>, \
     kernel<__VA_ARGS__, rows, Flow::first_covariance>, kernel<__VA_ARGS__, rows, Flow::first_tangent>}
#define NTKFAST_BY_ROWS(...)                                                                            \
    {NTKFAST_BY_FLOW(1, __VA_ARGS__), NTKFAST_BY_FLOW(2, __VA_ARGS__), NTKFAST_BY_FLOW(3, __VA_ARGS__), \
     NTKFAST_BY_FLOW(5, __VA_ARGS__)}

#define NTKFAST_RECTIFIER(name, Activation) NTKFAST_BY_ROWS(rectifier, Real),
#define NTKFAST_SMOOTH(name, Activation) NTKFAST_BY_ROWS(smooth, Activation, Real),
#define NTKFAST_RECTIFIER_EXACT(name, Activation) \
    {rectifier_exact<Real, false, false>, rectifier_exact<Real, true, false>},
#define NTKFAST_SMOOTH_EXACT(name, Activation) \
    {smooth_exact<Activation, Real, false>, smooth_exact<Activation, Real, true>},

template <class Real>
constexpr RowKernels<Real> table = {
    input<Real>,
    box_row<Real>,
    outside<Real>,
    outside_row<Real>,
    add<Real>,
    {NTKFAST_ACTIVATIONS(NTKFAST_RECTIFIER, NTKFAST_SMOOTH)},
    NTKFAST_BY_ROWS(linear, Real),
    NTKFAST_BY_ROWS(output, Real),
    NTKFAST_BY_ROWS(rectifier_output, Real),
    input_exact<Real>,
    {NTKFAST_ACTIVATIONS(NTKFAST_RECTIFIER_EXACT, NTKFAST_SMOOTH_EXACT)},
    rectifier_distance,
    {rectifier_exact<Real, false, true>, rectifier_exact<Real, true, true>},
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
