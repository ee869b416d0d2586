// The stages of the sweep make the rows of each value, item by item.
#pragma once

#include "cuda/sweep_maps.h"

namespace ntkfast::cuda {

// In bilinear upsampling a fine pixel takes so much of the nearest coarse pixel and of the next one, in every phase.
constexpr Taps bilinear_taps = Resampling{Resampling::Kind::bilinear, supported_factor}.taps(0, 1, true);
constexpr double near_weight = bilinear_taps.first_weight, far_weight = bilinear_taps.other_weight;
static_assert(supported_factor == 2, "the phases of larger factors have weights of their own");

template <class Real, Scope scope> struct SweepStages : SweepBlock<Real, scope> {
    using Base = SweepBlock<Real, scope>;
    using Maps = SweepMaps<Real, scope>;
    using Base::general;
    using Base::item;
    using Base::items;
    using Base::lane_of;
    using Base::load;
    using Base::R;
    using Base::result_row;
    using Base::row_at;
    using Base::row_inside;
    using Base::row_words;
    using Base::stride;
    using Base::V;
    using Base::write;
    using typename Base::A;
    using typename Base::F;
    using typename Base::Item;
    using typename Base::Items;
    using typename Base::Lane;
    using typename Base::S;

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

    // Computes E = gain sum_c (x_c(i) - x_c(j))^2.  Outside the image the pixels are 0, which makes E what it is to be
    // there.
    static NTKFAST_DEVICE void image_stage(Team& team, const A& a, const F& f, const S* s, int y) {
        switch (s->channels) {
            case 1: return image_channels<1>(team, a, f, s, y);
            case 3: return image_channels<3>(team, a, f, s, y);
            default: return image_channels<0>(team, a, f, s, y);
        }
    }
    // C counts the channels; 0 stands for any number.
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

    // Computes window sums of the value before, and one or two pointwise maps.
    template <int K> static NTKFAST_DEVICE void map_stage(Team& team, const A& a, const F& f, const S* s, int y) {
        const Items all = items(a, f, s->halo);
        // This is the slot of the newest row in the ring of a large kernel.
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
            int doubtful = 0;  // one bit for each pair
            NTKFAST_UNROLL
            for (int r = 0; r < R; ++r) {
                if (row_inside(a, f, y + r)) {
                    doubtful |= Maps::apply(a, f, s->map[0], y + r, it, e[r], t[r]) << (V * r);
                    if (s->maps > 1) Maps::apply(a, f, s->map[1], y + r, it, e[r], t[r]);
                }
                finish(a, f, s, y + r, it, e[r], t[r]);
            }
            // This comes behind everything else, so that no register is kept for it.
            if (doubtful != 0) Maps::redo(a, f, s, y, it.c, it.b, doubtful);
        });
    }

    // --- Window sums ------------------------------------------------------------------------------------------------

    // Adds k adjacent columns around each of four; `row` points at the first of the four in its lane.  Small kernels
    // add from left to right, the same for every column; large ones add what all four have in common once.
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

    // Computes rows y, y + 1 of the window sums of one field, from the newest rows of the value before.
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

    // The ring holds the last k - 1 rows; this adds from the oldest row to the newest.
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
            write(slot(newest + r), stride(a), rows[r]);
        }
    }

    // Keeps two-ended sums, as Pipeline::push does: complete blocks of k rows are replaced by their suffix sums, one
    // more row is the prefix.
    static NTKFAST_DEVICE void two_ended(const A& a, const F& f, const S* s, int slot, int at, int field,
                                         const Real (&row)[V], Real (&sums)[V]) {
        const int k = s->kernel_size;
        Real* ring = f.memory + (s->ring + field * (k + 1)) * row_words(a) + at;
        Real* prefix = ring + k * row_words(a);
        write(ring + slot * row_words(a), stride(a), row);
        if (slot == k - 1) {
            Real sum[V];
            load(ring + slot * row_words(a), stride(a), sum);
            for (int n = slot - 1; n >= 0; --n) {
                Real next[V];
                load(ring + n * row_words(a), stride(a), next);
                NTKFAST_UNROLL
                for (int m = 0; m < V; ++m) sum[m] += next[m];
                write(ring + n * row_words(a), stride(a), sum);
            }
            NTKFAST_UNROLL
            for (int m = 0; m < V; ++m) sums[m] = sum[m];
            return;
        }
        Real begun[V];
        load(prefix, stride(a), begun);
        NTKFAST_UNROLL
        for (int m = 0; m < V; ++m) begun[m] = slot == 0 ? row[m] : begun[m] + row[m];
        write(prefix, stride(a), begun);
        load(ring + (slot + 1) * row_words(a), stride(a), sums);
        NTKFAST_UNROLL
        for (int m = 0; m < V; ++m) sums[m] += begun[m];
    }

    // --- What becomes of four columns of a row -----------------------------------------------------------------------

    static NTKFAST_DEVICE void keep(const A& a, const F& f, const S* s, int y, const Item& it, const Real (&e)[V],
                                    const Real (&t)[V]) {
        const int at = it.c * stride(a) + it.b;
        write(row_at(a, f, s->out, y, 0) + at, stride(a), e);
        if (s->tangent) write(row_at(a, f, s->out, y, 1) + at, stride(a), t);
    }

    // Where i or j lies outside the image this sets E = h_i + h_j and T' = 0; in the last stage T = 0.
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

    // --- Other values ------------------------------------------------------------------------------------------------

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

    // E is 1 for different pixels, in the engine's units.
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
                for (int m = 0; m < V; ++m) out[m] = s->share_a[field] * part[m];
            }
            if (s->has_b && field < s->b.fields) {
                load(row_at(a, f, s->b, y, field) + at, stride(a), part);
                for (int m = 0; m < V; ++m) out[m] = out[m] + s->share_b[field] * part[m];
            }
        }
    }

    // Pixels say whether the pair at column x + m is one of the image's, and where it lies there.
    struct Pixels {
        bool inside;
        int x;     // pixel i's; on the torus it may take any number of turns
        int i, j;  // inside the image
    };
    static NTKFAST_DEVICE Pixels pixels(const A& a, const Item& it, int m) {
        const int x = it.x + m, width = a.geometry.width;
        if (a.geometry.circular) return {true, x, modulo(x, width), modulo(x + it.dx, width)};
        const Lane lane = lane_of(a, it.dx);
        return {x >= lane.begin && x < lane.end, x, x, x + it.dx};
    }

    // Reads a row of a band: E' = raw - v(i) - v(j) behind a pool.
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

    // Neighbours are the coarse pixels next to a fine one, in a bilinear upsampling; the first is that of the nearest,
    // too.
    struct Neighbours {
        int at[2];
    };
    static NTKFAST_DEVICE Neighbours neighbours(int fine, int coarse_size, bool circular) {
        constexpr int f = supported_factor;
        const int nearest = floor_div<f>(fine);
        return {{nearest, bilinear_other(nearest, modulo<f>(fine), f, coarse_size, circular)}};
    }

    // Combines four pairs of coarse rows, and of each four pairs of coarse columns; rows are combined first, as in
    // UpsampledRows.
    static NTKFAST_DEVICE void upsampled(const A& a, const F& f, const S* s, int y, const Item& it, Real (&e)[V],
                                         Real (&t)[V]) {
        const Bands<Real>& bands = s->source;
        const bool circular = a.geometry.circular;
        const int y_i = circular ? modulo(y, a.geometry.height) : y + f.row0, count = s->bilinear ? 2 : 1;
        const Neighbours rows_i = neighbours(y_i, bands.height, circular);
        const Neighbours rows_j = neighbours(y_i + f.dy, bands.height, circular);
        const Real near = s->bilinear ? Real(near_weight) : Real(1), far = Real(far_weight);
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
            const Neighbours i = neighbours(at.x, bands.width, circular);
            const Neighbours j = neighbours(at.x + it.dx, bands.width, circular);
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
};

}  // namespace ntkfast::cuda
