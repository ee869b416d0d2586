// This file alone knows of pools, strides and upsamplings how the pixels and the displacements of two resolutions
// belong together.  The factor is a number here, and everything below holds for any.
#pragma once

#include "math/pair_math.h"

namespace ntkfast {

// This is the only factor that Program::check admits.  Loops that are made for it take it from here, known to the
// compiler.
constexpr int supported_factor = 2;

// These compute n modulo a period, and n/f rounded down and up, for negative n too.
template <class Integer> NTKFAST_HD constexpr Integer modulo(Integer n, int period) {
    const Integer rest = n % period;
    return rest < 0 ? rest + period : rest;
}
NTKFAST_HD constexpr int floor_div(int n, int f) { return (n - modulo(n, f)) / f; }
NTKFAST_HD constexpr int ceil_div(int n, int f) { return floor_div(n + f - 1, f); }

// These compute the same for a factor known to the compiler; of powers of 2 it makes a mask and a shift only if told.
template <int f> NTKFAST_HD constexpr int modulo(int n) { return (f & (f - 1)) == 0 ? n & (f - 1) : modulo(n, f); }
template <int f> NTKFAST_HD constexpr int floor_div(int n) {
    if constexpr (f > 1 && (f & (f - 1)) == 0)
        return floor_div<f / 2>(n >> 1);
    else
        return floor_div(n, f);
}
template <int f> NTKFAST_HD constexpr int ceil_div(int n) { return floor_div<f>(n + f - 1); }

// The device's loops, which know the factor, share these functions with Resampling below.
//
// Returns for a bilinear upsampling the position of the output f nearest + phase, from the nearest input on, in 1/(2f)
// pixels; it lies between -f and f.
NTKFAST_HD constexpr int bilinear_offset(int phase, int f) { return 2 * phase + 1 - f; }
// Returns the input on that side of the nearest; the nearest again where there is none.  On the torus it may lie
// outside.
NTKFAST_HD constexpr int bilinear_other(int nearest, int phase, int f, int length, bool circular) {
    const int offset = bilinear_offset(phase, f), other = nearest + (offset > 0 ? 1 : offset < 0 ? -1 : 0);
    if (circular) return other;
    return other < 0 ? 0 : other < length ? other : length - 1;
}
// Counts the displacements of a pool's outputs that read at most `count` neighbouring ones of its inputs.
NTKFAST_HD constexpr int pool_displacements_within(int count, int f) { return floor_div(count - (f - 1), f); }

// Counts the pixels along one axis of an image at 1/downsampling of its resolution.
constexpr int size_at(int size, int downsampling) { return size / downsampling; }

// A Range holds the n with low <= n <= high.
struct Range {
    int low, high;

    constexpr int size() const { return high - low + 1; }
};

// Taps make one output along one axis: the sum over m < count of weight(m) times the input index(m), the nearest first.
struct Taps {
    int count, first, step;
    double first_weight, other_weight;

    constexpr int index(int m) const { return first + m * step; }
    constexpr double weight(int m) const { return m == 0 ? first_weight : other_weight; }
};

// A Resampling is a layer that changes the resolution by a factor, along one axis: it gives the rows of its matrix A,
// out = A in, and what a pair of outputs reads of the pairs of inputs where fields are A F A^T. The displacement of a
// pair (i, j) is j - i.
//
//   stride:   out[n] = in[f n]; the pixels of a convolution's windows
//   pool:     out[n] = mean of in[f n], ..., in[f n + f-1]
//   nearest:  out[n] = in[floor(n/f)]
//   bilinear: out[n] = in at the position (n + 1/2)/f - 1/2, linear between the pixels (torch's align_corners=False);
//             beyond the first and the last pixel their own value, or wrapped on the torus
struct Resampling {
    enum class Kind { stride, pool, nearest, bilinear };
    Kind kind = Kind::stride;
    int factor = 1;

    constexpr bool goes_down() const { return kind == Kind::stride || kind == Kind::pool; }
    constexpr int output_size(int input) const { return goes_down() ? size_at(input, factor) : input * factor; }

    // `length` counts the pixels of the input; on the torus indices beyond are left as they are.
    constexpr Taps taps(int n, int length, bool circular) const {
        const int f = factor, nearest = floor_div(n, f);
        if (kind == Kind::stride) return {1, f * n, 0, 1, 0};
        if (kind == Kind::pool) return {f, f * n, 1, 1.0 / f, 1.0 / f};
        if (kind == Kind::nearest) return {1, nearest, 0, 1, 0};
        const int phase = n - f * nearest, offset = bilinear_offset(phase, f);
        const double other = double(offset < 0 ? -offset : offset) / (2 * f);
        return {2, nearest, bilinear_other(nearest, phase, f, length, circular) - nearest, 1 - other, other};
    }

    // Returns the inputs that some of the outputs n read, before any border.
    Range inputs(Range n) const;
    // Returns the displacements of inputs, along the axis, that pairs of outputs with the displacements d read.
    Range reads(Range d) const;
    // Leads from one displacement that is read to the next.
    constexpr int step() const { return kind == Kind::stride ? factor : 1; }
    // These count how many displacements `count` neighbouring ones of the outputs read, and how many of the outputs read at
    // most `count`.
    int displacements_read(int count) const;
    int displacements_within(int count) const;
    // Returns, for a layer that goes down, the displacements of outputs that read d: none where d lies between two
    // strides.
    constexpr Range read_by(int d) const {
        return kind == Kind::pool ? Range{floor_div(d, factor), ceil_div(d, factor)}
                                  : Range{ceil_div(d, factor), floor_div(d, factor)};
    }
    // Returns, for a pool, the pixels a of the cell 0 for which a + d lies in the cell c.
    constexpr Range cell_pixels(int d, int c) const {
        const int low = factor * c - d, high = low + factor - 1;
        return {low > 0 ? low : 0, high < factor - 1 ? high : factor - 1};
    }
};

}  // namespace ntkfast
