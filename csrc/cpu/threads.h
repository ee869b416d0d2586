// This file has one parallel region, and the floating-point mode of its threads.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <exception>
#include <thread>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace ntkfast {

inline const char* threads_by() {
#if defined(_OPENMP)
    return "OpenMP";
#else
    return "std::thread";
#endif
}

// Returns as many as there are cores for this process, or the number in OMP_NUM_THREADS.
inline int default_threads() {
#if defined(_OPENMP)
    return omp_get_max_threads();
#else
    const char* asked = std::getenv("OMP_NUM_THREADS");
    const int number = asked ? std::atoi(asked) : 0;
    const int cores = int(std::thread::hardware_concurrency());
    return number > 0 ? number : cores > 0 ? cores : 1;
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

// Calls body(thread, team) on each thread of a team of at most `threads`; thread 0 is the caller.  An exception of a
// thread is thrown again when all have ended.
#if defined(_OPENMP)
template <class Body> void parallel(int threads, Body body) {
    std::exception_ptr failure;
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
    if (failure) std::rethrow_exception(failure);
}
#else
template <class Body> void parallel(int threads, Body body) {
    std::vector<std::exception_ptr> failures(std::size_t(threads), nullptr);
    const auto run = [&](int thread) {
        try {
            const FlushDenormals flush_denormals;
            body(thread, threads);
        } catch (...) {
            failures[std::size_t(thread)] = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    others.reserve(std::size_t(threads));
    try {
        for (int thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
        run(0);
    } catch (...) {  // the system gives no more threads
        failures[0] = std::current_exception();
    }
    for (std::thread& other : others) other.join();
    for (const std::exception_ptr& failure : failures)
        if (failure) std::rethrow_exception(failure);
}
#endif

}  // namespace ntkfast
