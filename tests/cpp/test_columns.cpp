// These tests compare single rows of the kernel with the pair recursion over all pairs of pixels (oracle.h), for
// networks of every kind.
//
// The diagonals that `Columns` reads are taken from the oracle too.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "checks.h"
#include "cpu/columns.h"
#include "networks.h"
#include "oracle.h"
#include "plan/activations.h"

using namespace ntkfast;

namespace {

// --- Fields from the oracle -----------------------------------------------------------------------------------------

constexpr double unit = 4;  // a power of 4, so that nothing is rounded

PaddedRows<double> padded(const Plane& plane, int height, int width, const Program& program) {
    PaddedRows<double> out({height, width, 1, 1}, 1, program.circular(), program.max_radius());
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < (program.circular() ? 2 : 1) * width; ++x)
            out.row(y)[x] = plane[std::size_t(y * width + x % width)];
    return out;
}

Root<double> root_of(Op op, double s) {
    if (op == Op::rectifier || !is_activation(op)) return {std::sqrt(s), s > 0 ? 1 / std::sqrt(s) : 0, 0};
    return smooth_number<double>(op, s * unit);
}

MapFields<double> map_fields(Op op, const Plane& variance, int height, int width, const Program& program) {
    Plane p, inverse, rest;
    double largest = 0;
    for (const double s : variance) {
        const Root<double> root = root_of(op, s);
        p.push_back(root.p), inverse.push_back(root.inverse), rest.push_back(root.rest);
        largest = std::max(largest, std::sqrt(s));
    }
    const auto rows = [&](const Plane& plane) { return padded(plane, height, width, program); };
    return {{rows(p), rows(inverse), rows(rest)}, largest};
}

// Computes v(p) = 1/2 sum_aa' A_pa A_pa' E(a,a').
Plane spread_of(const Node& node, const oracle::Pairs& in, bool circular) {
    const auto half_distance = [&](int a, int b) { return (in.q(a, a) + in.q(b, b)) / 2 - in.q(a, b); };
    Plane out;
    const oracle::Sparse means = oracle::matrices(node, in.height, in.width, circular).front();
    for (const auto& row : means) {
        oracle::Number v = 0;
        for (const auto& [a, weight_a] : row)
            for (const auto& [b, weight_b] : row) v += weight_a * weight_b * half_distance(a, b) / 2;
        out.push_back(double(v));
    }
    return out;
}

// The image is (pixels, channels); null stands for noise.
Fields<double> fields_of(const Program& program, const Shape& shape, const double* image,
                         const std::vector<oracle::Pairs>& nodes) {
    Fields<double> fields{};
    fields.shape = shape;
    fields.noise = image == nullptr;
    fields.unit = fields.result_unit = unit;
    fields.image = PaddedRows<double>(shape, shape.channels, program.circular(), program.max_radius());
    for (std::int64_t i = 0; image && i < shape.pixels(); ++i)
        for (int c = 0; c < shape.channels; ++c) {
            const int y = int(i / shape.width), x = int(i % shape.width);
            double* row = fields.image.row(y) + c * fields.image.plane_stride();
            row[x] = image[i * shape.channels + c] / std::sqrt(2.0 * shape.channels * unit);
            if (program.circular()) row[x + shape.width] = row[x];
        }
    for (int n = 0; n < program.size(); ++n) {
        const Node& node = program[n];
        const oracle::Pairs& pairs = nodes[std::size_t(n)];
        fields.variance.emplace_back(), fields.tangent.emplace_back();
        for (int i = 0; i < pairs.q.size; ++i) {
            fields.variance.back().push_back(double(pairs.q(i, i)) / unit);
            fields.tangent.back().push_back(double(pairs.t(i, i)) / unit);
        }
        if (is_activation(node.op))
            fields.maps[n] =
                map_fields(node.op, fields.variance[std::size_t(node.input())], pairs.height, pairs.width, program);
        if (node.op == Op::avg_pool || (node.op == Op::upsample && node.bilinear)) {
            Plane spread = spread_of(node, nodes[std::size_t(node.input())], program.circular());
            for (double& v : spread) v /= unit;
            fields.spread[n] = padded(spread, pairs.height, pairs.width, program);
        }
    }
    return fields;
}

// --- Cases -----------------------------------------------------------------------------------------------------------

double worst = 0;  // error over the largest entry, of all cases

// Checks all rows of one kernel.
void check_rows(const Program& program, const Shape& shape, const double* image,
                const std::vector<oracle::Pairs>& nodes, const std::string& what) {
    const oracle::Matrix& expected = oracle::result(program, nodes);
    const Fields<double> fields = fields_of(program, shape, image, nodes);
    double largest = 0;
    for (const oracle::Number value : expected.values) largest = std::max(largest, std::abs(double(value)));

    Columns columns(program, fields);
    Monitor monitor(nullptr, 0);
    check(columns.strip() >= 1 && columns.strip() <= shape.height, what + ": strip");
    const int d = int(shape.pixels());
    std::vector<double> out(static_cast<std::size_t>(d));
    double error = 0;
    bool exact = true;
    for (int i = 0; i < d; ++i) {
        // Strips of every height are tried, with an uneven rest at the end.
        const int strip = i % 2 == 0 ? columns.strip() : 1 + i % shape.height;
        std::fill(out.begin(), out.end(), NAN);
        for (int y = 0; y < shape.height; y += strip)
            columns.rows(i, y, std::min(y + strip, shape.height), &out[std::size_t(y * shape.width)], monitor, true);
        for (int j = 0; j < d; ++j) {
            const double off = std::abs(out[std::size_t(j)] - double(expected(i, j))) / largest;
            error = std::isnan(off) ? INFINITY : std::max(error, off);
        }
        exact = exact && out[std::size_t(i)] == fields.diagonal(program)[std::size_t(i)] * unit;
    }
    check(exact, what + ": diagonal");
    worst = std::max(worst, error);
    check(error < 1e-14, what + ": error " + std::to_string(error / 1e-15) + "e-15");
}

// The image is (pixels, channels); null stands for noise.
void check_network(const networks::Network& network, Padding padding, const Shape& shape, const double* image) {
    Program program{network.nodes, padding, Kernel::ntk};
    const std::vector<oracle::Pairs> nodes = oracle::nodes(program, shape.height, shape.width, shape.channels, image);
    std::string what = network.name;
    for (const int n : {shape.height, shape.width, shape.channels}) what += " " + std::to_string(n);
    what += padding == Padding::circular ? ", circular" : ", zeros";
    check_rows(program, shape, image, nodes, what + ", ntk");
    program.kernel = Kernel::nngp;
    check_rows(program, shape, image, nodes, what + ", nngp");
}

void check_network(const networks::Network& network, const Shape& shape, bool noise = false) {
    const std::vector<double> image = normals(shape.pixels() * shape.channels, 7);
    for (const Padding padding : {Padding::zeros, Padding::circular})
        check_network(network, padding, shape, noise ? nullptr : image.data());
}

void test_against_oracle() {
    for (const networks::Network& network : networks::chains()) {
        for (const Shape& shape :
             {Shape{1, 1, 2, 1}, Shape{1, 7, 2, 1}, Shape{5, 1, 3, 1}, Shape{2, 2, 4, 1}, Shape{7, 9, 2, 1}})
            check_network(network, shape);
    }
    for (const networks::Network& network : networks::skips())
        for (const Shape& shape : {Shape{1, 1, 2, 1}, Shape{2, 3, 1, 1}, Shape{7, 9, 2, 1}})
            check_network(network, shape);
    for (const networks::Network& network : networks::pyramids()) {
        const int m = 1 << network.levels;
        for (const Shape& shape : {Shape{m, m, 2, 1}, Shape{m, 3 * m, 3, 1}, Shape{4 * m, 2 * m, 2, 1}})
            check_network(network, shape);
    }
}

void test_noise() {
    check_network(networks::vanilla(2, 3), {5, 6, 1, 1}, true);
    check_network(networks::unet(1, true), {6, 8, 1, 1}, true);
}

// Neither NaN nor infinity may come where patches are zero, but an exact zero kernel.
void test_zero_image() {
    const Shape shape{4, 8, 2, 1};
    const std::vector<double> image(64, 0.0);
    for (const networks::Network& network : {networks::vanilla(2, 3), networks::unet(1, true)})
        for (const Padding padding : {Padding::zeros, Padding::circular}) {
            const Program program{network.nodes, padding, Kernel::ntk};
            const auto nodes = oracle::nodes(program, shape.height, shape.width, shape.channels, image.data());
            const Fields<double> fields = fields_of(program, shape, image.data(), nodes);
            Columns columns(program, fields);
            Monitor monitor(nullptr, 0);
            std::vector<double> out(32, NAN);
            columns.rows(13, 0, 4, out.data(), monitor, true);
            check(std::all_of(out.begin(), out.end(), [](double value) { return value == 0; }), "zero image");
        }
}

// Patches of zeros lie beside others, without biases.
void test_zero_patches() {
    const Shape shape{8, 8, 1, 1};
    std::vector<double> image = normals(64, 3);
    for (int i = 0; i < 64; ++i)
        if (i % 8 < 5) image[std::size_t(i)] = 0;
    for (const networks::Network& network : {networks::vanilla(1, 3), networks::unet(1, true)})
        check_network(network, Padding::zeros, shape, image.data());
}

// The memory for a strip stays near its bound, and does not grow with the height of the image.
void test_memory() {
    for (const int side : {256, 1024}) {
        const Program program{networks::unet(2, true).nodes, Padding::zeros, Kernel::ntk};
        const double mib = double(Columns::bytes(program, {side, side, 3, 1})) / (1 << 20);
        check(mib < 64, "memory of unet 2 at " + std::to_string(side) + ": " + std::to_string(mib) + " MiB");
    }
}

}  // namespace

int main() {
    test_against_oracle();
    test_noise();
    test_zero_image();
    test_zero_patches();
    test_memory();
    std::printf("%d checks, %d failed; largest error %.1e of the largest entry\n", checks, failures, worst);
    return failures == 0 ? 0 : 1;
}
