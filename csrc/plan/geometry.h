// This file has the displacements D = j - i, their ranges of pixels, and the blocks in which the engine sweeps them.
#pragma once

#include <cstdint>
#include <vector>

#include "plan/lanes.h"
#include "plan/program.h"

namespace ntkfast {

// A Shape describes `batch` images of equal size, interleaved pixel by pixel: element (y, x, image) of a row lies at
// x*batch + image, so that a shift by one pixel is a shift by `batch` elements and every row loop runs over the whole
// batch.
struct Shape {
    int height, width, channels, batch;

    std::int64_t pixels() const { return std::int64_t(height) * width; }
    std::int64_t elements() const { return pixels() * batch; }
};

// Returns the shape of the same images at 1/downsampling of the resolution, and at a level of a network.
inline Shape downsampled(const Shape& shape, int downsampling) {
    return {size_at(shape.height, downsampling), size_at(shape.width, downsampling), shape.channels, shape.batch};
}
inline Shape at_level(const Program& program, const Shape& shape, int level) {
    return downsampled(shape, program.downsampling(level));
}

// Fills the positions l < 0 and l >= length of a row that repeats with period `length`.
template <class Real> void wrap_columns(Real* row, std::ptrdiff_t length, std::ptrdiff_t halo) {
    for (std::ptrdiff_t l = 0; l < halo; ++l) {
        row[-1 - l] = row[length - 1 - l % length];
        row[length + l] = row[l % length];
    }
}

// This is one displacement of a block: the pixels i of its rows are the columns [col0, col0 + cols), those of j lie dx
// further.
struct Displacement {
    int dx;  // on the torus any number of turns
    int col0, cols;
    bool self_paired;  // D = -D on the torus: the sweep meets each pair from both ends
};

// A Block holds neighbouring displacements with the same dy, which are swept together row by row: what a row reads of
// the image, of the diagonals and of the right-hand sides then stays in L1 for all of them.
struct Block {
    int dy, row0, rows;  // pixels i lie in the rows [row0, row0 + rows)
    int lanes;
    Displacement lane[max_lanes];

    // Makes a block without lanes for the rows of a dy.
    static Block of_rows(const Shape& shape, bool circular, int dy);
    // Adds a displacement; there must be room below max_lanes.
    void add_lane(const Shape& shape, bool circular, int dx);

    std::int64_t pairs_per_row() const {
        std::int64_t sum = 0;
        for (int b = 0; b < lanes; ++b) sum += lane[b].cols;
        return sum;
    }
    std::int64_t pairs() const { return rows * pairs_per_row(); }

    // Returns the lanes as the row kernels take them; `stride` separates the lanes' buffers.
    Lanes row_lanes(const Shape& shape, bool circular, std::ptrdiff_t stride) const {
        Lanes out{lanes, stride, {}, {}, {}};
        const int batch = shape.batch;
        for (int b = 0; b < lanes; ++b) {
            const int dx = circular ? modulo(lane[b].dx, shape.width) : lane[b].dx;
            out.at_i[b] = std::ptrdiff_t(lane[b].col0) * batch;
            out.at_j[b] = std::ptrdiff_t(lane[b].col0 + dx) * batch;
            out.length[b] = std::ptrdiff_t(lane[b].cols) * batch;
        }
        return out;
    }
};

// A HalfPlane is half of all displacements, D = 0 left out: of D and -D exactly one is there.
class HalfPlane {
public:
    HalfPlane(const Shape& shape, Padding padding, int lanes_per_block);

    std::int64_t blocks() const { return first_block_.back(); }
    Block block(std::int64_t n) const;
    // Its bands hold displacements of equal dy, in ascending order; blocks [first_block(n), first_block(n + 1)) make up
    // band n.
    int bands() const { return int(bands_.size()); }
    int band_dy(int n) const { return bands_[std::size_t(n)].dy; }
    // The displacements of a band are first_dx <= dx < first_dx + dx_count.
    int first_dx(int band) const { return bands_[std::size_t(band)].dx0; }
    int dx_count(int band) const { return bands_[std::size_t(band)].count; }
    std::int64_t first_block(int band) const { return first_block_[std::size_t(band)]; }
    // Counts the pairs that the sweep visits, over the batch: with zeros each unordered pair of distinct pixels once.
    std::int64_t pairs() const;
    // Counts the numbers that StoreSink keeps, in rows of whole chunks.
    std::int64_t packed_elements() const;
    int lanes_per_block() const { return lanes_; }

private:
    struct Band {  // one dy: displacements dx0 <= dx < dx0 + count
        int dy, dx0, count;
    };
    Shape shape_;
    bool circular_;
    int lanes_;
    std::vector<Band> bands_;
    std::vector<std::int64_t> first_block_;
};

}  // namespace ntkfast
