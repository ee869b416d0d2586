// Columns computes single rows of the kernel for any network, without a sweep and in double precision.
//
// Theta(i, .) for one pixel i needs, at each node, the pairs (I, J) of few pixels I near i with all pixels J.  A pair
// is addressed by I, the difference of the rows, dy = J_y - I_y, and the column of J.  A convolution takes the same
// delta on both sides, so that it keeps dy: a strip of output rows has no halo in J, except where the resolution
// changes.
//
// Arrays over whole windows would be large at the finer levels.  So only the nodes that end a section are kept over
// their window: those that lower the resolution, those that are upsampled, and the last.  Each is computed block by
// block, together with the nodes between it and the kept ones before it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "plan/fields.h"
#include "plan/geometry.h"
#include "plan/monitor.h"
#include "plan/program.h"

namespace ntkfast {

// An Interval holds the n with lo <= n < hi; on the torus n counts modulo the period.
struct Interval {
    int lo = 0, hi = 0;

    int size() const { return hi - lo; }
};

// A PairWindow holds pairs of one node: rows and columns of I, and dy; J_x runs over all columns.
struct PairWindow {
    Interval i_y, i_x, dy;

    bool empty() const { return dy.size() == 0; }
    std::int64_t rows() const { return std::int64_t(i_y.size()) * i_x.size() * dy.size(); }
};

// ColumnBlocks say which pairs each node needs, in which blocks, and what that costs.  It depends on the sizes only.
class ColumnBlocks {
public:
    ColumnBlocks(const Program& program, const Shape& shape);

    // This is a kept node and the nodes computed with it, in order; the kept one is the last.
    struct Section {
        int node;
        std::vector<int> nodes;
        std::vector<std::vector<int>> released;  // by place in `nodes`: those that nothing needs any more afterwards
    };
    struct BlockSize {
        int i_y, i_x, dy;

        double places() const { return double(i_y) * i_x * dy; }
    };

    const std::vector<Section>& sections() const { return sections_; }
    bool kept(int n) const { return kept_[std::size_t(n)]; }
    bool tangent(int n) const { return tangent_[std::size_t(n)]; }
    bool circular() const { return program_.circular(); }
    int height(int n) const { return shapes_[std::size_t(n)].height; }
    int width(int n) const { return shapes_[std::size_t(n)].width; }

    // Returns the windows of all nodes for the rows [y0, y1) of Theta(pixel, .).
    std::vector<PairWindow> windows(std::int64_t pixel, int y0, int y1) const;
    // Returns the windows of a section's nodes for one block of its last; those of other nodes stay empty.
    std::vector<PairWindow> windows(const Section& section, const PairWindow& block) const;
    // Returns the rows of I that a convolution's box sums over.
    Interval box_rows(int n, Interval i_y) const;
    BlockSize block_size(const Section& section, const PairWindow& whole) const;

    // Returns how many rows are cheap to compute together.
    int strip() const { return strip_; }
    // Returns the bytes that a strip in the middle of the image takes.
    std::int64_t bytes() const { return bytes_; }

private:
    struct Cost {
        double work;  // about nanoseconds
        std::int64_t bytes;
    };
    static PairWindow typical(const PairWindow& whole, const BlockSize& size);
    PairWindow needed(int n, const PairWindow& of_output) const;
    PairWindow clipped(int n, PairWindow window) const;
    void demand(int n, std::vector<PairWindow>& windows, bool stop_at_kept) const;
    Cost block_cost(const Section& section, const PairWindow& block) const;
    Cost strip_cost(int rows) const;
    std::int64_t field_bytes(int n, const PairWindow& window) const;
    void choose_strip();

    Program program_;
    Shape shape_;                // the image's
    std::vector<Shape> shapes_;  // by node
    std::vector<bool> kept_, tangent_;
    std::vector<Section> sections_;
    int strip_ = 1;
    std::int64_t bytes_ = 0;
};

// Columns computes rows; each thread has an object of its own.
class Columns {
public:
    // The fields are those of one image (batch 1). `image` is scaled so that sum_c (x_c(i) - x_c(j))^2 is E(i,j) of the
    // input, with no convolution's scale in it.  `image`, `noise`, `unit`, `variance`, `tangent`, `spread` and the
    // `maps` of activations are read.  Both arguments must outlive the object.
    Columns(const Program& program, const Fields<double>& fields);

    // Writes out[(y - y0)*width + x] = Theta(pixel, (y, x)) for y0 <= y < y1, in the image's units; S(pixel, .) for the
    // NNGP kernel.  The monitor is asked after each block; when it is stopped, `out` is not to be used.
    void rows(std::int64_t pixel, int y0, int y1, double* out, Monitor& monitor, bool leader);

    // Returns how many rows are cheap to compute together: the best y1 - y0.
    int strip() const { return blocks_.strip(); }
    // Returns the bytes of one object.
    static std::int64_t bytes(const Program& program, const Shape& shape) {
        return ColumnBlocks(program, shape).bytes();
    }

private:
    // A PairField holds E and T' of a node over a window.
    struct PairField {
        PairWindow window;
        int period_y, period_x, period_dy, width;  // periods are 0 without wrapping
        std::vector<double> e, t;

        std::ptrdiff_t at(int i_y, int i_x, int dy) const;
        const double* e_row(int i_y, int i_x, int dy) const { return e.data() + at(i_y, i_x, dy); }
        const double* t_row(int i_y, int i_x, int dy) const { return t.data() + at(i_y, i_x, dy); }
        double* e_row(int i_y, int i_x, int dy) { return e.data() + at(i_y, i_x, dy); }
        double* t_row(int i_y, int i_x, int dy) { return t.data() + at(i_y, i_x, dy); }
    };
    // A Place is one I and one row of J.
    struct Place {
        int i_y, i_x, dy;           // as in the window
        int pixel_y, pixel_x, j_y;  // inside the image
        std::ptrdiff_t i, j;        // indices in a plane: of pixel I, and of the first pixel of J's row
    };
    // This is one tap of every column of an operation's output: out[x] is the sum of weight[x] in[index[x]] over its
    // taps.
    struct ColumnTap {
        std::vector<int> index;
        std::vector<double> weight;
    };

    void allocate(int n, const PairWindow& window, int width, bool with_tangent, int period_y, int period_dy,
                  PairField& field);
    void release(PairField& field);
    template <class Visit> void for_places(int n, const PairWindow& region, Visit visit) const;
    void compute_block(const ColumnBlocks::Section& section, const PairWindow& block);
    void compute(int n, const PairWindow& region);
    void enter_input(const PairWindow& region);
    void convolve(int n, const PairWindow& region);
    void sum_along_rows(int n, const PairWindow& region);
    void sum_along_columns(int n, const PairWindow& region);
    void add_side_row(int n, int j_y, double* to);
    double side(int n, int y, int x) const;
    void activate_pairs(int n, const PairWindow& region);
    template <class Map> void map_pairs(int n, const PairWindow& region, Map map);
    void resample(int n, const PairWindow& region);
    void merge(int n, const PairWindow& region);
    void set_equal_pixels(int n, const PairWindow& region);

    const Program& program_;
    const Fields<double>& fields_;
    ColumnBlocks blocks_;
    std::vector<PairField> pairs_;                     // by node
    std::vector<std::vector<ColumnTap>> column_taps_;  // by node; for pools and upsampling
    PairField sums_;                                   // a convolution's box sums along rows
    std::vector<double> side_rows_;  // a convolution's box sums along rows of Q(j,j)/2, made where needed
    std::vector<bool> side_known_;
    Interval side_range_;
    std::vector<double> row_;
    std::vector<std::vector<double>> spare_;  // the memory of fields that were released
};

}  // namespace ntkfast
