// The last rows of the sweep become results: products with v, the matrix, bands.
#pragma once

#include "cuda/sweep_block.h"

namespace ntkfast::cuda {

template <class Real, Scope scope> struct SweepResults : SweepBlock<Real, scope> {
    using Base = SweepBlock<Real, scope>;
    using Base::dx_of;
    using Base::general;
    using Base::lane_bits;
    using Base::lane_of;
    using Base::R;
    using Base::result_row;
    using Base::row_at;
    using Base::stride;
    using Base::V;
    using typename Base::A;
    using typename Base::F;
    using typename Base::Lane;

    static NTKFAST_DEVICE void deliver(Team& team, const A& a, const F& f, int y, int block) {
        if (a.result.kind == ResultKind::product) {
            // Right-hand sides are taken in fours, and what is left one by one: the fewer there are, the more threads
            // are to have work.
            const int fours = a.result.columns / 4, ones = a.result.columns % 4;
            if (fours > 0) multiply<4>(team, a, f, y, block, 0, fours);
            if (ones > 0) multiply<1>(team, a, f, y, block, 4 * fours, ones);
        }
        if constexpr (general) {
            for (int r = 0; r < R; ++r) {
                if (y + r < 0 || y + r >= f.rows) continue;
                if (a.result.kind == ResultKind::matrix) into_matrix(team, a, f, y + r);
                if (a.result.kind == ResultKind::features || a.result.kind == ResultKind::strided)
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

    // A Part is row y + r and right-hand sides [c, c + N) of an item of multiply(), and four columns.
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

    // Computes sum_b T_b(x) v(x + dx_b) for four columns x of i, and N right-hand sides; v points at that of the first
    // pair.
    template <int N>
    static NTKFAST_DEVICE void sum_at_i(const A& a, const Part& part, const Real* v, int lanes, Real (&sums)[N][V]) {
        const int pitch = a.geometry.pitch;
        Real w[N][2 * V];
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
    }

    // Computes sum_b T_b(u - b) v(u - b) for four columns u of j, counted from x + dx; v points at that of the strip's
    // first column.  `period` is 0, or the width where displacements dx of half of it, or of none, are their own
    // opposites: these meet each pair from both ends, and count once.
    template <int N>
    static NTKFAST_DEVICE void sum_at_j(const A& a, const F& f, const Part& part, const Real* v, int lanes, int period,
                                        Real (&sums)[N][V]) {
        const int pitch = a.geometry.pitch;
        Real w[N][2 * V];
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
    }

    // Adds out(i) += T v(j) and out(j) += T v(i), for `groups` times N right-hand sides, into the tiles of the task:
    // each entry is the item's own.
    template <int N>
    static NTKFAST_DEVICE void multiply(Team& team, const A& a, const F& f, int y, int block, int first_column,
                                        int groups) {
        const Result<Real>& to = a.result;
        const int lanes = 1 << lane_bits(a), pitch = a.geometry.pitch;
        Real* tile_i = to.tiles + block * to.tile;
        Real* tile_j = tile_i + to.tile_i;
        const int quads_i = f.task.columns / V;
        team.for_each(R * groups * quads_i, [=, &a](int n) {
            const Part part = part_of<N>(a, f, y, first_column, groups, quads_i, n);
            if (!part.inside) return;
            const Real* v = Geometry::at(a.geometry, to.v, to.columns, part.y_j) + part.c * pitch + f.task.x +
                            f.task.dx + V * part.quad;
            Real sums[N][V];
            sum_at_i<N>(a, part, v, lanes, sums);
            const std::ptrdiff_t at = (std::ptrdiff_t(part.y_i) * to.columns + part.c) * to.pitch_i + V * part.quad;
            add_to_tile<N>(tile_i + at, to.pitch_i, f.first, sums);
        });
        const int period = 2 * f.dy % a.geometry.height == 0 && a.geometry.circular ? a.geometry.width : 0;
        const int quads_j = (f.task.columns + lanes) / V;
        team.for_each(R * groups * quads_j, [=, &a](int n) {
            const Part part = part_of<N>(a, f, y, first_column, groups, quads_j, n);
            if (!part.inside) return;
            const Real* v = Geometry::at(a.geometry, to.v, to.columns, part.y_i) + part.c * pitch + f.task.x;
            Real sums[N][V];
            sum_at_j<N>(a, f, part, v, lanes, period, sums);
            const std::ptrdiff_t at = (std::ptrdiff_t(part.y_j) * to.columns + part.c) * to.pitch_j + V * part.quad;
            add_to_tile<N>(tile_j + at, to.pitch_j, f.first, sums);
        });
    }

    // Writes both entries of each pair, in rows of neighbouring displacements.
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

    // Writes rows of the segment as they are, or those of every factor-th pixel.
    static NTKFAST_DEVICE void into_bands(Team& team, const A& a, const F& f, int y) {
        const Bands<Real>& bands = a.result.bands;
        const bool strided = a.result.kind == ResultKind::strided;
        const int y_i = y + f.row0, step = strided ? supported_factor : 1, lanes = 1 << lane_bits(a);
        if (strided && modulo<supported_factor>(y_i) != 0) return;
        const auto coarse = [=](int n) { return strided ? floor_div<supported_factor>(n) : n; };
        Real* to = Bands<Real>::row(bands, coarse(f.dy), coarse(y_i));
        const Real* e = row_at(a, f, a.end, y, 0);
        const Real* t = row_at(a, f, a.end, y, bands.fields - 1);
        team.for_each(coarse(f.task.columns) << lane_bits(a), [=, &a](int n) {
            const int b = n & (lanes - 1), local = (n >> lane_bits(a)) * step;
            const int x = f.task.x + local, dx = dx_of(a, f, b), width = a.geometry.width;
            const Lane lane = lane_of(a, dx);
            if (b < f.task.first_lane || b >= f.task.end_lane || x < larger(0, lane.begin) ||
                x >= smaller(width, lane.end))
                return;
            if (!Bands<Real>::has(bands, coarse(dx))) return;
            const std::ptrdiff_t pair = Bands<Real>::pair(bands, coarse(x), coarse(dx));
            const std::ptrdiff_t from = (guard + a.halo + local) * stride(a) + b;
            to[pair] = e[from];
            if (bands.fields == 2) to[pair + Bands<Real>::field_size(bands)] = t[from];
        });
    }

    // Computes A E A^T of the average over cells of f x f.  Lane 0 is the first fine displacement of the first coarse
    // c, f c - (f-1); the n-th coarse one takes the lanes from f n to f n + 2(f-1):
    //   out(X, c) += sum over a, b < f of T_{f c + b - a}(f X + a)/f^4
    // A task has all of its coarse displacements to itself and takes the fine dy in ascending order.
    static NTKFAST_DEVICE void into_pool(Team& team, const A& a, const F& f, int y) {
        const Bands<Real>& bands = a.result.bands;
        constexpr int factor = supported_factor;
        static_assert(factor == 2, "the sum below is written out, for a and b of 0 and 1");
        const int y_i = y + f.row0, count = pool_displacements_within(f.task.end_lane, factor),
                  cells = f.task.columns / factor;
        Real* to =
            Bands<Real>::row(bands, floor_div<factor>(y_i + f.dy) - floor_div<factor>(y_i), floor_div<factor>(y_i));
        if (to == nullptr) return;
        for (int field = 0; field < bands.fields; ++field) {
            const Real* from = row_at(a, f, a.end, y, field) + (guard + a.halo) * stride(a);
            Real* out = to + field * Bands<Real>::field_size(bands);
            team.for_each(count * cells, [=, &a](int n) {
                const int c = n % count, cell = n / count, x = f.task.x / factor + cell, b = factor * c;
                const int dx = ceil_div<factor>(f.task.dx) + c;
                if (x >= bands.width || (!bands.circular && (x + dx < 0 || x + dx >= bands.width))) return;
                const Real* even = from + factor * cell * stride(a) + b;
                const Real* odd = even + stride(a);
                const Real sum = (odd[0] + even[1]) + (odd[1] + even[2]);
                out[Bands<Real>::pair(bands, x, dx)] += sum / (factor * factor * factor * factor);
            });
        }
        // The next row adds to the same entries.
        team.barrier();
    }
};

}  // namespace ntkfast::cuda
