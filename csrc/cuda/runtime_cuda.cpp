// This is the runtime of the engine on a card.
#include <cuda_runtime.h>

#include <map>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>

#include "cuda/device.h"
#include "cuda/runtime.h"

// These are the architectures compiled in, as CMAKE_CUDA_ARCHITECTURES has them.
#ifndef NTKFAST_CUDA_ARCHITECTURES
#define NTKFAST_CUDA_ARCHITECTURES ""
#endif

namespace ntkfast::cuda {
namespace {

void check_call(cudaError_t error, const char* call) {
    if (error == cudaSuccess) return;
    cudaGetLastError();  // so that the next call does not report it again
    if (error == cudaErrorMemoryAllocation) throw std::bad_alloc();
    throw std::runtime_error(std::string("CUDA: ") + call + ": " + cudaGetErrorString(error));
}

cudaStream_t stream_of(Stream stream) { return reinterpret_cast<cudaStream_t>(stream); }

std::string version_text(int version) {
    return version <= 0 ? "" : std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::mutex mutex;
std::map<void*, std::int64_t> given;
std::int64_t sum = 0, most = 0;

}  // namespace

const char* backend() { return "cuda"; }

std::string architectures() {
    std::string out = NTKFAST_CUDA_ARCHITECTURES;
    for (char& letter : out)
        if (letter == ';') letter = ' ';
    return out;
}

std::string compiler_version() {
    return std::to_string(__CUDACC_VER_MAJOR__) + "." + std::to_string(__CUDACC_VER_MINOR__);
}

std::string driver_version() {
    int version = 0;
    return cudaDriverGetVersion(&version) == cudaSuccess ? version_text(version) : "";
}

std::vector<Device> devices() {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) {
        cudaGetLastError();
        return {};
    }
    int before = 0;
    cudaGetDevice(&before);
    std::vector<Device> out;
    for (int n = 0; n < count; ++n) {
        cudaDeviceProp properties{};
        std::size_t free = 0, total = 0;
        check_call(cudaGetDeviceProperties(&properties, n), "cudaGetDeviceProperties");
        check_call(cudaSetDevice(n), "cudaSetDevice");
        check_call(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
        out.push_back({properties.name, properties.major, properties.minor, properties.multiProcessorCount,
                       std::int64_t(total), std::int64_t(free), int(properties.sharedMemPerBlockOptin),
                       int(properties.sharedMemPerMultiprocessor)});
    }
    cudaSetDevice(before);
    return out;
}

std::string why_unavailable() {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count > 0) return "";
    cudaGetLastError();
    if (error == cudaSuccess || error == cudaErrorNoDevice)
        return "CUDA: no card that can be used was found (nvidia-smi lists those that the driver sees)";
    if (driver_version().empty() || error == cudaErrorInsufficientDriver)
        return "CUDA: no NVIDIA driver, or one too old for CUDA " + compiler_version() + ": " +
               cudaGetErrorString(error);
    return std::string("CUDA: ") + cudaGetErrorString(error);
}

CurrentDevice::CurrentDevice(int device) : before_(0) {
    check_call(cudaGetDevice(&before_), "cudaGetDevice");
    check_call(cudaSetDevice(device), "cudaSetDevice");
}
CurrentDevice::~CurrentDevice() { cudaSetDevice(before_); }

void* allocate(std::int64_t bytes) {
    void* memory = nullptr;
    check_call(cudaMalloc(&memory, std::size_t(bytes > 0 ? bytes : 1)), "cudaMalloc");
    const std::lock_guard<std::mutex> lock(mutex);
    given[memory] = bytes;
    sum += bytes;
    if (sum > most) most = sum;
    return memory;
}

void release(void* memory) noexcept {
    {
        const std::lock_guard<std::mutex> lock(mutex);
        sum -= given[memory];
        given.erase(memory);
    }
    cudaFree(memory);
}

void to_device(void* to, const void* from, std::int64_t bytes, Stream stream) {
    if (bytes <= 0) return;
    check_call(cudaMemcpyAsync(to, from, std::size_t(bytes), cudaMemcpyHostToDevice, stream_of(stream)),
               "cudaMemcpyAsync");
    check_call(cudaStreamSynchronize(stream_of(stream)), "cudaStreamSynchronize");
}

void to_host(void* to, const void* from, std::int64_t bytes, Stream stream) {
    if (bytes <= 0) return;
    check_call(cudaMemcpyAsync(to, from, std::size_t(bytes), cudaMemcpyDeviceToHost, stream_of(stream)),
               "cudaMemcpyAsync");
    check_call(cudaStreamSynchronize(stream_of(stream)), "cudaStreamSynchronize");
}

void synchronize(Stream stream) { check_call(cudaStreamSynchronize(stream_of(stream)), "cudaStreamSynchronize"); }

void allow_shared(const void* kernel, std::int64_t bytes, const char* name) {
    constexpr std::int64_t always_allowed = 48 << 10;
    if (bytes > always_allowed)
        check_call(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)), name);
}

void check_launch(const char* name) { check_call(cudaGetLastError(), name); }

std::int64_t allocated() { return sum; }
std::int64_t most_allocated() { return most; }
void reset_most_allocated() { most = sum; }

}  // namespace ntkfast::cuda
