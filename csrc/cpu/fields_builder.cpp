#include "cpu/fields_builder.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>

#include "cpu/band_maker.h"
#include "cpu/upsampled_rows.h"
#include "plan/activations.h"
#include "plan/units.h"

namespace ntkfast {
namespace {

// Calls visit(n) for 0 <= n < count; the monitor is asked each 2^16 numbers, which take some milliseconds.
template <class Visit> void each_number(std::size_t count, Monitor& monitor, Visit visit) {
    constexpr std::size_t stride = 1 << 16;
    for (std::size_t begin = 0; begin < count; begin += stride) {
        monitor.check();
        for (std::size_t n = begin; n < std::min(count, begin + stride); ++n) visit(n);
    }
}

// Computes out(n) = sum over |m| <= radius of in(n + m) along one axis; `step` and `length` describe that axis in
// elements.  It goes through one m after the other, since in(n + m) is then one run of memory, or two on the torus,
// whichever axis it is.
void box_along(const Plane& in, Plane& out, std::ptrdiff_t step, int length, int radius, bool circular,
               Monitor& monitor) {
    const std::ptrdiff_t total = std::ptrdiff_t(in.size()), line = step * length;
    std::fill(out.begin(), out.end(), 0.0);
    for (std::ptrdiff_t start = 0; start < total; start += line) {
        double* to = &out[std::size_t(start)];
        const double* from = &in[std::size_t(start)];
        const auto add = [&](std::ptrdiff_t begin, std::ptrdiff_t end, std::ptrdiff_t shift) {
            for (std::ptrdiff_t e = begin; e < end; ++e) to[e] += from[e + shift];
        };
        for (int m = -radius; m <= radius; ++m) {
            monitor.check();
            if (circular) {
                const std::ptrdiff_t shift = modulo(m, length) * step;
                add(0, line - shift, shift);
                add(line - shift, line, shift - line);
            } else {
                const std::ptrdiff_t shift = m * step;
                add(std::max<std::ptrdiff_t>(0, -shift), std::min(line, line - shift), shift);
            }
        }
    }
}

Plane box(const Plane& in, const Shape& shape, int radius, bool circular, Monitor& monitor) {
    if (radius == 0) return in;
    Plane rows(in.size()), out(in.size());
    box_along(in, rows, shape.batch, shape.width, radius, circular, monitor);
    box_along(rows, out, std::ptrdiff_t(shape.width) * shape.batch, shape.height, radius, circular, monitor);
    return out;
}

// Computes sum_a A_pa in(a) of a layer that changes the resolution; `shape` is that of `in`.
Plane resampled(const Plane& in, const Shape& shape, const Resampling& layer, bool circular) {
    const int height = layer.output_size(shape.height), width = layer.output_size(shape.width);
    const auto inside = [=](int n, int length) { return circular ? modulo(n, length) : n; };
    const bool by_rows = layer.goes_down();  // the order in which sums round: by rows of the pixels, or by columns
    Plane out;
    for (int y = 0; y < height; ++y) {
        const Taps rows = layer.taps(y, shape.height, circular);
        for (int x = 0; x < width; ++x) {
            const Taps columns = layer.taps(x, shape.width, circular);
            const std::size_t begin = out.size();
            out.resize(begin + std::size_t(shape.batch), 0.0);
            for (int m = 0; m < rows.count * columns.count; ++m) {
                const int a = by_rows ? m / columns.count : m % rows.count;
                const int b = by_rows ? m % columns.count : m / rows.count;
                const std::int64_t pixel = std::int64_t(inside(rows.index(a), shape.height)) * shape.width +
                                           inside(columns.index(b), shape.width);
                const double weight = rows.weight(a) * columns.weight(b);
                for (int n = 0; n < shape.batch; ++n)
                    out[begin + std::size_t(n)] += weight * in[std::size_t(pixel * shape.batch + n)];
            }
        }
    }
    return out;
}

// This is the smallest p_i that counts as non-zero, relative to the largest of the stage: below it a pair is beneath
// the rounding of the result, and 1/(p_i p_j) would leave the range of the type.
template <class Real> constexpr double tiny_root = sizeof(Real) == 4 ? 1e-12 : 1e-60;
template <class Real> constexpr double least_root = sizeof(Real) == 4 ? 1e-17 : 1e-140;

template <class Real> PaddedRows<Real> padded(const Plane& from, const Shape& shape, bool circular, int margin) {
    PaddedRows<Real> to(shape, 1, circular, margin);
    const std::ptrdiff_t width = std::ptrdiff_t(shape.width) * shape.batch;
    for (int y = 0; y < shape.height; ++y) {
        Real* row = to.row(y);
        for (std::ptrdiff_t e = 0; e < width; ++e) {
            row[e] = Real(from[std::size_t(y * width + e)]);
            if (circular) row[width + e] = row[e];
        }
    }
    return to;
}

// Counts the rows and columns that any row loop may read beyond the image.
int margin_of(const Program& program) { return std::max(1, program.max_radius()); }

template <class Real>
MapFields<Real> map_fields(const Program& program, int n, const Shape& shape, const Plane& s, double unit,
                           Monitor& monitor) {
    const Node& node = program[n];
    const double largest = std::sqrt(*std::max_element(s.begin(), s.end()));
    const double floor = std::max(tiny_root<Real> * largest, least_root<Real>);
    Plane root(s.size()), inverse(s.size()), rest(s.size());
    const bool smooth = is_activation(node.op) && node.op != Op::rectifier;
    const double true_unit = smooth ? smooth_units<Real>(program, n, unit).in : 1.0;
    each_number(s.size(), monitor, [&](std::size_t e) {
        if (smooth) {
            const Root<double> number = smooth_number<Real>(node.op, true_unit * s[e]);
            root[e] = number.p, inverse[e] = number.inverse, rest[e] = number.rest;
            return;
        }
        const double p = std::sqrt(s[e]);
        root[e] = p > floor ? p : 0.0;
        inverse[e] = p > floor ? 1 / p : 0.0;
        rest[e] = root[e] - double(Real(root[e]));
    });
    const auto rows = [&](const Plane& plane) {
        monitor.check();
        return padded<Real>(plane, shape, program.circular(), margin_of(program));
    };
    return {{rows(root), rows(inverse), rows(rest)}, largest};
}

// Makes v from 2 v.
template <class Real> PaddedRows<Real> halved(Plane raw, const Shape& shape, const Program& program) {
    for (double& value : raw) value /= 2;
    return padded<Real>(raw, shape, program.circular(), margin_of(program));
}

// Returns a power of 4 near the square of the largest pixel, so that the engine's numbers are of order one whatever the
// units of the image, and dividing by its root is exact.
double natural_unit(double largest) {
    if (!(largest * largest > 1e-300)) return 1.0;  // a zero image
    return std::ldexp(1.0, 2 * std::ilogb(largest));
}

// Kernels with entries up to 2^largest_exponent, and down to its inverse, have products that a double holds.
constexpr int largest_exponent = 1000;
// So many binary digits may the results of an engine be away from 1.
int room(bool single_precision) { return single_precision ? 60 : 500; }

[[noreturn]] void refuse_gain(const std::string& what) {
    throw std::invalid_argument("network has a gain that no double holds: " + what + "; choose weight_var nearer to 2");
}

// This is the largest variance S(i,i) that the formulas of the smooth activations take: S^2 is a number of the type.
double largest_smooth(bool single_precision) { return single_precision ? 1e18 : 1e150; }

[[noreturn]] void refuse_smooth(double largest, bool single_precision) {
    char numbers[64];
    std::snprintf(numbers, sizeof numbers, "%.3g, above %.0e", largest, largest_smooth(single_precision));
    throw std::invalid_argument(
        std::string("network has a gain that takes the variance before a smooth activation to ") + numbers +
        (single_precision ? ": use dtype='float64', or smaller weight_var" : ": choose smaller weight_var"));
}

double largest_of(const Plane& plane) { return *std::max_element(plane.begin(), plane.end()); }

// Divides by 2^exponent.
void divide(Plane& plane, int exponent) {
    if (exponent == 0) return;
    for (double& value : plane) value = std::ldexp(value, -exponent);
}

}  // namespace

FieldsBuilder::FieldsBuilder(const Program& program, const Shape& shape, const double* image, bool single_precision,
                             const RowKernels<double>& kernels, int threads, Monitor& monitor)
    : program_(program), shape_(shape), single_precision_(single_precision), monitor_(monitor) {
    fields_.shape = shape;
    fields_.noise = image == nullptr;
    read_image(image);
    NearBands<double> near(program_, fields_, kernels, threads, monitor);
    for (int n = 0; n < program.size(); ++n) {
        add(n, near);
        near.finish(n);
    }
    choose_result_unit();
}

void FieldsBuilder::read_image(const double* image) {
    double largest = fields_.noise ? 1.0 : 0.0;
    const std::int64_t count = shape_.elements() * shape_.channels;
    for (std::int64_t n = 0; n < (fields_.noise ? 0 : count); ++n) largest = std::max(largest, std::abs(image[n]));
    fields_.unit = natural_unit(largest);
    Plane variance(std::size_t(shape_.elements()), fields_.noise ? 1 / fields_.unit : 0.0);
    const bool circular = program_.circular();
    fields_.image = PaddedRows<double>(shape_, fields_.noise ? 0 : shape_.channels, circular, margin_of(program_));
    // E = 1/(2C) sum_c (x_c(i) - x_c(j))^2: the factor goes into the pixels, and the diagonal is taken of the pixels as
    // the engine's type rounds them, so that the two agree.
    const double factor = 1 / (std::sqrt(2.0 * shape_.channels) * std::sqrt(fields_.unit));
    const std::ptrdiff_t width = std::ptrdiff_t(shape_.width) * shape_.batch;
    for (int n = 0; n < (fields_.noise ? 0 : shape_.batch); ++n)
        for (int y = 0; y < shape_.height; ++y) {
            monitor_.check();
            for (int x = 0; x < shape_.width; ++x)
                for (int c = 0; c < shape_.channels; ++c) {
                    double* row = fields_.image.row(y) + c * fields_.image.plane_stride();
                    const double exact = factor * *image++;
                    const double value = single_precision_ ? double(float(exact)) : exact;
                    const std::ptrdiff_t e = std::ptrdiff_t(x) * shape_.batch + n;
                    row[e] = value;
                    if (circular) row[width + e] = value;
                    variance[std::size_t(y * width + e)] += 2.0 * value * value;
                }
        }
    fields_.variance.push_back(std::move(variance));
    fields_.tangent.emplace_back(std::size_t(shape_.elements()), 0.0);
}

// Computes the diagonals of one node from those of the earlier ones.
void FieldsBuilder::add(int n, NearBands<double>& near) {
    Node& node = program_.nodes[std::size_t(n)];
    node.exponent = node.tangent_exponent = 0;
    if (node.op == Op::input) return;
    node.exponent = program_[node.input()].exponent;
    node.tangent_exponent = program_[node.input()].tangent_exponent;
    const Shape shape = at_level(program_, shape_, node.level);
    if (node.op == Op::conv) {
        add_conv(n, shape);
    } else if (program_.is_image(n)) {
        add_pooled_image(n, shape);
    } else if (is_activation(node.op)) {
        add_activation(n, shape);
    } else if (is_merge(node.op)) {
        add_merge(n);
    } else {
        add_average(n, shape, near);
    }
}

// Takes the last numbers of a node, which were computed in units that may not suit them, to such as do, and keeps them.
void FieldsBuilder::settle(int n, Plane variance, Plane tangent) {
    Node& node = program_.nodes[std::size_t(n)];
    const int shift = excess(largest_of(variance));
    divide(variance, shift);
    divide(tangent, shift);
    node.exponent += shift;
    node.tangent_exponent += shift;
    push(std::move(variance), std::move(tangent));
}

// On the diagonal an activation gives Q(i,i) and T' = Q' T.
void FieldsBuilder::add_activation(int n, const Shape& shape) {
    Node& node = program_.nodes[std::size_t(n)];
    const std::size_t input = std::size_t(node.input());
    Plane q = fields_.variance[input], t = fields_.tangent[input];
    if (node.op == Op::rectifier) {
        each_number(q.size(), monitor_, [&](std::size_t e) {
            const Gains gains = diagonal_gains(node, q[e]);
            q[e] = gains.q;
            t[e] *= gains.dq;
        });
        settle(n, std::move(q), std::move(t));
    } else {
        smooth(n, q, t);
        push(std::move(q), std::move(t));
    }
    fields_.maps.emplace(n, map_fields<double>(program_, n, shape, fields_.variance[input], fields_.unit, monitor_));
}

// Sends S and T through a smooth activation, which goes through true units and gives its numbers units of their own.
// T' keeps those of Q where it is small beside it: the next convolution that is trained adds S to it.
void FieldsBuilder::smooth(int n, Plane& q, Plane& t) {
    Node& node = program_.nodes[std::size_t(n)];
    const SmoothUnits entering = smooth_units<double>(program_, n, fields_.unit);
    const double engine_unit = single_precision_ ? smooth_units<float>(program_, n, fields_.unit).in : entering.in;
    const double largest = engine_unit * largest_of(q);
    if (largest > largest_smooth(single_precision_)) refuse_smooth(largest, single_precision_);
    node.exponent += std::ilogb(entering.in) - entering.out;
    const SmoothUnits units = smooth_units<double>(program_, n, fields_.unit);
    each_number(q.size(), monitor_, [&](std::size_t e) {
        const Gains gains = diagonal_gains(node, units.in * q[e]);
        q[e] = std::ldexp(gains.q, -units.out);
        t[e] *= gains.dq * units.tangent;
    });
    const int shift = excess(largest_of(q)), before = node.tangent_exponent;
    divide(q, shift);
    node.exponent += shift;
    node.tangent_exponent = node.exponent;
    if (!program_.has_tangent(n)) return;
    node.tangent_exponent = std::max(node.tangent_exponent, before + excess(largest_of(t)));
    divide(t, node.tangent_exponent - before);
}

// Computes Q = a Q_1 + b Q_2 in the units of the larger term, and T' likewise.
void FieldsBuilder::add_merge(int n) {
    Node& node = program_.nodes[std::size_t(n)];
    const auto largest = [&](const std::vector<Plane>& planes, int Node::* exponent) {
        const auto term = [&](std::size_t m) {
            const int from = node.inputs[m];
            return Magnitude{node.shares[m] * largest_of(planes[std::size_t(from)]), program_[from].*exponent};
        };
        return larger(term(0), term(1));
    };
    node.exponent = units_for(largest(fields_.variance, &Node::exponent), node.exponent);
    node.tangent_exponent =
        std::max(node.exponent, units_for(largest(fields_.tangent, &Node::tangent_exponent), node.tangent_exponent));
    const auto sum = [&](const std::vector<Plane>& planes, double a, double b) {
        Plane out = planes[std::size_t(node.inputs[0])];
        const Plane& other = planes[std::size_t(node.inputs[1])];
        for (std::size_t e = 0; e < out.size(); ++e) out[e] = a * out[e] + b * other[e];
        return out;
    };
    Plane q = sum(fields_.variance, program_.share(n, 0), program_.share(n, 1));
    Plane t = sum(fields_.tangent, program_.tangent_share(n, 0), program_.tangent_share(n, 1));
    push(std::move(q), std::move(t));
}

// An average pool of an image is an image: this computes its pixels, and from them, without a difference of large
// numbers, Q(p,p) = 2 |s(p)|^2 and v(p) = sum_a A_pa |s(a) - s(p)|^2 for E = |s(i) - s(j)|^2.  Noise stays noise, with
// its variance divided by the pixels of a cell.
void FieldsBuilder::add_pooled_image(int n, const Shape& shape) {
    const bool circular = program_.circular();
    const std::size_t input = std::size_t(program_[n].input());
    const int factor = program_[n].factor, cell = factor * factor;  // pixels
    if (fields_.noise) {
        Plane mean(std::size_t(shape.elements()), fields_.variance[input][0] / cell), none(mean.size(), 0.0);
        // 2 v = (A E A^T)(p,p): of the pairs of a cell those of different pixels count.
        Plane raw(mean.size(), fields_.variance[input][0] * (cell * (cell - 1)) / (cell * cell));
        fields_.spread.emplace(n, halved<double>(raw, shape, program_));
        return push(std::move(mean), std::move(none));
    }
    const PaddedRows<double>& fine = fields_.image_of(int(input));
    PaddedRows<double> coarse(shape, shape.channels, circular, margin_of(program_));
    const std::ptrdiff_t batch = shape.batch, width = shape.width * batch;
    Plane q(std::size_t(shape.elements()), 0.0), raw = q, none = q;
    for (int y = 0; y < shape.height; ++y) {
        monitor_.check();
        for (int c = 0; c < shape.channels; ++c)
            for (std::ptrdiff_t e = 0; e < width; ++e) {
                const std::ptrdiff_t x = factor * (e / batch) * batch + e % batch + c * fine.plane_stride();
                const auto pixel = [&](int m) { return fine.row(factor * y + m / factor)[x + m % factor * batch]; };
                double sum = 0;
                for (int m = 0; m < cell; ++m) sum += pixel(m);
                const double mean = sum / cell;
                const double value = single_precision_ ? double(float(mean)) : mean;
                const std::size_t at = std::size_t(y * width + e);
                double* row = coarse.row(y) + c * coarse.plane_stride();
                row[e] = value;
                if (circular) row[width + e] = value;
                q[at] += 2 * value * value;
                for (int m = 0; m < cell; ++m) raw[at] += 2 * (pixel(m) - mean) * (pixel(m) - mean) / cell;
            }
    }
    push(std::move(q), std::move(none));
    fields_.pooled_images.emplace(n, std::move(coarse));
    fields_.spread.emplace(n, halved<double>(raw, shape, program_));
}

// Computes S = box(w/k^2 Q) + b,  T = [trainable] S + box(w/k^2 T'), with a stride s at every s-th pixel.
void FieldsBuilder::add_conv(int n, const Shape& shape) {
    Node& node = program_.nodes[std::size_t(n)];
    const std::size_t input = std::size_t(node.input());
    const Shape before = at_level(program_, shape_, program_[node.input()].level);
    const int true_unit = std::ilogb(fields_.unit), entering = node.exponent;
    const Magnitude weights{largest_of(fields_.variance[input]), entering + std::ilogb(node.weight_var)};
    node.exponent = units_for(larger(weights, {node.bias_var, -true_unit}), entering);
    node.tangent_exponent += node.exponent - entering;
    const auto box_sum = [&](const Plane& plane) {
        const double scale = program_.scale(n);
        Plane scaled = plane;
        for (double& value : scaled) value *= scale;
        Plane out = box(scaled, before, node.radius(), program_.circular(), monitor_);
        return node.is_strided() ? resampled(out, before, node.resampling(), program_.circular()) : out;
    };
    Plane s = box_sum(fields_.variance[input]);
    Plane t = program_.has_tangent(node.input()) ? box_sum(fields_.tangent[input]) : Plane(s.size(), 0.0);
    const double bias = std::ldexp(node.bias_var, -true_unit - node.exponent), trained = program_.trained(n);
    for (std::size_t e = 0; e < s.size(); ++e) {
        s[e] += bias;
        if (node.trainable) t[e] += trained * s[e];
    }
    settle(n, std::move(s), std::move(t));
    add_halves(n, before);
    if (program_.is_bare(n))
        fields_.maps.emplace(
            n, map_fields<double>(program_, n, shape, fields_.variance[std::size_t(n)], fields_.unit, monitor_));
}

// Makes what a convolution sees of the pixels of its input where it looks outside the image.
void FieldsBuilder::add_halves(int n, const Shape& before) {
    Plane half = fields_.variance[std::size_t(program_[n].input())];
    const double scale = program_.scale(n) / 2;
    for (double& value : half) value *= scale;
    fields_.halves.emplace(n, padded<double>(half, before, program_.circular(), margin_of(program_)));
    if (program_.circular()) return;
    Plane sums(half.size());
    box_along(half, sums, before.batch, before.width, program_[n].radius(), false, monitor_);
    fields_.half_sums.emplace(n, padded<double>(sums, before, false, margin_of(program_)));
}

// Computes for average pool and upsampling Q(p,p) = sum_a A_pa Q(a,a) - 2 v(p)  with  2 v(p) = (A E A^T)(p,p), and
// takes T' as it is.
void FieldsBuilder::add_average(int n, const Shape& shape, NearBands<double>& near) {
    const Node& node = program_[n];
    const std::size_t input = std::size_t(node.input());
    const Shape before = at_level(program_, shape_, program_[node.input()].level);
    const auto mean = [&](const Plane& of) { return resampled(of, before, node.resampling(), program_.circular()); };
    Plane q = mean(fields_.variance[input]);
    if (node.resampling().kind == Resampling::Kind::nearest) return push(std::move(q), mean(fields_.tangent[input]));
    typename NearBands<double>::Raw raw = near.raw(n);
    for (std::size_t e = 0; e < q.size(); ++e) q[e] = std::max(0.0, q[e] - raw.e[e]);
    push(std::move(q), std::move(raw.t));
    fields_.spread.emplace(n, halved<double>(raw.e, shape, program_));
}

// Says in which units results leave the engine: in the image's, but where the engine's type would not hold them with
// some room for the sums of products.
void FieldsBuilder::choose_result_unit() {
    const Node& last = program_.nodes.back();
    const double largest = largest_of(fields_.diagonal(program_));
    const int units =
        std::ilogb(fields_.unit) + (program_.kernel == Kernel::ntk ? last.tangent_exponent : last.exponent);
    if (!std::isfinite(largest)) refuse_gain("its numbers overflow");
    const Magnitude size{largest, units};
    if (!size.zero() && std::abs(size.log2()) > largest_exponent)
        refuse_gain("its kernel has entries near 1e" + std::to_string(int(size.log2() * 0.30103)));
    if (!size.zero() && -std::ilogb(largest) > room(single_precision_))
        refuse_gain("its kernel is 1e" + std::to_string(int(std::ilogb(largest) * 0.30103)) +
                    " of the variance of its features");
    if (!size.zero() && std::abs(size.log2()) > room(single_precision_))
        fields_.exponent = 2 * floor_div<2>(size.log2());
    fields_.result_unit = std::ldexp(1.0, size.zero() ? 0 : units - fields_.exponent);
}

void FieldsBuilder::push(Plane variance, Plane tangent) {
    monitor_.check();
    fields_.variance.push_back(std::move(variance));
    fields_.tangent.push_back(std::move(tangent));
}

// --- Near D = 0 ------------------------------------------------------------------------------------------------------

template <class Real>
NearBands<Real>::NearBands(const Program& program, Fields<Real>& fields, const RowKernels<Real>& kernels, int threads,
                           Monitor& monitor)
    : program_(program), fields_(fields), kernels_(kernels), threads_(threads), monitor_(monitor),
      targets_(targets_of(program)), stores_(targets_.size()), steps_(near_steps(program, targets_, fields.shape)) {}

template <class Real> std::int64_t NearBands<Real>::bytes(const Program& program, const Shape& shape, int threads) {
    const std::vector<Target> targets = targets_of(program);
    std::int64_t sum = 0, lines = 0;
    for (const NearStep& near : near_steps(program, targets, shape)) {
        if (!near.needed()) continue;
        const int t = near.made.target;
        const Target& target = targets[std::size_t(t)];
        for (int dy = near.made.first; dy <= near.made.last; ++dy)
            sum += Band<Real>::bytes(at_level(program, shape, target.level), program.circular(), dy, near.extent,
                                     program.has_tangent(target.node));
        lines = std::max(lines, Pipeline<Real>::bytes(program, Plan(program, targets, t, shape, false), lanes));
    }
    return sum + threads * lines;
}

template <class Real> void NearBands<Real>::make(int target) {
    const NearStep& near = steps_[std::size_t(target)];
    if (!near.needed()) return;
    const Target& made = targets_[std::size_t(target)];
    stores_[std::size_t(target)] =
        std::make_unique<BandStore<Real>>(at_level(program_, fields_.shape, made.level), program_.circular(),
                                          near.extent, program_.has_tangent(made.node));
    BandMaker<Real> maker(program_, targets_, target, fields_, stores_, kernels_, lanes, threads_);
    maker.run(near.made, monitor_);
    monitor_.check();
}

template <class Real> void NearBands<Real>::seal(int target) {
    const MakeBands& made = steps_[std::size_t(target)].made;
    for (int dy = made.first; dy <= made.last; ++dy)
        ntkfast::seal(program_, targets_[std::size_t(target)], fields_, *stores_[std::size_t(target)], dy);
}

template <class Real> typename NearBands<Real>::Raw NearBands<Real>::raw(int n) {
    const Node& node = program_[n];
    const Shape shape = at_level(program_, fields_.shape, node.level);
    const std::ptrdiff_t width = std::ptrdiff_t(shape.width) * shape.batch;
    Raw raw{Plane(std::size_t(shape.elements()), 0.0), Plane(std::size_t(shape.elements()), 0.0)};
    const auto keep = [&](int y, const Real* e, const Real* t) {
        std::copy_n(e, width, &raw.e[std::size_t(y * width)]);
        if (t != nullptr) std::copy_n(t, width, &raw.t[std::size_t(y * width)]);
    };
    if (node.op == Op::avg_pool) {
        const int target = find_target(targets_, TargetKind::pooled, n);
        make(target);
        const Band<Real>& band = stores_[std::size_t(target)]->at(0);
        for (int y = 0; y < shape.height; ++y) keep(y, band.e(y, 0), band.has_tangent() ? band.t(y, 0) : nullptr);
        return raw;
    }
    const BandStore<Real>& store = *stores_[std::size_t(find_target(targets_, TargetKind::features, node.input()))];
    UpsampledRows<Real> rows(shape, program_.circular(), node.resampling(), nullptr, 1.0, kernels_, 1);
    Block block = Block::of_rows(shape, program_.circular(), 0);
    block.add_lane(shape, program_.circular(), 0);
    std::vector<Real> e(std::size_t(width + 2 * chunk)), t(e.size());
    for (int y = 0; y < shape.height; ++y) {
        rows.row(block, store, y, e.data(), t.data(), store.tangent(), 0);
        keep(y, e.data(), store.tangent() ? t.data() : nullptr);
    }
    return raw;
}

template <class Real> void NearBands<Real>::finish(int n) {
    const Node& node = program_[n];
    if (node.op == Op::avg_pool && !program_.is_image(n)) seal(find_target(targets_, TargetKind::pooled, n));
    for (const TargetKind kind : {TargetKind::strided, TargetKind::features}) {
        const int target = find_target(targets_, kind, n);
        if (target < 0) continue;
        make(target);
        seal(target);
    }
}

template class NearBands<float>;
template class NearBands<double>;

// --- In the engine's type -------------------------------------------------------------------------------------------

namespace {

PaddedRows<float> rounded(const PaddedRows<double>& from, const Shape& shape, int planes, bool circular, int margin) {
    PaddedRows<float> to(shape, planes, circular, margin);
    to.copy_from(from);
    return to;
}

}  // namespace

Fields<float> float_fields(const Fields<double>& from, const Program& program, const RowKernels<float>& kernels,
                           int threads, Monitor& monitor) {
    Fields<float> to;
    const bool circular = program.circular();
    const int margin = margin_of(program);
    to.shape = from.shape;
    to.noise = from.noise;
    to.unit = from.unit;
    to.result_unit = from.result_unit;
    to.exponent = from.exponent;
    to.variance = from.variance;
    to.tangent = from.tangent;
    to.image = rounded(from.image, from.shape, from.noise ? 0 : from.shape.channels, circular, margin);
    for (const auto& [n, rows] : from.pooled_images)
        to.pooled_images.emplace(
            n, rounded(rows, at_level(program, from.shape, program[n].level), from.shape.channels, circular, margin));
    const auto of_input = [&](int n, const PaddedRows<double>& rows) {
        monitor.check();
        return rounded(rows, at_level(program, from.shape, program[program[n].input()].level), 1, circular, margin);
    };
    for (const auto& [n, rows] : from.halves) to.halves.emplace(n, of_input(n, rows));
    for (const auto& [n, rows] : from.half_sums) to.half_sums.emplace(n, of_input(n, rows));
    for (const auto& entry : from.maps) {
        const int n = entry.first;
        const Node& node = program[n];
        const std::size_t source = std::size_t(is_activation(node.op) ? node.input() : n);
        to.maps.emplace(n, map_fields<float>(program, n, at_level(program, from.shape, node.level),
                                             from.variance[source], from.unit, monitor));
    }
    NearBands<float> near(program, to, kernels, threads, monitor);
    for (int n = 0; n < program.size(); ++n) {
        if (from.spread.count(n) != 0 && !program.is_image(n))
            to.spread.emplace(n,
                              halved<float>(near.raw(n).e, at_level(program, from.shape, program[n].level), program));
        near.finish(n);
    }
    return to;
}

std::int64_t fields_bytes(const Program& program, const Shape& shape, bool single) {
    const std::int64_t number = std::int64_t(sizeof(double) + (single ? sizeof(float) : 0)), copies = single ? 2 : 1;
    std::int64_t sum = 0;
    const int margin = margin_of(program);
    const auto rows = [&](const Shape& s, int planes) {
        return PaddedRows<char>::bytes(s, planes, program.circular(), margin);  // planes of one byte a number
    };
    sum += number * rows(shape, shape.channels);
    for (int n = 0; n < program.size(); ++n) {
        const Node& node = program[n];
        const Shape at = at_level(program, shape, node.level);
        sum += 2 * copies * at.elements() * std::int64_t(sizeof(double));
        const int planes = node.op == Op::conv      ? (program.circular() ? 1 : 2) + (program.is_bare(n) ? 3 : 0)
                           : is_activation(node.op) ? 3
                           : node.changes_level()   ? 1
                                                    : 0;
        sum += number * planes * rows(at, 1);
    }
    return sum;
}

std::int64_t building_bytes(const Program& program, const Shape& shape, bool single, int threads) {
    const std::int64_t wide = NearBands<double>::bytes(program, shape, threads);
    if (!single) return wide;
    // The fields in double and their bands are made first, then both fields and the bands in float.
    const std::int64_t in_float = fields_bytes(program, shape, true) - fields_bytes(program, shape, false);
    return std::max(wide - in_float, NearBands<float>::bytes(program, shape, threads));
}

}  // namespace ntkfast
