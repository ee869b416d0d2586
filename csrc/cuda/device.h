// This file lists cards, and says what stands in the way of using them.  Without CUDA in the build unavailable.cpp has
// the same functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ntkfast::cuda {

struct Device {
    std::string name;
    int major, minor;  // compute capability
    int multiprocessors;
    std::int64_t bytes, free_bytes;                   // bytes of the device's memory: all and free
    int shared_per_block, shared_per_multiprocessor;  // bytes, at most
};

// Says how this build runs device code: "none", "cuda", or "emulation" (tests: the same code as plain C++ on the host,
// whose memory then is the device's).
const char* backend();

// Returns the architectures compiled in ("90 90-virtual"), the CUDA version of the compiler and that of the driver
// ("13.0"; empty if there is none).
std::string architectures();
std::string compiler_version();
std::string driver_version();

// Returns the cards that can be used; there are none where why_unavailable() says what is missing.
std::vector<Device> devices();
std::string why_unavailable();

}  // namespace ntkfast::cuda
