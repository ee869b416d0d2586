// These tests compare the CUDA engine, on a card or in emulation, with the pair recursion over all pairs of pixels
// (oracle.h) and with the CPU engine.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "checks.h"
#include "cpu/engine.h"
#include "cpu/rows/dispatch.h"
#include "cuda/engine.h"
#include "networks.h"
#include "oracle.h"
#if defined(NTKFAST_EMULATION)
#include "cuda/emulation.h"
#endif

using namespace ntkfast;
using cuda::Array;
using cuda::Tuning;
using networks::Network;

namespace {

// Takes another order of items and blocks; a card has its own.
void shuffle_anew(unsigned seed) {
#if defined(NTKFAST_EMULATION)
    cuda::emulation::seed(seed);
#else
    (void)seed;
#endif
}

// --- Cases ----------------------------------------------------------------------------------------------------------

struct Case {
    std::string name;
    Program program;
    Shape shape;
    std::vector<double> image;     // empty for noise
    std::vector<double> expected;  // (pixels, pixels)
    double largest = 0;            // magnitude in `expected`

    const double* pixels() const { return image.empty() ? nullptr : image.data(); }
};

Case make_case(const Network& network, const Shape& shape, Padding padding, Kernel kernel, bool noise = false) {
    Case out{network.name, {network.nodes, padding, kernel}, shape, {}, {}, 0};
    for (const int n : {shape.height, shape.width, shape.channels}) out.name += " " + std::to_string(n);
    out.name += padding == Padding::circular ? " circular" : " zeros";
    out.name += kernel == Kernel::nngp ? " nngp" : " ntk";
    if (noise) out.name += " noise";
    if (!noise) out.image = normals(shape.pixels() * shape.channels, unsigned(7 * shape.height + shape.width));
    const auto nodes = oracle::nodes(out.program, shape.height, shape.width, shape.channels, out.pixels());
    const auto& values = oracle::result(out.program, nodes).values;
    out.expected.assign(values.begin(), values.end());
    for (const double value : out.expected) out.largest = std::max(out.largest, std::abs(value));
    return out;
}

// These are ways to cut a sweep: the engine's own, and some in which every border of strips, lanes, runs of dy and
// waves is met.
const std::vector<Tuning>& tunings() {
    static const std::vector<Tuning> all = [] {
        std::vector<Tuning> out(6);
        out[1].lanes = 4, out[1].columns = 4, out[1].displacements = 1, out[1].tasks_at_once = 1;
        out[2].lanes = 8, out[2].columns = 8, out[2].displacements = 3, out[2].tasks_at_once = 5;
        out[3].lanes = 16, out[3].columns = 4, out[3].displacements = 2, out[3].no_shared = true;
        out[4].lanes = 32, out[4].columns = 12, out[4].threads = 32;
        out[5].lanes = 4, out[5].columns = 16, out[5].displacements = 64, out[5].tasks_at_once = 3, out[5].threads = 96;
        return out;
    }();
    return all;
}

// --- Checks of one engine --------------------------------------------------------------------------------------------

template <class Real> constexpr double tolerance = sizeof(Real) == 4 ? 1e-6 : 1e-14;
double worst_float = 0, worst_double = 0;  // error over the largest entry, of all cases

template <class Real> bool within(double got, double expected, double scale) {
    const double off = scale > 0 ? std::abs(got - expected) / scale : got == expected ? 0 : INFINITY;
    double& worst = sizeof(Real) == 4 ? worst_float : worst_double;
    worst = std::max(worst, std::isnan(off) ? INFINITY : off);
    return off <= tolerance<Real>;
}

template <class Real>
std::vector<Real> product_of(const cuda::Engine<Real>& engine, const std::vector<Real>& v, int columns,
                             const Poll& poll = nullptr) {
    std::vector<Real> out(v.size());
    engine.product(v.data(), out.data(), columns, poll);
    return out;
}

template <class Real> std::vector<Real> dense_of(const cuda::Engine<Real>& engine, const Poll& poll = nullptr) {
    const std::int64_t d = engine.shape().pixels();
    std::vector<Real> out(std::size_t(d * d));
    engine.dense(out.data(), poll);
    return out;
}

template <class Real> std::vector<Real> right_sides(const Shape& shape, int columns) {
    const std::vector<double> drawn = normals(shape.pixels() * columns, 3);
    return {drawn.begin(), drawn.end()};
}

template <class Real> void check_dense(const cuda::Engine<Real>& engine, const Case& c, const std::string& where) {
    const std::vector<Real> out = dense_of(engine);
    bool close = true;
    for (std::size_t e = 0; e < out.size(); ++e)
        close = within<Real>(double(out[e]), c.expected[e], c.largest) && close;
    check(close, where + ": dense");
}

// A sum of d products may be off by the tolerance of each entry.
template <class Real>
void check_product(const cuda::Engine<Real>& engine, const Case& c, int columns, const std::string& where) {
    const std::int64_t d = c.shape.pixels();
    const std::vector<Real> v = right_sides<Real>(c.shape, columns), out = product_of(engine, v, columns);
    bool close = true;
    for (std::int64_t i = 0; i < d; ++i)
        for (int column = 0; column < columns; ++column) {
            double sum = 0, size = 0;
            for (std::int64_t j = 0; j < d; ++j) {
                const double value = double(v[std::size_t(j * columns + column)]);
                sum += c.expected[std::size_t(i * d + j)] * value;
                size += std::abs(value);
            }
            close = within<Real>(double(out[std::size_t(i * columns + column)]), sum, c.largest * size) && close;
        }
    check(close, where + ": product with " + std::to_string(columns) + " columns");
}

template <class Real> void check_engine(const Case& c, std::size_t tuning) {
    static int turn = 0;
    shuffle_anew(unsigned(++turn));
    const std::string where =
        c.name + (sizeof(Real) == 4 ? " float" : " double") + ", tuning " + std::to_string(tuning);
    cuda::Engine<Real> engine(c.program, c.shape, c.pixels(), 0, 1, tunings()[tuning]);
    std::vector<double> diagonal(std::size_t(c.shape.pixels()), NAN);
    engine.diagonal(diagonal.data());
    bool close = true;
    for (std::size_t i = 0; i < diagonal.size(); ++i)
        close = within<Real>(diagonal[i], c.expected[i * diagonal.size() + i], c.largest) && close;
    check(close, where + ": diagonal");
    check_dense(engine, c, where);
    for (const int columns : {1, 3, 6}) check_product(engine, c, columns, where);
    check(!engine.coarse_kept() && !engine.stored(), where + ": keeps nothing unasked");
    if (c.program.levels() > 0) {
        engine.keep_coarse(nullptr);
        check(engine.coarse_kept(), where + ": coarse_kept()");
        for (int again = 0; again < 2; ++again) check_product(engine, c, 2, where + ", coarse kept");
        check_dense(engine, c, where + ", coarse kept");
    }
    engine.store(nullptr);
    check(engine.stored(), where + ": stored()");
    for (const int columns : {1, 5}) check_product(engine, c, columns, where + ", stored");
    check_dense(engine, c, where + ", stored");
}

// Checks either type; the tunings take turns.
void check_case(const Case& c) {
    static std::size_t turn = 0;
    check_engine<float>(c, turn % tunings().size());
    check_engine<double>(c, (turn + 3) % tunings().size());
    ++turn;
}

void check_network(const Network& network, const std::vector<Shape>& shapes) {
    static int turn = 0;
    for (const Shape& shape : shapes)
        for (const Padding padding : {Padding::zeros, Padding::circular})
            check_case(make_case(network, shape, padding, turn++ % 3 == 2 ? Kernel::nngp : Kernel::ntk));
}

void test_one_resolution() {
    const std::vector<Shape> shapes = {{1, 1, 2, 1}, {1, 2, 2, 1}, {2, 1, 3, 1}, {1, 17, 2, 1},
                                       {9, 1, 2, 1}, {2, 2, 3, 1}, {5, 4, 3, 1}, {7, 9, 1, 1}};
    for (const Network& network : networks::chains()) check_network(network, shapes);
    for (const Network& network : networks::skips()) check_network(network, shapes);
}

void test_several_resolutions() {
    for (const Network& network : networks::pyramids()) {
        const int m = 1 << network.levels;
        check_network(network, {{m, m, 2, 1}, {m, 3 * m, 3, 1}, {4 * m, m, 1, 1}, {8, 12, 3, 1}});
    }
}

void test_noise() {
    for (const Padding padding : {Padding::zeros, Padding::circular})
        for (const Kernel kernel : {Kernel::ntk, Kernel::nngp}) {
            check_case(make_case(networks::vanilla(2, 3), {5, 6, 1, 1}, padding, kernel, true));
            for (const Network& network : networks::pyramids())
                check_case(make_case(network, {4, 8, 1, 1}, padding, kernel, true));
        }
}

// The product has more right-hand sides than one sweep takes.
void test_many_columns() {
    for (const Padding padding : {Padding::zeros, Padding::circular}) {
        const Case c = make_case(networks::unet(1, true), {4, 6, 2, 1}, padding, Kernel::ntk);
        cuda::Engine<float> engine(c.program, c.shape, c.pixels(), 0, 1, tunings()[2]);
        check_product(engine, c, 70, c.name + ", many columns");
        engine.store(nullptr);
        check_product(engine, c, 70, c.name + ", many columns, stored");
    }
}

// Every tuning runs on cases with several strips, groups of lanes, runs of dy and waves.
void test_tunings() {
    const std::pair<Network, Shape> cases[] = {{networks::vanilla(3, 3), {7, 21, 2, 1}},
                                               {networks::vanilla(1, 11), {9, 14, 3, 1}},
                                               {networks::unet(2, true), {8, 12, 2, 1}}};
    for (const auto& [network, shape] : cases)
        for (const Padding padding : {Padding::zeros, Padding::circular}) {
            const Case c = make_case(network, shape, padding, Kernel::ntk);
            for (std::size_t tuning = 0; tuning < tunings().size(); ++tuning) check_engine<float>(c, tuning);
        }
}

// --- Images with many pairs that are alike, parallel or opposite -----------------------------------------------------

// The images are two flat halves of different brightness, a periodic picture, one of few levels, and single bright
// pixels.
std::vector<std::pair<const char*, std::vector<double>>> alike_images(const Shape& shape) {
    std::vector<std::pair<const char*, std::vector<double>>> out = {
        {"halves", {}}, {"periodic", {}}, {"levels", {}}, {"spiked", {}}, {"checkers", {}}};
    const std::vector<double> drawn = normals(shape.pixels(), 9);
    for (int y = 0; y < shape.height; ++y)
        for (int x = 0; x < shape.width; ++x) {
            const double noise = drawn[std::size_t(y * shape.width + x)];
            out[0].second.push_back(2 * x < shape.width ? 1.0 : 1.0 / 3);
            out[1].second.push_back(drawn[std::size_t(y % 2 * shape.width + x % 4)]);
            out[2].second.push_back(noise > 0.3 ? 1 : noise > -0.5 ? 0.5 : 0);
            out[3].second.push_back((x * 7 + y * 3) % 19 == 0 ? 100 : noise);
            out[4].second.push_back((x + y) % 2 == 0 ? 1 : -1);
        }
    return out;
}

// The rounding of E shows most here: the bar of float is 1e-5. On the device the local variances behind averages must
// come from its own fields, or flat cells would err by 1e-4.
template <class Real> void check_alike(const Network& network, Padding padding, const char* name,
                                       const std::vector<double>& image, const Shape& shape) {
    Case c = make_case(network, shape, padding, Kernel::ntk);
    c.image = image;
    const auto nodes = oracle::nodes(c.program, shape.height, shape.width, 1, c.pixels());
    c.expected.assign(oracle::result(c.program, nodes).values.begin(), oracle::result(c.program, nodes).values.end());
    c.largest = 0;
    for (const double value : c.expected) c.largest = std::max(c.largest, std::abs(value));
    const cuda::Engine<Real> engine(c.program, shape, c.pixels(), 0, 1);
    const std::vector<Real> out = dense_of(engine);
    double worst = 0;
    for (std::size_t e = 0; e < out.size(); ++e) {
        const double off = std::abs(double(out[e]) - c.expected[e]) / c.largest;
        worst = std::max(worst, std::isnan(off) ? INFINITY : off);
    }
    char text[32];
    std::snprintf(text, sizeof text, ": %.1e", worst);
    check(worst <= (sizeof(Real) == 4 ? 1e-5 : 1e-8), std::string("alike: ") + name + ", " + c.name + text);
}

void test_alike() {
    const Shape shape{8, 12, 1, 1};
    for (const Network& network : {networks::vanilla(1, 5), networks::vanilla(3, 3), networks::vanilla(2, 1),
                                   networks::unet(1, true), networks::pyramids()[4]})
        for (const Padding padding : {Padding::zeros, Padding::circular})
            for (const auto& [name, image] : alike_images(shape)) {
                check_alike<float>(network, padding, name, image, shape);
                check_alike<double>(network, padding, name, image, shape);
            }
}

// --- Larger images, against the CPU engine ---------------------------------------------------------------------------

template <class Real>
void check_against_cpu(const Network& network, const Shape& shape, Padding padding, std::size_t tuning) {
    const Program program{network.nodes, padding, Kernel::ntk};
    const std::vector<double> image = normals(shape.pixels() * shape.channels, 11);
    const cuda::Engine<Real> engine(program, shape, image.data(), 0, 1, tunings()[tuning]);
    const CpuEngine<Real> cpu(program, shape, image.data(), {supported_isas().back(), 2, 16});
    const std::vector<Real> v = right_sides<Real>(shape, 3), got = product_of(engine, v, 3);
    std::vector<Real> expected(v.size());
    cpu.product(v.data(), expected.data(), 3, nullptr);
    double off = 0, size = 0;
    for (std::size_t n = 0; n < v.size(); ++n) {
        const double difference = double(got[n]) - double(expected[n]);
        off += difference * difference;
        size += double(expected[n]) * double(expected[n]);
    }
    check(std::sqrt(off / size) <= (sizeof(Real) == 4 ? 1e-6 : 1e-14), "against the CPU: " + network.name +
                                                                           ", tuning " + std::to_string(tuning) + ": " +
                                                                           std::to_string(std::sqrt(off / size)));
}

void test_against_cpu() {
    for (const Padding padding : {Padding::zeros, Padding::circular}) {
        check_against_cpu<float>(networks::vanilla(2, 3), {21, 70, 3, 1}, padding, 0);
        check_against_cpu<float>(networks::vanilla(1, 11), {34, 41, 3, 1}, padding, 4);
        check_against_cpu<double>(networks::vanilla(2, 3), {22, 35, 1, 1}, padding, 2);
        check_against_cpu<float>(networks::unet(1, true), {24, 40, 3, 1}, padding, 0);
    }
}

// --- Same bits -------------------------------------------------------------------------------------------------------

// Products have the same bits with any number of tasks in one launch, in whatever order items and blocks run.
void test_reproducible() {
    for (const Network& network : {networks::vanilla(2, 3), networks::unet(1, true)})
        for (const Padding padding : {Padding::zeros, Padding::circular}) {
            const Shape shape{10, 14, 2, 1};
            const Program program{network.nodes, padding, Kernel::ntk};
            const std::vector<double> image = normals(shape.pixels() * 2, 5);
            const std::vector<float> v = right_sides<float>(shape, 3);
            std::vector<float> first, first_dense;
            for (const int tasks_at_once : {1, 2, 7, 1000}) {
                shuffle_anew(unsigned(100 + tasks_at_once));
                Tuning tuning;
                tuning.lanes = 4, tuning.columns = 8, tuning.displacements = 3, tuning.tasks_at_once = tasks_at_once;
                const cuda::Engine<float> engine(program, shape, image.data(), 0, 1, tuning);
                const std::vector<float> out = product_of(engine, v, 3), dense = dense_of(engine);
                if (first.empty()) first = out, first_dense = dense;
                check(out == first && dense == first_dense,
                      "same bits: " + network.name + ", tasks " + std::to_string(tasks_at_once));
                check(product_of(engine, v, 3) == first, "same bits: again");
            }
        }
}

// --- Memory ----------------------------------------------------------------------------------------------------------

void test_estimate() {
    const cuda::Device device = cuda::devices()[0];
    for (const Network& network : {networks::vanilla(2, 3), networks::unet(2, true), networks::skips()[1]})
        for (const Padding padding : {Padding::zeros, Padding::circular})
            for (const std::size_t tuning : {0, 3}) {
                const Shape shape{24, 20, 3, 1};
                const std::string where = "estimate: " + network.name + ", tuning " + std::to_string(tuning);
                const Program program{network.nodes, padding, Kernel::ntk};
                const MemoryEstimate bytes =
                    cuda::Engine<float>::estimate(program, shape, 3, device, tunings()[tuning]);
                const std::int64_t before = cuda::allocated();
                const std::vector<double> image = normals(shape.pixels() * 3, 5);
                cuda::reset_most_allocated();
                cuda::Engine<float> engine(program, shape, image.data(), 0, 1, tunings()[tuning]);
                check(cuda::allocated() - before == bytes.fields, where + ": fields");
                const std::int64_t most = cuda::most_allocated() - before;
                check(most <= bytes.fields + bytes.building && most >= bytes.fields + bytes.building * 3 / 4,
                      where + ": building");
                check((bytes.building > 0) == (program.levels() > 0), where + ": bands near D = 0");
                const std::vector<float> v = right_sides<float>(shape, 3);
                const Array<float> from(v, 0), to(std::int64_t(v.size()));
                const std::int64_t held = cuda::allocated();
                cuda::reset_most_allocated();
                engine.product_on_device(from.data(), to.data(), 3, 0, nullptr);
                check(cuda::most_allocated() - held == bytes.product + bytes.bands, where + ": product, bands");
                check(cuda::allocated() == held, where + ": a product keeps nothing");
                cuda::reset_most_allocated();
                engine.keep_coarse(nullptr);
                const std::int64_t coarse = cuda::allocated() - held;
                check(cuda::most_allocated() - held == bytes.coarse && coarse <= bytes.coarse, where + ": coarse");
                check((coarse > 0) == (program.levels() > 0), where + ": coarse bands are kept");
                engine.store(nullptr);
                check(cuda::allocated() - held == coarse + bytes.store, where + ": store");
            }
    const Program program{networks::vanilla(1, 11).nodes, Padding::zeros, Kernel::ntk};
    const MemoryEstimate few = cuda::Engine<float>::estimate(program, {512, 512, 3, 1}, 3, device);
    const MemoryEstimate many = cuda::Engine<float>::estimate(program, {512, 512, 3, 1}, 300, device);
    check(few.product < many.product && many.product < device.bytes, "estimate: columns");
}

// --- Cancellation, errors --------------------------------------------------------------------------------------------

void test_every_call_can_be_cancelled() {
    for (const Network& network : {networks::vanilla(1, 5), networks::unet(2, true)}) {
        const Case c = make_case(network, {8, 4, 3, 1}, Padding::zeros, Kernel::ntk);
        const std::string where = "cancel " + network.name + ": ";
        cuda::Engine<float> engine(c.program, c.shape, c.pixels(), 0, 1);
        const std::int64_t held = cuda::allocated();
        const Poll stop = [](double) { return false; };
        const std::vector<float> v = right_sides<float>(c.shape, 1);
        check(throws<Cancelled>([&] { product_of(engine, v, 1, stop); }), where + "product");
        check(throws<Cancelled>([&] { dense_of(engine, stop); }), where + "dense");
        check(throws<Cancelled>([&] { engine.store(stop); }), where + "store");
        check(!engine.stored(), where + "nothing half stored");
        if (c.program.levels() > 0) {
            check(throws<Cancelled>([&] { engine.keep_coarse(stop); }), where + "keep_coarse");
            check(!engine.coarse_kept(), where + "nothing half kept");
        }
        check(cuda::allocated() == held, where + "nothing is left");
        check_product(engine, c, 2, where + "afterwards");
        engine.store(nullptr);
        check(throws<Cancelled>([&] { product_of(engine, v, 1, stop); }), where + "stored product");
        check_product(engine, c, 2, where + "afterwards, stored");
    }
}

// The poll is asked between waves: fractions ascend to 1, and one in the middle can stop.
void test_progress() {
    const Shape shape{48, 48, 1, 1};
    const std::vector<double> image = normals(shape.pixels(), 5);
    const std::vector<float> v = right_sides<float>(shape, 1);
    for (const Network& network : {networks::vanilla(2, 3), networks::unet(1, true)}) {
        Tuning tuning;
        tuning.tasks_at_once = 4;
        const cuda::Engine<float> engine({network.nodes, Padding::zeros, Kernel::ntk}, shape, image.data(), 0, 1,
                                         tuning);
        std::vector<double> seen;
        product_of<float>(engine, v, 1, [&](double fraction) {
            seen.push_back(fraction);
            return true;
        });
        check(std::is_sorted(seen.begin(), seen.end()) && seen.front() >= 0 && seen.back() == 1,
              "progress: ascends to 1");
        check(seen.size() < 3 || (seen[seen.size() - 2] <= 1 && seen[0] < seen[1]), "progress: on the way");
    }
}

void test_bad_arguments() {
    const double image[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const Program small{networks::vanilla(1, 3).nodes, Padding::zeros, Kernel::ntk};
    const auto make = [&](const Program& program, const Shape& shape, int device) {
        return throws<std::invalid_argument>([&] { cuda::Engine<float>(program, shape, image, device, 1); });
    };
    for (const Shape& shape : {Shape{0, 2, 1, 1}, Shape{2, 0, 1, 1}, Shape{2, 2, 0, 1}, Shape{2, 2, 1, 2}})
        check(make(small, shape, 0), "bad shape");
    check(make({networks::unet(1, true).nodes, Padding::zeros, Kernel::ntk}, {1, 8, 1, 1}, 0), "odd side");
    check(make({{}, Padding::zeros, Kernel::ntk}, {2, 2, 1, 1}, 0), "bad program");
    check(make(small, {2, 2, 1, 1}, -1) && make(small, {2, 2, 1, 1}, 99), "bad device");
    check(!make(small, {2, 2, 1, 1}, 0), "good arguments");
    const cuda::Engine<float> engine(small, {2, 2, 1, 1}, image, 0, 1);
    check(throws<std::invalid_argument>([&] { engine.product(nullptr, nullptr, 0, nullptr); }), "no columns");
    check(throws<std::invalid_argument>([&] { engine.product_on_device(nullptr, nullptr, 0, 0, nullptr); }),
          "no columns on the device");
}

void test_zero_image() {
    const Shape shape{6, 8, 2, 1};
    const std::vector<double> image(96, 0.0);
    for (const Padding padding : {Padding::zeros, Padding::circular})
        for (const Network& network : {networks::vanilla(2, 7), networks::unet(1, true), networks::unet(1, false)}) {
            const cuda::Engine<float> engine({network.nodes, padding, Kernel::ntk}, shape, image.data(), 0, 1);
            const std::vector<float> out = dense_of(engine);
            check(std::all_of(out.begin(), out.end(), [](float value) { return value == 0; }),
                  "zero image: " + network.name);
        }
}

}  // namespace

int main() {
    const std::string missing = cuda::why_unavailable();
    if (!missing.empty()) {
        std::printf("not run: %s\n", missing.c_str());
        return 77;
    }
    const std::pair<const char*, void (*)()> tests[] = {
        {"one resolution", test_one_resolution},
        {"several resolutions", test_several_resolutions},
        {"noise", test_noise},
        {"tunings", test_tunings},
        {"many columns", test_many_columns},
        {"alike", test_alike},
        {"against the CPU", test_against_cpu},
        {"reproducible", test_reproducible},
        {"estimate", test_estimate},
        {"cancelled", test_every_call_can_be_cancelled},
        {"progress", test_progress},
        {"bad arguments", test_bad_arguments},
        {"zero image", test_zero_image},
    };
    for (const auto& [name, test] : tests) {
        const int before = failures;
        test();
        if (failures > before) std::printf("%s: %d failed\n", name, failures - before);
    }
    std::printf("%s: %d checks, %d failed; largest error %.1e (float), %.1e (double) of the largest entry\n",
                cuda::backend(), checks, failures, worst_float, worst_double);
    return failures == 0 ? 0 : 1;
}
