// This file has one parallel region, and the floating-point mode of its threads.
#pragma once

#include <exception>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace ntkfast {

inline bool built_with_openmp() {
#if defined(_OPENMP)
    return true;
#else
    return false;
#endif
}

inline int default_threads() {
#if defined(_OPENMP)
    return omp_get_max_threads();
#else
    return 1;
#endif
}

// Ends the threads that wait for the caller's next parallel region, which then makes new ones.  It is to be called
// before a fork: the child has the runtime's record of these threads but not the threads, and GCC's runtime would wait
// for them for ever.
inline void release_threads() {
// GCC 9 and later have this call of OpenMP 5.0, though they say 4.5.
#if defined(_OPENMP) && (_OPENMP >= 201811 || (defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 9))
    omp_pause_resource_all(omp_pause_soft);
#endif
}

// Denormals are treated as zero while an object lives: on nearly flat images the squared differences underflow, and x86
// takes some hundred cycles for each denormal.
class FlushDenormals {
public:
#if defined(__SSE__)
    FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
    ~FlushDenormals() { _mm_setcsr(saved_); }

private:
    unsigned saved_;
#else
    FlushDenormals() {}
#endif
};

// Calls body(thread, team) on each thread of a team of at most `threads`; thread 0 is the caller.  The first exception
// of any thread is thrown again when all have ended.
template <class Body> void parallel(int threads, Body body) {
    std::exception_ptr failure;
#if defined(_OPENMP)
#pragma omp parallel num_threads(threads)
    {
        try {
            const FlushDenormals flush_denormals;
            body(omp_get_thread_num(), omp_get_num_threads());
        } catch (...) {
#pragma omp critical(ntkfast_failure)
            if (!failure) failure = std::current_exception();
        }
    }
#else
    (void)threads;
    try {
        const FlushDenormals flush_denormals;
        body(0, 1);
    } catch (...) {
        failure = std::current_exception();
    }
#endif
    if (failure) std::rethrow_exception(failure);
}

}  // namespace ntkfast
