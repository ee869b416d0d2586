// These are the inner loops of the CPU engine.  Each call works on one row of a few neighbouring displacements
// ("lanes"), in L1; they are compiled once per instruction set (row_kernels_*.cpp) and called through the table below.
//
// Every loop runs over whole chunks of `chunk` elements, so that none has a remainder; the callers keep that much slack
// behind each row.  Lanes go through one call because at 64 to 256 elements a row the call itself (constants broadcast,
// the first iteration's latency) costs as much as ten elements.
#pragma once

#include <cstddef>
#include <cstdint>

#include "math/activation_table.h"
#include "math/pair_math.h"
#include "plan/flow.h"
#include "plan/lanes.h"
#include "plan/resampling.h"  // supported_factor alone: its functions are not compiled for each instruction set

namespace ntkfast {

constexpr int max_columns_fused = 4;  // right-hand sides that `accumulate` serves in one pass over T
constexpr int lanes_fused = 4;        // displacements that `accumulate` adds to the sums at once, where it may

// Vertical box sums are sums of so many rows: 1 (k = 1, or a complete block), 2 (suffix and prefix), 3, 5 (the rows
// themselves).
constexpr int row_counts = 4;
inline int row_count_index(int rows) { return rows <= 3 ? rows - 1 : 3; }

// A stage's pointwise map takes vertical sums and gives the next raw row.  Buffers are those of lane 0, rows of the
// image whole.
template <class Real> struct MapArgs {
    const Real* e[max_direct_rows];  // rows of the box sum of E
    const Real* t[max_direct_rows];  // rows of the box sum of T'; read with Flow::tangent only
    Root<const Real*> i, j;          // diagonals along the row of i and along that of j
    Real* e_out;
    Real* t_out;
    ActivationConstants<Real> constants;  // a rectifier's; `trained` is read by `linear` and `output` too
    SmoothConstants<Real> smooth;         // the other activations'
    Real scale;                           // that of the convolution that follows, where there is no activation
    // A last 1x1 convolution that is done with the rectifier before it needs p along the rows of i and j, and whether
    // it is trained.
    const Real *last_i, *last_j;
    Real last_trained;
};

// A kernel returns the lanes with doubtful pairs, one bit each.
template <class Real> using MapKernel = std::uint32_t (*)(const Lanes&, const MapArgs<Real>&);
template <class Real> using MapTable = MapKernel<Real>[row_counts][flows];

template <class Real> struct RowKernels {
    // Computes E = gain sum_c (x_c(i) - x_c(j))^2; channel c lies c*plane behind channel 0.
    void (*input)(const Lanes&, Real* e, const Real* x_i, const Real* x_j, std::ptrdiff_t plane, int channels,
                  Real gain);
    // Computes out[l] = sum_n in[l + (n - k/2)*shift], n < k; scratch has room for one row.
    void (*box_row)(const Lanes&, Real* out, const Real* in, int k, std::ptrdiff_t shift, Real* scratch);
    // Fills pairs with a pixel outside, whose half-distance is that to zero: E = h_i + h_j and T' = 0, for `halo` pairs
    // or more on either side of each lane.  Without t it fills E alone.
    void (*outside)(const Lanes&, Real* e, Real* t, const Real* h_i, const Real* h_j, std::ptrdiff_t halo);
    // Does the same for all pairs of a row in which i or j lies outside, already summed horizontally.
    void (*outside_row)(const Lanes&, Real* e, Real* t, const Real* sum_i, const Real* sum_j);
    // Computes out = a + b; out may be a or b.
    void (*add)(const Lanes&, Real* out, const Real* a, const Real* b);
    // These are the pointwise maps by [row_count_index][flow], for activations in the order of ActivationKind.
    MapTable<Real> activation[activation_kinds];
    MapTable<Real> linear;  // without an activation: E' = scale E, T' = scale T
    // The last convolution computes t_out = T, or S without a tangent; zero for one chunk before the lane, and for one
    // more behind the whole chunks that hold it.
    MapTable<Real> output;
    // A rectifier and the last convolution, 1x1, are done in one pass, which writes t_out only, as `output` does.
    MapTable<Real> rectifier_output;
    // Adds sums[l] += sum_c (x_c(i) - x_c(j))^2 in double, for n elements of one lane.
    void (*input_exact)(double* sums, const Real* x_i, const Real* x_j, std::ptrdiff_t plane, int channels,
                        std::ptrdiff_t n);
    // Computes one lane of an activation again, from column sums of E in double: E[l] is `scale` times the sum of
    // columns[l + (n - k/2)*shift], n < k.  A rectifier writes doubtful pairs only, and reads the `rows` rows of args.e
    // that it summed, and with `entering` those of args.t; the others, which are of a first layer, write all.
    void (*activation_exact[activation_kinds][2])(const Lanes&, int lane, const MapArgs<Real>&, int rows, bool entering,
                                                  const double* columns, int k, std::ptrdiff_t shift,
                                                  double scale);  // by has_tangent
    // Computes E of a rectifier in double, without the scale of a convolution that follows, but times a gain: n pairs
    // from column sums as above, p_i and p_j, for max(x, slope x).
    void (*rectifier_distance)(double* out, const double* columns, int k, std::ptrdiff_t shift, double scale,
                               const double* p_i, const double* p_j, double slope, double gain, std::ptrdiff_t n);
    // Does what activation_exact does, for rectifier_output.
    void (*rectifier_output_exact[2])(const Lanes&, int lane, const MapArgs<Real>&, int rows, bool entering,
                                      const double* columns, int k, std::ptrdiff_t shift, double scale);
    // Computes out = c_a a + c_b b; without b, c_a a.
    void (*combine)(const Lanes&, Real* out, const Real* a, Real c_a, const Real* b, Real c_b);
    // The rest work on one row; n is the number of elements (of the coarser row), to whole chunks in `weighted` and
    // `finish`.  This one computes out = sum_m weights[m] rows[m].
    void (*weighted)(Real* out, const Real* const* rows, const Real* weights, int count, std::ptrdiff_t n);
    // Computes out = gain (raw - v_i - v_j); without v, gain raw.
    void (*finish)(Real* out, const Real* raw, const Real* v_i, const Real* v_j, Real gain, std::ptrdiff_t n);
    // Adds for the coarse element A, with f = supported_factor, out(A) += weight (in(fA) + in(fA + 1)), or without
    // `both` weight in(fA).
    void (*pool)(Real* out, const Real* in, Real weight, bool both, std::ptrdiff_t n, int batch);
    // Computes fine elements fA and fA + 1 of coarse element A: gain (sum_m weights[m] even[m](A) - v_i - v_j), and
    // with odd[m].
    void (*upsample)(Real* out, const Real* const* even, const Real* const* odd, const Real* weights, int count,
                     const Real* v_i, const Real* v_j, Real gain, std::ptrdiff_t n, int batch);
    // Adds sums_c(i) += T v_c(j); column c lies c*v_plane and c*plane behind column 0.  `slack` says that T is zero
    // around the lanes as `output` leaves it, else up to whole chunks only.
    void (*accumulate_i)(const Lanes&, const Real* const* t, bool slack, const Real* v_j, std::ptrdiff_t v_plane,
                         Real* sums_i, std::ptrdiff_t plane, int columns);
    // Adds sums_c(j) += T v_c(i).
    void (*accumulate_j)(const Lanes&, const Real* const* t, bool slack, const Real* v_i, std::ptrdiff_t v_plane,
                         Real* sums_j, std::ptrdiff_t plane, int columns);
};

enum class Isa { baseline, avx2, avx512 };

// These are the compiled tables; row_kernels() in dispatch.h chooses among them.
template <class Real> const RowKernels<Real>* row_kernels_baseline();
template <class Real> const RowKernels<Real>* row_kernels_avx2();
template <class Real> const RowKernels<Real>* row_kernels_avx512();

}  // namespace ntkfast
