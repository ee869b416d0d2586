#include "cpu/rows/dispatch.h"

#include <algorithm>
#include <stdexcept>

namespace ntkfast {
namespace {

constexpr Isa all_levels[] = {Isa::baseline, Isa::avx2, Isa::avx512};

bool cpu_has(Isa isa) {
    if (isa == Isa::baseline) return true;
#if defined(NTKFAST_X86_LEVELS)
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == Isa::avx2) return avx2;
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
#else
    return false;
#endif
}

template <class Real> const RowKernels<Real>* table_of(Isa isa) {
    switch (isa) {
        case Isa::baseline: return row_kernels_baseline<Real>();
#if defined(NTKFAST_X86_LEVELS)
        case Isa::avx2: return row_kernels_avx2<Real>();
        case Isa::avx512: return row_kernels_avx512<Real>();
#endif
        default: return nullptr;
    }
}

}  // namespace

const char* isa_name(Isa isa) {
    switch (isa) {
        case Isa::baseline: return "baseline";
        case Isa::avx2: return "avx2";
        default: return "avx512";
    }
}

Isa isa_from_name(const std::string& name) {
    for (const Isa isa : all_levels)
        if (name == isa_name(isa)) return isa;
    throw std::invalid_argument("isa must be one of baseline, avx2, avx512, got '" + name + "'");
}

std::vector<Isa> compiled_isas() {
    std::vector<Isa> levels;
    for (const Isa isa : all_levels)
        if (table_of<float>(isa)) levels.push_back(isa);
    return levels;
}

std::vector<Isa> supported_isas() {
    std::vector<Isa> levels;
    for (const Isa isa : compiled_isas())
        if (cpu_has(isa)) levels.push_back(isa);
    return levels;
}

template <class Real> const RowKernels<Real>& row_kernels(Isa isa) {
    const std::vector<Isa> levels = supported_isas();
    if (std::find(levels.begin(), levels.end(), isa) == levels.end())
        throw std::invalid_argument(std::string("isa must be a level that this CPU supports, got ") + isa_name(isa));
    return *table_of<Real>(isa);
}

template const RowKernels<float>& row_kernels<float>(Isa);
template const RowKernels<double>& row_kernels<double>(Isa);

}  // namespace ntkfast
