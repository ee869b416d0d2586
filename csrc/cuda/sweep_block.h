// A block of the sweep works on the rows in its memory; this file says how they lie and how its items are cut.
//
// An item of a stage is one displacement x 4 adjacent columns x 2 rows.  Rows lie column by column with the
// displacements of a column side by side, so that the threads of a warp, which take neighbouring displacements, read
// and write neighbouring words, whatever the column.  The pixels j = i + D of neighbouring displacements are neighbours
// too.
#pragma once

#include "cuda/sweep.h"

namespace ntkfast::cuda {

template <class Real> struct alignas(16) Four {
    Real v[columns_per_item];
};

// A Frame says where a block is: it is uniform over its threads.
template <class Real> struct Frame {
    Real* memory;
    Task task;
    int dy, row0, rows;
    bool first;  // this is the first dy of the task
};

template <class Real, Scope scope> struct SweepBlock {
    using S = Stage<Real>;
    using A = Sweep<Real>;
    using F = Frame<Real>;

    static constexpr int V = columns_per_item, R = rows_per_step;
    static constexpr bool general = scope != Scope::plain, with_smooth = scope == Scope::all;
    // Where a layout must have as many lanes, its strides are constants of the code.
    static constexpr int fixed_lane_bits = scope == Scope::all ? 0 : usual_lane_bits;

    static NTKFAST_DEVICE int lane_bits(const A& a) { return fixed_lane_bits > 0 ? fixed_lane_bits : a.lane_bits; }
    static NTKFAST_DEVICE int stride(const A& a) { return fixed_lane_bits > 0 ? 1 << fixed_lane_bits : a.stride; }
    static NTKFAST_DEVICE int row_words(const A& a) { return a.positions * stride(a); }
    // Returns position 0 of lane 0.
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
    // Lane holds the columns of the pixels i for which i + D is in the image; on the torus these are all.
    struct Lane {
        int begin, end;
    };
    static NTKFAST_DEVICE Lane lane_of(const A& a, int dx) {
        if (a.geometry.circular) return {-0x40000000, 0x40000000};
        return {larger(0, -dx), a.geometry.width - larger(0, dx)};
    }

    // Items are the groups of 4 columns that a value needs, in all lanes.
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

    // Returns row y of the block's results: of each lane the strip's columns.
    static NTKFAST_DEVICE Real* result_row(const A& a, const F& f, int y) {
        return f.memory + a.results + (y & (R - 1)) * (a.out_pitch << lane_bits(a));
    }

    static NTKFAST_DEVICE void load(const Real* from, int stride, Real (&to)[V]) {
        NTKFAST_UNROLL
        for (int m = 0; m < V; ++m) to[m] = from[m * stride];
    }
    static NTKFAST_DEVICE void write(Real* to, int stride, const Real (&from)[V]) {
        NTKFAST_UNROLL
        for (int m = 0; m < V; ++m) to[m * stride] = from[m];
    }
};

}  // namespace ntkfast::cuda
