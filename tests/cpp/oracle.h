// The oracle is the pair recursion of docs/math.md over all pairs of pixels, in covariance form and node by node:
//
//   input       Q(i,j) = 1/C sum_c x_c(i) x_c(j), of noise [i = j];  T'(i,j) = 0
//   conv        S(i,j) = w/k^2 sum_delta Q(s i+delta, s j+delta) + b
//               T(i,j) = [trainable] S(i,j) + w/k^2 sum_delta T'(s i+delta, s j+delta)
//   activation  Q(i,j) = E[f(u) f(v)],  T'(i,j) = E[f'(u) f'(v)] T(i,j),  (u, v) Gaussian with the covariance S
//   pool, up    Q' = A Q A^T,  T'' = A T' A^T
//   merges      a Q_1 + b Q_2,  a T'_1 + b T'_2
//
// Positions outside the image count zero (zeros) or wrap (circular). Numbers are long double: the angle of nearly
// parallel patches takes the root of the rounding errors, which is what the half-distance avoids.  Angles below that
// root count as 0.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

#include "plan/program.h"

namespace oracle {

using ntkfast::Node;
using ntkfast::Op;
using ntkfast::Program;

using Number = long double;

// A Matrix is a symmetric field over all pairs of one node's pixels.
struct Matrix {
    int size = 0;
    std::vector<Number> values;

    explicit Matrix(int n = 0) : size(n), values(std::size_t(n) * std::size_t(n), Number(0)) {}
    Number& operator()(int i, int j) { return values[std::size_t(i) * std::size_t(size) + std::size_t(j)]; }
    Number operator()(int i, int j) const { return values[std::size_t(i) * std::size_t(size) + std::size_t(j)]; }
};

// Pairs are those of one node: Q and T'; of a convolution S and T.
struct Pairs {
    int height, width;
    Matrix q, t;
};

// These are the rows of a sparse matrix: (column, weight).
using Sparse = std::vector<std::vector<std::pair<int, Number>>>;

// Adds sum += M F M^T.
inline void add_both_sides(Matrix& sum, const Sparse& m, const Matrix& f) {
    for (int i = 0; i < sum.size; ++i)
        for (int j = 0; j < sum.size; ++j)
            for (const auto& [a, weight_a] : m[std::size_t(i)])
                for (const auto& [b, weight_b] : m[std::size_t(j)]) sum(i, j) += weight_a * weight_b * f(a, b);
}

// Counts the pixels that a layer makes of n along one axis.
inline int resized(const Node& node, int n) {
    return node.op == Op::conv ? n / node.stride : node.op == Op::avg_pool ? n / node.factor : node.factor * n;
}

// Returns one axis of n pixels of a linear layer: for each output the inputs and their weights; for a convolution those
// of one delta.
inline Sparse axis(const Node& node, int n, bool circular, int delta) {
    Sparse taps;
    const int f = node.factor, count = resized(node, n);
    for (int at = 0; at < count; ++at) {
        std::vector<std::pair<int, Number>> row;
        if (node.op == Op::conv) row = {{node.stride * at + delta, 1}};
        for (int m = 0; node.op == Op::avg_pool && m < f; ++m) row.push_back({f * at + m, Number(1) / f});
        if (node.op == Op::upsample && !node.bilinear) row = {{at / f, 1}};
        if (node.op == Op::upsample && node.bilinear) {
            // This is torch's align_corners=False.
            const Number distance = (at + Number(0.5)) / f - Number(0.5) - at / f, weight = std::abs(distance);
            const int other = at / f + (distance < 0 ? -1 : 1);
            row = {{at / f, 1 - weight}, {circular ? other : std::min(std::max(other, 0), n - 1), weight}};
        }
        std::vector<std::pair<int, Number>> inside;
        for (const auto& [index, weight] : row)
            if (circular || (index >= 0 && index < n)) inside.push_back({((index % n) + n) % n, weight});
        taps.push_back(inside);
    }
    return taps;
}

// Returns the Kronecker product of two axes: pixels in row-major order.
inline Sparse both_axes(const Sparse& rows, const Sparse& columns, int width) {
    Sparse out;
    for (const auto& row : rows)
        for (const auto& column : columns) {
            out.emplace_back();
            for (const auto& [y, a] : row)
                for (const auto& [x, b] : column) out.back().push_back({y * width + x, a * b});
        }
    return out;
}

// Returns the matrices M of a linear layer, out = sum of M F M^T: one, or one for each delta of a convolution.
inline std::vector<Sparse> matrices(const Node& node, int height, int width, bool circular) {
    std::vector<Sparse> out;
    const int radius = node.op == Op::conv ? node.radius() : 0;
    for (int dy = -radius; dy <= radius; ++dy)
        for (int dx = -radius; dx <= radius; ++dx)
            out.push_back(both_axes(axis(node, height, circular, dy), axis(node, width, circular, dx), width));
    return out;
}

// Returns {Q, Q'} of one pair.
inline std::pair<Number, Number> dual(const Node& node, Number s, Number s_i, Number s_j) {
    const Number pi = std::acos(Number(-1));
    if (node.op == Op::rectifier) {
        // This is the kernel of Cho & Saul 2009; max(x, ax) = a x + (1-a) relu(x). A patch of zeros has no angle.
        const Number area = std::sqrt(s_i) * std::sqrt(s_j), a = node.slope, bend = (1 - a) * (1 - a) / (2 * pi);
        if (area == 0) return {0, 0};
        const Number exact = s / area, rounding = 64 * std::numeric_limits<Number>::epsilon();
        const Number cosine = std::abs(exact) > 1 - rounding ? std::copysign(Number(1), exact) : exact;
        const Number angle = std::acos(cosine);
        return {a * s + bend * area * (std::sin(angle) + (pi - angle) * cosine), a + bend * (pi - angle)};
    }
    if (node.op == Op::erf) {
        // This is the kernel of Williams 1997.
        const Number det = (1 + 2 * s_i) * (1 + 2 * s_j) - 4 * s * s;
        return {2 / pi * std::atan(2 * s / std::sqrt(det)), 4 / pi / std::sqrt(det)};
    }
    if (node.op == Op::gelu) {
        // Stein's lemma is used twice, as in python/ntkfast/reference.py.
        const Number det = (1 + s_i) * (1 + s_j) - s * s, root = std::sqrt(det);
        const Number g = Number(0.25) + std::atan(s / root) / (2 * pi), p = 1 / (2 * pi * root);
        const Number r = 1 / (1 + s_i) + 1 / (1 + s_j);
        return {s * g + p * (s_i * s_j - s * s + s * s * r), g + p * s * (r + 1 / det)};
    }
    if (node.op == Op::gaussian) {
        const Number det = (1 + s_i) * (1 + s_j) - s * s;  // Q = E[exp(-(u^2 + v^2)/2)], Q' = dQ/ds
        return {1 / std::sqrt(det), s / (det * std::sqrt(det))};
    }
    const Number sine = std::exp(-(s_i + s_j) / 2) * std::sinh(s), cosine = std::exp(-(s_i + s_j) / 2) * std::cosh(s);
    if (node.op == Op::sin) return {sine, cosine};
    if (node.op == Op::cos) return {cosine, sine};
    throw std::logic_error("the oracle knows no dual of this operation");
}

// The image is (pixels, channels); null stands for noise.
inline Pairs input(int height, int width, int channels, const double* image) {
    const int d = height * width;
    Pairs out{height, width, Matrix(d), Matrix(d)};
    for (int i = 0; i < d; ++i)
        for (int j = 0; j < d; ++j) {
            if (!image) out.q(i, j) = i == j ? 1 : 0;
            for (int c = 0; image && c < channels; ++c)
                out.q(i, j) += Number(image[i * channels + c]) * Number(image[j * channels + c]) / Number(channels);
        }
    return out;
}

inline Pairs linear(const Node& node, const Pairs& in, bool circular) {
    const int height = resized(node, in.height), width = resized(node, in.width);
    Pairs out{height, width, Matrix(height * width), Matrix(height * width)};
    for (const Sparse& m : matrices(node, in.height, in.width, circular)) {
        add_both_sides(out.q, m, in.q);
        add_both_sides(out.t, m, in.t);
    }
    if (node.op != Op::conv) return out;
    const Number scale = Number(node.weight_var) / (Number(node.kernel_size) * node.kernel_size);
    for (std::size_t n = 0; n < out.q.values.size(); ++n) {
        Number &s = out.q.values[n], &t = out.t.values[n];
        s = scale * s + Number(node.bias_var);
        t = (node.trainable ? s : 0) + scale * t;
    }
    return out;
}

// Computes the fields of every node.
inline std::vector<Pairs> nodes(const Program& program, int height, int width, int channels, const double* image) {
    std::vector<Pairs> out;
    for (const Node& node : program.nodes) {
        if (node.op == Op::input) {
            out.push_back(input(height, width, channels, image));
        } else if (is_merge(node.op)) {
            Pairs sum = out[std::size_t(node.inputs[0])];
            const Pairs& other = out[std::size_t(node.inputs[1])];
            for (std::size_t n = 0; n < sum.q.values.size(); ++n) {
                sum.q.values[n] = node.shares[0] * sum.q.values[n] + node.shares[1] * other.q.values[n];
                sum.t.values[n] = node.shares[0] * sum.t.values[n] + node.shares[1] * other.t.values[n];
            }
            out.push_back(sum);
        } else if (is_activation(node.op)) {
            const Pairs& in = out[std::size_t(node.input())];
            Pairs mapped = in;
            for (int i = 0; i < in.q.size; ++i)
                for (int j = 0; j < in.q.size; ++j) {
                    const auto [q, dq] = dual(node, in.q(i, j), in.q(i, i), in.q(j, j));
                    mapped.q(i, j) = q;
                    mapped.t(i, j) = dq * in.t(i, j);
                }
            out.push_back(mapped);
        } else {
            out.push_back(linear(node, out[std::size_t(node.input())], program.circular()));
        }
    }
    return out;
}

// Returns Theta, or S of the last node for the NNGP kernel.
inline const Matrix& result(const Program& program, const std::vector<Pairs>& fields) {
    return program.kernel == ntkfast::Kernel::nngp ? fields.back().q : fields.back().t;
}

}  // namespace oracle
