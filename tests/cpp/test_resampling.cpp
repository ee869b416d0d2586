// These tests compare Resampling with the dense matrix A of each layer, written down from its definition.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <set>
#include <string>
#include <vector>

#include "checks.h"
#include "plan/program.h"
#include "plan/resampling.h"

using namespace ntkfast;
using Kind = Resampling::Kind;

namespace {

constexpr int coarse = 7;  // pixels: there are outputs far from either border
constexpr Kind kinds[] = {Kind::stride, Kind::pool, Kind::nearest, Kind::bilinear};

std::string name(const Resampling& layer) {
    static const char* const names[] = {"stride ", "pool ", "nearest ", "bilinear "};
    return names[int(layer.kind)] + std::to_string(layer.factor);
}

using Matrix = std::vector<std::vector<double>>;  // [output][input]

// The border is one of zeros; the middle of an image that is repeated is one of the torus.
Matrix dense(const Resampling& layer, int inputs) {
    const int f = layer.factor, outputs = layer.goes_down() ? inputs / f : inputs * f;
    Matrix a(std::size_t(outputs), std::vector<double>(std::size_t(inputs), 0.0));
    for (int n = 0; n < outputs; ++n) {
        std::vector<double>& row = a[std::size_t(n)];
        if (layer.kind == Kind::stride) row[std::size_t(f * n)] = 1;
        for (int m = f * n; layer.kind == Kind::pool && m < f * (n + 1); ++m) row[std::size_t(m)] = 1.0 / f;
        if (layer.kind == Kind::nearest) row[std::size_t(n / f)] = 1;
        if (layer.kind != Kind::bilinear) continue;
        // This is torch.nn.functional.interpolate with align_corners=False.
        const double position = std::max(0.0, (n + 0.5) / f - 0.5);
        const int below = std::min(int(position), inputs - 1), above = std::min(below + 1, inputs - 1);
        row[std::size_t(below)] += 1 - (position - below);
        row[std::size_t(above)] += position - below;
    }
    return a;
}

bool reads(const Matrix& a, int n, int m) { return std::abs(a[std::size_t(n)][std::size_t(m)]) > 1e-12; }

void test_taps(const Resampling& layer) {
    const int inputs = layer.goes_down() ? coarse * layer.factor : coarse;
    const Matrix a = dense(layer, inputs);
    check(layer.output_size(inputs) == int(a.size()), name(layer) + ": output size");
    for (int n = 0; n < int(a.size()); ++n) {
        const Taps taps = layer.taps(n, inputs, false);
        std::vector<double> row(std::size_t(inputs), 0.0);
        for (int m = 0; m < taps.count; ++m) {
            const bool inside = taps.index(m) >= 0 && taps.index(m) < inputs;
            check(inside, name(layer) + ": tap inside");
            if (inside) row[std::size_t(taps.index(m))] += taps.weight(m);
        }
        for (int m = 0; m < inputs; ++m)
            check(std::abs(row[std::size_t(m)] - a[std::size_t(n)][std::size_t(m)]) < 1e-15,
                  name(layer) + ": weight of " + std::to_string(m) + " in " + std::to_string(n));
        for (int m = 0; m < taps.count; ++m)
            check(taps.weight(m) <= taps.weight(0), name(layer) + ": the nearest comes first");
    }
}

// On the torus the taps of one turn are those of the middle of three, before and behind it as well.
void test_taps_of_torus(const Resampling& layer) {
    const int inputs = layer.goes_down() ? coarse * layer.factor : coarse, outputs = layer.output_size(inputs);
    const Matrix a = dense(layer, 3 * inputs);
    for (int n = -outputs; n < 2 * outputs; ++n) {
        const Taps taps = layer.taps(n, inputs, true);
        std::vector<double> row(std::size_t(inputs), 0.0), wanted = row;
        for (int m = 0; m < taps.count; ++m) row[std::size_t(modulo(taps.index(m), inputs))] += taps.weight(m);
        for (int m = 0; m < 3 * inputs; ++m)
            wanted[std::size_t(m % inputs)] += a[std::size_t(outputs + modulo(n, outputs))][std::size_t(m)];
        for (int m = 0; m < inputs; ++m)
            check(std::abs(row[std::size_t(m)] - wanted[std::size_t(m)]) < 1e-15, name(layer) + ": taps of the torus");
    }
}

// Windows of outputs read inputs and displacements: exactly those between two bounds, a step apart.
void test_ranges(const Resampling& layer) {
    const int f = layer.factor, inputs = layer.goes_down() ? 9 * coarse * f : 9 * coarse;
    const Matrix a = dense(layer, inputs);
    const int outputs = int(a.size()), middle = outputs / 2 - outputs / 2 % f;
    std::vector<std::set<int>> of_output;
    for (int n = 0; n < outputs; ++n) {
        of_output.emplace_back();
        for (int m = 0; m < inputs; ++m)
            if (reads(a, n, m)) of_output.back().insert(m);
    }
    for (int low = middle; low < middle + 2 * f; ++low)
        for (int high = low; high < low + 2 * f; ++high) {
            std::set<int> read;
            for (int n = low; n <= high; ++n)
                read.insert(of_output[std::size_t(n)].begin(), of_output[std::size_t(n)].end());
            const Range range = layer.inputs({low, high});
            check(range.low == *read.begin() && range.high == *read.rbegin(), name(layer) + ": inputs");
        }
    const int farthest = 2 * f + 1;
    std::vector<std::set<int>> of_displacement;  // index: d + farthest
    for (int d = -farthest; d <= farthest; ++d) {
        of_displacement.emplace_back();
        for (int i = middle - f; i < middle + f; ++i)  // every phase
            for (const int m : of_output[std::size_t(i)])
                for (const int k : of_output[std::size_t(i + d)]) of_displacement.back().insert(k - m);
    }
    for (int low = -farthest; low <= farthest; ++low)
        for (int high = low; high <= farthest; ++high) {
            std::set<int> read;
            for (int d = low; d <= high; ++d) {
                const std::set<int>& of = of_displacement[std::size_t(d + farthest)];
                read.insert(of.begin(), of.end());
            }
            const Range range = layer.reads({low, high});
            check(range.low == *read.begin() && range.high == *read.rbegin(), name(layer) + ": displacements read");
            const int step = layer.step(), count = (range.high - range.low) / step + 1;
            check(range.size() % step == 1 % step && int(read.size()) == count, name(layer) + ": step");
            check(layer.goes_down() ? layer.displacements_read(high - low + 1) == count : true,
                  name(layer) + ": number of displacements read");
        }
    if (!layer.goes_down()) return;
    for (int d = 2 - 2 * f; d <= 2 * f - 2; ++d) {
        std::set<int> readers;
        for (int c = -farthest; c <= farthest; ++c)
            if (of_displacement[std::size_t(c + farthest)].count(d) != 0) readers.insert(c);
        const Range range = layer.read_by(d);
        check(range.size() == int(readers.size()), name(layer) + ": number of readers");
        if (!readers.empty())
            check(range.low == *readers.begin() && range.high == *readers.rbegin(), name(layer) + ": readers");
    }
}

void test_pool(int f) {
    const Resampling pool{Kind::pool, f};
    for (int d = -3 * f; d <= 3 * f; ++d)
        for (int c = pool.read_by(d).low; c <= pool.read_by(d).high; ++c) {
            const Range pixels = pool.cell_pixels(d, c);
            for (int a = 0; a < f; ++a) {
                const bool inside = int(std::floor(double(a + d) / f)) == c;
                check((a >= pixels.low && a <= pixels.high) == inside, name(pool) + ": pixels of a cell");
            }
        }
    for (const Kind kind : {Kind::pool, Kind::stride})
        for (int count = 2 * f - 1; count < 40; ++count) {
            const Resampling layer{kind, f};
            const int within = layer.displacements_within(count);
            check(within >= 1 && layer.displacements_read(within) <= count &&
                      layer.displacements_read(within + 1) > count,
                  name(layer) + ": displacements within");
        }
}

template <int f> void test_division() {
    for (int n = -100; n <= 100; ++n) {
        const double exact = double(n) / f;
        check(floor_div(n, f) == int(std::floor(exact)), "floor_div");
        check(ceil_div(n, f) == int(std::ceil(exact)), "ceil_div");
        check(modulo(n, f) == n - f * int(std::floor(exact)), "modulo");
        check(floor_div<f>(n) == floor_div(n, f) && modulo<f>(n) == modulo(n, f), "division by a constant");
    }
}

// Layers of factor 1 leave everything as it is.
void test_identity() {
    for (const Kind kind : kinds) {
        const Resampling layer{kind, 1};
        for (int n = 0; n < coarse; ++n) {
            const Taps taps = layer.taps(n, coarse, false);
            check(taps.index(0) == n && taps.weight(0) == 1 && (taps.count == 1 || taps.weight(1) == 0),
                  name(layer) + ": taps");
        }
        const Range read = layer.reads({-3, 5}), inputs = layer.inputs({-3, 5});
        check(read.low == -3 && read.high == 5 && inputs.low == -3 && inputs.high == 5, name(layer) + ": ranges");
        check(layer.step() == 1 && layer.output_size(coarse) == coarse, name(layer) + ": size and step");
    }
}

// The scale of a level is the product of the factors on the way there.
void test_downsampling() {
    Program program;
    const auto append = [&](Op op, int level, int stride, int factor) {
        Node node{op, {program.size() - 1}, level};
        node.stride = stride, node.factor = factor;
        program.nodes.push_back(node);
    };
    program.nodes.push_back({Op::input, {}, 0});
    append(Op::conv, 0, 1, 1);
    append(Op::avg_pool, 1, 1, 3);
    append(Op::conv, 2, 2, 1);
    append(Op::upsample, 1, 1, 2);
    append(Op::avg_pool, 2, 1, 2);
    append(Op::avg_pool, 3, 1, 4);
    const int wanted[] = {1, 3, 6, 24};
    for (int level = 0; level < 4; ++level)
        check(program.downsampling(level) == wanted[level], "downsampling of level " + std::to_string(level));
    check(program.multiple() == 24, "sides are multiples of the deepest level's");
}

}  // namespace

int main() {
    test_division<1>(), test_division<2>(), test_division<3>(), test_division<4>(), test_division<8>();
    for (const int f : {2, 3, 4, 5}) {
        for (const Kind kind : kinds) {
            const Resampling layer{kind, f};
            test_taps(layer);
            test_taps_of_torus(layer);
            test_ranges(layer);
        }
        test_pool(f);
    }
    test_identity();
    test_downsampling();
    std::printf("%d checks, %d failed\n", checks, failures);
    return failures == 0 ? 0 : 1;
}
