// This is the CUDA engine of a build without CUDA: there are no devices, and it says why.
#include <stdexcept>

#include "cuda/device.h"
#include "cuda/engine.h"
#include "cuda/runtime.h"

namespace ntkfast::cuda {
namespace {

[[noreturn]] void refuse() { throw std::runtime_error(why_unavailable()); }

}  // namespace

const char* backend() { return "none"; }
std::string architectures() { return {}; }
std::string compiler_version() { return {}; }
std::string driver_version() { return {}; }
std::vector<Device> devices() { return {}; }

std::string why_unavailable() {
    return "this build of ntkfast has no CUDA: install the CUDA toolkit, so that nvcc is on the PATH, and install "
           "ntkfast "
           "again from its source (pip's -C cmake.define.NTKFAST_CUDA=on says what is missing)";
}

CurrentDevice::CurrentDevice(int device) : before_(device) { refuse(); }
CurrentDevice::~CurrentDevice() = default;
void* allocate(std::int64_t) { refuse(); }
void release(void*) noexcept {}
void to_device(void*, const void*, std::int64_t, Stream) { refuse(); }
void to_host(void*, const void*, std::int64_t, Stream) { refuse(); }
void synchronize(Stream) { refuse(); }

// The constructor throws, so that there is no engine; what follows is for the linker.
template <class Real> struct Engine<Real>::Impl {};

template <class Real>
Engine<Real>::Engine(const Program&, const Shape&, const double*, int, int, const Tuning&, Poll) {
    refuse();
}
template <class Real> Engine<Real>::~Engine() = default;
template <class Real> const Shape& Engine<Real>::shape() const { refuse(); }
template <class Real> int Engine<Real>::exponent() const { refuse(); }
template <class Real> int Engine<Real>::device() const { refuse(); }
template <class Real> void Engine<Real>::diagonal(double*) const { refuse(); }
template <class Real> void Engine<Real>::product(const Real*, Real*, int, Poll) const { refuse(); }
template <class Real> void Engine<Real>::product_on_device(const Real*, Real*, int, Stream, Poll) const { refuse(); }
template <class Real> void Engine<Real>::store(Poll) { refuse(); }
template <class Real> bool Engine<Real>::stored() const { refuse(); }
template <class Real> void Engine<Real>::keep_coarse(Poll) { refuse(); }
template <class Real> bool Engine<Real>::coarse_kept() const { refuse(); }
template <class Real> void Engine<Real>::dense(Real*, Poll) const { refuse(); }
template <class Real>
MemoryEstimate Engine<Real>::estimate(const Program&, const Shape&, int, const Device&, const Tuning&) {
    refuse();
}

template class Engine<float>;
template class Engine<double>;

}  // namespace ntkfast::cuda
