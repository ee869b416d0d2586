// These are the pointwise maps of the sweep: they run on four pairs, and once more with E in double on those that are
// in doubt.
#pragma once

#include "cuda/sweep_block.h"

namespace ntkfast::cuda {

template <class Real, Scope scope> struct SweepMaps : SweepBlock<Real, scope> {
    using Base = SweepBlock<Real, scope>;
    using Base::dx_of;
    using Base::lane_of;
    using Base::R;
    using Base::result_row;
    using Base::row_at;
    using Base::stride;
    using Base::V;
    using Base::with_smooth;
    using Base::x_of;
    using typename Base::A;
    using typename Base::F;
    using typename Base::Item;
    using typename Base::Lane;
    using typename Base::S;

    // Roots are those along the row of i and along that of j, for four columns.
    struct Roots {
        Root<Real> i[V], j[V];
    };
    static NTKFAST_DEVICE Roots roots_at(const A& a, const F& f, const Map<Real>& map, int y, const Item& it) {
        const int y_i = y + f.row0, pitch = a.geometry.pitch;
        const Real* i = Geometry::at(a.geometry, map.roots, 3, y_i) + it.x;
        const Real* j = Geometry::at(a.geometry, map.roots, 3, y_i + f.dy) + it.x + it.dx;
        Real p[V], inverse[V], rest[V];
        fetch_four(i, p);
        fetch_four(i + pitch, inverse);
        fetch_four(i + 2 * pitch, rest);
        const Real *p_j = j, *inverse_j = j + pitch, *rest_j = inverse_j + pitch;
        Roots out;
        NTKFAST_UNROLL
        for (int m = 0; m < V; ++m) {
            out.i[m] = {p[m], inverse[m], rest[m]};
            out.j[m] = {fetch(p_j + m), fetch(inverse_j + m), fetch(rest_j + m)};
        }
        return out;
    }

    // Applies one map to four pairs.  Returns a bit for each that is to be computed again, with E in double.
    static NTKFAST_DEVICE int apply(const A& a, const F& f, const Map<Real>& map, int y, const Item& it, Real (&e)[V],
                                    Real (&t)[V]) {
        if (map.kind == MapKind::sums) return 0;
        const Roots roots = roots_at(a, f, map, y, it);
        if (map.kind == MapKind::linear || map.kind == MapKind::output) {
            NTKFAST_UNROLL
            for (int m = 0; m < V; ++m) {
                const Pair<Real> out = pass(map, e[m], t[m], roots.i[m], roots.j[m]);
                e[m] = out.e, t[m] = out.t;
            }
            return 0;
        }
        if constexpr (with_smooth) {
            if (map.kind != MapKind::rectifier) {
                NTKFAST_UNROLL
                for (int m = 0; m < V; ++m) {
                    const Pair<Real> out = smooth<Real>(map.kind, e[m], t[m], roots.i[m], roots.j[m], map.smooth);
                    e[m] = out.e, t[m] = map.tangent ? out.t : Real(0);
                }
                return map.always_redone ? (1 << V) - 1 : 0;
            }
        }
        return map.redone ? rectify<true>(map, roots, e, t) : rectify<false>(map, roots, e, t);
    }

    template <bool redone>
    static NTKFAST_DEVICE int rectify(const Map<Real>& map, const Roots& roots, Real (&e)[V], Real (&t)[V]) {
        // This is a copy: read one by one where they are needed, the constants would stand in branches.
        const ActivationConstants<Real> k = map.constants;
        const bool tangent = map.tangent;
        int doubtful = 0;
        NTKFAST_UNROLL
        for (int m = 0; m < V; ++m) {
            if (redone && certainty(e[m], roots.i[m], roots.j[m], k) < 0) doubtful |= 1 << m;
            const Pair<Real> out = activate<true>(e[m], t[m], roots.i[m], roots.j[m], k);
            e[m] = out.e;
            t[m] = tangent ? out.t : Real(0);
        }
        return doubtful;
    }

    // Applies a convolution whose output no activation follows: E' = scale E, T' = scale T; the last one gives T, or S
    // without a tangent.
    static NTKFAST_DEVICE Pair<Real> pass(const Map<Real>& map, Real e, Real t, const Root<Real>& i,
                                          const Root<Real>& j) {
        const bool output = map.kind == MapKind::output;
        const Real trained = output && !map.tangent ? Real(1) : map.constants.trained;
        const Real sum = trained * covariance(e, i.p, j.p) + t;
        return {map.scale * e, output ? sum : map.tangent ? map.scale * sum : Real(0)};
    }

    // Does what Pipeline::redo does, for the pairs whose bits are set.
    static NTKFAST_APART void redo(const A& a, F f, const S* s, int y, int c, int b, int bits) {
        for (int n = 0; n < R * V; ++n) {
            if ((bits >> n & 1) == 0) continue;
            const int r = n / V, x = x_of(a, f, c) + n % V, dx = dx_of(a, f, b);
            const Lane lane = lane_of(a, dx);
            if (x < lane.begin || x >= lane.end) continue;
            Pair<Real> out{};
            for (int m = 0; m < s->maps; ++m) {
                const Map<Real>& map = s->map[m];
                const int pitch = a.geometry.pitch;
                const Real* at_i = Geometry::at(a.geometry, map.roots, 3, y + r + f.row0) + x;
                const Real* at_j = Geometry::at(a.geometry, map.roots, 3, y + r + f.row0 + f.dy) + x + dx;
                const Root<Real> i{at_i[0], at_i[pitch], at_i[2 * pitch]}, j{at_j[0], at_j[pitch], at_j[2 * pitch]};
                if (m == 0)
                    out = exact(map, map.box_scale * exact_box(a, f, s, y + r, x, dx), i, j);
                else
                    out = again(map, out, i, j);
            }
            if (s->last) {
                if (b < f.task.first_lane || b >= f.task.end_lane || x < 0 || x >= a.geometry.width) continue;
                result_row(a, f, y + r)[b * a.out_pitch + (x - f.task.x)] = out.t;
            } else {
                const int at = (c + n % V) * stride(a) + b;
                row_at(a, f, s->out, y + r, 0)[at] = out.e;
                if (s->tangent) row_at(a, f, s->out, y + r, 1)[at] = out.t;
            }
        }
    }

    static NTKFAST_DEVICE Pair<Real> exact(const Map<Real>& map, double e, const Root<Real>& i, const Root<Real>& j) {
        if constexpr (with_smooth) {
            if (map.kind != MapKind::rectifier) {
                // This does what smooth_exact() of the CPU's row kernels does.
                const Root<double> wide_i{double(i.p) + double(i.rest), double(i.inverse), 0.0};
                const Root<double> wide_j{double(j.p) + double(j.rest), double(j.inverse), 0.0};
                const SmoothConstants<double> k{double(map.smooth.unit), double(map.smooth.distance),
                                                double(map.smooth.derivative), double(map.smooth.covariance)};
                const Pair<double> out = smooth<double>(map.kind, e, 0.0, wide_i, wide_j, k);
                return {Real(out.e), map.tangent ? Real(out.t) : Real(0)};
            }
        }
        return map.tangent ? activate_exact<true>(e, Real(0), i, j, map.constants)
                           : activate_exact<false>(e, Real(0), i, j, map.constants);
    }

    // Applies a second map to one pair.
    static NTKFAST_DEVICE Pair<Real> again(const Map<Real>& map, const Pair<Real>& in, const Root<Real>& i,
                                           const Root<Real>& j) {
        if (map.kind == MapKind::sums) return in;
        if (map.kind == MapKind::linear || map.kind == MapKind::output) return pass(map, in.e, in.t, i, j);
        if constexpr (with_smooth) {
            if (map.kind != MapKind::rectifier) {
                const Pair<Real> out = smooth<Real>(map.kind, in.e, in.t, i, j, map.smooth);
                return {out.e, map.tangent ? out.t : Real(0)};
            }
        }
        return map.tangent ? activate<true>(in.e, in.t, i, j, map.constants)
                           : activate<false>(in.e, in.t, i, j, map.constants);
    }

    template <class Number>
    static NTKFAST_APART Pair<Number> smooth(MapKind kind, Number e, Number t, Root<Number> i, Root<Number> j,
                                             const SmoothConstants<Number>& k) {
        switch (kind) {
            default:  // only smooth activations come here
#define NTKFAST_CASE(name, Activation) \
    case MapKind::name: return Activation<Number>::template apply<true>(e, t, i, j, k);
                NTKFAST_ACTIVATIONS(NTKFAST_NO_ROW, NTKFAST_CASE)
#undef NTKFAST_CASE
        }
    }

    // Computes the box sum of sum_c (x_c(i) - x_c(j))^2 in double.
    static NTKFAST_DEVICE double exact_box(const A& a, const F& f, const S* s, int y, int x, int dx) {
        const int radius = s->kernel_size / 2;
        double sum = 0;
        for (int m = -radius; m <= radius; ++m) {
            const Real* i = Geometry::at(a.geometry, s->image, s->channels, y + m + f.row0) + x;
            const Real* j = Geometry::at(a.geometry, s->image, s->channels, y + m + f.row0 + f.dy) + x + dx;
            for (int c = 0; c < s->channels; ++c, i += a.geometry.pitch, j += a.geometry.pitch)
                for (int n = -radius; n <= radius; ++n) {
                    const double diff = double(i[n]) - double(j[n]);
                    sum += diff * diff;
                }
        }
        return sum;
    }
};

}  // namespace ntkfast::cuda
