// The sweep on a block of threads: for each dy of its task, row by row through the stages of a segment.
//
// An item of a stage is one displacement x 4 adjacent columns x 2 rows.  Rows lie column by column with the displacements of a
// column side by side, so that the threads of a warp, which take neighbouring displacements, read and write neighbouring words,
// whatever the column.  pixel j = i + D of neighbouring displacements are neighbours too.
#pragma once

#include "cuda/sweep.h"

namespace ntkfast::cuda {

template <class Real> struct alignas(16) Four {
    Real v[columns_per_item];
};

// What a block is at: uniform over its threads.
template <class Real> struct Frame {
    Real* memory;
    Task task;
    int dy, row0, rows;
    bool first;  // dy of the task
};

template <class Real, Reach reach> struct SweepKernel {
    using Arguments = Sweep<Real>;
    static constexpr int most_threads = most_sweep_threads(sizeof(Real));
    static constexpr int V = columns_per_item, R = rows_per_step;
    static constexpr bool general = reach != Reach::plain, with_smooth = reach == Reach::all;
    // Where a layout must have as many lanes, its strides are constants of the code.
    static constexpr int fixed_lane_bits = reach == Reach::all ? 0 : usual_lane_bits;

    static NTKFAST_DEVICE void run(Team& team, int block, double* shared, const Sweep<Real>& a) {
        Frame<Real> f;
        // The other kernels know that it is shared memory, which makes for shorter addresses.
        f.memory = reinterpret_cast<Real*>(shared);
        if constexpr (reach == Reach::all)
            if (a.scratch != nullptr) f.memory = a.scratch + block * a.words;
        f.task = a.tasks[block];
        for (int m = 0; m < f.task.dy_count; ++m) {
            f.first = m == 0;
            f.dy = f.task.dy + m * f.task.dy_step;
            f.row0 = a.geometry.circular ? 0 : larger(0, -f.dy);
            f.rows = a.geometry.circular ? a.geometry.height : a.geometry.height - (f.dy < 0 ? -f.dy : f.dy);
            for (int step = a.begin; step < f.rows + a.beyond; step += R) {
                for (int s = 0; s < a.stage_count; ++s) {
                    stage(team, a, f, a.stages + s, step - a.stages[s].lag);
                    team.barrier();
                }
                // The first stage of the next step may run beside it: it writes other rows, unless it is the last one too.
                deliver(team, a, f, step - a.end_lag, block);
                if (a.stage_count == 1) team.barrier();
            }
        }
    }

private:
    using S = Stage<Real>;
    using A = Sweep<Real>;
    using F = Frame<Real>;

    static NTKFAST_DEVICE int lane_bits(const A& a) { return fixed_lane_bits > 0 ? fixed_lane_bits : a.lane_bits; }
    static NTKFAST_DEVICE int stride(const A& a) { return fixed_lane_bits > 0 ? 1 << fixed_lane_bits : a.stride; }
    static NTKFAST_DEVICE int row_words(const A& a) { return a.positions * stride(a); }
    // Position 0, lane 0.
    static NTKFAST_DEVICE Real* row_at(const A& a, const F& f, const Rows& rows, int y, int field) {
        // Without merges no row waits, and a slot is a bit.
        const int slot = !general || rows.slots == R ? y & (R - 1) : modulo(y, rows.slots);
        return f.memory + (rows.first + slot * rows.fields + field) * row_words(a);
    }
    static NTKFAST_DEVICE int dx_of(const A& a, const F& f, int b) { return f.task.dx + (general ? a.dx_step * b : b); }
    static NTKFAST_DEVICE int x_of(const A& a, const F& f, int c) { return f.task.x + c - guard - a.halo; }
    static NTKFAST_DEVICE bool row_inside(const A& a, const F& f, int y) {
        return a.geometry.circular || (y >= 0 && y < f.rows);
    }
    // Columns of the pixels i for which i + D is in the image; on the torus all.
    struct Lane {
        int begin, end;
    };
    static NTKFAST_DEVICE Lane lane_of(const A& a, int dx) {
        if (a.geometry.circular) return {-0x40000000, 0x40000000};
        return {larger(0, -dx), a.geometry.width - larger(0, dx)};
    }

    // Items of 4 columns that a value needs, in all lanes.
    struct Items {
        int first, count;  // position of the first; groups times lanes
    };
    static NTKFAST_DEVICE Items items(const A& a, const F& f, int halo) {
        const int first = (guard + a.halo - halo) & ~3, end = guard + a.halo + f.task.columns + halo;
        return {first, ((end - first + 3) / 4) << lane_bits(a)};
    }
    struct Item {
        int c, b, x, dx;
    };
    static NTKFAST_DEVICE Item item(const A& a, const F& f, int first, int n) {
        Item it;
        it.b = n & ((1 << lane_bits(a)) - 1);
        it.c = first + 4 * (n >> lane_bits(a));
        it.x = x_of(a, f, it.c);
        it.dx = dx_of(a, f, it.b);
        return it;
    }

    // --- Stages -----------------------------------------------------------------------------------------------------

    static NTKFAST_DEVICE void stage(Team& team, const A& a, const F& f, const S* s, int y) {
        switch (s->kind) {
            case StageKind::map:
                switch (s->kernel_size) {
                    case 1: return map_stage<1>(team, a, f, s, y);
                    case 3: return map_stage<3>(team, a, f, s, y);
                    case 5: return map_stage<5>(team, a, f, s, y);
                    default: return map_stage<0>(team, a, f, s, y);
                }
            case StageKind::image: return image_stage(team, a, f, s, y);
            default:
                if constexpr (general) other_stage(team, a, f, s, y);
        }
    }

    // E = gain sum_c (x_c(i) - x_c(j))^2.  Outside the image the pixels are 0, which makes E what it is to be there.
    static NTKFAST_DEVICE void image_stage(Team& team, const A& a, const F& f, const S* s, int y) {
        switch (s->channels) {
            case 1: return image_channels<1>(team, a, f, s, y);
            case 3: return image_channels<3>(team, a, f, s, y);
            default: return image_channels<0>(team, a, f, s, y);
        }
    }
    // C: channels, or 0 for any number
    template <int C> static NTKFAST_DEVICE void image_channels(Team& team, const A& a, const F& f, const S* s, int y) {
        const Items all = items(a, f, s->halo);
        team.for_each(all.count, [=, &a](int n) {
            const Item it = item(a, f, all.first, n);
            NTKFAST_UNROLL
            for (int r = 0; r < R; ++r) {
                const Real* i = Geometry::at(a.geometry, s->image, s->channels, y + r + f.row0) + it.x;
                const Real* j = Geometry::at(a.geometry, s->image, s->channels, y + r + f.row0 + f.dy) + it.x + it.dx;
                Real e[V] = {0, 0, 0, 0};
                const int channels = C > 0 ? C : s->channels;
                NTKFAST_UNROLL
                for (int c = 0; c < channels; ++c, i += a.geometry.pitch, j += a.geometry.pitch) {
                    Real x_i[V];
                    fetch_four(i, x_i);
                    NTKFAST_UNROLL
                    for (int m = 0; m < V; ++m) {
                        const Real diff = x_i[m] - fetch(j + m);
                        e[m] += diff * diff;
                    }
                }
                Real t[V] = {0, 0, 0, 0};
                NTKFAST_UNROLL
                for (int m = 0; m < V; ++m) e[m] *= s->gain;
                keep(a, f, s, y + r, it, e, t);
            }
        });
    }

    // Window sums of the value before, and one or two pointwise maps.
    template <int K> static NTKFAST_DEVICE void map_stage(Team& team, const A& a, const F& f, const S* s, int y) {
        const Items all = items(a, f, s->halo);
        // Of the newest row in the ring of a large kernel.
        const int slot = K > 0 ? 0 : modulo(y + s->kernel_size / 2, s->kernel_size);
        team.for_each(all.count, [=, &a](int n) {
            const Item it = item(a, f, all.first, n);
            Real e[R][V], t[R][V];
            window<K>(a, f, s, y, slot, it, 0, e);
            if (s->tangent_in) {
                window<K>(a, f, s, y, slot, it, 1, t);
            } else {
                NTKFAST_UNROLL
                for (int r = 0; r < R; ++r) {
                    NTKFAST_UNROLL
                    for (int m = 0; m < V; ++m) t[r][m] = 0;
                }
            }
            int doubtful = 0;  // a bit for each pair
            NTKFAST_UNROLL
            for (int r = 0; r < R; ++r) {
                if (row_inside(a, f, y + r)) {
                    doubtful |= apply(a, f, s->map[0], y + r, it, e[r], t[r]) << (V * r);
                    if (s->maps > 1) apply(a, f, s->map[1], y + r, it, e[r], t[r]);
                }
                finish(a, f, s, y + r, it, e[r], t[r]);
            }
            // Behind everything else, so that no register is kept for it.
            if (doubtful != 0) redo(a, f, s, y, it.c, it.b, doubtful);
        });
    }

    // --- Window sums ------------------------------------------------------------------------------------------------

    // Sums of k adjacent columns around each of four; `row` points at the first of the four in its lane.  Small kernels add from
    // left to right, the same for every column; large ones add what all four have in common once.
    template <int K> static NTKFAST_DEVICE void along_row(const Real* row, int stride, int k, Real (&out)[V]) {
        if constexpr (K == 1) {
            NTKFAST_UNROLL
            for (int m = 0; m < V; ++m) out[m] = row[m * stride];
        } else if constexpr (K > 1) {
            Real w[V + K - 1];
            NTKFAST_UNROLL
            for (int m = 0; m < V + K - 1; ++m) w[m] = row[(m - K / 2) * stride];
            NTKFAST_UNROLL
            for (int m = 0; m < V; ++m) {
                Real sum = w[m];
                NTKFAST_UNROLL
                for (int d = 1; d < K; ++d) sum += w[m + d];
                out[m] = sum;
            }
        } else {
            const Real* first = row - (k / 2) * stride;
            Real common = first[3 * stride];
            for (int m = 4; m < k; ++m) common += first[m * stride];
            const Real l0 = first[0], l1 = first[stride], l2 = first[2 * stride];
            const Real r0 = first[k * stride], r1 = first[(k + 1) * stride], r2 = first[(k + 2) * stride];
            out[0] = common + ((l0 + l1) + l2);
            out[1] = common + ((l1 + l2) + r0);
            out[2] = common + ((l2 + r0) + r1);
            out[3] = common + ((r0 + r1) + r2);
        }
    }

    static NTKFAST_DEVICE void load(const Real* from, int stride, Real (&to)[V]) {
        NTKFAST_UNROLL
        for (int m = 0; m < V; ++m) to[m] = from[m * stride];
    }
    static NTKFAST_DEVICE void store(Real* to, int stride, const Real (&from)[V]) {
        NTKFAST_UNROLL
        for (int m = 0; m < V; ++m) to[m * stride] = from[m];
    }

    // Rows y, y + 1 of the window sums of one field, from the newest rows of the value before.
    template <int K>
    static NTKFAST_DEVICE void window(const A& a, const F& f, const S* s, int y, int slot, const Item& it, int field,
                                      Real (&sums)[R][V]) {
        const int k = K > 0 ? K : s->kernel_size, newest = y + k / 2;
        const int at = it.c * stride(a) + it.b;
        Real rows[R][V];
        NTKFAST_UNROLL
        for (int r = 0; r < R; ++r) {
            const Real* from = row_at(a, f, s->in, newest + r, field) + at;
            along_row<K>(from, stride(a), k, rows[r]);
        }
        if constexpr (K == 1) {
            NTKFAST_UNROLL
            for (int r = 0; r < R; ++r) {
                NTKFAST_UNROLL
                for (int m = 0; m < V; ++m) sums[r][m] = rows[r][m];
            }
        } else if constexpr (K > 1) {
            direct<K>(a, f, s, newest, at, field, rows, sums);
        } else {
            NTKFAST_UNROLL
            for (int r = 0; r < R; ++r)
                two_ended(a, f, s, r == 0 ? slot : slot + r - (slot + r >= k ? k : 0), at, field, rows[r], sums[r]);
        }
    }

    // The ring holds the last k - 1 rows; sums from the oldest row to the newest.
    template <int K>
    static NTKFAST_DEVICE void direct(const A& a, const F& f, const S* s, int newest, int at, int field,
                                      const Real (&rows)[R][V], Real (&sums)[R][V]) {
        static_assert(K > R, "the ring keeps rows of one step only");
        static_assert(((K - 1) & (K - 2)) == 0, "slots are counted by bits");
        Real* ring = f.memory + (s->ring + field * (K - 1)) * row_words(a) + at;
        const auto slot = [&](int row) { return ring + (row & (K - 2)) * row_words(a); };
        NTKFAST_UNROLL
        for (int d = K - 1; d >= 1; --d) {
            Real old[V];
            load(slot(newest - d), stride(a), old);
            NTKFAST_UNROLL
            for (int r = 0; r < R; ++r) {
                // Row newest - d is in the window of row newest + r if it is among its last k.
                if (d + r >= K) continue;
                NTKFAST_UNROLL
                for (int m = 0; m < V; ++m) sums[r][m] = d + r == K - 1 ? old[m] : sums[r][m] + old[m];
            }
        }
        NTKFAST_UNROLL
        for (int r = 0; r < R; ++r) {
            NTKFAST_UNROLL
            for (int n = 0; n <= r; ++n) {
                NTKFAST_UNROLL
                for (int m = 0; m < V; ++m) sums[r][m] += rows[n][m];
            }
            store(slot(newest + r), stride(a), rows[r]);
        }
    }

    // Two-ended sums, as in Pipeline::push: complete blocks of k rows are replaced by their suffix sums, one more row is the prefix.
    static NTKFAST_DEVICE void two_ended(const A& a, const F& f, const S* s, int slot, int at, int field,
                                         const Real (&row)[V], Real (&sums)[V]) {
        const int k = s->kernel_size;
        Real* ring = f.memory + (s->ring + field * (k + 1)) * row_words(a) + at;
        Real* prefix = ring + k * row_words(a);
        store(ring + slot * row_words(a), stride(a), row);
        if (slot == k - 1) {
            Real sum[V];
            load(ring + slot * row_words(a), stride(a), sum);
            for (int n = slot - 1; n >= 0; --n) {
                Real next[V];
                load(ring + n * row_words(a), stride(a), next);
                NTKFAST_UNROLL
                for (int m = 0; m < V; ++m) sum[m] += next[m];
                store(ring + n * row_words(a), stride(a), sum);
            }
            NTKFAST_UNROLL
            for (int m = 0; m < V; ++m) sums[m] = sum[m];
            return;
        }
        Real begun[V];
        load(prefix, stride(a), begun);
        NTKFAST_UNROLL
        for (int m = 0; m < V; ++m) begun[m] = slot == 0 ? row[m] : begun[m] + row[m];
        store(prefix, stride(a), begun);
        load(ring + (slot + 1) * row_words(a), stride(a), sums);
        NTKFAST_UNROLL
        for (int m = 0; m < V; ++m) sums[m] += begun[m];
    }

    // --- Pointwise maps ---------------------------------------------------------------------------------------------

    // Roots along the row of i and along that of j, four columns.
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

    // One map on four pairs.  Returns a bit for each that is to be done again, with E in double.
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
                return map.always_refined ? (1 << V) - 1 : 0;
            }
        }
        return map.refined ? rectify<true>(map, roots, e, t) : rectify<false>(map, roots, e, t);
    }

    template <bool refined>
    static NTKFAST_DEVICE int rectify(const Map<Real>& map, const Roots& roots, Real (&e)[V], Real (&t)[V]) {
        // A copy: read one by one where they are needed, the constants would stand in branches.
        const ActivationConstants<Real> k = map.constants;
        const bool tangent = map.tangent;
        int doubtful = 0;
        NTKFAST_UNROLL
        for (int m = 0; m < V; ++m) {
            if (refined && certainty(e[m], roots.i[m], roots.j[m], k) < 0) doubtful |= 1 << m;
            const Pair<Real> out = activate<true>(e[m], t[m], roots.i[m], roots.j[m], k);
            e[m] = out.e;
            t[m] = tangent ? out.t : Real(0);
        }
        return doubtful;
    }

    // A convolution whose output no activation follows: E' = scale E, T' = scale T; of the last one T, or S without a tangent.
    static NTKFAST_DEVICE Pair<Real> pass(const Map<Real>& map, Real e, Real t, const Root<Real>& i,
                                          const Root<Real>& j) {
        const bool output = map.kind == MapKind::output;
        const Real trainable = output && !map.tangent ? Real(1) : map.constants.trainable;
        const Real sum = trainable * covariance(e, i.p, j.p) + t;
        return {map.scale * e, output ? sum : map.tangent ? map.scale * sum : Real(0)};
    }

    // As Pipeline::refine, for the pairs whose bits are set.
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
                // As smooth_exact() of the CPU's row kernels.
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

    // A second map on one pair.
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
            case MapKind::erf: return ErfActivation<Number>::template apply<true>(e, t, i, j, k);
            case MapKind::gelu: return GeluActivation<Number>::template apply<true>(e, t, i, j, k);
            case MapKind::sin: return SinActivation<Number>::template apply<true>(e, t, i, j, k);
            default: return CosActivation<Number>::template apply<true>(e, t, i, j, k);
        }
    }

    // The box sum of sum_c (x_c(i) - x_c(j))^2 in double.
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

    // --- What becomes of four columns of a row ------------------------------------------------------------------------

    // Row y of the block's results: of each lane the strip's columns.
    static NTKFAST_DEVICE Real* result_row(const A& a, const F& f, int y) {
        return f.memory + a.results + (y & (R - 1)) * (a.out_pitch << lane_bits(a));
    }

    static NTKFAST_DEVICE void keep(const A& a, const F& f, const S* s, int y, const Item& it, const Real (&e)[V],
                                    const Real (&t)[V]) {
        const int at = it.c * stride(a) + it.b;
        store(row_at(a, f, s->out, y, 0) + at, stride(a), e);
        if (s->tangent) store(row_at(a, f, s->out, y, 1) + at, stride(a), t);
    }

    // Where i or j lies outside the image: E = h_i + h_j, T' = 0; of the last stage T = 0.
    static NTKFAST_DEVICE void finish(const A& a, const F& f, const S* s, int y, const Item& it, Real (&e)[V],
                                      Real (&t)[V]) {
        const bool row = row_inside(a, f, y);
        const Lane lane = lane_of(a, it.dx);
        if (s->last) {
            const bool wanted = it.b >= f.task.first_lane && it.b < f.task.end_lane;
            const int begin = larger(lane.begin, 0), end = smaller(lane.end, a.geometry.width);
            Four<Real> out;
            NTKFAST_UNROLL
            for (int m = 0; m < V; ++m)
                out.v[m] = row && wanted && it.x + m >= begin && it.x + m < end ? t[m] : Real(0);
            Real* results = result_row(a, f, y);
            *reinterpret_cast<Four<Real>*>(results + it.b * a.out_pitch + (it.x - f.task.x)) = out;
            return;
        }
        if (s->halves != nullptr && !(row && it.x >= lane.begin && it.x + V <= lane.end)) {
            const Real* h_i = Geometry::at(a.geometry, s->halves, 1, y + f.row0) + it.x;
            const Real* h_j = Geometry::at(a.geometry, s->halves, 1, y + f.row0 + f.dy) + it.x + it.dx;
            NTKFAST_UNROLL
            for (int m = 0; m < V; ++m) {
                if (row && it.x + m >= lane.begin && it.x + m < lane.end) continue;
                e[m] = h_i[m] + h_j[m];
                t[m] = 0;
            }
        }
        keep(a, f, s, y, it, e, t);
    }

    // --- Other values -------------------------------------------------------------------------------------------------

    static NTKFAST_DEVICE void other_stage(Team& team, const A& a, const F& f, const S* s, int y) {
        const Items all = items(a, f, s->halo);
        team.for_each(all.count, [=, &a](int n) {
            const Item it = item(a, f, all.first, n);
            for (int r = 0; r < R; ++r) {
                Real e[V] = {0, 0, 0, 0}, t[V] = {0, 0, 0, 0};
                if (row_inside(a, f, y + r)) switch (s->kind) {
                        case StageKind::noise: noise(a, f, s, it, e); break;
                        case StageKind::merge: merge(a, f, s, y + r, it, e, t); break;
                        case StageKind::banded: banded(a, f, s, y + r, it, e, t); break;
                        default: upsampled(a, f, s, y + r, it, e, t); break;
                    }
                finish(a, f, s, y + r, it, e, t);
            }
        });
    }

    // 1 for different pixels, in the engine's units.
    static NTKFAST_DEVICE void noise(const A& a, const F& f, const S* s, const Item& it, Real (&e)[V]) {
        const bool same = modulo(f.dy, a.geometry.height) == 0 && modulo(it.dx, a.geometry.width) == 0;
        for (int m = 0; m < V; ++m) e[m] = same ? Real(0) : s->different;
    }

    static NTKFAST_DEVICE void merge(const A& a, const F& f, const S* s, int y, const Item& it, Real (&e)[V],
                                     Real (&t)[V]) {
        const int at = it.c * stride(a) + it.b;
        for (int field = 0; field < (s->tangent ? 2 : 1); ++field) {
            Real(&out)[V] = field == 0 ? e : t;
            Real part[V];
            if (field < s->a.fields) {
                load(row_at(a, f, s->a, y, field) + at, stride(a), part);
                for (int m = 0; m < V; ++m) out[m] = s->share_a * part[m];
            }
            if (s->has_b && field < s->b.fields) {
                load(row_at(a, f, s->b, y, field) + at, stride(a), part);
                for (int m = 0; m < V; ++m) out[m] = out[m] + s->share_b * part[m];
            }
        }
    }

    // Whether the pair at column x + m is one of the image's, and where it lies there.
    struct Pixels {
        bool inside;
        int x;     // of pixel i, on the torus any number of turns
        int i, j;  // inside the image
    };
    static NTKFAST_DEVICE Pixels pixels(const A& a, const Item& it, int m) {
        const int x = it.x + m, width = a.geometry.width;
        if (a.geometry.circular) return {true, x, modulo(x, width), modulo(x + it.dx, width)};
        const Lane lane = lane_of(a, it.dx);
        return {x >= lane.begin && x < lane.end, x, x, x + it.dx};
    }

    // A row of a band: E' = raw - v(i) - v(j) behind a pool.
    static NTKFAST_DEVICE void banded(const A& a, const F& f, const S* s, int y, const Item& it, Real (&e)[V],
                                      Real (&t)[V]) {
        const Bands<Real>& bands = s->source;
        const int y_i = a.geometry.circular ? modulo(y, a.geometry.height) : y + f.row0;
        const Real* from = Bands<Real>::row(bands, f.dy, y_i);
        const std::ptrdiff_t field = Bands<Real>::field_size(bands);
        for (int m = 0; m < V; ++m) {
            const Pixels at = pixels(a, it, m);
            if (!at.inside || !Bands<Real>::has(bands, it.dx)) continue;
            const std::ptrdiff_t pair = Bands<Real>::pair(bands, at.i, it.dx);
            e[m] = s->gain * less_spread(a, f, s, y_i, at, from[pair]);
            if (s->tangent) t[m] = s->gain * from[pair + field];
        }
    }

    static NTKFAST_DEVICE Real less_spread(const A& a, const F& f, const S* s, int y_i, const Pixels& at, Real raw) {
        if (s->spread == nullptr) return raw;
        const Real v_i = Geometry::at(a.geometry, s->spread, 1, y_i)[at.i];
        const Real v_j = Geometry::at(a.geometry, s->spread, 1, y_i + f.dy)[at.j];
        return (raw - v_i) - v_j;
    }

    // The coarse pixels next to a fine one: 3/4 of the first and 1/4 of the second, or the first alone.
    struct Taps {
        int at[2];
    };
    static NTKFAST_DEVICE Taps taps(int fine, int coarse_size, bool circular) {
        const int first = halved(fine), second = first + ((fine & 1) != 0 ? 1 : -1);
        return {{first, circular ? second : larger(0, smaller(second, coarse_size - 1))}};
    }

    // Four pairs of coarse rows, and of each four pairs of coarse columns; rows are combined first, as in UpsampledRows.
    static NTKFAST_DEVICE void upsampled(const A& a, const F& f, const S* s, int y, const Item& it, Real (&e)[V],
                                         Real (&t)[V]) {
        const Bands<Real>& bands = s->source;
        const bool circular = a.geometry.circular;
        const int y_i = circular ? modulo(y, a.geometry.height) : y + f.row0, count = s->bilinear ? 2 : 1;
        const Taps rows_i = taps(y_i, bands.height, circular), rows_j = taps(y_i + f.dy, bands.height, circular);
        const Real near = s->bilinear ? Real(0.75) : Real(1), far = Real(0.25);
        const Real* from[4] = {};
        for (int m = 0; m < count; ++m)
            for (int k = 0; k < count; ++k) {
                const int row = circular ? modulo(rows_i.at[m], bands.height) : rows_i.at[m];
                from[2 * m + k] = Bands<Real>::row(bands, rows_j.at[k] - rows_i.at[m], row);
            }
        const std::ptrdiff_t field = Bands<Real>::field_size(bands);
        for (int m = 0; m < V; ++m) {
            const Pixels at = pixels(a, it, m);
            if (!at.inside) continue;
            const Taps i = taps(at.x, bands.width, circular), j = taps(at.x + it.dx, bands.width, circular);
            Real sum_e = 0, sum_t = 0;
            for (int p = 0; p < count; ++p)
                for (int q = 0; q < count; ++q) {
                    const int x_i = circular ? modulo(i.at[p], bands.width) : i.at[p];
                    const int dx = j.at[q] - i.at[p];
                    if (!Bands<Real>::has(bands, dx)) continue;
                    const Real* pair = nullptr;
                    Real row_e = 0, row_t = 0;
                    for (int n = 0; n < 4; ++n) {
                        if (from[n] == nullptr) continue;
                        const Real weight = (n < 2 ? near : far) * (n % 2 == 0 ? near : far);
                        pair = from[n] + Bands<Real>::pair(bands, x_i, dx);
                        row_e += weight * pair[0];
                        if (s->tangent) row_t += weight * pair[field];
                    }
                    const Real weight = (p == 0 ? near : far) * (q == 0 ? near : far);
                    sum_e += weight * row_e;
                    sum_t += weight * row_t;
                }
            e[m] = s->gain * less_spread(a, f, s, y_i, at, sum_e);
            t[m] = s->gain * sum_t;
        }
    }

    // --- Results --------------------------------------------------------------------------------------------------------

    static NTKFAST_DEVICE void deliver(Team& team, const A& a, const F& f, int y, int block) {
        if (a.result.kind == ResultKind::product) {
            // Right-hand sides in fours, and what is left one by one: the fewer there are, the more threads are to have work.
            const int fours = a.result.columns / 4, ones = a.result.columns % 4;
            if (fours > 0) multiply<4>(team, a, f, y, block, 0, fours);
            if (ones > 0) multiply<1>(team, a, f, y, block, 4 * fours, ones);
        }
        if constexpr (general) {
            for (int r = 0; r < R; ++r) {
                if (y + r < 0 || y + r >= f.rows) continue;
                if (a.result.kind == ResultKind::matrix) into_matrix(team, a, f, y + r);
                if (a.result.kind == ResultKind::stored || a.result.kind == ResultKind::strided)
                    into_bands(team, a, f, y + r);
                if (a.result.kind == ResultKind::pooled) into_pool(team, a, f, y + r);
            }
        }
    }

    static NTKFAST_DEVICE void load_four(const Real* from, Real* to) {
        const Four<Real> four = *reinterpret_cast<const Four<Real>*>(from);
        NTKFAST_UNROLL
        for (int m = 0; m < V; ++m) to[m] = four.v[m];
    }

    template <int N> static NTKFAST_DEVICE void add_to_tile(Real* tile, int pitch, bool first,
                                                            const Real (&sums)[N][V]) {
        NTKFAST_UNROLL
        for (int c = 0; c < N; ++c) {
            Four<Real>* to = reinterpret_cast<Four<Real>*>(tile + std::ptrdiff_t(c) * pitch);
            Four<Real> sum;
            NTKFAST_UNROLL
            for (int m = 0; m < V; ++m) sum.v[m] = 0;
            if (!first) sum = *to;  // the first dy of a task writes every row that a later one adds to
            NTKFAST_UNROLL
            for (int m = 0; m < V; ++m) sum.v[m] += sums[c][m];
            *to = sum;
        }
    }

    // Row y + r and right-hand sides [c, c + N) of an item of multiply(), and four columns.
    struct Part {
        bool inside;
        int y_i, y_j, c, quad;
        const Real* t;
    };
    template <int N>
    static NTKFAST_DEVICE Part part_of(const A& a, const F& f, int y, int first_column, int groups, int quads, int n) {
        const int rest = n / quads, row = y + rest / groups;
        Part part;
        part.inside = row >= 0 && row < f.rows;
        part.quad = n % quads;
        part.c = first_column + rest % groups * N;
        part.y_i = row + f.row0;
        part.y_j = a.geometry.circular ? modulo(part.y_i + f.dy, a.geometry.height) : part.y_i + f.dy;
        part.t = result_row(a, f, row);
        return part;
    }

    // out(i) += T v(j) and out(j) += T v(i), for `groups` times N right-hand sides, into the tiles of the task: each entry is the
    // item's own.
    template <int N>
    static NTKFAST_DEVICE void multiply(Team& team, const A& a, const F& f, int y, int block, int first_column,
                                        int groups) {
        const Result<Real>& to = a.result;
        const int lanes = 1 << lane_bits(a), pitch = a.geometry.pitch;
        Real* tile_i = to.tiles + block * to.tile;
        Real* tile_j = tile_i + to.tile_i;

        // Four columns of i: sum_b T_b(x) v(x + dx_b)
        const int quads_i = f.task.columns / V;
        team.for_each(R * groups * quads_i, [=, &a](int n) {
            const Part part = part_of<N>(a, f, y, first_column, groups, quads_i, n);
            if (!part.inside) return;
            const Real* v = Geometry::at(a.geometry, to.v, to.columns, part.y_j) + part.c * pitch + f.task.x +
                            f.task.dx + V * part.quad;
            Real sums[N][V], w[N][2 * V];
            NTKFAST_UNROLL
            for (int c = 0; c < N; ++c) {
                fetch_four(v + c * pitch, w[c]);
                NTKFAST_UNROLL
                for (int m = 0; m < V; ++m) sums[c][m] = 0;
            }
            for (int b = 0; b < lanes; b += V) {
                NTKFAST_UNROLL
                for (int c = 0; c < N; ++c) fetch_four(v + c * pitch + b + V, w[c] + V);
                NTKFAST_UNROLL
                for (int d = 0; d < V; ++d) {
                    Real row[V];
                    load_four(part.t + (b + d) * a.out_pitch + V * part.quad, row);
                    NTKFAST_UNROLL
                    for (int c = 0; c < N; ++c) {
                        NTKFAST_UNROLL
                        for (int m = 0; m < V; ++m) sums[c][m] += row[m] * w[c][m + d];
                    }
                }
                NTKFAST_UNROLL
                for (int c = 0; c < N; ++c) {
                    NTKFAST_UNROLL
                    for (int m = 0; m < V; ++m) w[c][m] = w[c][m + V];
                }
            }
            const std::ptrdiff_t at = (std::ptrdiff_t(part.y_i) * to.columns + part.c) * to.pitch_i + V * part.quad;
            add_to_tile<N>(tile_i + at, to.pitch_i, f.first, sums);
        });

        // Four columns u of j, counted from x + dx: sum_b T_b(u - b) v(u - b).  On the torus displacements that are their own
        // opposites meet each pair from both ends, and count once.
        const int period = 2 * f.dy % a.geometry.height == 0 && a.geometry.circular ? a.geometry.width : 0;
        const int quads_j = (f.task.columns + lanes) / V;
        team.for_each(R * groups * quads_j, [=, &a](int n) {
            const Part part = part_of<N>(a, f, y, first_column, groups, quads_j, n);
            if (!part.inside) return;
            const Real* v = Geometry::at(a.geometry, to.v, to.columns, part.y_i) + part.c * pitch + f.task.x;
            Real sums[N][V], w[N][2 * V];
            NTKFAST_UNROLL
            for (int c = 0; c < N; ++c) {
                fetch_four(v + c * pitch + V * part.quad, w[c] + V);
                NTKFAST_UNROLL
                for (int m = 0; m < V; ++m) sums[c][m] = 0;
            }
            for (int b = 0; b < lanes; b += V) {
                const int right = V * part.quad - b, left = right - V;  // the lanes' columns
                const bool has_right = right >= 0 && right < f.task.columns;
                const bool has_left = left >= 0 && left < f.task.columns;
                NTKFAST_UNROLL
                for (int c = 0; c < N; ++c) fetch_four(v + c * pitch + left, w[c]);
                NTKFAST_UNROLL
                for (int d = 0; d < V; ++d) {
                    if (period != 0 && 2 * (f.task.dx + b + d) % period == 0) continue;
                    const Real* lane = part.t + (b + d) * a.out_pitch;
                    Real row[2 * V];
                    NTKFAST_UNROLL
                    for (int m = 0; m < 2 * V; ++m) row[m] = 0;
                    if (has_left && d > 0) load_four(lane + left, row);
                    if (has_right) load_four(lane + right, row + V);
                    NTKFAST_UNROLL
                    for (int c = 0; c < N; ++c) {
                        NTKFAST_UNROLL
                        for (int m = 0; m < V; ++m) sums[c][m] += row[V + m - d] * w[c][V + m - d];
                    }
                }
                NTKFAST_UNROLL
                for (int c = 0; c < N; ++c) {
                    NTKFAST_UNROLL
                    for (int m = 0; m < V; ++m) w[c][m + V] = w[c][m];
                }
            }
            const std::ptrdiff_t at = (std::ptrdiff_t(part.y_j) * to.columns + part.c) * to.pitch_j + V * part.quad;
            add_to_tile<N>(tile_j + at, to.pitch_j, f.first, sums);
        });
    }

    // Both entries of each pair, in rows of neighbouring displacements.
    static NTKFAST_DEVICE void into_matrix(Team& team, const A& a, const F& f, int y) {
        const int lanes = 1 << lane_bits(a), width = a.geometry.width, y_i = y + f.row0;
        const bool circular = a.geometry.circular;
        const int y_j = circular ? modulo(y_i + f.dy, a.geometry.height) : y_i + f.dy;
        const std::int64_t d = std::int64_t(a.geometry.height) * width;
        const Real* t = result_row(a, f, y);
        // A displacement that is its own opposite meets each pair twice: the smaller pixel writes both.
        const auto write = [=, &a](int local, int b, bool mirrored) {
            const int x_i = f.task.x + local, dx = dx_of(a, f, b);
            const Lane lane = lane_of(a, dx);
            if (b < f.task.first_lane || b >= f.task.end_lane || local < 0 || local >= f.task.columns) return;
            if (x_i < larger(0, lane.begin) || x_i >= smaller(width, lane.end)) return;
            const std::int64_t i = std::int64_t(y_i) * width + x_i;
            const std::int64_t j = std::int64_t(y_j) * width + (circular ? modulo(x_i + dx, width) : x_i + dx);
            const bool self = circular && 2 * f.dy % a.geometry.height == 0 && 2 * dx % width == 0;
            if (self && j < i) return;
            a.result.matrix[mirrored ? j * d + i : i * d + j] = a.result.unit * t[b * a.out_pitch + local];
        };
        team.for_each(f.task.columns << lane_bits(a),
                      [=, &a](int n) { write(n >> lane_bits(a), n & (lanes - 1), false); });
        team.for_each((f.task.columns + lanes) << lane_bits(a), [=, &a](int n) {
            const int b = n & (lanes - 1);
            write((n >> lane_bits(a)) - b, b, true);
        });
    }

    // Rows of the segment as they are, or those of even pixels.
    static NTKFAST_DEVICE void into_bands(Team& team, const A& a, const F& f, int y) {
        const Bands<Real>& bands = a.result.bands;
        const bool strided = a.result.kind == ResultKind::strided;
        const int y_i = y + f.row0, shift = strided ? 1 : 0, lanes = 1 << lane_bits(a);
        if (strided && (y_i & 1) != 0) return;
        Real* to = Bands<Real>::row(bands, strided ? f.dy / 2 : f.dy, y_i >> shift);
        const Real* e = row_at(a, f, a.end, y, 0);
        const Real* t = row_at(a, f, a.end, y, bands.fields - 1);
        team.for_each((f.task.columns >> shift) << lane_bits(a), [=, &a](int n) {
            const int b = n & (lanes - 1), local = (n >> lane_bits(a)) << shift;
            const int x = f.task.x + local, dx = dx_of(a, f, b), width = a.geometry.width;
            const Lane lane = lane_of(a, dx);
            if (b < f.task.first_lane || b >= f.task.end_lane || x < larger(0, lane.begin) ||
                x >= smaller(width, lane.end))
                return;
            if (!Bands<Real>::has(bands, dx >> shift)) return;
            const std::ptrdiff_t pair = Bands<Real>::pair(bands, x >> shift, dx >> shift);
            const std::ptrdiff_t from = (guard + a.halo + local) * stride(a) + b;
            to[pair] = e[from];
            if (bands.fields == 2) to[pair + Bands<Real>::field_size(bands)] = t[from];
        });
    }

    // A E A^T of the average over cells of 2 x 2.  Lane 0 is the fine displacement 2c - 1 of the first coarse c; c takes those of
    // lanes 2n, 2n + 1 and 2n + 2:
    //   out(X, c) += (T_{2c-1}(2X + 1) + T_2c(2X) + T_2c(2X + 1) + T_{2c+1}(2X))/16
    // A task has all of its coarse displacements to itself and takes the fine dy in ascending order.
    static NTKFAST_DEVICE void into_pool(Team& team, const A& a, const F& f, int y) {
        const Bands<Real>& bands = a.result.bands;
        const int y_i = y + f.row0, count = (f.task.end_lane - 1) / 2, half = f.task.columns / 2;
        Real* to = Bands<Real>::row(bands, halved(y_i + f.dy) - halved(y_i), y_i / 2);
        if (to == nullptr) return;
        for (int field = 0; field < bands.fields; ++field) {
            const Real* from = row_at(a, f, a.end, y, field) + (guard + a.halo) * stride(a);
            Real* out = to + field * Bands<Real>::field_size(bands);
            team.for_each(count * half, [=, &a](int n) {
                const int c = n % count, cell = n / count, x = f.task.x / 2 + cell, b = 2 * c;
                const int dx = (f.task.dx + 1) / 2 + c;
                if (x >= bands.width || (!bands.circular && (x + dx < 0 || x + dx >= bands.width))) return;
                const Real* even = from + 2 * cell * stride(a) + b;
                const Real* odd = even + stride(a);
                const Real sum = (odd[0] + even[1]) + (odd[1] + even[2]);
                out[Bands<Real>::pair(bands, x, dx)] += sum / 16;
            });
        }
        // The next row adds to the same entries.
        team.barrier();
    }
};

}  // namespace ntkfast::cuda
