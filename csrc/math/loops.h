// These pragmas say of a loop what no compiler can prove, in the words that each knows.
#pragma once

// The steps of the loop that follows do not depend on each other: rows of one call never overlap, except where a kernel
// says so.  clang is also told to vectorise, as its estimate of the gain is often wrong here.
#if defined(__CUDACC__)
#define NTKFAST_VECTOR_LOOP
#elif defined(__clang__)
#define NTKFAST_VECTOR_LOOP _Pragma("clang loop vectorize(assume_safety) interleave_count(1)")
#else
#define NTKFAST_VECTOR_LOOP _Pragma("GCC ivdep")
#endif

// The loop that follows has a constant length and goes away: unrolled late, the loop around it is not vectorised.
#if defined(__CUDACC__)
#define NTKFAST_UNROLLED_LOOP
#elif defined(__clang__)
#define NTKFAST_UNROLLED_LOOP _Pragma("clang loop unroll(full)")
#else
#define NTKFAST_UNROLLED_LOOP _Pragma("GCC unroll 32")
#endif
