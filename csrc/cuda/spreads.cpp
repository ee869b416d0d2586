#include "cuda/spreads.h"

#include <algorithm>
#include <memory>

#include "cuda/stages.h"
#include "plan/near_bands.h"

namespace ntkfast::cuda {
namespace {

template <class Real> class Spreads {
public:
    Spreads(const Partition& partition, Fields<Real>& fields, DeviceFields<Real>& planes, Waves<Real>& waves,
            Stream stream)
        : partition_(partition), program_(partition.program), fields_(fields), planes_(planes), waves_(waves),
          maker_(program_, fields, planes), stream_(stream), near_(partition.targets.size()),
          steps_(near_steps(program_, partition.targets, fields.shape)) {}

    std::vector<Array<Real>> choose() {
        std::vector<Array<Real>> known(partition_.targets.size() - 1);
        for (int n = 0; n < program_.size(); ++n) {
            const int pooled = find_target(partition_.targets, TargetKind::pooled, n);
            if (pooled >= 0) {
                make_near(pooled);
                set(n, near_[std::size_t(pooled)]->same_pixels(stream_));
            }
            for (const Partition::Raw& raw : partition_.raws)
                if (raw.node == n) set(n, raw_field(raw));
            for (const TargetKind kind : {TargetKind::pooled, TargetKind::strided, TargetKind::features}) {
                const int found = find_target(partition_.targets, kind, n);
                if (found < 0) continue;
                const std::size_t t = std::size_t(found);
                known[t] = known_of(program_, partition_.targets[t], fields_, stream_);
                if (kind != TargetKind::pooled) make_near(found);
                for (int dy = steps_[t].made.first; dy <= steps_[t].made.last; ++dy)
                    near_[t]->seal(dy, known[t], stream_);
            }
        }
        return known;
    }

private:
    void make_near(int t) {
        const auto& [extent, step] = steps_[std::size_t(t)];
        if (extent < 0) return;
        const Target& target = partition_.targets[std::size_t(t)];
        auto store = std::make_unique<DeviceBands<Real>>(program_, target, fields_.shape, extent);
        const Shape& coarse = store->shape();
        for (int dy = step.first; dy <= step.last; ++dy) store->make(dy, stream_);
        store->publish(stream_);
        int first = -extent, count = 2 * extent + 1;
        if (store->extent() == Bands<Real>::whole_rows) {
            // On the torus these go once around, on either side of 0 as the bands of the sources do.
            first = program_.circular() ? -(coarse.width / 2) : 1 - coarse.width;
            count = program_.circular() ? coarse.width : 2 * coarse.width - 1;
        }
        const DeviceSegment& segment = partition_.segments[std::size_t(t)];
        const Layout& layout = partition_.layouts[std::size_t(t)];
        fill(segment, layout, maker_.stages_of(segment, near_),
             partition_.band_tasks(segment, layout, step.sweep, first, count), *store);
        near_[std::size_t(t)] = std::move(store);
    }

    std::vector<Real> raw_field(const Partition::Raw& raw) {
        DeviceBands<Real> store(program_, raw.segment.plan().target, fields_.shape, 0);
        store.make(0, stream_);
        store.publish(stream_);
        std::vector<Stage<Real>> stages = maker_.stages_of(raw.segment, near_);
        for (Stage<Real>& stage : stages) stage.spread = nullptr;
        fill(raw.segment, raw.layout, stages, partition_.band_tasks(raw.segment, raw.layout, {0}, 0, 1), store);
        return store.same_pixels(stream_);
    }

    void fill(const DeviceSegment& segment, const Layout& layout, const std::vector<Stage<Real>>& host,
              const std::vector<Task>& tasks, const DeviceBands<Real>& store) {
        const Array<Stage<Real>> stages(host, stream_);
        Monitor monitor(nullptr, 0);
        waves_.fill_bands({segment, layout, planes_.geometry(segment.plan().target.sweep_level()), stages}, tasks,
                          store, stream_, monitor);
    }

    // `raw` is 2 v.
    void set(int n, const std::vector<Real>& raw) {
        PaddedRows<Real>& rows = fields_.spread.at(n);
        const Shape at = at_level(program_, fields_.shape, program_[n].level);
        for (int y = 0; y < at.height; ++y)
            for (int x = 0; x < at.width; ++x) {
                const Real v = raw[std::size_t(y) * std::size_t(at.width) + std::size_t(x)] / 2;
                rows.row(y)[x] = v;
                if (program_.circular()) rows.row(y)[x + at.width] = v;
            }
        planes_.set_spread(n, program_[n].level, rows, stream_);
    }

    const Partition& partition_;
    const Program& program_;
    Fields<Real>& fields_;
    DeviceFields<Real>& planes_;
    Waves<Real>& waves_;
    StageMaker<Real> maker_;
    Stream stream_;
    DeviceStores<Real> near_;
    std::vector<NearStep> steps_;  // by target
};

}  // namespace

template <class Real>
std::vector<Array<Real>> choose_spreads(const Partition& partition, Fields<Real>& fields, DeviceFields<Real>& planes,
                                        Waves<Real>& waves, Stream stream) {
    return Spreads<Real>(partition, fields, planes, waves, stream).choose();
}

template <class Real> std::int64_t spreads_bytes(const Partition& partition) {
    const auto bands = [&](const Target& target, const NearStep& near) {
        return DeviceBands<Real>::near_bytes(partition.program, target, partition.shape, near);
    };
    std::int64_t near = 0, raw = 0;
    for (const NearStep& step : near_steps(partition.program, partition.targets, partition.shape))
        if (step.needed()) near += bands(partition.targets[std::size_t(step.made.target)], step);
    for (const Partition::Raw& of : partition.raws) {
        const Target& target = of.segment.plan().target;
        raw = std::max(raw, bands(target, near_step(partition.program, target, int(partition.targets.size()),
                                                    partition.shape, 0)));
    }
    return near + raw;
}

template std::vector<Array<float>> choose_spreads(const Partition&, Fields<float>&, DeviceFields<float>&, Waves<float>&,
                                                  Stream);
template std::vector<Array<double>> choose_spreads(const Partition&, Fields<double>&, DeviceFields<double>&,
                                                   Waves<double>&, Stream);
template std::int64_t spreads_bytes<float>(const Partition&);
template std::int64_t spreads_bytes<double>(const Partition&);

}  // namespace ntkfast::cuda
