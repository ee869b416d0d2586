// ExactRows computes rows of E in double behind the first layer, for pairs whose E in float would show: see
// Pipeline::redo.
//
// It does what the pipeline does, but for one lane and when it is asked for: row y of a map is made of the rows of its
// box, and these of the box before, down to the image.  What is made is kept until the box has passed, so that the
// doubtful rows of a lane that follow each other make each row once.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/rows/row_kernels.h"
#include "plan/aligned.h"
#include "plan/fields.h"
#include "plan/geometry.h"
#include "plan/plan.h"

namespace ntkfast {

template <class Real> class ExactRows {
public:
    ExactRows(const Program& program, const Plan& plan, const Fields<Real>& fields, const RowKernels<Real>& kernels,
              int lanes);

    // Tells whether the rows of a box can be had: since the image there must be nothing but convolutions of stride 1
    // and rectifiers.
    static bool serves(const Program& program, const Plan& plan, const Box& box);

    // Must be called before the first row of a block.
    void begin(const Block& block, const Lanes& lanes);

    // Returns the sum of the rows of a box around row y, each E without the scale of the box's convolution, from
    // `radius` pixels before the lane to as many behind it.  It points to the lane's first pair, and stays until the
    // next call.
    const double* column_sums(const Box& box, int lane, int y);

    static std::int64_t bytes(const Program& program, const Plan& plan, int lanes);

private:
    struct Kept {  // the rows of one value: slots of every lane
        int slots = 0;
        std::size_t first = 0;          // its place in rows_, in rows
        std::size_t sums = 0;           // row of rows_ for the column sums of the value's own box
        std::vector<std::int64_t> tag;  // by lane and slot: the block and the row that are there
    };

    // The rows of rows_ are the sums that are asked for, p_i and p_j, then those of the values.
    static constexpr std::size_t roots_ = 1;

    static std::vector<int> values_of(const Program& program, const Plan& plan);
    double* at(std::size_t row) { return rows_.data() + row * std::size_t(stride_) + margin_; }
    const double* row(int value, int lane, int y);
    void add_window(const Box& box, int lane, int y, double* sums);
    void roots(const Plane& variance, int y, std::ptrdiff_t start, std::ptrdiff_t n, double* p) const;
    // Returns E of pairs of which one pixel lies outside: half of the other one's variance.
    double outside(const Plane& variance, int i_row, std::ptrdiff_t i, int j_row, std::ptrdiff_t j) const;

    const Program& program_;
    const Plan& plan_;
    const Fields<Real>& fields_;
    const RowKernels<Real>& kernels_;
    const Block* block_ = nullptr;
    Lanes lanes_{};
    std::int64_t block_number_ = 0;
    std::ptrdiff_t margin_, stride_;
    std::vector<Kept> kept_;     // by value
    ZeroedVector<double> rows_;  // hardly any image touches them
};

}  // namespace ntkfast
