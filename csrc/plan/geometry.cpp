#include "plan/geometry.h"

#include <algorithm>
#include <cstdlib>

namespace ntkfast {

Block Block::of_rows(const Shape& shape, bool circular, int dy) {
    Block block{};
    block.dy = dy;
    block.row0 = circular ? 0 : std::max(0, -dy);
    block.rows = circular ? shape.height : std::max(0, shape.height - std::abs(dy));
    return block;
}

void Block::add_lane(const Shape& shape, bool circular, int dx) {
    lane[lanes++] = circular ? Displacement{dx, 0, shape.width, 2 * dy % shape.height == 0 && 2 * dx % shape.width == 0}
                             : Displacement{dx, std::max(0, -dx), shape.width - std::abs(dx), false};
}

HalfPlane::HalfPlane(const Shape& shape, Padding padding, int lanes_per_block)
    : shape_(shape), circular_(padding == Padding::circular), lanes_(std::clamp(lanes_per_block, 1, max_lanes)) {
    const int h = shape.height, w = shape.width;
    if (circular_) {
        // Torus: dy = 0 and, for even heights, dy = H/2 are their own opposites; there half of the dx suffice.
        bands_.push_back({0, 1, w / 2});
        for (int dy = 1; 2 * dy < h; ++dy) bands_.push_back({dy, 0, w});
        if (h % 2 == 0) bands_.push_back({h / 2, 0, w / 2 + 1});
    } else {
        bands_.push_back({0, 1, w - 1});
        for (int dy = 1; dy < h; ++dy) bands_.push_back({dy, 1 - w, 2 * w - 1});
    }
    first_block_.push_back(0);
    for (const Band& band : bands_) first_block_.push_back(first_block_.back() + (band.count + lanes_ - 1) / lanes_);
}

Block HalfPlane::block(std::int64_t n) const {
    const auto after = std::upper_bound(first_block_.begin(), first_block_.end(), n);
    const auto index = std::size_t(after - first_block_.begin()) - 1;
    const Band& band = bands_[index];
    const int start = int(n - first_block_[index]) * lanes_;
    Block block = Block::of_rows(shape_, circular_, band.dy);
    for (int b = 0; b < std::min(lanes_, band.count - start); ++b)
        block.add_lane(shape_, circular_, band.dx0 + start + b);
    return block;
}

std::int64_t HalfPlane::pairs() const {
    const std::int64_t d = shape_.pixels();
    if (!circular_) return d * (d - 1) / 2 * shape_.batch;
    std::int64_t displacements = 0;
    for (const Band& band : bands_) displacements += band.count;
    return displacements * d * shape_.batch;
}

std::int64_t HalfPlane::packed_elements() const {
    const std::int64_t w = shape_.width;
    const auto packed = [&](std::int64_t cols) { return std::int64_t(round_up(cols * shape_.batch)); };
    std::int64_t one_row = 0;  // one row of every dx of a full band
    for (std::int64_t dx = 1 - w; dx < w; ++dx) one_row += packed(w - std::abs(dx));
    std::int64_t sum = 0;
    for (const Band& band : bands_) {
        if (circular_) {
            sum += std::int64_t(shape_.height) * band.count * packed(w);
        } else {
            const std::int64_t rows = shape_.height - band.dy;
            sum += rows * (band.dy == 0 ? (one_row - packed(w)) / 2 : one_row);
        }
    }
    return sum;
}

}  // namespace ntkfast
