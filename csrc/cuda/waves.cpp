#include "cuda/waves.h"

#include <algorithm>

#include "cuda/sweep_launch.h"

namespace ntkfast::cuda {
namespace {

// This is the work of one launch for each multiprocessor, in pairs times stages: 0.1 s if it does a quarter of the
// floor.  It is an estimate until measured on a card.
constexpr double launch_work = 2e8;

// Returns the least kernel that can run a segment into such a result.
Scope scope_of(const DeviceSegment& segment, const Layout& layout, ResultKind result) {
    if (!layout.shared || layout.lane_bits != usual_lane_bits) return Scope::all;
    return result == ResultKind::product ? segment.scope() : std::max(segment.scope(), Scope::rectifiers);
}

}  // namespace

template <class Real>
Waves<Real>::Waves(const Partition& partition)
    : partition_(partition), tasks_(partition.most_tasks),
      scratch_(partition.words > 0 ? Array<Real>(partition.words) : Array<Real>()) {}

template <class Real> std::int64_t Waves<Real>::bytes(const Partition& partition) {
    return Array<Task>::bytes(partition.most_tasks) + (partition.words > 0 ? Array<Real>::bytes(partition.words) : 0);
}

template <class Real>
Sweep<Real> Waves<Real>::sweep_of(const Staged<Real>& part, const Result<Real>& result) const {
    const Layout& layout = part.layout;
    Sweep<Real> sweep{};
    sweep.geometry = part.geometry;
    sweep.stages = part.stages.data();
    sweep.stage_count = int(part.stages.size());
    sweep.dx_step = part.segment.dx_step();
    sweep.end_lag = part.segment.plan().end().lag;
    sweep.begin = part.segment.plan().first_step;
    sweep.beyond = part.segment.plan().steps_beyond;
    sweep.lane_bits = layout.lane_bits;
    sweep.stride = layout.stride;
    sweep.halo = layout.halo;
    sweep.positions = layout.positions;
    sweep.out_pitch = layout.out_pitch;
    sweep.results = layout.results;
    sweep.words = layout.words;
    sweep.scratch = layout.shared ? nullptr : scratch_.data();
    sweep.tasks = tasks_.data();
    sweep.end = part.segment.end();
    sweep.result = result;
    return sweep;
}

template <class Real>
void Waves<Real>::run(const Staged<Real>& part, const std::vector<Task>& all, const Result<Real>& result, int at_once,
                      Stream stream, Monitor& monitor, const AfterWave& after_wave) {
    const Sweep<Real> sweep = sweep_of(part, result);
    const Scope scope = scope_of(part.segment, part.layout, result.kind);
    for (std::size_t first = 0; first < all.size() && !monitor.stopped();) {
        std::size_t last = first;
        std::int64_t pairs = 0;
        double work = 0;
        while (last < all.size() && int(last - first) < at_once &&
               (last == first || work < launch_work * partition_.device.multiprocessors)) {
            const std::int64_t more = partition_.pairs_of(part.segment, all[last++]);
            pairs += more;
            work += double(more) * sweep.stage_count;
        }
        const int count = int(last - first);
        to_device(tasks_.data(), all.data() + first, count * std::int64_t(sizeof(Task)), stream);
        launch_sweep(sweep, scope, count, part.layout.threads, stream);
        if (after_wave) after_wave(count);
        synchronize(stream);
        monitor.advance(pairs, true);
        first = last;
    }
}

template <class Real>
void Waves<Real>::fill_bands(const Staged<Real>& part, const std::vector<Task>& all, const DeviceBands<Real>& store,
                             Stream stream, Monitor& monitor) {
    const TargetKind kind = part.segment.plan().target.kind;
    Result<Real> result{};
    result.kind = kind == TargetKind::pooled    ? ResultKind::pooled
                  : kind == TargetKind::strided ? ResultKind::strided
                                                : ResultKind::features;
    result.bands = store.view();
    run(part, all, result, partition_.tasks_at_once(part.layout), stream, monitor);
}

template class Waves<float>;
template class Waves<double>;

}  // namespace ntkfast::cuda
