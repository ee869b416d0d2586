// The C++ tests share these counted checks, and more, beside networks and oracles.  Each test is one translation unit.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

inline int failures = 0;
inline int checks = 0;

inline void check(bool passed, const std::string& what) {
    ++checks;
    if (passed) return;
    ++failures;
    if (failures <= 30) std::printf("FAILED: %s\n", what.c_str());
}

template <class Exception> bool throws(const std::function<void()>& call) {
    try {
        call();
    } catch (const Exception&) {
        return true;
    }
    return false;
}

inline std::vector<double> normals(std::int64_t count, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    std::vector<double> out;
    for (std::int64_t n = 0; n < count; ++n) out.push_back(normal(generator));
    return out;
}
