// What the sweep kernel reads: the segment of a target as a list of stages, tasks, and where the results go.  Plain data, in
// the memory of the device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/team.h"
#include "math/activation_table.h"
#include "math/pair_math.h"
#include "plan/resampling.h"

namespace ntkfast::cuda {

constexpr int columns_per_item = 4;  // adjacent columns of one displacement that an item takes through a stage ...
constexpr int rows_per_step = 2;     // ... in so many rows
constexpr int most_maps = 2;         // pointwise maps in one stage
// Threads of a block, at most; so many threads of a multiprocessor leave 168 registers to each in float, 255 in double.
constexpr int most_sweep_threads(std::size_t real) { return real == 4 ? 384 : 256; }
constexpr int guard = 4;  // positions before the first column and behind the last

NTKFAST_HD int larger(int a, int b) { return a > b ? a : b; }
NTKFAST_HD int smaller(int a, int b) { return a < b ? a : b; }

// Planes of pixels of one level, with a margin on every side: zeros, or on the torus the image again.  Plane c of row y starts
// c*pitch behind plane 0, the next row behind the last plane.
struct Geometry {
    int height, width;
    int margin;       // rows above and below; none on the torus, where rows wrap
    int left, pitch;  // columns before column 0, and in all
    bool circular;

    NTKFAST_HD int row(const Geometry& g, int y) {
        return g.circular ? modulo(y, g.height) : larger(-g.margin, smaller(y, g.height + g.margin - 1)) + g.margin;
    }
    // Column 0 of plane 0 of row y; rows beyond the margin are those at its end.
    template <class Real> NTKFAST_HD Real* at(const Geometry& g, Real* planes, int count, int y) {
        return planes + (std::ptrdiff_t(row(g, y)) * count * g.pitch + g.left);
    }
    std::int64_t elements(int planes) const { return std::int64_t(height + 2 * margin) * planes * pitch; }
};

// Rows of a value in a block's memory: E of row y in slot y mod slots, T' in the row behind it.
struct Rows {
    int first, slots, fields;
};

enum class StageKind { image, noise, banded, upsampled, map, merge };
enum class MapKind { sums, linear, output, NTKFAST_ACTIVATIONS(NTKFAST_ENUMERATOR, NTKFAST_ENUMERATOR) };
inline MapKind map_kind(ActivationKind kind) { return MapKind(int(MapKind::output) + 1 + int(kind)); }

// A pointwise map.
template <class Real> struct Map {
    MapKind kind;
    bool tangent;                  // T leaves it
    bool refined, always_refined;  // see MapChoice
    ActivationConstants<Real> constants;
    SmoothConstants<Real> smooth;
    Real scale;         // of the convolution that follows
    double box_scale;   // of the convolution before
    const Real* roots;  // three planes: p, its inverse, its rest
};

// Bands of one target: one buffer for each dy, nullptr where there is none.  In a row of pixels i, first E, then T', the pixels j
// of one i are neighbours: all of them, or with a reach those up to so many columns away.
template <class Real> struct Bands {
    Real* const* bands;
    int first_dy, count;
    int height, width, fields;
    bool circular;
    int reach;  // no_reach: all

    static constexpr int no_reach = -1;
    NTKFAST_HD std::ptrdiff_t field_size(const Bands& b) {
        return std::ptrdiff_t(b.width) * (b.reach == no_reach ? b.width : 2 * b.reach + 1);
    }
    // Whether the displacement dx is kept.
    NTKFAST_HD bool has(const Bands& b, int dx) { return b.reach == no_reach || (dx >= -b.reach && dx <= b.reach); }
    // Of pixel x_i and the displacement dx, on the torus any number of turns without a reach.
    NTKFAST_HD std::ptrdiff_t pair(const Bands& b, int x_i, int dx) {
        if (b.reach != no_reach) return std::ptrdiff_t(x_i) * (2 * b.reach + 1) + (dx + b.reach);
        return std::ptrdiff_t(x_i) * b.width + (b.circular ? modulo(x_i + dx, b.width) : x_i + dx);
    }

    NTKFAST_HD Real* row(const Bands& b, int dy, int y) {
        const int n = dy - b.first_dy;
        if (n < 0 || n >= b.count || b.bands[n] == nullptr) return nullptr;
        const int row0 = b.circular ? 0 : larger(0, -dy);
        return b.bands[n] + (y - row0) * b.fields * field_size(b);
    }
};

// One value of a plan, made row by row.
template <class Real> struct Stage {
    StageKind kind;
    int lag, halo;  // as in Plan; halo: columns beyond the strip that later stages need
    bool last;      // goes to the block's results and not to `out`
    bool tangent;   // T' leaves it
    Rows out;
    const Real* halves;  // of the convolution that reads the value: E beside the image, and above and below
    Real gain;
    // image, noise
    const Real* image;
    int channels;
    Real different;  // noise: E of different pixels
    // banded, upsampled
    Bands<Real> source;
    const Real* spread;
    bool bilinear;
    // map
    Rows in;
    bool tangent_in;
    int kernel_size;
    int ring;  // first row of the window's sums along rows: k - 1 of E and as many of T'; of large kernels k + 1
    int maps;
    Map<Real> map[most_maps];
    // merge
    Rows a, b;
    bool has_b;
    Real share_a, share_b;
};

// A strip of columns of pixels i, up to `lanes` displacements from dx on, and some dy.
struct Task {
    int x, columns;            // multiples of 4
    int dx;                    // of lane 0; lane b is dx + b*step
    int first_lane, end_lane;  // lanes beyond are not wanted
    int dy, dy_step, dy_count;
};

enum class ResultKind { product, matrix, stored, strided, pooled };

template <class Real> struct Result {
    ResultKind kind;
    // product: v as planes; each task has a tile of sums for its pixels i and one for its pixels j, rows of `columns` planes
    const Real* v;
    int columns;
    Real* tiles;
    std::int64_t tile, tile_i;  // elements of both; of that of i, which comes first
    int pitch_i, pitch_j;
    // matrix: (pixels, pixels)
    Real* matrix;
    Real unit;
    // stored, strided, pooled
    Bands<Real> bands;
};

// What a kernel can do: products of networks of convolutions and rectifiers at one resolution; every kind of stage and result but
// smooth activations; or all.  The less, the fewer registers.
enum class Reach { plain, rectifiers, all };
constexpr int usual_lane_bits = 5;  // the first two kernels are for 32 lanes, in shared memory

template <class Real> struct Sweep {
    Geometry geometry;
    const Stage<Real>* stages;
    int stage_count, end_lag;
    int dx_step;        // from one lane to the next
    int begin, beyond;  // steps run from `begin` to the number of rows and `beyond`
    // The block's memory: rows of `positions` columns of `stride` lanes, then the results: lane by lane, `out_pitch` columns.
    int lane_bits, stride, halo, positions, out_pitch;
    std::int64_t results, words;  // where the results start; in all
    Real* scratch;                // nullptr: the memory is shared memory
    const Task* tasks;
    Rows end;  // of the last value, where it is not in the results
    Result<Real> result;
};

}  // namespace ntkfast::cuda
