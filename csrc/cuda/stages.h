// A StageMaker makes the stages of a segment, with pointers to what a device holds.
#pragma once

#include <vector>

#include "cuda/device_bands.h"
#include "cuda/device_fields.h"
#include "cuda/device_segment.h"
#include "cuda/sweep.h"
#include "plan/fields.h"
#include "plan/plan.h"

namespace ntkfast::cuda {

template <class Real> class StageMaker {
public:
    StageMaker(const Program& program, const Fields<Real>& fields, const DeviceFields<Real>& planes)
        : program_(program), fields_(fields), planes_(planes) {}

    // `sources` are the bands that the segment reads, by target.
    std::vector<Stage<Real>> stages_of(const DeviceSegment& segment, const DeviceStores<Real>& sources) const;

private:
    Stage<Real> make_stage(const DeviceSegment& segment, const StageParts& from,
                           const DeviceStores<Real>& sources) const;
    void make_source(const Value& value, const DeviceStores<Real>& sources, Stage<Real>& stage) const;
    void make_merge(const Plan& plan, const StageParts& from, Stage<Real>& stage) const;
    void make_window(const Plan& plan, const StageParts& from, Stage<Real>& stage) const;
    Map<Real> make_map(const Plan& plan, const Value& value) const;

    const Program& program_;
    const Fields<Real>& fields_;
    const DeviceFields<Real>& planes_;
};

}  // namespace ntkfast::cuda
