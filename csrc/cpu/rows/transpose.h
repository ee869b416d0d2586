// Small transposed blocks serve matrices that are written across the order in which they are computed.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace ntkfast {

// Writes to[k*stride + m] = factor * rows[m][k] for k, m < 4.
template <class Real>
inline void transpose4(const Real* const* rows, Real* to, std::ptrdiff_t stride, Real factor) {
    for (int k = 0; k < 4; ++k)
        for (int m = 0; m < 4; ++m) to[k * stride + m] = factor * rows[m][k];
}

constexpr int line_rows = 16;  // floats in a cache line

// Writes to[k*to_stride + m] = from[m*from_stride + k] for k < 4, m < line_rows: four whole cache lines of floats.
template <class Real>
inline void transpose_lines(const Real* from, std::ptrdiff_t from_stride, Real* to, std::ptrdiff_t to_stride) {
    for (int k = 0; k < 4; ++k)
        for (int m = 0; m < line_rows; ++m) to[k * to_stride + m] = from[m * from_stride + k];
}

template <class Real> inline void copy_lines(const Real* from, Real* to, std::ptrdiff_t n) {
    for (std::ptrdiff_t l = 0; l < n; ++l) to[l] = from[l];
}

#if defined(__SSE2__)
template <> inline void transpose4(const float* const* rows, float* to, std::ptrdiff_t stride, float factor) {
    __m128 a = _mm_loadu_ps(rows[0]), b = _mm_loadu_ps(rows[1]), c = _mm_loadu_ps(rows[2]), d = _mm_loadu_ps(rows[3]);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    const __m128 f = _mm_set1_ps(factor);
    _mm_storeu_ps(to, _mm_mul_ps(f, a));
    _mm_storeu_ps(to + stride, _mm_mul_ps(f, b));
    _mm_storeu_ps(to + 2 * stride, _mm_mul_ps(f, c));
    _mm_storeu_ps(to + 3 * stride, _mm_mul_ps(f, d));
}

// Writes past the caches where the lines are aligned: what is written is not read again soon, and would be read before
// it is written.
template <>
inline void transpose_lines(const float* from, std::ptrdiff_t from_stride, float* to, std::ptrdiff_t to_stride) {
    __m128 block[4][4];
    for (int m = 0; m < 4; ++m) {
        const float* row = from + 4 * m * from_stride;
        for (int k = 0; k < 4; ++k) block[m][k] = _mm_loadu_ps(row + k * from_stride);
        _MM_TRANSPOSE4_PS(block[m][0], block[m][1], block[m][2], block[m][3]);
    }
    const bool aligned = reinterpret_cast<std::uintptr_t>(to) % 16 == 0 && to_stride % 4 == 0;
    for (int k = 0; k < 4; ++k)
        for (int m = 0; m < 4; ++m) {
            float* line = to + k * to_stride + 4 * m;
            aligned ? _mm_stream_ps(line, block[m][k]) : _mm_storeu_ps(line, block[m][k]);
        }
}
template <> inline void copy_lines(const float* from, float* to, std::ptrdiff_t n) {
    const bool aligned = reinterpret_cast<std::uintptr_t>(to) % 16 == 0;
    std::ptrdiff_t l = 0;
    for (; aligned && l + 4 <= n; l += 4) _mm_stream_ps(to + l, _mm_loadu_ps(from + l));
    for (; l < n; ++l) to[l] = from[l];
}
#endif

// Must be called after the last transpose_lines() or copy_lines() of a thread, before another reads what it wrote.
inline void finish_lines() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

}  // namespace ntkfast
