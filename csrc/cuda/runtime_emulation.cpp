// This is the runtime of the emulation: the host's memory, and kernels as plain C++ in a shuffled order.
#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <new>
#include <random>
#include <stdexcept>

#include "cuda/emulation.h"
#include "cuda/team.h"

namespace ntkfast::cuda {
namespace {

std::mutex mutex;
std::map<void*, std::int64_t> given;
std::int64_t sum = 0, most = 0;
std::mt19937 generator(1);
Device emulated{"emulation", 9, 0, 4, std::int64_t(4) << 30, std::int64_t(4) << 30, 227 << 10, 228 << 10};

}  // namespace

namespace emulation {

void seed(unsigned number) { generator.seed(number); }
Device& device() { return emulated; }

}  // namespace emulation

const char* backend() { return "emulation"; }
std::string architectures() { return "emulation"; }
std::string compiler_version() { return ""; }
std::string driver_version() { return ""; }
std::vector<Device> devices() { return {emulated}; }
std::string why_unavailable() { return ""; }

CurrentDevice::CurrentDevice(int device) : before_(0) {
    if (device != 0) throw std::invalid_argument("device must be 0");
}
CurrentDevice::~CurrentDevice() = default;

// A device gives memory with what was there before; here it is NaN.
void* allocate(std::int64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (sum + bytes > emulated.bytes) throw std::bad_alloc();
    void* memory = ::operator new(std::size_t(bytes), std::align_val_t(256));
    std::memset(memory, 0xff, std::size_t(bytes));
    given[memory] = bytes;
    sum += bytes;
    most = std::max(most, sum);
    return memory;
}

void release(void* memory) noexcept {
    const std::lock_guard<std::mutex> lock(mutex);
    sum -= given[memory];
    given.erase(memory);
    ::operator delete(memory, std::align_val_t(256));
}

void to_device(void* to, const void* from, std::int64_t bytes, Stream) {
    if (bytes > 0) std::memcpy(to, from, std::size_t(bytes));
}
void to_host(void* to, const void* from, std::int64_t bytes, Stream) {
    if (bytes > 0) std::memcpy(to, from, std::size_t(bytes));
}
void synchronize(Stream) {}

std::int64_t allocated() { return sum; }
std::int64_t most_allocated() { return most; }
void reset_most_allocated() { most = sum; }

void Team::barrier() {
    std::shuffle(order_.begin(), order_.end(), generator);
    for (const Item& item : order_) loops_[std::size_t(item.loop)](item.index);
    order_.clear();
    loops_.clear();
}

void emulate(const Launch& launch, const std::function<void(Team&, int, double*)>& block) {
    if (launch.shared_bytes > emulated.shared_per_block) throw std::runtime_error("launch: too much shared memory");
    std::vector<int> order;
    for (int n = 0; n < launch.blocks; ++n) order.push_back(n);
    std::shuffle(order.begin(), order.end(), generator);
    const std::size_t words = std::size_t(launch.shared_bytes) / sizeof(double) + 2;
    for (const int n : order) {
        std::vector<double> shared(words, std::numeric_limits<double>::quiet_NaN());
        // All bits set make a NaN in both types.
        std::memset(shared.data(), 0xff, words * sizeof(double));
        double* aligned = shared.data() + (reinterpret_cast<std::uintptr_t>(shared.data()) % 16 != 0 ? 1 : 0);
        Team team;
        block(team, n, aligned);
        team.barrier();
    }
}

}  // namespace ntkfast::cuda
