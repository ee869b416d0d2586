// Memory that starts on a cache line.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace ntkfast {

constexpr std::size_t cache_line = 64;  // bytes; one AVX-512 register

template <class T> struct LineAllocator {
    using value_type = T;
    LineAllocator() = default;
    template <class Other> LineAllocator(const LineAllocator<Other>&) {}
    T* allocate(std::size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(cache_line))); }
    void deallocate(T* p, std::size_t) { ::operator delete(p, std::align_val_t(cache_line)); }
    template <class Other> bool operator==(const LineAllocator<Other>&) const { return true; }
    template <class Other> bool operator!=(const LineAllocator<Other>&) const { return false; }
};

// Rows of whole chunks in it start on a line each, so that a vector of the row kernels does not straddle two.
template <class T> using AlignedVector = std::vector<T, LineAllocator<T>>;

// Leaves numbers as they are until someone writes them.
template <class T> struct RawLineAllocator : LineAllocator<T> {
    template <class Other> struct rebind {
        using other = RawLineAllocator<Other>;
    };
    RawLineAllocator() = default;
    template <class Other> RawLineAllocator(const RawLineAllocator<Other>&) {}
    template <class Other> void construct(Other* p) { ::new (static_cast<void*>(p)) Other; }
};

// RawVector(n) is not filled: zeros for 3.2 GB took one thread 1.8 s before the others could begin.
template <class T> using RawVector = std::vector<T, RawLineAllocator<T>>;

}  // namespace ntkfast
