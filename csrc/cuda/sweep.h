// The sweep kernel reads this: the segment of a target as a list of stages, tasks, and where the results go.  All is
// plain data, in the memory of the device.
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
// Returns the most threads of a block; so many threads of a multiprocessor leave 168 registers to each in float, 255 in
// double.
constexpr int most_sweep_threads(std::size_t real) { return real == 4 ? 384 : 256; }
constexpr int guard = 4;  // positions before the first column and behind the last

NTKFAST_HD int larger(int a, int b) { return a > b ? a : b; }
NTKFAST_HD int smaller(int a, int b) { return a < b ? a : b; }

// A Geometry describes planes of pixels of one level, with a margin on every side: zeros, or on the torus the image
// again.  Plane c of row y starts c*pitch behind plane 0, the next row behind the last plane.
struct Geometry {
    int height, width;
    int margin;       // rows above and below; none on the torus, where rows wrap
    int left, pitch;  // columns before column 0, and in all
    bool circular;

    NTKFAST_HD int row(const Geometry& g, int y) {
        return g.circular ? modulo(y, g.height) : larger(-g.margin, smaller(y, g.height + g.margin - 1)) + g.margin;
    }
    // Returns column 0 of plane 0 of row y; rows beyond the margin are those at its end.
    template <class Real> NTKFAST_HD Real* at(const Geometry& g, Real* planes, int count, int y) {
        return planes + (std::ptrdiff_t(row(g, y)) * count * g.pitch + g.left);
    }
    std::int64_t elements(int planes) const { return std::int64_t(height + 2 * margin) * planes * pitch; }
};

// Rows say where the rows of a value lie in a block's memory: E of row y in slot y mod slots, T' in the row behind it.
struct Rows {
    int first, slots, fields;
};

enum class StageKind { image, noise, banded, upsampled, map, merge };
enum class MapKind { sums, linear, output, NTKFAST_ACTIVATIONS(NTKFAST_ENUMERATOR, NTKFAST_ENUMERATOR) };
inline MapKind map_kind(ActivationKind kind) { return MapKind(int(MapKind::output) + 1 + int(kind)); }

// A Map is a pointwise map.
template <class Real> struct Map {
    MapKind kind;
    bool tangent;                // T leaves it
    bool redone, always_redone;  // see MapChoice
    ActivationConstants<Real> constants;
    SmoothConstants<Real> smooth;
    Real scale;         // that of the convolution that follows
    double box_scale;   // that of the convolution before
    const Real* roots;  // three planes: p, its inverse, its rest
};

// Bands are those of one target: there is one buffer for each dy, nullptr where there is none.  In a row of pixels i,
// first E, then T', the pixels j of one i are neighbours: all of them, or with an extent those up to so many columns
// away.
template <class Real> struct Bands {
    Real* const* bands;
    int first_dy, count;
    int height, width, fields;
    bool circular;
    int extent;  // whole_rows: all

    static constexpr int whole_rows = -1;
    NTKFAST_HD std::ptrdiff_t field_size(const Bands& b) {
        return std::ptrdiff_t(b.width) * (b.extent == whole_rows ? b.width : 2 * b.extent + 1);
    }
    // Tells whether the displacement dx is kept.
    NTKFAST_HD bool has(const Bands& b, int dx) {
        return b.extent == whole_rows || (dx >= -b.extent && dx <= b.extent);
    }
    // Returns where the pair of pixel x_i and the displacement dx lies; on the torus dx may take any number of turns
    // with whole rows.
    NTKFAST_HD std::ptrdiff_t pair(const Bands& b, int x_i, int dx) {
        if (b.extent != whole_rows) return std::ptrdiff_t(x_i) * (2 * b.extent + 1) + (dx + b.extent);
        return std::ptrdiff_t(x_i) * b.width + (b.circular ? modulo(x_i + dx, b.width) : x_i + dx);
    }

    NTKFAST_HD Real* row(const Bands& b, int dy, int y) {
        const int n = dy - b.first_dy;
        if (n < 0 || n >= b.count || b.bands[n] == nullptr) return nullptr;
        const int row0 = b.circular ? 0 : larger(0, -dy);
        return b.bands[n] + (y - row0) * b.fields * field_size(b);
    }
};

// A Stage makes one value of a plan, row by row.
template <class Real> struct Stage {
    StageKind kind;
    int lag, halo;  // lag: see Plan; halo: columns beyond the strip that later stages need
    bool last;      // goes to the block's results and not to `out`
    bool tangent;   // T' leaves it
    Rows out;
    const Real* halves;  // for the convolution that reads the value: E beside the image, and above and below
    Real gain;
    // These serve the kinds image and noise:
    const Real* image;
    int channels;
    Real different;  // noise: E of different pixels
    // These serve banded and upsampled:
    Bands<Real> source;
    const Real* spread;
    bool bilinear;
    // These serve map:
    Rows in;
    bool tangent_in;
    int kernel_size;
    int ring;  // first row of the window's sums along rows: k - 1 of E and as many of T'; of large kernels k + 1
    int maps;
    Map<Real> map[most_maps];
    // These serve merge:
    Rows a, b;
    bool has_b;
    Real share_a[2], share_b[2];  // in E, in T'
};

// A Task is a strip of columns of pixels i, up to `lanes` displacements from dx on, and some dy.
struct Task {
    int x, columns;            // multiples of 4
    int dx;                    // dx is lane 0's; lane b has dx + b*step
    int first_lane, end_lane;  // lanes beyond are not wanted
    int dy, dy_step, dy_count;
};

enum class ResultKind { product, matrix, features, strided, pooled };

template <class Real> struct Result {
    ResultKind kind;
    // A product has v as planes; each task has a tile of sums for its pixels i and one for its pixels j, rows of
    // `columns` planes.
    const Real* v;
    int columns;
    Real* tiles;
    std::int64_t tile, tile_i;  // elements of both tiles; of that of i, which comes first
    int pitch_i, pitch_j;
    // The matrix is (pixels, pixels).
    Real* matrix;
    Real unit;
    // Bands are written for the kinds features, strided and pooled.
    Bands<Real> bands;
};

// A Scope says what a kernel can do: products of networks of convolutions and rectifiers at one resolution; every kind
// of stage and result but smooth activations; or all.  The less it can do, the fewer registers it takes.
enum class Scope { plain, rectifiers, all };
constexpr int usual_lane_bits = 5;  // the first two kernels are for 32 lanes, in shared memory

template <class Real> struct Sweep {
    Geometry geometry;
    const Stage<Real>* stages;
    int stage_count, end_lag;
    int dx_step;        // leads from one lane to the next
    int begin, beyond;  // steps run from `begin` to the number of rows and `beyond`
    // The block's memory holds rows of `positions` columns of `stride` lanes, then the results: lane by lane,
    // `out_pitch` columns.
    int lane_bits, stride, halo, positions, out_pitch;
    std::int64_t results, words;  // where the results start; all words
    Real* scratch;                // nullptr: the memory is shared memory
    const Task* tasks;
    Rows end;  // the last value's, where it is not in the results
    Result<Real> result;
};

}  // namespace ntkfast::cuda
