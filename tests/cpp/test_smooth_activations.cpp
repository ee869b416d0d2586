// These tests compare the smooth activations with exact values (smooth_cases.h) and float with double over random
// pairs, and check what holds by definition: equal patches, zero patches, units, the diagonal.
//
// Tolerances are multiples of u, the rounding of the type.  A pair carries its E with a rounding error of u E at least,
// which any evaluation turns into u E |Q'| in E' and u E |Q''| in Q'.  A small multiple of that is granted, and on top
// of it
//   E':  of_e u E', relative to E' itself, down to a millionth of sqrt(Q(i,i) Q(j,j)) in float; in double, where no
//        remainder of the per-pixel numbers is known, of_e u sqrt(Q(i,i) Q(j,j)), and where Q decays what rounding
//        S(i,i) moves
//   Q':  of_q u
// Without fused multiply-adds more is granted: the products in W and Z are rounded like E, but each by itself.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>

#include "checks.h"
#include "math/smooth_activations.h"
#include "smooth_cases.h"

using namespace ntkfast;

namespace {

template <class Real> constexpr double u = sizeof(Real) == 4 ? 0x1p-24 : 0x1p-53;
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
constexpr double of_e = 6, of_q = 6, of_input = 2;
#else
constexpr double of_e = 20, of_q = 6, of_input = 6;
#endif

// Rounding moves S(i,i) - S(j,j) by so many u of it, and E' by Q' times as much: Gaussian alone has a Q that decays.
template <template <class> class Activation> constexpr double of_lengths = 0;
template <> constexpr double of_lengths<GaussianActivation> = 1;

template <class Real> Root<Real> rounded(const Root<double>& a) { return {Real(a.p), Real(a.inverse), Real(a.rest)}; }

// The engine's numbers are those of the network over a unit.
SmoothUnits units_of(double unit) { return {unit, std::ilogb(unit), 1.0}; }

template <template <class> class Activation, class Real> typename Activation<Real>::Constants plain() {
    return Activation<Real>::make(units_of(1), 1, 0.0);
}

// Returns {E', Q'} of one pair.
template <template <class> class Activation, class Real> Pair<double> evaluate(double s_i, double s_j, double e) {
    using A = Activation<Real>;
    const Root<Real> i = rounded<Real>(A::diagonal(s_i)), j = rounded<Real>(A::diagonal(s_j));
    const Pair<Real> out = A::template apply<true>(Real(e), Real(1), i, j, plain<Activation, Real>());
    return {double(out.e), double(out.t)};
}

// Returns what E' may be off by, in u.
template <template <class> class Activation, class Real>
double limit_e(double s_i, double s_j, double e, const Pair<double>& expected) {
    const double part = sizeof(Real) == 4 ? 1e-6 : 1.0;
    const double least = part * std::sqrt(Activation<double>::gain_q(s_i) * Activation<double>::gain_q(s_j));
    const double lengths = sizeof(Real) == 4 ? 0.0 : of_lengths<Activation> * std::abs(s_i - s_j);
    return of_e * std::max(expected.e, least) + (of_input * e + lengths) * std::abs(expected.t);
}

std::string describe(const char* name, double s_i, double s_j, double e) {
    char text[160];
    std::snprintf(text, sizeof text, "%s, S_ii %.9g, S_jj %.9g, E %.9g", name, s_i, s_j, e);
    return text;
}

void check_close(double got, double expected, double limit, const std::string& what) {
    char text[120];
    std::snprintf(text, sizeof text, ": %.17g, expected %.17g, limit %.2g", got, expected, limit);
    check(std::abs(got - expected) <= limit, what + text);
}

template <template <class> class Activation, class Real, std::size_t count>
void check_cases(const char* name, const SmoothCase (&cases)[count]) {
    for (const SmoothCase& c : cases) {
        const Pair<double> got = evaluate<Activation, Real>(c.s_i, c.s_j, c.e);
        const std::string what = describe(name, c.s_i, c.s_j, c.e) + (sizeof(Real) == 4 ? ", float" : ", double");
        const double of_distance = limit_e<Activation, Real>(c.s_i, c.s_j, c.e, {c.distance, c.derivative});
        const double of_derivative = of_q + of_input * c.e * std::abs(c.second);
        check_close(got.e, c.distance, u<Real> * of_distance, what + ": E'");
        check_close(got.t, c.derivative, u<Real> * of_derivative, what + ": Q'");
    }
}

// Compares float with double, which the cases have tested: S from 1e-6 to 1e4, every kind of pair.
template <template <class> class Activation> void check_float(const char* name) {
    std::mt19937_64 generator(3);
    std::uniform_real_distribution<double> uniform(0, 1);
    const auto draw = [&] { return uniform(generator); };
    double worst_e = 0, worst_q = 0;
    for (int n = 0; n < 40000; ++n) {
        const double s_i = std::pow(10, -6 + 10 * draw());
        const double near = s_i * (1 - std::pow(10, -7 * draw()));
        const double s_j = n % 4 == 0   ? s_i
                           : n % 4 == 1 ? near
                           : n % 4 == 2 ? s_i * draw()
                                        : std::pow(10, -6 + 10 * draw());
        const double small = std::pow(10, -9 * draw());
        const double one_minus_cosine[] = {small, 2 - small, 2 * draw(), 0, 2};
        const double p = std::sqrt(s_i), q = std::sqrt(s_j), low = (p - q) * (p - q) / 2, high = (p + q) * (p + q) / 2;
        float e = float(low + one_minus_cosine[n / 4 % 5] * p * q);
        if (double(e) < low) e = std::nextafter(e, INFINITY);
        if (double(e) > high) e = std::nextafter(e, 0.0f);
        if (double(e) < low) continue;
        const Pair<double> got = evaluate<Activation, float>(s_i, s_j, double(e));
        const Pair<double> expected = evaluate<Activation, double>(s_i, s_j, double(e));
        double moved = 0;  // Q' moves by this where E moves by of_input u E
        for (const double step : {-of_input * u<float>, of_input * u<float>}) {
            const Pair<double> beside = evaluate<Activation, double>(s_i, s_j, double(e) * (1 + step));
            moved = std::max(moved, std::abs(beside.t - expected.t));
        }
        const double limit = u<float> * limit_e<Activation, float>(s_i, s_j, double(e), expected);
        const std::string what = describe(name, s_i, s_j, double(e)) + ", float against double";
        check_close(got.e, expected.e, limit, what + ": E'");
        check_close(got.t, expected.t, of_q * u<float> + moved, what + ": Q'");
        worst_e = std::max(worst_e, std::abs(got.e - expected.e) / limit);
        worst_q = std::max(worst_q, (std::abs(got.t - expected.t) - moved) / u<float>);
    }
    std::printf("%s, float: E' at %.2f of its limit, Q' within %.1f u\n", name, worst_e, worst_q);
}

// Takes f(0)^2 and E[f(u)] f(0), for patches of zeros.
template <template <class> class Activation, class Real>
void check_definitions(const char* name, double at_zero, double (*mean_times_zero)(double)) {
    using A = Activation<Real>;
    const std::string where = std::string(name) + (sizeof(Real) == 4 ? ", float: " : ", double: ");
    check(A::gain_q(0) == at_zero, where + "Q of a zero patch");
    const Pair<double> zeros = evaluate<Activation, Real>(0, 0, 0);
    check(zeros.e == 0, where + "two zero patches have no distance");
    check_close(zeros.t, A::gain_dq(0), of_q * u<Real>, where + "Q' of two zero patches");
    for (const double s : {1e-9, 1e-6, 0.02, 0.7, 3.0, 50.0, 1e4}) {
        const Pair<double> equal = evaluate<Activation, Real>(s, s, 0);
        check(equal.e == 0, where + "equal patches have no distance");
        check_close(equal.t, A::gain_dq(s), of_q * u<Real>, where + "Q' on the diagonal");
        // The expected value is E'(i, zeros) = (Q(i,i) + Q(0))/2 - E[f(u)] f(0).
        const double expected = (A::gain_q(s) + at_zero) / 2 - mean_times_zero(s);
        const double scale = std::max({A::gain_q(s), at_zero, s * A::gain_dq(s)});
        check_close(evaluate<Activation, Real>(s, 0, s / 2).e, expected, of_e * u<Real> * scale, where + "zero patch");
    }
}

// A unit of 16 and S/16, E/16 must give the same numbers to the bit, and E' divided by 16. T' = c Q' (trainable S + t).
template <template <class> class Activation, class Real> void check_constants(const char* name) {
    using A = Activation<Real>;
    const std::string where = std::string(name) + (sizeof(Real) == 4 ? ", float: " : ", double: ");
    const double s_i = 1.25, s_j = 3, scale = 0.375;
    const Real e = Real(0.625), t = Real(0.5);
    const Root<Real> i = rounded<Real>(A::diagonal(s_i)), j = rounded<Real>(A::diagonal(s_j));
    const Pair<Real> one = A::template apply<true>(e, t, i, j, A::make(units_of(1), scale, 1.0));
    const Pair<Real> unit = A::template apply<true>(e / 16, t / 16, i, j, A::make(units_of(16), scale, 1.0));
    check(unit.e == one.e / 16 && unit.t == one.t / 16, where + "unit");
    const Pair<Real> frozen = A::template apply<true>(e, t, i, j, A::make(units_of(1), scale, 0.0));
    const Pair<double> plain = evaluate<Activation, Real>(s_i, s_j, double(e));
    const double s = (s_i + s_j) / 2 - double(e);
    check(frozen.e == one.e, where + "E' does not depend on trainable");
    check_close(double(one.e), scale * plain.e, 4 * u<Real>, where + "scale of E'");
    check_close(double(frozen.t), scale * plain.t * double(t), 4 * u<Real>, where + "T', frozen");
    check_close(double(one.t), scale * plain.t * (s + double(t)), 8 * u<Real>, where + "T', trainable");
    const Pair<Real> without = A::template apply<false>(e, t, i, j, A::make(units_of(1), scale, 1.0));
    check(without.e == one.e && without.t == 0, where + "without the tangent kernel");
}

// Sums x - atan(x) = x^3/3 - x^5/5 + ...
long double excess_series(long double x) {
    long double sum = 0;
    for (int n = 81; n >= 3; n -= 2) sum = 1.0L / n - x * x * sum;
    return x * x * x * sum;
}

template <class Real> void check_functions() {
    const std::string type = sizeof(Real) == 4 ? "float: " : "double: ";
    const double most = sizeof(Real) == 4 ? 80 : 700;
    for (double x = 1e-12; x < 1e8; x *= 1.01) {
        const Real rounded_x = Real(x);
        const long double at = rounded_x;
        const Arctangent<Real> arc = arctangent(rounded_x, Real(1));
        const long double angle = std::atan(at);
        check_close(double(arc.angle / angle), 1, 3 * u<Real>, type + "atan");
        const long double excess = x < 0.5 ? excess_series(at) : at - angle;
        check_close(double(arc.excess / excess), 1, 8 * u<Real>, type + "x - atan(x)");
        if (x > most) continue;
        const Decay<Real> both = decay(rounded_x);
        check_close(double(both.left / std::exp(-at)), 1, 3 * u<Real>, type + "exp(-x)");
        check_close(double(-both.lost / std::expm1(-at)), 1, 3 * u<Real>, type + "1 - exp(-x)");
    }
    check(arctangent(Real(0), Real(1)).angle == 0 && arctangent(Real(0), Real(1)).excess == 0, type + "atan(0)");
    check(decay(Real(0)).left == 1 && decay(Real(0)).lost == 0, type + "exp(0)");
    check(decay(Real(1e30)).left < 1e-37 && decay(Real(1e30)).lost == 1, type + "exp of a large number");
    check(std::isnan(decay(Real(NAN)).left) && std::isnan(decay(Real(NAN)).lost), type + "exp of NaN");
    check(std::isnan(arctangent(Real(NAN), Real(1)).angle), type + "atan of NaN");
}

// At the end of the range in float32, with a rounded E that is outside of what any angle has, results are finite, E' is
// not negative, and Q' is not above that of equal patches by more than rounding.
template <template <class> class Activation> void check_range(const char* name) {
    check(evaluate<Activation, float>(1, 1.01, 0).e >= 0,
          std::string(name) + ": E of 0 for patches of different length");
    for (const double s_i : {1e6, 1e12})
        for (const double s_j : {s_i, 0.7 * s_i, 0.01 * s_i, 0.0}) {
            const double p = std::sqrt(s_i), q = std::sqrt(s_j);
            for (const double e :
                 {(p - q) * (p - q) / 2 * (1 - 4 * u<float>), (p + q) * (p + q) / 2 * (1 + 4 * u<float>)}) {
                const Pair<double> out = evaluate<Activation, float>(s_i, s_j, e);
                check(out.e >= 0 && std::isfinite(out.e) && std::abs(out.t) < 1.3,
                      describe(name, s_i, s_j, e) + ": large S");
            }
        }
}

double nothing(double) { return 0; }
double mean_of_cos(double s) { return std::exp(-s / 2); }
double mean_of_gaussian(double s) { return 1 / std::sqrt(1 + s); }

template <template <class> class Activation, std::size_t count>
void test(const char* name, const SmoothCase (&cases)[count], double at_zero, double (*mean_times_zero)(double)) {
    check_cases<Activation, double>(name, cases);
    check_cases<Activation, float>(name, cases);
    check_float<Activation>(name);
    check_definitions<Activation, double>(name, at_zero, mean_times_zero);
    check_definitions<Activation, float>(name, at_zero, mean_times_zero);
    check_constants<Activation, double>(name);
    check_constants<Activation, float>(name);
    check_range<Activation>(name);
}

}  // namespace

int main() {
#if defined(__FMA__) && defined(__x86_64__)
    if (!__builtin_cpu_supports("fma") || !__builtin_cpu_supports("avx2")) return 77;  // skipped
#endif
    check_functions<float>();
    check_functions<double>();
    test<ErfActivation>("Erf", cases_erf, 0, nothing);
    test<GeluActivation>("GELU", cases_gelu, 0, nothing);
    test<SinActivation>("Sin", cases_sin, 0, nothing);
    test<CosActivation>("Cos", cases_cos, 1, mean_of_cos);
    test<GaussianActivation>("Gaussian", cases_gaussian, 1, mean_of_gaussian);
    std::printf("%d checks, %d failed\n", checks, failures);
    return failures == 0 ? 0 : 1;
}
