#include "cpu/fields_builder.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>

#include "cpu/band_maker.h"
#include "cpu/upsampled_rows.h"
#include "plan/activations.h"

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

template <class Real>
MapFields<Real> map_fields(const Node& node, const Shape& shape, const Plane& s, double unit, bool circular, int margin,
                           Monitor& monitor) {
    const double largest = std::sqrt(*std::max_element(s.begin(), s.end()));
    const double floor = std::max(tiny_root<Real> * largest, least_root<Real>);
    Plane root(s.size()), inverse(s.size()), rest(s.size());
    const bool smooth = is_activation(node.op) && node.op != Op::rectifier;
    each_number(s.size(), monitor, [&](std::size_t n) {
        if (smooth) {
            const Root<double> number = smooth_number<Real>(node.op, unit * s[n]);
            root[n] = number.p, inverse[n] = number.inverse, rest[n] = number.rest;
            return;
        }
        const double p = std::sqrt(s[n]);
        root[n] = p > floor ? p : 0.0;
        inverse[n] = p > floor ? 1 / p : 0.0;
        rest[n] = root[n] - double(Real(root[n]));
    });
    const auto rows = [&](const Plane& plane) {
        monitor.check();
        return padded<Real>(plane, shape, circular, margin);
    };
    return {{rows(root), rows(inverse), rows(rest)}, largest};
}

// Counts the rows and columns that any row loop may read beyond the image.
int margin_of(const Program& program) { return std::max(1, program.max_radius()); }

// Makes v from 2 v.
template <class Real> PaddedRows<Real> halved(Plane raw, const Shape& shape, const Program& program) {
    for (double& value : raw) value /= 2;
    return padded<Real>(raw, shape, program.circular(), margin_of(program));
}

// Returns a power of 4 near the largest variance of any node, so that the engine's numbers are of order one whatever
// the units of the image, and dividing by its root is exact.  It takes an upper bound of the variances: all pixels are
// taken to be as large as the largest.
double natural_unit(const Program& program, double largest) {
    std::vector<double> bound;
    double most = 0;
    for (const Node& node : program.nodes) {
        const auto input = [&](std::size_t m) { return bound[std::size_t(node.inputs[m])]; };
        double value = 0;
        if (node.op == Op::input)
            value = largest * largest;
        else if (node.op == Op::conv)
            value = node.weight_var * input(0) + node.bias_var;
        else if (is_merge(node.op))
            value = node.shares[0] * input(0) + node.shares[1] * input(1);
        else if (is_activation(node.op))
            value = diagonal_gains(node, input(0)).q;
        else
            value = input(0);
        bound.push_back(value);
        most = std::max(most, value);
    }
    if (!(most > 1e-300)) return 1.0;  // a zero image
    return std::ldexp(1.0, 2 * int(std::floor(std::ilogb(most) / 2.0)));
}

}  // namespace

FieldsBuilder::FieldsBuilder(const Program& program, const Shape& shape, const double* image, bool single_precision,
                             const RowKernels<double>& kernels, int threads, Monitor& monitor)
    : program_(program), shape_(shape), single_precision_(single_precision), monitor_(monitor) {
    fields_.shape = shape;
    fields_.noise = image == nullptr;
    read_image(image);
    NearBands<double> near(program, fields_, kernels, threads, monitor);
    for (int n = 0; n < program.size(); ++n) {
        add(n, near);
        near.finish(n);
    }
}

void FieldsBuilder::read_image(const double* image) {
    double largest = fields_.noise ? 1.0 : 0.0;
    const std::int64_t count = shape_.elements() * shape_.channels;
    for (std::int64_t n = 0; n < (fields_.noise ? 0 : count); ++n) largest = std::max(largest, std::abs(image[n]));
    fields_.unit = natural_unit(program_, largest);
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
    const Node& node = program_[n];
    if (node.op == Op::input) return;
    const Shape shape = at_level(program_, shape_, node.level);
    if (node.op == Op::conv) {
        add_conv(n, shape);
    } else if (program_.is_image(n)) {
        add_pooled_image(n, shape);
    } else if (is_activation(node.op)) {
        // On the diagonal these are Q(i,i) and T' = Q' T.
        const std::size_t input = std::size_t(node.input());
        Plane q = fields_.variance[input], t = fields_.tangent[input];
        each_number(q.size(), monitor_, [&](std::size_t e) {
            const Gains gains = diagonal_gains(node, fields_.unit * q[e]);
            q[e] = gains.q / fields_.unit;
            t[e] *= gains.dq;
        });
        push(std::move(q), std::move(t));
        fields_.maps.emplace(n, map_fields<double>(node, shape, fields_.variance[input], fields_.unit,
                                                   program_.circular(), margin_of(program_), monitor_));
    } else if (is_merge(node.op)) {
        const auto sum = [&](const std::vector<Plane>& planes) {
            const Plane &a = planes[std::size_t(node.inputs[0])], &b = planes[std::size_t(node.inputs[1])];
            Plane out(a.size());
            for (std::size_t e = 0; e < out.size(); ++e) out[e] = node.shares[0] * a[e] + node.shares[1] * b[e];
            return out;
        };
        Plane q = sum(fields_.variance), t = sum(fields_.tangent);
        push(std::move(q), std::move(t));
    } else {
        add_average(n, shape, near);
    }
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
    const Node& node = program_[n];
    const Shape before = at_level(program_, shape_, program_[node.input()].level);
    const std::size_t input = std::size_t(node.input());
    const auto box_sum = [&](const Plane& plane) {
        Plane scaled = plane;
        for (double& value : scaled) value *= node.scale();
        Plane out = box(scaled, before, node.radius(), program_.circular(), monitor_);
        return node.is_strided() ? resampled(out, before, node.resampling(), program_.circular()) : out;
    };
    Plane half = fields_.variance[input];
    for (double& value : half) value *= node.scale() / 2;
    fields_.halves.emplace(n, padded<double>(half, before, program_.circular(), margin_of(program_)));
    if (!program_.circular()) {
        Plane sums(half.size());
        box_along(half, sums, before.batch, before.width, node.radius(), false, monitor_);
        fields_.half_sums.emplace(n, padded<double>(sums, before, false, margin_of(program_)));
    }
    Plane s = box_sum(fields_.variance[input]);
    Plane t = program_.has_tangent(node.input()) ? box_sum(fields_.tangent[input]) : Plane(s.size(), 0.0);
    for (std::size_t e = 0; e < s.size(); ++e) {
        s[e] += node.bias_var / fields_.unit;
        if (node.trainable) t[e] += s[e];
    }
    push(std::move(s), std::move(t));
    if (program_.is_bare(n))
        fields_.maps.emplace(n, map_fields<double>(node, shape, fields_.variance[std::size_t(n)], fields_.unit,
                                                   program_.circular(), margin_of(program_), monitor_));
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
            sum += Band<Real>::bytes(at_level(program, shape, target.level), program.circular(), dy, near.reach,
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
                                          near.reach, program_.has_tangent(made.node));
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
    const BandStore<Real>& store = *stores_[std::size_t(find_target(targets_, TargetKind::stored, node.input()))];
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
    for (const TargetKind kind : {TargetKind::strided, TargetKind::stored}) {
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
        to.maps.emplace(n, map_fields<float>(node, at_level(program, from.shape, node.level), from.variance[source],
                                             from.unit, circular, margin, monitor));
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
