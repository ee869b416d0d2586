// The runtime is what the engine needs of a device: memory, copies, streams, launches.  runtime_cuda.cpp has it from
// the CUDA runtime, runtime_emulation.cpp on the host.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace ntkfast::cuda {

// A Stream is a cudaStream_t, as an integer: 0 is the default stream.
using Stream = std::uintptr_t;

struct Launch {
    std::int64_t blocks;
    int threads;
    std::int64_t shared_bytes;
    Stream stream;
};

// A CurrentDevice makes a device the current one while it lives.
class CurrentDevice {
public:
    explicit CurrentDevice(int device);
    ~CurrentDevice();
    CurrentDevice(const CurrentDevice&) = delete;
    CurrentDevice& operator=(const CurrentDevice&) = delete;

private:
    [[maybe_unused]] int before_;  // the emulation has one device
};

// These act on the current device.  Errors are thrown as std::runtime_error with the name of the call, lack of memory
// as std::bad_alloc.
void* allocate(std::int64_t bytes);
void release(void* memory) noexcept;
// Copies are made in the order of the stream; these return when the host's memory may be used again.
void to_device(void* to, const void* from, std::int64_t bytes, Stream stream);
void to_host(void* to, const void* from, std::int64_t bytes, Stream stream);
void synchronize(Stream stream);

// launch() in team.h needs these.
void allow_shared(const void* kernel, std::int64_t bytes, const char* name);
void check_launch(const char* name);

// These count the bytes that allocate() gave and release() has not taken back, of all devices; and the most there have
// been since the last call of reset_most_allocated().
std::int64_t allocated();
std::int64_t most_allocated();
void reset_most_allocated();

// An Array holds numbers in the memory of a device.
template <class T> class Array {
public:
    Array() = default;
    explicit Array(std::int64_t size) : size_(size), data_(static_cast<T*>(allocate(bytes(size)))) {}
    Array(const std::vector<T>& from, Stream stream) : Array(std::int64_t(from.size())) {
        to_device(data_, from.data(), size_ * std::int64_t(sizeof(T)), stream);
    }
    Array(Array&& other) noexcept : size_(std::exchange(other.size_, 0)), data_(std::exchange(other.data_, nullptr)) {}
    Array& operator=(Array&& other) noexcept {
        std::swap(size_, other.size_);
        std::swap(data_, other.data_);
        return *this;
    }
    ~Array() {
        if (data_ != nullptr) release(data_);
    }

    T* data() const { return data_; }
    std::int64_t size() const { return size_; }
    // Returns what allocate() is asked for: whole lines, which is what cudaMalloc aligns to.
    static std::int64_t bytes(std::int64_t size) {
        constexpr std::int64_t line = 256;
        return (size * std::int64_t(sizeof(T)) + line - 1) / line * line;
    }

private:
    std::int64_t size_ = 0;
    T* data_ = nullptr;
};

}  // namespace ntkfast::cuda
