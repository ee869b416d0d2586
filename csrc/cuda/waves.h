// Waves run the tasks of a segment, as many at once as the device's memory holds.
#pragma once

#include <functional>
#include <vector>

#include "cuda/device_bands.h"
#include "cuda/tasks.h"
#include "plan/monitor.h"

namespace ntkfast::cuda {

// Staged is a segment as the kernel takes it.
template <class Real> struct Staged {
    const DeviceSegment& segment;
    const Layout& layout;
    const Geometry& geometry;  // that of its sweep level
    const Array<Stage<Real>>& stages;
};

template <class Real> class Waves {
public:
    using AfterWave = std::function<void(int tasks)>;

    explicit Waves(const Partition& partition);

    // after_wave(tasks of the wave), if there is one, follows each wave.
    void run(const Staged<Real>& part, const std::vector<Task>& all, const Result<Real>& result, int at_once,
             Stream stream, Monitor& monitor, const AfterWave& after_wave = nullptr);
    // Runs the tasks into the bands of the segment's target.
    void fill_bands(const Staged<Real>& part, const std::vector<Task>& all, const DeviceBands<Real>& store,
                    Stream stream, Monitor& monitor);
    // Returns the tasks of the wave.
    const Task* tasks() const { return tasks_.data(); }

    static std::int64_t bytes(const Partition& partition);

private:
    Sweep<Real> sweep_of(const Staged<Real>& part, const Result<Real>& result) const;

    const Partition& partition_;
    Array<Task> tasks_;
    Array<Real> scratch_;
};

}  // namespace ntkfast::cuda
