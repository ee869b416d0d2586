// A Monitor carries the progress and the cancellation of one long call.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>
#include <utility>

namespace ntkfast {

// A Poll receives the fraction done, in [0, 1], and returns false to stop the call.
using Poll = std::function<bool(double)>;

// Cancelled is thrown out of an engine call that its poll stopped; results are then undefined and not to be used.
struct Cancelled {};

class Monitor {
public:
    Monitor(Poll poll, std::int64_t total_pairs) : poll_(std::move(poll)), total_(total_pairs) {}

    bool stopped() const { return stop_.load(std::memory_order_relaxed); }

    // Is called by every thread after some work; only the calling thread (`leader`) asks the poll.
    void advance(std::int64_t pairs, bool leader) {
        done_.fetch_add(pairs, std::memory_order_relaxed);
        if (leader) ask();
    }

    // Asks the poll, at most every 50 ms; the calling thread calls it where no pairs are counted.
    void ask() {
        if (!poll_) return;
        const auto now = std::chrono::steady_clock::now();
        if (now - last_ < std::chrono::milliseconds(50)) return;
        const double done = double(done_.load(std::memory_order_relaxed));
        // The fraction stays below 1, which finish() says: what follows the last pair, such as adding up, is asked
        // about too.
        const double fraction = total_ ? std::min(done / double(total_), std::nextafter(1.0, 0.0)) : 0.0;
        if (!poll_(fraction)) stop_.store(true, std::memory_order_relaxed);
        last_ = std::chrono::steady_clock::now();
    }

    // Asks as well, outside of parallel regions.
    void check() {
        ask();
        if (stopped()) throw Cancelled();
    }

    void finish() {
        if (stopped()) throw Cancelled();
        if (poll_ && !poll_(1.0)) throw Cancelled();
    }

    // This is the work between two calls of advance(), in pairs: some 0.2 ms, so that neither the clock nor the shared
    // count is felt.
    static constexpr std::int64_t stride = 1 << 17;

private:
    Poll poll_;
    std::int64_t total_;
    std::atomic<std::int64_t> done_{0};
    std::atomic<bool> stop_{false};
    std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace ntkfast
