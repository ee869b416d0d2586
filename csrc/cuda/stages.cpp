#include "cuda/stages.h"

#include "plan/map_choice.h"

namespace ntkfast::cuda {

template <class Real>
std::vector<Stage<Real>> StageMaker<Real>::stages_of(const DeviceSegment& segment,
                                                     const DeviceStores<Real>& sources) const {
    std::vector<Stage<Real>> out;
    for (const StageParts& parts : segment.stages()) out.push_back(make_stage(segment, parts, sources));
    return out;
}

template <class Real>
Stage<Real> StageMaker<Real>::make_stage(const DeviceSegment& segment, const StageParts& from,
                                         const DeviceStores<Real>& sources) const {
    const Plan& plan = segment.plan();
    const Value& value = plan.values[std::size_t(from.value)];
    Stage<Real> stage{};
    stage.lag = value.lag;
    stage.halo = value.halo;
    stage.last = plan.target.kind == TargetKind::output && &value == &plan.end();
    stage.tangent = value.tangent;
    stage.out = from.out;
    stage.gain = Real(value.gain);
    for (const int b : value.boxes)
        if (const Box& box = plan.boxes[std::size_t(b)]; box.radius() > 0 && !program_.circular())
            stage.halves = planes_.halves(box.node);
    switch (value.kind) {
        case ValueKind::image:
            stage.kind = StageKind::image;
            stage.image = planes_.image(value.node);
            stage.channels = fields_.shape.channels;
            break;
        case ValueKind::noise:
            stage.kind = StageKind::noise;
            stage.different = Real(value.gain * fields_.variance[std::size_t(value.node)][0]);
            break;
        case ValueKind::banded:
        case ValueKind::upsampled: make_source(value, sources, stage); break;
        case ValueKind::map: make_window(plan, from, stage); break;
        case ValueKind::merge: make_merge(plan, from, stage); break;
    }
    return stage;
}

template <class Real>
void StageMaker<Real>::make_source(const Value& value, const DeviceStores<Real>& sources, Stage<Real>& stage) const {
    const Node& node = program_[value.node];
    stage.kind = value.kind == ValueKind::banded ? StageKind::banded : StageKind::upsampled;
    stage.source = sources[std::size_t(value.target)]->view();
    stage.bilinear = node.op == Op::upsample && node.bilinear;
    if (node.op == Op::avg_pool || stage.bilinear) stage.spread = planes_.spread(value.node);
}

template <class Real>
void StageMaker<Real>::make_merge(const Plan& plan, const StageParts& from, Stage<Real>& stage) const {
    const Value& value = plan.values[std::size_t(from.value)];
    stage.kind = StageKind::merge;
    stage.a = from.a;
    stage.b = from.b;
    stage.has_b = value.b >= 0;
    const auto shares = [&](const Share& share, int operand, Real(&out)[2]) {
        const double gain = plan.values[std::size_t(operand)].gain;
        out[0] = Real(share.e * value.gain / gain), out[1] = Real(share.t * value.gain / gain);
    };
    shares(value.share_a, value.a, stage.share_a);
    if (stage.has_b) shares(value.share_b, value.b, stage.share_b);
}

template <class Real>
void StageMaker<Real>::make_window(const Plan& plan, const StageParts& from, Stage<Real>& stage) const {
    const Box& box = plan.boxes[std::size_t(plan.values[std::size_t(from.maps[0])].box)];
    const Value& before = plan.values[std::size_t(box.value)];
    stage.kind = StageKind::map;
    stage.in = from.in;
    stage.tangent_in = before.tangent;
    stage.kernel_size = box.slots;
    stage.ring = from.ring;
    for (const int v : from.maps) stage.map[stage.maps++] = make_map(plan, plan.values[std::size_t(v)]);
    if (before.kind != ValueKind::image) return;
    stage.image = planes_.image(before.node);
    stage.channels = fields_.shape.channels;
}

template <class Real> Map<Real> StageMaker<Real>::make_map(const Plan& plan, const Value& value) const {
    Map<Real> map{};
    map.kind = MapKind::sums;
    map.tangent = value.tangent;
    if (value.sums) return map;
    const MapChoice<Real> choice = choose_map(program_, plan, fields_, value);
    const Node& node = program_[value.node];
    map.kind = is_activation(node.op) ? map_kind(activation_of(node.op))
               : choice.output        ? MapKind::output
                                      : MapKind::linear;
    map.tangent = has_tangent(choice.flow);
    map.redone = choice.redone && sizeof(Real) == 4;
    map.always_redone = choice.always_redone;
    map.constants = choice.constants;
    map.smooth = choice.smooth;
    map.scale = Real(value.gain);
    const int before = plan.boxes[std::size_t(value.box)].node;
    map.box_scale = program_[before].op == Op::conv ? program_.scale(before) : 1;
    map.roots = planes_.roots(value.node);
    return map;
}

template class StageMaker<float>;
template class StageMaker<double>;

}  // namespace ntkfast::cuda
