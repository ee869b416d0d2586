#include "cpu/rows/roofline.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "cpu/rows/dispatch.h"
#include "cpu/rows/row_kernels.h"
#include "cpu/threads.h"
#include "plan/aligned.h"

namespace ntkfast {
namespace {

using Clock = std::chrono::steady_clock;

// Returns the best time of one call, from batches long enough for the clock.
template <class Call> double best_seconds(int repeats, Call call) {
    constexpr int calls = 256;
    double best = std::numeric_limits<double>::infinity();
    for (int n = 0; n < repeats; ++n) {
        const auto start = Clock::now();
        for (int m = 0; m < calls; ++m) call();
        best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count() / calls);
    }
    return best;
}

// These are rows of plausible numbers: patches of similar size and distance, so that no kernel meets an exceptional
// value.
class Rows {
public:
    Rows(int count, int length) : stride_(length + 64 * chunk), data_(std::size_t(count * stride_)) {
        for (std::size_t n = 0; n < data_.size(); ++n) data_[n] = 0.8f + 0.1f * float(n % 7);
    }
    float* operator[](int n) { return data_.data() + n * stride_ + 32 * chunk; }
    std::ptrdiff_t stride() const { return stride_; }

private:
    std::ptrdiff_t stride_;
    AlignedVector<float> data_;
};

}  // namespace

namespace {

// Returns the seconds per pair on the thread that calls.
double time_kernels(const std::vector<std::tuple<int, double, double, bool, bool, double>>& stages, int channels,
                    int columns, const std::string& isa, int length, int repeats) {
    if (length < chunk || length % chunk != 0) throw std::invalid_argument("length must be a multiple of 16");
    const RowKernels<float>& kernels = row_kernels<float>(isa_from_name(isa));
    Rows rows(24, length), scratch(4, length);
    const std::ptrdiff_t stride = rows.stride();
    if (channels > 8 || columns > 8) throw std::invalid_argument("channels and columns must be at most 8");

    Lanes lanes{};
    lanes.count = 1;
    lanes.length[0] = length;

    double seconds =
        best_seconds(repeats, [&] { kernels.input(lanes, scratch[0], rows[0], rows[8], stride, channels, 1.0f); });
    for (std::size_t s = 0; s < stages.size(); ++s) {
        const auto& [k, w, b, trainable, active, slope] = stages[s];
        const int kernel_size = k, fields = s > 0 ? 2 : 1;
        if (k > 1) {
            const auto box = [&] { kernels.box_row(lanes, scratch[0], rows[0], kernel_size, 1, scratch[2]); };
            seconds += fields * best_seconds(repeats, box);
        }
        const bool blockwise = k > max_direct_rows;  // one addition a row for the prefix, one for the suffixes
        if (blockwise) {
            const auto add = [&] { kernels.add(lanes, scratch[0], scratch[0], rows[0]); };
            seconds += 2 * fields * best_seconds(repeats, add);
        }
        MapArgs<float> args{};
        for (int n = 0; n < max_direct_rows; ++n) args.e[n] = rows[n], args.t[n] = rows[5 + n];
        args.i = {rows[10], rows[11], rows[14]};
        args.j = {rows[12], rows[13], rows[15]};
        args.e_out = scratch[0], args.t_out = scratch[1];
        args.constants = ActivationConstants<float>::make(slope, 1.0, trainable ? 1.0 : 0.0, 1.0, false);
        args.scale = 1;
        // A last 1x1 convolution goes with the rectifier before it, as in the pipeline.
        const bool joined = active && s + 2 == stages.size() && std::get<0>(stages[s + 1]) == 1;
        if (joined) args.last_i = rows[10], args.last_j = rows[12], args.last_trained = 1;
        const auto& table = joined                   ? kernels.rectifier_output
                            : s + 1 == stages.size() ? kernels.output
                            : active                 ? kernels.activation[0]
                                                     : kernels.linear;
        const MapKernel<float> map =
            table[row_count_index(blockwise ? 2 : k)][int(s > 0 ? Flow::tangent : Flow::first_tangent)];
        seconds += best_seconds(repeats, [&] { map(lanes, args); });
        if (joined) break;
    }
    // Several lanes go at once, as in a product.  T is zero: the sums must not grow from call to call.
    const AlignedVector<float> zeros(std::size_t(length), 0.0f);
    const float* t[lanes_fused];
    Lanes fused{};
    fused.count = lanes_fused;
    for (int g = 0; g < lanes_fused; ++g) t[g] = zeros.data(), fused.length[g] = length, fused.at_j[g] = g;
    const auto accumulate = [&] { kernels.accumulate_i(fused, t, true, rows[0], stride, rows[12], stride, columns); };
    seconds += 2 * best_seconds(repeats, accumulate) / lanes_fused;
    return seconds / length;
}

}  // namespace

double roofline(const std::vector<std::tuple<int, double, double, bool, bool, double>>& stages, int channels,
                int columns, const std::string& isa, int length, int repeats, int threads) {
    std::vector<double> seconds(std::size_t(std::max(1, threads)), 0.0);
    int team = 1;
    parallel(int(seconds.size()), [&](int thread, int size) {
        if (thread == 0) team = size;
        seconds[std::size_t(thread)] = time_kernels(stages, channels, columns, isa, length, repeats);
    });
    return std::accumulate(seconds.begin(), seconds.end(), 0.0) / team;
}

}  // namespace ntkfast
