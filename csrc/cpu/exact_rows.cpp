#include "cpu/exact_rows.h"

#include <algorithm>
#include <cmath>

namespace ntkfast {
namespace {

constexpr std::int64_t rows_of_a_block = std::int64_t(1) << 32;

// Counts the rows of a value that its largest box sees at once.
int slots_of(const Plan& plan, int value) {
    int slots = 0;
    for (const int b : plan.values[std::size_t(value)].boxes) slots = std::max(slots, plan.boxes[std::size_t(b)].slots);
    return slots;
}

}  // namespace

template <class Real> bool ExactRows<Real>::serves(const Program& program, const Plan& plan, const Box& box) {
    if (program[box.node].op != Op::conv || program[box.node].stride != 1) return false;
    const Value& value = plan.values[std::size_t(box.value)];
    if (value.kind == ValueKind::image) return true;
    if (value.kind != ValueKind::map || value.sums) return false;
    const Op op = program[value.node].op;
    return (op == Op::rectifier || op == Op::conv) && serves(program, plan, plan.boxes[std::size_t(value.box)]);
}

// Returns the maps whose rows a later one may ask for.
template <class Real> std::vector<int> ExactRows<Real>::values_of(const Program& program, const Plan& plan) {
    std::vector<int> values;
    if (sizeof(Real) == 8) return values;  // in double nothing is doubtful
    for (const Box& box : plan.boxes)
        if (plan.values[std::size_t(box.value)].kind == ValueKind::map && serves(program, plan, box))
            values.push_back(box.value);
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
    return values;
}

template <class Real>
ExactRows<Real>::ExactRows(const Program& program, const Plan& plan, const Fields<Real>& fields,
                           const RowKernels<Real>& kernels, int lanes)
    : program_(program), plan_(plan), fields_(fields), kernels_(kernels), margin_(plan.left), stride_(plan.row_stride),
      kept_(plan.values.size()) {
    std::size_t rows = roots_ + 2;
    for (const int v : values_of(program, plan)) {
        Kept& kept = kept_[std::size_t(v)];
        kept.slots = slots_of(plan, v);
        kept.sums = rows++;
        kept.first = rows;
        rows += std::size_t(kept.slots * lanes);
        kept.tag.assign(std::size_t(kept.slots * lanes), -1);
    }
    rows_ = ZeroedVector<double>(rows * std::size_t(stride_));
}

template <class Real>
std::int64_t ExactRows<Real>::bytes(const Program& program, const Plan& plan, int lanes) {
    std::int64_t rows = roots_ + 2;
    for (const int v : values_of(program, plan)) rows += 1 + slots_of(plan, v) * lanes;
    return rows * plan.row_stride * std::int64_t(sizeof(double));
}

template <class Real> void ExactRows<Real>::begin(const Block& block, const Lanes& lanes) {
    block_ = &block;
    lanes_ = lanes;
    ++block_number_;
}

template <class Real> const double* ExactRows<Real>::column_sums(const Box& box, int lane, int y) {
    double* sums = at(0);
    add_window(box, lane, y, sums);
    return sums;
}

template <class Real>
void ExactRows<Real>::add_window(const Box& box, int lane, int y, double* sums) {
    const bool circular = program_.circular();
    const std::ptrdiff_t halo = std::ptrdiff_t(box.radius()) * plan_.shape.batch, length = lanes_.length[lane],
                         beyond = circular ? 0 : halo;
    const Value& before = plan_.values[std::size_t(box.value)];
    std::fill(sums - beyond, sums + length + beyond, 0.0);
    for (int n = y - box.radius(); n <= y + box.radius(); ++n) {
        if (before.kind == ValueKind::image) {
            const PaddedRows<Real>& image = fields_.image_of(before.node);
            kernels_.input_exact(sums - beyond, image.row(n + block_->row0) + lanes_.at_i[lane] - beyond,
                                 image.row(n + block_->row0 + block_->dy) + lanes_.at_j[lane] - beyond,
                                 image.plane_stride(), fields_.shape.channels, length + 2 * beyond);
        } else {
            const double* from = row(box.value, lane, n);
            for (std::ptrdiff_t l = -beyond; l < length + beyond; ++l) sums[l] += from[l];
        }
    }
    if (circular) wrap_columns(sums, length, halo);
}

template <class Real>
double ExactRows<Real>::outside(const Plane& variance, int i_row, std::ptrdiff_t i, int j_row, std::ptrdiff_t j) const {
    const std::ptrdiff_t width = std::ptrdiff_t(plan_.shape.width) * plan_.shape.batch;
    const auto half = [&](int y, std::ptrdiff_t x) {
        const bool inside = y >= 0 && y < plan_.shape.height && x >= 0 && x < width;
        return inside ? variance[std::size_t(y * width + x)] / 2 : 0.0;
    };
    return half(i_row, i) + half(j_row, j);
}

// Computes p of n elements of a row from `start` on; on the torus the row repeats.
template <class Real>
void ExactRows<Real>::roots(const Plane& variance, int y, std::ptrdiff_t start, std::ptrdiff_t n, double* p) const {
    const std::ptrdiff_t width = std::ptrdiff_t(plan_.shape.width) * plan_.shape.batch;
    const double* from = &variance[std::size_t(modulo(y, plan_.shape.height) * width)];
    for (std::ptrdiff_t l = 0; l < n; ++l) p[l] = from[start + l < width ? start + l : start + l - width];
    for (std::ptrdiff_t l = 0; l < n; ++l) p[l] = std::sqrt(p[l]);
}

// Computes E of a map, without the scale of the convolution that follows:
//   E' = activate(E),  E = w/k^2 sum of the box before
template <class Real> const double* ExactRows<Real>::row(int number, int lane, int y) {
    const bool circular = program_.circular();
    if (circular) y = modulo(y, block_->rows);
    Kept& kept = kept_[std::size_t(number)];
    const std::size_t slot = std::size_t(lane * kept.slots + modulo(y, kept.slots));
    double* out = at(kept.first + slot);
    const std::int64_t tag = block_number_ * rows_of_a_block + y + rows_of_a_block / 2;
    if (kept.tag[slot] == tag) return out;
    kept.tag[slot] = tag;

    const Value& value = plan_.values[std::size_t(number)];
    const Plane& variance = fields_.variance[std::size_t(value.node)];
    const std::ptrdiff_t length = lanes_.length[lane], at_i = lanes_.at_i[lane], at_j = lanes_.at_j[lane];
    const int i_row = y + block_->row0, j_row = i_row + block_->dy;
    if (!circular) {
        const std::ptrdiff_t halo = std::ptrdiff_t(kept.slots / 2) * plan_.shape.batch;
        const bool no_pair = y < 0 || y >= block_->rows;
        for (std::ptrdiff_t l = -halo; l < length + halo; ++l)
            if (no_pair || l < 0 || l >= length) out[l] = outside(variance, i_row, at_i + l, j_row, at_j + l);
        if (no_pair) return out;
    }

    const Box& box = plan_.boxes[std::size_t(value.box)];
    double* sums = at(kept.sums);
    add_window(box, lane, y, sums);
    const Node& node = program_[value.node];
    const double scale = program_.scale(box.node);
    if (node.op == Op::rectifier) {
        const Plane& entering = fields_.variance[std::size_t(box.node)];
        double *p_i = at(roots_), *p_j = at(roots_ + 1);
        roots(entering, i_row, at_i, length, p_i);
        roots(entering, j_row, at_j, length, p_j);
        kernels_.rectifier_distance(out, sums, box.slots, plan_.shape.batch, scale, p_i, p_j, node.slope,
                                    program_.gain(value.node), length);
    } else {
        for (std::ptrdiff_t l = 0; l < length; ++l) {
            double e = 0;
            for (int n = -box.radius(); n <= box.radius(); ++n) e += sums[l + n * plan_.shape.batch];
            out[l] = scale * e;
        }
    }
    return out;
}

template class ExactRows<float>;
template class ExactRows<double>;

}  // namespace ntkfast
