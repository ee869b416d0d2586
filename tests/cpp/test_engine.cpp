// These tests compare the CPU engine with the pair recursion over all pairs of pixels (oracle.h), for networks of every
// kind.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "checks.h"
#include "cpu/engine.h"
#include "cpu/rows/dispatch.h"
#include "networks.h"
#include "oracle.h"

using namespace ntkfast;
using networks::Graph;
using networks::Network;

namespace {

bool levels_in_turns = false;  // each case at one instruction-set level, not at all of them

// --- Cases ----------------------------------------------------------------------------------------------------------

// These shapes are for one resolution, with batches of one and several.
const std::vector<Shape>& shapes() {
    static const std::vector<Shape> all = {
        {1, 1, 2, 1}, {1, 2, 2, 1}, {2, 1, 3, 1}, {1, 17, 2, 1}, {9, 1, 2, 1},  {2, 2, 3, 1},
        {5, 4, 3, 1}, {7, 9, 2, 1}, {3, 5, 2, 3}, {4, 16, 4, 2}, {6, 3, 2, 17}, {5, 19, 1, 1},
    };
    return all;
}

// Shapes are counted in cells, the pixels of the coarsest resolution: one, rows and columns of them, many.
std::vector<Shape> shapes_of(const Network& network) {
    const int m = 1 << network.levels;
    return {{m, m, 2, 1}, {m, 3 * m, 3, 3}, {4 * m, m, 1, 1}, {2 * m, 2 * m, 1, 17}, {12, 16, 3, 1}};
}

struct Case {
    std::string name;
    Program program;
    Shape shape;
    std::vector<double> image;                  // empty for noise
    std::vector<std::vector<double>> expected;  // (pixels, pixels), one per image of the batch
    double largest;                             // magnitude in `expected`

    const double* pixels() const { return image.empty() ? nullptr : image.data(); }
};

std::string describe(const Network& network, const Shape& shape, Padding padding, Kernel kernel) {
    std::string out = network.name;
    for (const int n : {shape.height, shape.width, shape.channels, shape.batch}) out += " " + std::to_string(n);
    out += padding == Padding::circular ? " circular" : " zeros";
    return out + (kernel == Kernel::nngp ? " nngp" : " ntk");
}

Case make_case(const Network& network, const Shape& shape, Padding padding, Kernel kernel, bool noise = false) {
    Case out{describe(network, shape, padding, kernel), {network.nodes, padding, kernel}, shape, {}, {}, 0};
    if (noise) out.name += " noise";
    const std::int64_t size = shape.pixels() * shape.channels;
    if (!noise) out.image = normals(size * shape.batch, unsigned(7 * shape.height + shape.width));
    for (int n = 0; n < shape.batch; ++n) {
        const double* image = noise ? nullptr : out.image.data() + n * size;
        const auto nodes = oracle::nodes(out.program, shape.height, shape.width, shape.channels, image);
        const auto& values = oracle::result(out.program, nodes).values;
        out.expected.emplace_back(values.begin(), values.end());
        for (const double value : out.expected.back()) out.largest = std::max(out.largest, std::abs(value));
    }
    return out;
}

// --- Checks of one engine -------------------------------------------------------------------------------------------

template <class Real> constexpr double tolerance = sizeof(Real) == 4 ? 1e-6 : 5e-15;
double worst_float = 0, worst_double = 0;  // error over the largest entry, of all cases

// Compares the error over `scale`; NaN counts as infinite.
template <class Real> bool within(double got, double expected, double scale) {
    const double off = scale > 0 ? std::abs(got - expected) / scale : got == expected ? 0 : INFINITY;
    double& worst = sizeof(Real) == 4 ? worst_float : worst_double;
    worst = std::max(worst, std::isnan(off) ? INFINITY : off);
    return off <= tolerance<Real>;
}

template <class Real> void check_dense(const CpuEngine<Real>& engine, const Case& c, const std::string& where) {
    const std::int64_t size = c.shape.pixels() * c.shape.pixels();
    std::vector<Real> out(std::size_t(size * c.shape.batch), Real(NAN));
    engine.dense(out.data(), nullptr);
    bool close = true;
    for (int n = 0; n < c.shape.batch; ++n)
        for (std::int64_t e = 0; e < size; ++e) {
            const double expected = c.expected[std::size_t(n)][std::size_t(e)];
            close = within<Real>(double(out[std::size_t(n * size + e)]), expected, c.largest) && close;
        }
    check(close, where + ": dense");
}

// A sum of d products may be off by the tolerance of each entry.
template <class Real>
void check_product(const CpuEngine<Real>& engine, const Case& c, int columns, const std::string& where) {
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
                close = within<Real>(got, sum, c.largest * size) && close;
            }
    check(close, where + ": product with " + std::to_string(columns) + " columns");
}

template <class Real> void check_columns(const CpuEngine<Real>& engine, const Case& c, const std::string& where) {
    const std::int64_t d = c.shape.pixels();
    const std::vector<std::int64_t> pixels = {d - 1, 0, d / 2, 0};
    std::vector<Real> out(pixels.size() * std::size_t(d), Real(NAN));
    engine.columns(pixels.data(), std::int64_t(pixels.size()), out.data(), nullptr);
    bool close = true;
    for (std::size_t n = 0; n < pixels.size(); ++n)
        for (std::int64_t j = 0; j < d; ++j) {
            const double expected = c.expected[0][std::size_t(pixels[n] * d + j)];
            const double got = double(out[n * std::size_t(d) + std::size_t(j)]);
            close = within<Real>(got, expected, c.largest) && close;
        }
    check(close, where + ": columns");
}

template <class Real> void check_diagonal(const CpuEngine<Real>& engine, const Case& c, const std::string& where) {
    const std::int64_t d = c.shape.pixels(), batch = c.shape.batch;
    std::vector<double> out(std::size_t(d * batch), NAN);
    engine.diagonal(out.data());
    bool close = true;
    for (std::int64_t i = 0; i < d; ++i)
        for (std::int64_t n = 0; n < batch; ++n) {
            const double expected = c.expected[std::size_t(n)][std::size_t(i * d + i)];
            close = within<Real>(out[std::size_t(i * batch + n)], expected, c.largest) && close;
        }
    check(close, where + ": diagonal");
}

template <class Real> void check_sweeps(const CpuEngine<Real>& engine, const Case& c, const std::string& where) {
    check_dense(engine, c, where);
    for (const int columns : {1, 3, 5}) check_product(engine, c, columns, where);
}

// Checks the engine with everything computed anew, with the coarse fields kept, and stored.
template <class Real> void check_engine(const Case& c, const EngineOptions& options) {
    std::string where = c.name + ", " + isa_name(options.isa) + (sizeof(Real) == 4 ? " float" : " double");
    where += ", lanes " + std::to_string(options.lanes) + ", threads " + std::to_string(options.threads);
    CpuEngine<Real> engine(c.program, c.shape, c.pixels(), options);
    check_diagonal(engine, c, where);
    if (c.shape.batch == 1) check_columns(engine, c, where);
    check_sweeps(engine, c, where);
    check(!engine.coarse_kept() && !engine.stored(), where + ": keeps nothing unasked");
    if (c.program.levels() > 0) {
        engine.keep_coarse(nullptr);
        check(engine.coarse_kept(), where + ": coarse_kept()");
        check_sweeps(engine, c, where + ", coarse kept");
    }
    engine.store(nullptr);
    check(engine.stored(), where + ": stored()");
    check_sweeps(engine, c, where + ", stored");
}

// Checks every level and type; the numbers of lanes and threads take turns.
void check_case(const Case& c) {
    static int turn = 0;
    const int lanes[] = {1, 3, 8, 32}, threads[] = {1, 2, 1, 1, 3};
    std::vector<Isa> levels = supported_isas();
    if (levels_in_turns) levels = {levels[std::size_t(turn) % levels.size()]};
    for (const Isa isa : levels) {
        check_engine<float>(c, {isa, threads[turn % 5], lanes[turn % 4]});
        check_engine<double>(c, {isa, threads[(turn + 1) % 5], lanes[(turn + 2) % 4]});
        ++turn;
    }
}

// Checks both paddings, the kernels in turns.
void check_network(const Network& network, const std::vector<Shape>& all_shapes) {
    static int turn = 0;
    for (const Shape& shape : all_shapes)
        for (const Padding padding : {Padding::zeros, Padding::circular})
            check_case(make_case(network, shape, padding, turn++ % 3 == 2 ? Kernel::nngp : Kernel::ntk));
}

void test_one_resolution() {
    for (const Network& network : networks::chains()) check_network(network, shapes());
    for (const Network& network : networks::skips()) check_network(network, shapes());
}

void test_several_resolutions() {
    for (const Network& network : networks::pyramids()) check_network(network, shapes_of(network));
}

void test_noise() {
    for (const Padding padding : {Padding::zeros, Padding::circular})
        for (const Kernel kernel : {Kernel::ntk, Kernel::nngp}) {
            check_case(make_case(networks::vanilla(2, 3), {5, 6, 1, 1}, padding, kernel, true));
            for (const Network& network : networks::pyramids())
                check_case(make_case(network, {8, 12, 1, 1}, padding, kernel, true));
        }
}

// All numbers of lanes and threads run on cases whose blocks end in every way.
void test_lanes_and_threads() {
    const std::pair<Network, Shape> cases[] = {{networks::vanilla(5, 3), {7, 9, 2, 1}},
                                               {networks::unet(2, true), {8, 12, 2, 1}}};
    for (const auto& [network, shape] : cases)
        for (const Padding padding : {Padding::zeros, Padding::circular}) {
            const Case c = make_case(network, shape, padding, Kernel::ntk);
            for (const int lanes : {1, 3, 8, 32})
                for (const int threads : {1, 2, 3}) check_engine<float>(c, {supported_isas().back(), threads, lanes});
        }
}

// --- Memory ---------------------------------------------------------------------------------------------------------

// The estimate must say the right thing of a network's parts.
void test_estimate() {
    const EngineOptions options{Isa::baseline, 2, 8};
    const Shape shape{256, 256, 3, 1};
    for (const Padding padding : {Padding::zeros, Padding::circular}) {
        const Program chain{networks::vanilla(2, 3).nodes, padding, Kernel::ntk};
        const MemoryEstimate flat = CpuEngine<float>::estimate(chain, shape, 3, options);
        check(flat.fields > 0 && flat.product > 0, "estimate: fields, product");
        check(flat.bands == 0 && flat.coarse == 0 && flat.building == 0, "estimate: one resolution has no bands");
        const std::int64_t half = shape.pixels() * shape.pixels() / 2 * 4;
        check(flat.store >= half - shape.pixels() * 2 && flat.store < half * 5 / 4, "estimate: store");
        const EngineOptions more{Isa::baseline, 4, 8};
        check(CpuEngine<float>::estimate(chain, shape, 3, more).product > flat.product, "estimate: threads");
        check(CpuEngine<float>::estimate(chain, shape, 9, options).product > flat.product, "estimate: columns");

        const Program deep{networks::unet(2, true).nodes, padding, Kernel::ntk};
        const MemoryEstimate bytes = CpuEngine<float>::estimate(deep, shape, 3, options);
        check(0 < bytes.bands && bytes.bands < bytes.coarse, "estimate: bands");
        check(0 < bytes.building && bytes.building < bytes.bands, "estimate: bands near D = 0");
        check(CpuEngine<double>::estimate(deep, shape, 3, options).bands == 2 * bytes.bands, "estimate: doubles");
        // The band holds E and T' of the pairs at level 1, half of all: 1/16 of the pairs of the image.
        check(bytes.coarse >= 2 * half / 16, "estimate: coarse");
    }
}

// --- Zeros, cancellation, errors ------------------------------------------------------------------------------------

void test_zero_image() {
    const Shape shape{6, 8, 2, 1};
    const std::vector<double> image(96, 0.0);
    for (const Padding padding : {Padding::zeros, Padding::circular}) {
        for (const Network& network : {networks::vanilla(2, 7), networks::unet(1, true), networks::unet(1, false)}) {
            const Program program{network.nodes, padding, Kernel::ntk};
            const CpuEngine<float> engine(program, shape, image.data(), {Isa::baseline, 2, 8});
            std::vector<float> out(48 * 48, 1.0f);
            engine.dense(out.data(), nullptr);
            const bool zero = std::all_of(out.begin(), out.end(), [](float value) { return value == 0; });
            check(zero, "zero image: " + network.name);
        }
    }
}

const EngineOptions plain{Isa::baseline, 1, 8};
const Program small{networks::vanilla(1, 3).nodes, Padding::zeros, Kernel::ntk};

void check_every_call_can_be_cancelled(const Network& network) {
    const Case c = make_case(network, {8, 4, 3, 1}, Padding::zeros, Kernel::ntk);
    const std::string where = "cancel " + network.name + ": ";
    CpuEngine<float> engine(c.program, c.shape, c.pixels(), {Isa::baseline, 2, 8});
    const Poll stop = [](double) { return false; };
    std::vector<float> v(32, 1.0f), out(32 * 32);
    const std::int64_t pixel = 3;
    check(throws<Cancelled>([&] { CpuEngine<float>(c.program, c.shape, c.pixels(), {Isa::baseline, 2, 8}, stop); }),
          where + "construction");
    check(throws<Cancelled>([&] { engine.product(v.data(), out.data(), 1, stop); }), where + "product");
    check(throws<Cancelled>([&] { engine.dense(out.data(), stop); }), where + "dense");
    check(throws<Cancelled>([&] { engine.columns(&pixel, 1, out.data(), stop); }), where + "columns");
    check(throws<Cancelled>([&] { engine.store(stop); }), where + "store");
    check(!engine.stored(), where + "nothing half stored");
    check_sweeps(engine, c, where + "afterwards");
    if (c.program.levels() > 0) {
        check(throws<Cancelled>([&] { engine.keep_coarse(stop); }), where + "keep_coarse");
        check(!engine.coarse_kept(), where + "nothing half kept");
        engine.keep_coarse(nullptr);
        check(throws<Cancelled>([&] { engine.product(v.data(), out.data(), 1, stop); }), where + "coarse kept");
        check_sweeps(engine, c, where + "afterwards, coarse kept");
    }
    engine.store(nullptr);
    check(throws<Cancelled>([&] { engine.product(v.data(), out.data(), 1, stop); }), where + "product when stored");
    check_product(engine, c, 3, where + "afterwards, stored");
}

void test_every_call_can_be_cancelled() {
    check_every_call_can_be_cancelled(networks::vanilla(1, 5));
    check_every_call_can_be_cancelled(networks::unet(2, true));
}

// Calls `call` with a poll that stops it at the `count`-th time, until the call ends soon after: a loaded machine may
// add to the wait, but never take from it.  Returns the fractions that the last poll saw.
std::vector<double> check_stops_soon(const std::function<void(const Poll&)>& call, std::size_t count,
                                     const std::string& where) {
    std::vector<double> seen;
    std::chrono::duration<double> waited{};
    for (int attempt = 0; attempt < 3; ++attempt) {
        seen.clear();
        auto asked = std::chrono::steady_clock::now();
        const Poll poll = [&](double fraction) {
            seen.push_back(fraction);
            asked = std::chrono::steady_clock::now();
            return seen.size() < count;
        };
        check(throws<Cancelled>([&] { call(poll); }), where + ": is stopped");
        waited = std::chrono::steady_clock::now() - asked;
        if (waited.count() < 0.25) break;
    }
    check(waited.count() < 0.25, where + ": took " + std::to_string(waited.count()) + " s");
    return seen;
}

// The third poll stops a product that would take longer by far, on small images too.
void check_cancellation(const CpuEngine<float>& engine, const std::string& where) {
    const std::size_t pixels = std::size_t(engine.shape().pixels());
    std::vector<float> v(pixels, 1.0f), out(pixels);
    const auto product = [&](const Poll& poll) { engine.product(v.data(), out.data(), 1, poll); };
    const std::vector<double> seen = check_stops_soon(product, 3, where);
    check(seen.size() == 3 && 0 < seen[0] && seen[0] < seen[1] && seen[1] < seen[2] && seen[2] < 1,
          where + ": fractions done");
}

void test_cancellation_comes_soon() {
    const std::pair<Network, int> cases[] = {
        {networks::vanilla(30, 3), 90}, {networks::vanilla(3, 3), 200}, {networks::unet(2, true), 160}};
    for (const auto& [network, side] : cases) {
        const Shape shape{side, side, 1, 1};
        const std::vector<double> image = normals(shape.pixels(), 5);
        for (const int threads : {1, 2}) {
            const Program program{network.nodes, Padding::zeros, Kernel::ntk};
            const CpuEngine<float> engine(program, shape, image.data(), {supported_isas().back(), threads, 8});
            check_cancellation(engine, "cancel " + network.name + ", side " + std::to_string(side) + ", threads " +
                                           std::to_string(threads));
        }
    }
}

// The first poll, 50 ms after the beginning, stops work that takes seconds: the bands near D = 0 of a deep network, the
// planes of a large image.
void test_construction_is_cancelled_soon() {
    const std::pair<Network, int> cases[] = {{networks::unet(3, true), 256}, {networks::vanilla(3, 5), 1024}};
    for (const auto& [network, side] : cases) {
        const Shape shape{side, side, 1, 1};
        const std::vector<double> image = normals(shape.pixels(), 5);
        const Program program{network.nodes, Padding::zeros, Kernel::ntk};
        const auto make = [&](const Poll& poll) {
            CpuEngine<float>(program, shape, image.data(), {supported_isas().back(), 2, 8}, poll);
        };
        const std::string where = "cancel construction of " + network.name;
        check(check_stops_soon(make, 1, where).front() == 0, where + ": before the end");
    }
}

// An engine in float makes the fields in double with the first columns and keeps them; one in double has them.
void test_columns_keep_their_fields() {
    const Case c = make_case(networks::unet(2, true), {8, 12, 3, 1}, Padding::zeros, Kernel::ntk);
    const auto bytes_before_and_after = [&](const auto& engine, auto* out) {
        const std::int64_t pixel = 17, before = engine.columns_bytes();
        engine.columns(&pixel, 1, out, nullptr);
        return std::pair(before, engine.columns_bytes());
    };
    std::vector<float> single(96);
    std::vector<double> wide(96);
    const auto [first, later] =
        bytes_before_and_after(CpuEngine<float>(c.program, c.shape, c.pixels(), plain), single.data());
    const auto [same, again] =
        bytes_before_and_after(CpuEngine<double>(c.program, c.shape, c.pixels(), plain), wide.data());
    check(0 < later && later < first, "columns: the fields in double are kept");
    check(same == again && again == later, "columns: an engine in double has its fields");
    const CpuEngine<float> threads(c.program, c.shape, c.pixels(), {Isa::baseline, 3, 8});
    check(threads.columns_bytes() == first + 2 * later, "columns: each thread has its windows");
}

// Fractions ascend within [0, 1] and end at 1, with coarse bands made on the way and without.
void test_progress() {
    const Shape shape{64, 64, 1, 1};
    const std::vector<double> image = normals(shape.pixels(), 5);
    std::vector<float> v(std::size_t(shape.pixels()), 1.0f), out(v.size());
    for (const Padding padding : {Padding::zeros, Padding::circular}) {
        const Program program{networks::unet(2, true).nodes, padding, Kernel::ntk};
        CpuEngine<float> engine(program, shape, image.data(), {supported_isas().back(), 2, 8});
        std::vector<double> seen;
        const Poll poll = [&](double fraction) {
            seen.push_back(fraction);
            return true;
        };
        const auto check_seen = [&](const std::string& what) {
            // No pair counts twice: then one of the fractions would be above the last one, which is 1.
            check(std::is_sorted(seen.begin(), seen.end()) && seen.front() >= 0 && seen.back() == 1,
                  "progress: " + what);
            seen.clear();
        };
        engine.product(v.data(), out.data(), 1, poll);
        check_seen("product");
        engine.keep_coarse(poll);
        check_seen("keep_coarse");
        engine.product(v.data(), out.data(), 1, poll);
        check_seen("product, coarse kept");
    }
}

// `change` is done to a node of a network that is right.
void test_bad_programs() {
    using Change = std::function<void(std::vector<Node>&)>;
    const std::vector<std::pair<const char*, Change>> bad = {
        {"none", [](auto& nodes) { nodes.clear(); }},
        {"no input", [](auto& nodes) { nodes[0].op = Op::conv; }},
        {"second input", [](auto& nodes) { nodes[1].op = Op::input; }},
        {"input at level 1", [](auto& nodes) { nodes[0].level = 1; }},
        {"even kernel", [](auto& nodes) { nodes[1].kernel_size = 2; }},
        {"zero kernel", [](auto& nodes) { nodes[1].kernel_size = 0; }},
        {"negative kernel", [](auto& nodes) { nodes[1].kernel_size = -3; }},
        {"stride 0", [](auto& nodes) { nodes[1].stride = 0; }},
        {"stride 3", [](auto& nodes) { nodes[1].stride = 3; }},
        {"stride 3 instead of a pool",
         [](auto& nodes) {
             nodes[3].op = Op::conv;
             nodes[3].stride = 3;
         }},
        {"pool by 3", [](auto& nodes) { nodes[3].factor = 3; }},
        {"pool by 1", [](auto& nodes) { nodes[3].factor = 1; }},
        {"upsampling by 4", [](auto& nodes) { nodes[5].factor = 4; }},
        {"zero weights", [](auto& nodes) { nodes[1].weight_var = 0; }},
        {"negative weights", [](auto& nodes) { nodes[1].weight_var = -1; }},
        {"infinite weights", [](auto& nodes) { nodes[1].weight_var = INFINITY; }},
        {"NaN weights", [](auto& nodes) { nodes[1].weight_var = NAN; }},
        {"negative bias", [](auto& nodes) { nodes[1].bias_var = -1e-9; }},
        {"NaN bias", [](auto& nodes) { nodes[1].bias_var = NAN; }},
        {"infinite slope", [](auto& nodes) { nodes[2].slope = INFINITY; }},
        {"later input", [](auto& nodes) { nodes[1].inputs = {2}; }},
        {"own input", [](auto& nodes) { nodes[1].inputs = {1}; }},
        {"negative input", [](auto& nodes) { nodes[1].inputs = {-1}; }},
        {"two inputs", [](auto& nodes) { nodes[1].inputs = {0, 0}; }},
        {"merge of one", [](auto& nodes) { nodes[6].inputs = {2}; }},
        {"merge across levels", [](auto& nodes) { nodes[6].inputs = {2, 4}; }},
        {"zero share", [](auto& nodes) { nodes[6].shares[0] = 0; }},
        {"infinite share", [](auto& nodes) { nodes[6].shares[1] = INFINITY; }},
        {"wrong level", [](auto& nodes) { nodes[3].level = 0; }},
        {"level below 0", [](auto& nodes) { nodes.insert(nodes.end(), {Op::upsample, {7}, -1}); }},
        {"last activation",
         [](auto& nodes) {
             nodes.pop_back();
             nodes.push_back({Op::rectifier, {6}, 0});
         }},
        {"last stride 2", [](auto& nodes) { nodes.back().stride = 2, nodes.back().level = 1; }},
    };
    Graph g;  // 1 conv, 2 rectifier, 3 pool, 4 conv, 5 upsample, 6 concat, 7 conv
    g.conv(3), g.rectifier(), g.pool(), g.conv(3), g.upsample(true), g.concat(2, 5), g.conv(1);
    const double image[4] = {1, 2, 3, 4};
    Program program{g.nodes(), Padding::zeros, Kernel::ntk};
    const auto make = [&] { CpuEngine<float>(program, {2, 2, 1, 1}, image, plain); };
    check(!throws<std::invalid_argument>(make), "good program");
    for (const auto& [name, change] : bad) {
        program.nodes = g.nodes();
        change(program.nodes);
        check(throws<std::invalid_argument>(make), std::string("bad program: ") + name);
    }
    check(throws<std::invalid_argument>([] { op_from_name("tanh"); }), "unknown operation");
}

void test_bad_arguments() {
    const double image[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    for (const Shape& shape : {Shape{0, 2, 1, 1}, Shape{2, 0, 1, 1}, Shape{2, 2, 0, 1}, Shape{2, 2, 1, 0}})
        check(throws<std::invalid_argument>([&] { CpuEngine<float>(small, shape, image, plain); }), "bad shape");
    const Program halved{networks::unet(1, true).nodes, Padding::zeros, Kernel::ntk};
    for (const Shape& shape : {Shape{1, 8, 1, 1}, Shape{8, 1, 1, 1}})
        check(throws<std::invalid_argument>([&] { CpuEngine<float>(halved, shape, image, plain); }), "odd side");
    const CpuEngine<float> engine(small, {2, 2, 1, 1}, image, plain);
    float v[8] = {}, out[8] = {};
    for (const std::int64_t pixel : {-1, 4, 1 << 30})
        check(throws<std::invalid_argument>([&] { engine.columns(&pixel, 1, out, nullptr); }), "pixel out of range");
    check(throws<std::invalid_argument>([&] { engine.product(v, out, 0, nullptr); }), "product with no columns");
    const CpuEngine<float> batch(small, {2, 2, 1, 2}, image, plain);
    const std::int64_t first = 0;
    check(throws<std::invalid_argument>([&] { batch.columns(&first, 1, out, nullptr); }), "columns of a batch");
    check(throws<std::invalid_argument>([] { isa_from_name("sse9"); }), "unknown instruction set");
    const std::vector<Isa> levels = supported_isas();
    for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
        const bool has = std::find(levels.begin(), levels.end(), isa) != levels.end();
        const auto make = [&] { CpuEngine<double>(small, {2, 2, 1, 1}, image, {isa, 1, 8}); };
        check(throws<std::invalid_argument>(make) != has, std::string("instruction set ") + isa_name(isa));
        check(isa_from_name(isa_name(isa)) == isa, std::string("name of ") + isa_name(isa));
    }
}

}  // namespace

// The command is test_engine [--levels-in-turns].
int main(int count, char** arguments) {
    levels_in_turns = count == 2 && std::string(arguments[1]) == "--levels-in-turns";
    test_one_resolution();
    test_several_resolutions();
    test_noise();
    test_lanes_and_threads();
    test_estimate();
    test_zero_image();
    test_every_call_can_be_cancelled();
    test_cancellation_comes_soon();
    test_construction_is_cancelled_soon();
    test_columns_keep_their_fields();
    test_progress();
    test_bad_programs();
    test_bad_arguments();
    std::printf("%d checks, %d failed; largest error %.1e (float), %.1e (double) of the largest entry\n", checks,
                failures, worst_float, worst_double);
    return failures == 0 ? 0 : 1;
}
