#include "plan/resampling.h"

namespace ntkfast {

Range Resampling::inputs(Range n) const {
    const int f = factor;
    switch (kind) {
        case Kind::stride: return {f * n.low, f * n.high};
        case Kind::pool: return {f * n.low, f * n.high + f - 1};
        case Kind::nearest: return {floor_div(n.low, f), floor_div(n.high, f)};
        default: return {floor_div(2 * n.low + 1 - f, 2 * f), ceil_div(2 * n.high + 1 - f, 2 * f)};
    }
}

// With bilinear upsampling i at the position s of its coarse pixel, |s| < 1/2, and j at s + d/f read
// floor(s + d/f) - ceil(s) at least.  That is floor(d/f) - 1 if 0 < s < 1 - (d mod f)/f.  The least s > 0 is 1/(2f), but 1/f for odd f,
// which have s = 0: then d mod f = f - 1 leaves none.  The upper end is the same for -d.
Range Resampling::reads(Range d) const {
    const int f = factor, odd = f % 2;
    switch (kind) {
        case Kind::stride: return {f * d.low, f * d.high};
        case Kind::pool: return {f * d.low - (f - 1), f * d.high + f - 1};
        case Kind::nearest: return {floor_div(d.low, f), ceil_div(d.high, f)};
        default: return {floor_div(d.low + odd, f) - 1, ceil_div(d.high - odd, f) + 1};
    }
}

int Resampling::displacements_read(int count) const {
    const Range read = reads({0, count - 1});
    return (read.high - read.low) / step() + 1;
}

int Resampling::displacements_within(int count) const {
    return kind == Kind::pool ? pool_displacements_within(count, factor) : count;
}

}  // namespace ntkfast
