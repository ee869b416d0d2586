// The CPU engine against the pair recursion of docs/math.md, written out over all pairs of pixels in double precision:
//
//   input       Q(i,j) = 1/C sum_c x_c(i) x_c(j),  T'(i,j) = 0
//   conv        S(i,j) = w/k^2 sum_delta Q(i+delta, j+delta) + b
//               T(i,j) = [trainable] S(i,j) + w/k^2 sum_delta T'(i+delta, j+delta)
//   max(x, ax)  cos t = S(i,j)/(p_i p_j),  p_i = sqrt(S(i,i))
//               Q  = a S + (1-a)^2 p_i p_j (sin t + (pi - t) cos t)/(2 pi)
//               T' = (a + (1-a)^2 (pi - t)/(2 pi)) T
//
// Positions outside the image count zero (zeros) or wrap (circular).
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/engine.h"

using namespace ntkfast;

namespace {

int failures = 0;
int checks = 0;

void check(bool passed, const std::string& what) {
    ++checks;
    if (passed) return;
    ++failures;
    if (failures <= 30) std::printf("FAILED: %s\n", what.c_str());
}

// --- Oracle ---------------------------------------------------------------------------------------------------------

using Matrix = std::vector<double>;  // (pixels, pixels)

// Index of the pixel at (y, x), or -1 where a convolution sees a zero.
std::int64_t pixel_at(const Shape& shape, bool circular, int y, int x) {
    const int h = shape.height, w = shape.width;
    if (circular) return std::int64_t((y % h + h) % h) * w + (x % w + w) % w;
    return y < 0 || y >= h || x < 0 || x >= w ? -1 : std::int64_t(y) * w + x;
}

// sum_delta field(i+delta, j+delta)
Matrix box(const Matrix& field, const Shape& shape, bool circular, int radius) {
    const std::int64_t d = shape.pixels();
    Matrix out(field.size(), 0.0);
    for (int dy = -radius; dy <= radius; ++dy)
        for (int dx = -radius; dx <= radius; ++dx) {
            std::vector<std::int64_t> moved;
            for (int y = 0; y < shape.height; ++y)
                for (int x = 0; x < shape.width; ++x) moved.push_back(pixel_at(shape, circular, y + dy, x + dx));
            for (std::int64_t i = 0; i < d; ++i) {
                if (moved[std::size_t(i)] < 0) continue;
                const double* from = &field[std::size_t(moved[std::size_t(i)] * d)];
                double* to = &out[std::size_t(i * d)];
                for (const std::int64_t j : moved) {
                    if (j >= 0) *to += from[j];
                    ++to;
                }
            }
        }
    return out;
}

void activate_pairs(double a, Matrix& q, Matrix& t, std::int64_t d) {
    const double pi = std::acos(-1.0);
    std::vector<double> p;
    for (std::int64_t i = 0; i < d; ++i) p.push_back(std::sqrt(q[std::size_t(i * d + i)]));
    for (std::int64_t i = 0; i < d; ++i)
        for (std::int64_t j = 0; j < d; ++j) {
            double& s = q[std::size_t(i * d + j)];
            double& tangent = t[std::size_t(i * d + j)];
            const double area = p[std::size_t(i)] * p[std::size_t(j)];
            if (area == 0) {
                s = tangent = 0;
                continue;
            }
            const double cosine = i == j ? 1.0 : std::clamp(s / area, -1.0, 1.0);
            const double angle = std::acos(cosine);
            const double bend = (1 - a) * (1 - a) / (2 * pi);
            s = a * s + bend * area * (std::sin(angle) + (pi - angle) * cosine);
            tangent *= a + bend * (pi - angle);
        }
}

// image (height, width, channels), one of the batch
Matrix oracle(const Program& program, const Shape& shape, const double* image) {
    const std::int64_t d = shape.pixels();
    Matrix q(std::size_t(d * d), 0.0), t(std::size_t(d * d), 0.0);
    for (std::int64_t i = 0; i < d; ++i)
        for (std::int64_t j = 0; j < d; ++j) {
            const double *x_i = image + i * shape.channels, *x_j = image + j * shape.channels;
            for (int c = 0; c < shape.channels; ++c) q[std::size_t(i * d + j)] += x_i[c] * x_j[c] / shape.channels;
        }
    for (const Stage& stage : program.stages) {
        const double scale = stage.weight_var / (double(stage.kernel_size) * stage.kernel_size);
        q = box(q, shape, program.circular(), stage.kernel_size / 2);
        t = box(t, shape, program.circular(), stage.kernel_size / 2);
        for (std::size_t n = 0; n < q.size(); ++n) {
            q[n] = scale * q[n] + stage.bias_var;
            t[n] = (stage.trainable ? q[n] : 0.0) + scale * t[n];
        }
        if (stage.has_activation) activate_pairs(stage.slope, q, t, d);
    }
    return program.kernel == Kernel::nngp ? q : t;
}

// --- Cases ----------------------------------------------------------------------------------------------------------

Stage conv(int k, double w = 2, double b = 0, bool trainable = true) { return {k, w, b, trainable, false, 1}; }
Stage conv_then(int k, double slope, double w = 2, double b = 0, bool trainable = true) {
    return {k, w, b, trainable, true, slope};
}

struct Net {
    const char* name;
    std::vector<Stage> stages;
};

const std::vector<Net>& nets() {
    static const std::vector<Net> all = {
        {"conv 1", {conv(1)}},
        {"conv 7", {conv(7, 1.3, 0.2)}},
        {"ones", {conv_then(1, 0, 2, 0.1), conv_then(1, 0.1), conv(1)}},
        {"5 relu", {conv_then(5, 0), conv(1)}},
        {"11 relu 3", {conv_then(11, 0), conv(3)}},
        {"frozen", {conv_then(3, 0, 2, 0, false), conv_then(7, -0.5, 1.1, 0.3), conv(3, 0.7, 0.1, false)}},
        {"linear", {conv(9), conv_then(3, 1.5), conv(5), conv(3, 2, 0.5)}},
        {"13 15", {conv_then(13, 0.2), conv_then(15, 0), conv(1)}},
        {"five 3", {conv_then(3, 0), conv_then(3, 0), conv_then(3, 0), conv_then(3, 0), conv_then(3, 0), conv(1)}},
    };
    return all;
}

const std::vector<Shape>& shapes() {
    static const std::vector<Shape> all = {
        {1, 1, 2, 1}, {1, 2, 2, 1}, {2, 1, 3, 1}, {1, 17, 2, 1}, {9, 1, 2, 1},  {2, 2, 3, 1},
        {5, 4, 3, 1}, {7, 9, 2, 1}, {3, 5, 2, 3}, {2, 16, 4, 2}, {6, 3, 2, 17},
    };
    return all;
}

struct Case {
    std::string name;
    Program program;
    Shape shape;
    std::vector<double> image;
    std::vector<Matrix> expected;  // one per image of the batch
    double largest;                // magnitude in `expected`
};

std::vector<double> normals(std::int64_t count, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    std::vector<double> out;
    for (std::int64_t n = 0; n < count; ++n) out.push_back(normal(generator));
    return out;
}

std::string describe(const Net& net, const Shape& shape, Padding padding, Kernel kernel) {
    std::string out = net.name;
    for (const int n : {shape.height, shape.width, shape.channels, shape.batch}) out += " " + std::to_string(n);
    out += padding == Padding::circular ? " circular" : " zeros";
    return out + (kernel == Kernel::nngp ? " nngp" : " ntk");
}

Case make_case(const Net& net, const Shape& shape, Padding padding, Kernel kernel) {
    Case out{describe(net, shape, padding, kernel), {net.stages, padding, kernel}, shape, {}, {}, 0};
    const std::int64_t size = shape.pixels() * shape.channels;
    out.image = normals(size * shape.batch, unsigned(7 * shape.height + shape.width));
    for (int n = 0; n < shape.batch; ++n)
        out.expected.push_back(oracle(out.program, shape, out.image.data() + n * size));
    for (const Matrix& matrix : out.expected)
        for (const double value : matrix) out.largest = std::max(out.largest, std::abs(value));
    return out;
}

// --- Checks of one engine -------------------------------------------------------------------------------------------

template <class Real> constexpr double tolerance = sizeof(Real) == 4 ? 1e-6 : 1e-11;

template <class Real> void check_dense(const Engine<Real>& engine, const Case& c, const std::string& where) {
    const std::int64_t size = c.shape.pixels() * c.shape.pixels();
    std::vector<Real> out(std::size_t(size * c.shape.batch), Real(NAN));
    engine.dense(out.data(), nullptr);
    const double limit = tolerance<Real> * c.largest;
    bool close = true;
    for (int n = 0; n < c.shape.batch; ++n)
        for (std::int64_t e = 0; e < size; ++e) {
            const double expected = c.expected[std::size_t(n)][std::size_t(e)];
            close = close && std::abs(double(out[std::size_t(n * size + e)]) - expected) <= limit;
        }
    check(close, where + ": dense");
}

// A sum of d products may be off by the tolerance of each entry.
template <class Real>
void check_product(const Engine<Real>& engine, const Case& c, int columns, const std::string& where) {
    const std::int64_t d = c.shape.pixels(), batch = c.shape.batch;
    const std::vector<double> drawn = normals(d * columns * batch, 3);
    const std::vector<Real> v(drawn.begin(), drawn.end());
    std::vector<Real> out(v.size(), Real(NAN));
    engine.product(v.data(), out.data(), columns, nullptr);
    bool close = true;
    for (std::int64_t i = 0; i < d; ++i)
        for (int column = 0; column < columns; ++column)
            for (std::int64_t n = 0; n < batch; ++n) {
                double sum = 0, size = 0;
                for (std::int64_t j = 0; j < d; ++j) {
                    const double value = double(v[std::size_t((j * columns + column) * batch + n)]);
                    sum += c.expected[std::size_t(n)][std::size_t(i * d + j)] * value;
                    size += std::abs(value);
                }
                const double got = double(out[std::size_t((i * columns + column) * batch + n)]);
                close = close && std::abs(got - sum) <= tolerance<Real> * c.largest * size;
            }
    check(close, where + ": product with " + std::to_string(columns) + " columns");
}

template <class Real> void check_columns(const Engine<Real>& engine, const Case& c, const std::string& where) {
    const std::int64_t d = c.shape.pixels();
    const std::vector<std::int64_t> pixels = {d - 1, 0, d / 2, 0};
    std::vector<Real> out(pixels.size() * std::size_t(d), Real(NAN));
    engine.columns(pixels.data(), std::int64_t(pixels.size()), out.data(), nullptr);
    bool close = true;
    for (std::size_t n = 0; n < pixels.size(); ++n)
        for (std::int64_t j = 0; j < d; ++j) {
            const double expected = c.expected[0][std::size_t(pixels[n] * d + j)];
            const double got = double(out[n * std::size_t(d) + std::size_t(j)]);
            close = close && std::abs(got - expected) <= tolerance<Real> * c.largest;
        }
    check(close, where + ": columns");
}

template <class Real> void check_diagonal(const Engine<Real>& engine, const Case& c, const std::string& where) {
    const std::int64_t d = c.shape.pixels(), batch = c.shape.batch;
    std::vector<double> out(std::size_t(d * batch), NAN);
    engine.diagonal(out.data());
    bool close = true;
    for (std::int64_t i = 0; i < d; ++i)
        for (std::int64_t n = 0; n < batch; ++n) {
            const double expected = c.expected[std::size_t(n)][std::size_t(i * d + i)];
            close = close && std::abs(out[std::size_t(i * batch + n)] - expected) <= tolerance<Real> * c.largest;
        }
    check(close, where + ": diagonal");
}

template <class Real> void check_engine(const Case& c, const EngineOptions& options) {
    std::string where = c.name + ", " + isa_name(options.isa) + (sizeof(Real) == 4 ? " float" : " double");
    where += ", lanes " + std::to_string(options.lanes) + ", threads " + std::to_string(options.threads);
    Engine<Real> engine(c.program, c.shape, c.image.data(), options);
    check_diagonal(engine, c, where);
    if (c.shape.batch == 1) check_columns(engine, c, where);
    for (const bool stored : {false, true}) {
        if (stored) engine.store(nullptr);
        check(engine.stored() == stored, where + ": stored()");
        check_dense(engine, c, where + (stored ? ", stored" : ""));
        for (const int columns : {1, 3, 5}) check_product(engine, c, columns, where + (stored ? ", stored" : ""));
    }
}

// Every level and type on every case; the numbers of lanes and threads take turns.
void test_against_oracle() {
    const int lanes[] = {1, 3, 8, 16}, threads[] = {1, 2, 1, 1, 3};
    int turn = 0;
    for (const Net& net : nets())
        for (const Shape& shape : shapes())
            for (const Padding padding : {Padding::zeros, Padding::circular}) {
                const Kernel kernel = turn % 3 == 2 ? Kernel::nngp : Kernel::ntk;
                const Case c = make_case(net, shape, padding, kernel);
                for (const Isa isa : supported_isas()) {
                    check_engine<float>(c, {isa, threads[turn % 5], lanes[turn % 4]});
                    check_engine<double>(c, {isa, threads[(turn + 1) % 5], lanes[(turn + 2) % 4]});
                    ++turn;
                }
            }
}

// All numbers of lanes and threads on two cases whose blocks end in every way.
void test_lanes_and_threads() {
    for (const Padding padding : {Padding::zeros, Padding::circular}) {
        const Case c = make_case(nets()[5], {7, 9, 2, 1}, padding, Kernel::ntk);
        for (const int lanes : {1, 3, 8, 16})
            for (const int threads : {1, 2, 3}) check_engine<float>(c, {supported_isas().back(), threads, lanes});
    }
}

// --- Zeros, cancellation, errors ------------------------------------------------------------------------------------

void test_zero_image() {
    const Shape shape{5, 6, 2, 1};
    const std::vector<double> image(60, 0.0);
    for (const Padding padding : {Padding::zeros, Padding::circular}) {
        const Program program{{conv_then(3, 0), conv_then(7, 0.1), conv(1)}, padding, Kernel::ntk};
        const Engine<float> engine(program, shape, image.data(), {Isa::baseline, 2, 8});
        std::vector<float> out(900, 1.0f);
        engine.dense(out.data(), nullptr);
        check(std::all_of(out.begin(), out.end(), [](float value) { return value == 0; }), "zero image: zero kernel");
    }
}

const EngineOptions plain{Isa::baseline, 1, 8};
const Program small{{conv_then(3, 0), conv(1)}, Padding::zeros, Kernel::ntk};

template <class Exception> bool throws(const std::function<void()>& call) {
    try {
        call();
    } catch (const Exception&) {
        return true;
    }
    return false;
}

void test_every_call_can_be_cancelled() {
    const Case c = make_case(nets()[3], {5, 4, 3, 1}, Padding::zeros, Kernel::ntk);
    Engine<float> engine(c.program, c.shape, c.image.data(), {Isa::baseline, 2, 8});
    const Poll stop = [](double) { return false; };
    std::vector<float> v(20, 1.0f), out(400);
    const std::int64_t pixel = 3;
    check(throws<Cancelled>([&] { engine.product(v.data(), out.data(), 1, stop); }), "cancel: product");
    check(throws<Cancelled>([&] { engine.dense(out.data(), stop); }), "cancel: dense");
    check(throws<Cancelled>([&] { engine.columns(&pixel, 1, out.data(), stop); }), "cancel: columns");
    check(throws<Cancelled>([&] { engine.store(stop); }), "cancel: store");
    check(!engine.stored(), "cancel: nothing half stored");
    check_engine<float>(c, plain);
    check_dense(engine, c, "after cancelling");
    engine.store(nullptr);
    check(throws<Cancelled>([&] { engine.product(v.data(), out.data(), 1, stop); }), "cancel: product when stored");
    check_product(engine, c, 3, "after cancelling, stored");
}

// The third poll stops a product that would take longer by far, on small images too.
void check_cancellation(const Engine<float>& engine, const std::string& where) {
    const std::size_t pixels = std::size_t(engine.shape().pixels());
    std::vector<float> v(pixels, 1.0f), out(pixels);
    std::vector<double> seen;
    auto asked = std::chrono::steady_clock::now();
    const Poll poll = [&](double fraction) {
        seen.push_back(fraction);
        asked = std::chrono::steady_clock::now();
        return seen.size() < 3;
    };
    check(throws<Cancelled>([&] { engine.product(v.data(), out.data(), 1, poll); }), where + ": is stopped");
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - asked;
    check(waited.count() < 0.25, where + ": took " + std::to_string(waited.count()) + " s");
    check(seen.size() == 3 && 0 < seen[0] && seen[0] < seen[1] && seen[1] < seen[2] && seen[2] < 1,
          where + ": fractions done");
}

void test_cancellation_comes_soon() {
    for (const int side : {90, 200}) {
        const Shape shape{side, side, 1, 1};
        const std::vector<double> image = normals(shape.pixels(), 5);
        std::vector<Stage> stages(side == 90 ? 30 : 3, conv_then(3, 0));
        stages.push_back(conv(1));
        for (const int threads : {1, 2}) {
            const Program program{stages, Padding::zeros, Kernel::ntk};
            const Engine<float> engine(program, shape, image.data(), {supported_isas().back(), threads, 8});
            check_cancellation(engine, "cancel, side " + std::to_string(side) + ", threads " + std::to_string(threads));
        }
    }
}

void test_bad_programs() {
    const std::vector<std::pair<const char*, std::vector<Stage>>> bad = {
        {"none", {}},
        {"even", {conv(2)}},
        {"zero kernel", {conv(0)}},
        {"negative kernel", {conv(-3)}},
        {"zero weights", {conv(3, 0)}},
        {"negative weights", {conv(3, -1)}},
        {"infinite weights", {conv(3, INFINITY)}},
        {"NaN weights", {conv(3, NAN)}},
        {"negative bias", {conv(3, 1, -1e-9)}},
        {"NaN bias", {conv(3, 1, NAN)}},
        {"infinite slope", {conv_then(3, INFINITY), conv(1)}},
        {"last activation", {conv(1), conv_then(3, 0)}},
    };
    const double image[4] = {1, 2, 3, 4};
    for (const auto& [name, stages] : bad) {
        const Program program{stages, Padding::zeros, Kernel::ntk};
        const auto make = [&] { Engine<float>(program, {2, 2, 1, 1}, image, plain); };
        check(throws<std::invalid_argument>(make), std::string("bad program: ") + name);
    }
}

void test_bad_arguments() {
    const double image[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    for (const Shape& shape : {Shape{0, 2, 1, 1}, Shape{2, 0, 1, 1}, Shape{2, 2, 0, 1}, Shape{2, 2, 1, 0}})
        check(throws<std::invalid_argument>([&] { Engine<float>(small, shape, image, plain); }), "bad shape");
    const Engine<float> engine(small, {2, 2, 1, 1}, image, plain);
    float v[8] = {}, out[8] = {};
    for (const std::int64_t pixel : {-1, 4, 1 << 30})
        check(throws<std::invalid_argument>([&] { engine.columns(&pixel, 1, out, nullptr); }), "pixel out of range");
    check(throws<std::invalid_argument>([&] { engine.product(v, out, 0, nullptr); }), "product with no columns");
    const Engine<float> batch(small, {2, 2, 1, 2}, image, plain);
    const std::int64_t first = 0;
    check(throws<std::invalid_argument>([&] { batch.columns(&first, 1, out, nullptr); }), "columns of a batch");
    check(throws<std::invalid_argument>([] { isa_from_name("sse9"); }), "unknown instruction set");
    const std::vector<Isa> levels = supported_isas();
    for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
        const bool has = std::find(levels.begin(), levels.end(), isa) != levels.end();
        const auto make = [&] { Engine<double>(small, {2, 2, 1, 1}, image, {isa, 1, 8}); };
        check(throws<std::invalid_argument>(make) != has, std::string("instruction set ") + isa_name(isa));
        check(isa_from_name(isa_name(isa)) == isa, std::string("name of ") + isa_name(isa));
    }
}

}  // namespace

int main() {
    test_against_oracle();
    test_lanes_and_threads();
    test_zero_image();
    test_every_call_can_be_cancelled();
    test_cancellation_comes_soon();
    test_bad_programs();
    test_bad_arguments();
    std::printf("%d checks, %d failed\n", checks, failures);
    return failures == 0 ? 0 : 1;
}
