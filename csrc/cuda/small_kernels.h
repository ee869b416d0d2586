// These are the kernels around a sweep: most have one item for each number; one is the product with a stored matrix.
#pragma once

#include "cuda/sweep.h"

namespace ntkfast::cuda {

constexpr int items_per_block = 256;

// Calls item(n) for the items of one block out of `count`.
template <class Item> NTKFAST_DEVICE void each_item(Team& team, int block, std::int64_t count, const Item& item) {
    team.for_each(items_per_block, [=](int n) {
        const std::int64_t at = std::int64_t(block) * items_per_block + n;
        if (at < count) item(at);
    });
}

// Launches a kernel with an item for each of arguments.count.
template <class Kernel>
void launch_items(const char* name, const typename Kernel::Arguments& arguments, Stream stream) {
    launch<Kernel>(name, {(arguments.count + items_per_block - 1) / items_per_block, items_per_block, 0, stream},
                   arguments);
}

// Writes v (pixels, all_columns), columns [first, first + columns), as planes with margins.
template <class Real> struct PadColumns {
    struct Arguments {
        Geometry geometry;
        const Real* v;
        Real* planes;
        int first, columns, all_columns;
        std::int64_t count;
    };
    static constexpr int most_threads = items_per_block;
    static NTKFAST_DEVICE void run(Team& team, int block, double*, const Arguments& a) {
        each_item(team, block, a.count, [&a](std::int64_t n) {
            const Geometry& g = a.geometry;
            int x = int(n % g.pitch) - g.left;
            const std::int64_t rest = n / g.pitch;
            const int column = int(rest % a.columns), y = int(rest / a.columns) - g.margin;
            if (g.circular) x = modulo(x, g.width);
            const bool inside = x >= 0 && x < g.width && y >= 0 && y < g.height;
            a.planes[n] = inside ? a.v[(std::int64_t(y) * g.width + x) * a.all_columns + a.first + column] : Real(0);
        });
    }
};

// Adds the tiles of a wave of tasks to the totals (pixels, columns), in double and in the order of the tasks.
template <class Real> struct AddTiles {
    struct Arguments {
        Geometry geometry;
        const Task* tasks;
        int task_count, lanes;
        const Real* tiles;
        std::int64_t tile, tile_i;
        int pitch_i, pitch_j, columns;
        double* totals;
        int groups;          // groups of 4 columns
        bool first;          // wave
        std::int64_t count;  // pixels times groups
    };
    static constexpr int most_threads = items_per_block;
    static NTKFAST_DEVICE void run(Team& team, int block, double*, const Arguments& a) {
        each_item(team, block, a.count, [&a](std::int64_t n) {
            const Geometry& g = a.geometry;
            const std::int64_t pixel = n % (a.count / a.groups);
            const int column = int(n / (a.count / a.groups)) * 4, count = smaller(4, a.columns - column);
            const int x = int(pixel % g.width), y = int(pixel / g.width);
            double* to = a.totals + pixel * a.columns + column;
            double sums[4] = {0, 0, 0, 0};
            for (int c = 0; c < count; ++c) sums[c] = a.first ? 0.0 : to[c];
            for (int m = 0; m < a.task_count; ++m) {
                const Task task = a.tasks[m];
                const Real* tile_i = a.tiles + m * a.tile + (std::ptrdiff_t(y) * a.columns + column) * a.pitch_i;
                const Real* tile_j =
                    a.tiles + m * a.tile + a.tile_i + (std::ptrdiff_t(y) * a.columns + column) * a.pitch_j;
                const auto add = [&](const Real* from, int pitch) {
                    for (int c = 0; c < count; ++c) sums[c] += double(from[c * std::ptrdiff_t(pitch)]);
                };
                // Only rows that the first dy of the task wrote are added.
                const int u = x - task.x, end = task.columns + a.lanes;
                if (u >= 0 && u < task.columns && (g.circular || y < g.height - task.dy)) add(tile_i + u, a.pitch_i);
                if (!g.circular) {
                    const int at = u - task.dx;
                    if (at >= 0 && at < end && y >= task.dy) add(tile_j + at, a.pitch_j);
                } else {
                    for (int at = modulo(u - task.dx, g.width); at < end; at += g.width) add(tile_j + at, a.pitch_j);
                }
            }
            for (int c = 0; c < count; ++c) to[c] = sums[c];
        });
    }
};

// Computes out (pixels, all_columns) = unit * (diagonal v + totals), columns [first, first + columns).
template <class Real> struct FinishProduct {
    struct Arguments {
        const Real* v;
        const double* totals;
        const double* diagonal;
        double unit;
        Real* out;
        int first, columns, all_columns;
        bool any_totals;
        std::int64_t count;
    };
    static constexpr int most_threads = items_per_block;
    static NTKFAST_DEVICE void run(Team& team, int block, double*, const Arguments& a) {
        each_item(team, block, a.count, [&a](std::int64_t n) {
            const std::int64_t pixel = n / a.columns, at = pixel * a.all_columns + a.first + n % a.columns;
            const double sum = a.diagonal[pixel] * double(a.v[at]) + (a.any_totals ? a.totals[n] : 0.0);
            a.out[at] = Real(sum * a.unit);
        });
    }
};

// Sets matrix(i, i) = unit * diagonal(i).
template <class Real> struct MatrixDiagonal {
    struct Arguments {
        const double* diagonal;
        double unit;
        Real* matrix;
        std::int64_t count;
    };
    static constexpr int most_threads = items_per_block;
    static NTKFAST_DEVICE void run(Team& team, int block, double*, const Arguments& a) {
        each_item(team, block, a.count,
                  [&a](std::int64_t i) { a.matrix[i * a.count + i] = Real(a.diagonal[i] * a.unit); });
    }
};

template <class Real> struct Fill {
    struct Arguments {
        Real* to;
        Real value;
        std::int64_t count;
    };
    static constexpr int most_threads = items_per_block;
    static NTKFAST_DEVICE void run(Team& team, int block, double*, const Arguments& a) {
        each_item(team, block, a.count, [&a](std::int64_t n) { a.to[n] = a.value; });
    }
};

// Writes what is known of the displacement 0 into a band of dy = 0 (on the torus, modulo the height); `known` is
// (fields, pixels).
template <class Real> struct SealBand {
    struct Arguments {
        Bands<Real> bands;
        int dy;
        const Real* known;
        std::int64_t count;  // pixels
    };
    static constexpr int most_threads = items_per_block;
    static NTKFAST_DEVICE void run(Team& team, int block, double*, const Arguments& a) {
        each_item(team, block, a.count, [&a](std::int64_t pixel) {
            const Bands<Real>& b = a.bands;
            Real* row = Bands<Real>::row(b, a.dy, int(pixel / b.width)) + Bands<Real>::pair(b, int(pixel % b.width), 0);
            for (int field = 0; field < b.fields; ++field)
                row[field * Bands<Real>::field_size(b)] = a.known[field * a.count + pixel];
        });
    }
};

// Computes out = matrix v, for all columns of v (pixels, columns): a block serves one row and up to 4 columns.
template <class Real> struct MatrixProduct {
    struct Arguments {
        const Real* matrix;
        const Real* v;
        Real* out;
        int columns, groups;  // all of them, and groups of 4
        std::int64_t pixels;
    };
    static constexpr int most_threads = items_per_block;
    static std::int64_t shared_bytes() { return items_per_block * 4 * std::int64_t(sizeof(double)); }

    static NTKFAST_DEVICE void run(Team& team, int block, double* shared, const Arguments& a) {
        const std::int64_t i = block / a.groups;
        const int first = block % a.groups * 4, count = smaller(4, a.columns - first);
        const Real* row = a.matrix + i * a.pixels;
        team.for_each(items_per_block, [=, &a](int n) {
            double totals[4] = {0, 0, 0, 0};
            // 16 terms at a time are added in Real, their sums in double.
            for (std::int64_t j = n; j < a.pixels;) {
                Real sums[4] = {0, 0, 0, 0};
                for (int m = 0; m < 16 && j < a.pixels; ++m, j += items_per_block) {
                    const Real entry = row[j];
                    const Real* v = a.v + j * a.columns + first;
                    for (int c = 0; c < count; ++c) sums[c] += entry * v[c];
                }
                for (int c = 0; c < 4; ++c) totals[c] += double(sums[c]);
            }
            for (int c = 0; c < 4; ++c) shared[4 * n + c] = totals[c];
        });
        team.barrier();
        for (int half = items_per_block / 2; half > 0; half /= 2) {
            team.for_each(half, [=](int n) {
                for (int c = 0; c < 4; ++c) shared[4 * n + c] += shared[4 * (n + half) + c];
            });
            team.barrier();
        }
        team.for_each(count, [=, &a](int c) { a.out[i * a.columns + first + c] = Real(shared[c]); });
    }
};

}  // namespace ntkfast::cuda
