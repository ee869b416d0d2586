// Cards, and what stands in the way of using them.  Without CUDA in the build unavailable.cpp has the same functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ntkfast::cuda {

struct Device {
    std::string name;
    int major, minor;  // compute capability
    int multiprocessors;
    std::int64_t bytes, free_bytes;                   // of its memory
    int shared_per_block, shared_per_multiprocessor;  // bytes, at most
};

// How this build runs device code: "none", "cuda", or "emulation" (tests: the same code as plain C++ on the host, whose
// memory then is the device's).
const char* backend();

// Architectures compiled in ("90 90-virtual"), CUDA version of the compiler and of the driver ("13.0"; empty if there is none).
std::string architectures();
std::string compiler_version();
std::string driver_version();

// Cards that can be used; empty where why_unavailable() says what is missing.
std::vector<Device> devices();
std::string why_unavailable();

}  // namespace ntkfast::cuda
