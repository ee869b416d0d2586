// Memory from these allocators starts on a cache line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>
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

// Rows of whole chunks in an AlignedVector start on a line each, so that a vector of the row kernels does not straddle
// two.
template <class T> using AlignedVector = std::vector<T, LineAllocator<T>>;

// This allocator leaves numbers as they are until someone writes them.
template <class T> struct RawLineAllocator : LineAllocator<T> {
    template <class Other> struct rebind {
        using other = RawLineAllocator<Other>;
    };
    RawLineAllocator() = default;
    template <class Other> RawLineAllocator(const RawLineAllocator<Other>&) {}
    template <class Other> void construct(Other* p) { ::new (static_cast<void*>(p)) Other; }
};

// RawVector(n) is not filled: one thread would write zeros into gigabytes before the others could begin.
template <class T> using RawVector = std::vector<T, RawLineAllocator<T>>;

// This allocator's memory is handed out zeroed by the system, page by page as it is touched.
template <class T> struct ZeroedLineAllocator : LineAllocator<T> {
    template <class Other> struct rebind {
        using other = ZeroedLineAllocator<Other>;
    };
    ZeroedLineAllocator() = default;
    template <class Other> ZeroedLineAllocator(const ZeroedLineAllocator<Other>&) {}
    T* allocate(std::size_t n) {
        void* block =
            n > (SIZE_MAX - 2 * cache_line) / sizeof(T) ? nullptr : std::calloc(n * sizeof(T) + cache_line, 1);
        if (!block) throw std::bad_alloc();
        // The addresses of calloc are multiples of 16: before a line's start there is always room for the block's own.
        char* start = static_cast<char*>(block) + cache_line - reinterpret_cast<std::uintptr_t>(block) % cache_line;
        reinterpret_cast<void**>(start)[-1] = block;
        return reinterpret_cast<T*>(start);
    }
    void deallocate(T* p, std::size_t) { std::free(reinterpret_cast<void**>(p)[-1]); }
    template <class Other> void construct(Other* p) { ::new (static_cast<void*>(p)) Other; }
    template <class Other, class... From> void construct(Other* p, From&&... from) {
        ::new (static_cast<void*>(p)) Other(std::forward<From>(from)...);
    }
};

// ZeroedVector(n) is n zeros that no one has written; it must not grow or shrink.  With AlignedVector a product with
// many columns would fill its sums before the first pair, and Ctrl-C would wait for that.
template <class T> using ZeroedVector = std::vector<T, ZeroedLineAllocator<T>>;

}  // namespace ntkfast
