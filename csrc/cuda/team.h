// Device code and its emulation differ in this one place: a team of threads, and how a kernel is launched.
//
// A kernel is a struct with a static function  run(Team&, int block, double* shared, const Arguments&)  and is written
// as loops over the team with barriers between dependent ones:
//
//   team.for_each(count, f)   f(n) for 0 <= n < count, spread over the threads, in no order; f is kept until the barrier,
//                             so that it must hold by value what it reads
//   team.barrier()            all loops before it are done
//
// Nothing but memory is carried from one loop to the next.  On the host the loops between two barriers run as one
// shuffled list, so that a missing barrier shows as a wrong number, and shared memory starts as NaN.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/runtime.h"

#if defined(__CUDACC__)

#define NTKFAST_DEVICE __device__ __forceinline__
#define NTKFAST_APART __device__ __noinline__  // large and seldom run: not copied into every caller
#define NTKFAST_UNROLL _Pragma("unroll")

namespace ntkfast::cuda {

// Fetches read what no kernel writes while it runs; four adjacent numbers, aligned to 4 of them, take few accesses.
NTKFAST_DEVICE float fetch(const float* from) { return __ldg(from); }
NTKFAST_DEVICE double fetch(const double* from) { return __ldg(from); }
NTKFAST_DEVICE void fetch_four(const float* from, float* to) {
    const float4 four = __ldg(reinterpret_cast<const float4*>(from));
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}
NTKFAST_DEVICE void fetch_four(const double* from, double* to) {
    const double2 low = __ldg(reinterpret_cast<const double2*>(from));
    const double2 high = __ldg(reinterpret_cast<const double2*>(from) + 1);
    to[0] = low.x, to[1] = low.y, to[2] = high.x, to[3] = high.y;
}

class Team {
public:
    template <class Body> NTKFAST_DEVICE void for_each(int count, const Body& body) const {
        for (int n = int(threadIdx.x); n < count; n += int(blockDim.x)) body(n);
    }
    NTKFAST_DEVICE void barrier() const { __syncthreads(); }
};

// One block of the most threads is enough for a multiprocessor: without the 1 the compiler makes room for two, and
// spills.
template <class Kernel>
__global__ void __launch_bounds__(Kernel::most_threads, 1)
    entry(const __grid_constant__ typename Kernel::Arguments arguments) {
    extern __shared__ double shared[];
    Team team;
    Kernel::run(team, int(blockIdx.x), shared, arguments);
}

template <class Kernel>
void launch(const char* name, const Launch& launch, const typename Kernel::Arguments& arguments) {
    if (launch.blocks <= 0) return;
    allow_shared(reinterpret_cast<const void*>(entry<Kernel>), launch.shared_bytes, name);
    entry<Kernel><<<unsigned(launch.blocks), unsigned(launch.threads), std::size_t(launch.shared_bytes),
                    reinterpret_cast<cudaStream_t>(launch.stream)>>>(arguments);
    check_launch(name);
}

}  // namespace ntkfast::cuda

#else

#include <functional>
#include <stdexcept>
#include <vector>

#define NTKFAST_DEVICE inline
#define NTKFAST_APART
#define NTKFAST_UNROLL

namespace ntkfast::cuda {

template <class Real> Real fetch(const Real* from) { return *from; }
template <class Real> void fetch_four(const Real* from, Real* to) {
    if (reinterpret_cast<std::uintptr_t>(from) % (4 * sizeof(Real)) != 0)
        throw std::logic_error("fetch_four: not aligned");
    for (int m = 0; m < 4; ++m) to[m] = from[m];
}

class Team {
public:
    template <class Body> void for_each(int count, const Body& body) {
        for (int n = 0; n < count; ++n) order_.push_back({int(loops_.size()), n});
        loops_.emplace_back(body);
    }
    void barrier();

private:
    struct Item {
        int loop, index;
    };
    std::vector<std::function<void(int)>> loops_;  // those since the last barrier
    std::vector<Item> order_;
};

// Runs blocks in a shuffled order, one after the other.
void emulate(const Launch& launch, const std::function<void(Team&, int, double*)>& block);

template <class Kernel> void launch(const char*, const Launch& launch, const typename Kernel::Arguments& arguments) {
    emulate(launch, [&](Team& team, int block, double* shared) { Kernel::run(team, block, shared, arguments); });
}

}  // namespace ntkfast::cuda

#endif
