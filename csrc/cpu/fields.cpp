#include "fields.h"

#include <cmath>
#include <limits>

namespace ntkfast {
namespace {

using Plane = std::vector<double>;  // (height, width, batch)

// out(y, x) = sum over |n| <= radius of in along one axis; `step` and `length` describe that axis in elements.
void box_along(const Plane& in, Plane& out, std::ptrdiff_t step, int length, int radius, bool circular) {
    const std::ptrdiff_t total = std::ptrdiff_t(in.size());
    for (std::ptrdiff_t start = 0; start < total; start += step * length) {
        for (int n = 0; n < length; ++n) {
            double* to = &out[std::size_t(start + n * step)];
            std::fill(to, to + step, 0.0);
            for (int m = n - radius; m <= n + radius; ++m) {
                if (!circular && (m < 0 || m >= length)) continue;
                const int index = ((m % length) + length) % length;
                const double* from = &in[std::size_t(start + index * step)];
                for (std::ptrdiff_t e = 0; e < step; ++e) to[e] += from[e];
            }
        }
    }
}

Plane box(const Plane& in, const Shape& shape, int radius, bool circular) {
    if (radius == 0) return in;
    Plane rows(in.size()), out(in.size());
    box_along(in, rows, shape.batch, shape.width, radius, circular);
    box_along(rows, out, std::ptrdiff_t(shape.width) * shape.batch, shape.height, radius, circular);
    return out;
}

// The recursion of docs/math.md on the diagonal, where the angle is 0:
//   S = box(w/k^2 Q) + b,  T = [trainable] S + box(w/k^2 T'),  Q = (1 + a^2)/2 S,  T' = (1 + a^2)/2 T.
// `visit(s, entering, S)` sees w/k^2 Q(i,i) and S(i,i) of each stage.  Returns T (or S) after the last.
template <class Visit>
Plane diagonal_recursion(const Program& program, const Shape& shape, Plane entering, double bias_unit, Visit visit) {
    Plane tangent(entering.size(), 0.0);
    for (int s = 0; s < program.size(); ++s) {
        const Stage& stage = program.stages[std::size_t(s)];
        Plane covariance = box(entering, shape, stage.radius(), program.circular());
        tangent = box(tangent, shape, stage.radius(), program.circular());
        for (std::size_t n = 0; n < covariance.size(); ++n) {
            covariance[n] += stage.bias_var * bias_unit;
            if (stage.trainable) tangent[n] += covariance[n];
        }
        visit(s, entering, covariance);
        if (s + 1 == program.size()) return program.kernel == Kernel::ntk ? tangent : covariance;
        const double gain = (stage.has_activation ? (1 + stage.slope * stage.slope) / 2 : 1.0) *
                            program.stages[std::size_t(s) + 1].scale();
        for (std::size_t n = 0; n < covariance.size(); ++n) {
            entering[n] = gain * covariance[n];
            tangent[n] *= gain;
        }
    }
    return tangent;
}

// Smallest p_i that counts as non-zero, relative to the largest of the stage: below it a pair is beneath the rounding of
// the result, and 1/(p_i p_j) would leave the range of the type.
template <class Real> constexpr double tiny_root = sizeof(Real) == 4 ? 1e-12 : 1e-60;
template <class Real> constexpr double least_root = sizeof(Real) == 4 ? 1e-17 : 1e-140;

template <class Real> void copy_plane(PaddedRows<Real>& to, const Plane& from, const Shape& shape, bool circular) {
    const std::ptrdiff_t width = std::ptrdiff_t(shape.width) * shape.batch;
    for (int y = 0; y < shape.height; ++y) {
        Real* row = to.row(y);
        for (std::ptrdiff_t e = 0; e < width; ++e) {
            row[e] = Real(from[std::size_t(y * width + e)]);
            if (circular) row[width + e] = row[e];
        }
    }
}

template <class Real>
StageFields<Real> stage_fields(const Program& program, const Shape& shape, const Plane& entering, const Plane& s) {
    const int margin = program.max_radius();
    const bool circular = program.circular();
    const double largest = std::sqrt(*std::max_element(s.begin(), s.end()));
    const double floor = std::max(tiny_root<Real> * largest, least_root<Real>);
    Plane root(s.size()), inverse(s.size()), rest(s.size()), half(s.size());
    for (std::size_t n = 0; n < s.size(); ++n) {
        const double p = std::sqrt(s[n]);
        root[n] = p > floor ? p : 0.0;
        inverse[n] = p > floor ? 1 / p : 0.0;
        rest[n] = root[n] - double(Real(root[n]));
        half[n] = entering[n] / 2;
    }
    StageFields<Real> fields;
    fields.largest_root = largest;
    const std::pair<PaddedRows<Real>*, const Plane*> planes[] = {
        {&fields.root.p, &root}, {&fields.root.inverse, &inverse}, {&fields.root.rest, &rest}, {&fields.half, &half}};
    for (const auto& [rows, plane] : planes) {
        *rows = PaddedRows<Real>(shape, 1, circular, margin);
        copy_plane(*rows, *plane, shape, circular);
    }
    return fields;
}

// A power of 4 near the largest variance of any stage, so that the engine's numbers are of order one whatever the units of
// the image, and dividing by its root is exact.
double natural_unit(const Program& program, const Shape& shape, const double* image) {
    // The image is divided by its own largest value first: its square could overflow.
    double largest = 0;
    for (std::int64_t n = 0; n < shape.elements() * shape.channels; ++n)
        largest = std::max(largest, std::abs(image[n]));
    const double first = largest > 1e-150 ? std::ldexp(1.0, std::ilogb(largest)) : 1.0;  // below: a zero image
    double most = 0;
    const double scale = program.stages[0].scale();
    Plane entering(std::size_t(shape.elements()), 4 * scale);  // an upper bound of Q/first^2 is enough
    diagonal_recursion(program, shape, entering, 1 / (first * first), [&](int, const Plane&, const Plane& s) {
        most = std::max(most, *std::max_element(s.begin(), s.end()));
    });
    return first * first * std::ldexp(1.0, 2 * (std::ilogb(most) / 2));
}

}  // namespace

template <class Real>
Fields<Real> Fields<Real>::make(const Program& program, const Shape& shape, const double* image) {
    Fields fields;
    fields.shape = shape;
    fields.unit = natural_unit(program, shape, image);
    const bool circular = program.circular();
    fields.image = PaddedRows<Real>(shape, shape.channels, circular, program.max_radius());

    // E = w/k^2 /(2C) sum_c (x_c(i) - x_c(j))^2: the factor goes into the pixels, and the diagonal is taken of the rounded
    // pixels, so that the two agree.
    const double factor = std::sqrt(program.stages[0].scale() / (2.0 * shape.channels)) / std::sqrt(fields.unit);
    const std::ptrdiff_t width = std::ptrdiff_t(shape.width) * shape.batch;
    Plane entering(std::size_t(shape.elements()), 0.0);
    for (int n = 0; n < shape.batch; ++n)
        for (int y = 0; y < shape.height; ++y)
            for (int x = 0; x < shape.width; ++x)
                for (int c = 0; c < shape.channels; ++c) {
                    Real* row = fields.image.row(y) + c * fields.image.plane_stride();
                    const Real value = Real(factor * *image++);
                    const std::ptrdiff_t e = std::ptrdiff_t(x) * shape.batch + n;
                    row[e] = value;
                    if (circular) row[width + e] = value;
                    entering[std::size_t(y * width + e)] += 2.0 * double(value) * double(value);
                }
    fields.diagonal = diagonal_recursion(program, shape, std::move(entering), 1 / fields.unit,
                                         [&](int, const Plane& before, const Plane& s) {
                                             fields.stages.push_back(stage_fields<Real>(program, shape, before, s));
                                         });
    return fields;
}

template <class Real> std::int64_t Fields<Real>::bytes(const Program& program, const Shape& shape) {
    const int margin = program.max_radius();
    const auto rows = [&](int planes) { return PaddedRows<Real>::bytes(shape, planes, program.circular(), margin); };
    const std::int64_t scratch = 10 * shape.elements() * std::int64_t(sizeof(double));
    return rows(shape.channels) + 4 * program.size() * rows(1) + scratch;
}

template struct Fields<float>;
template struct Fields<double>;

}  // namespace ntkfast
