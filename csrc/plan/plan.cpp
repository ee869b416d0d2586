#include "plan/plan.h"

#include <algorithm>

#include "plan/lanes.h"

namespace ntkfast {
namespace {

int ring_rows(int kernel_size) { return kernel_size > max_direct_rows ? kernel_size + 1 : kernel_size; }

}  // namespace

Plan::Plan(const Program& program, const std::vector<Target>& targets, int index, const Shape& image_shape, bool noise)
    : target(targets[std::size_t(index)]), shape(at_level(program, image_shape, target.sweep_level())),
      program_(&program), targets_(&targets), noise_(noise), value_of_(std::size_t(program.size()), -1),
      box_of_(std::size_t(program.size()), -1) {
    const int input = program[target.node].inputs[0];
    if (target.kind == TargetKind::output || target.kind == TargetKind::strided) {
        Value sums(ValueKind::map, target.node);
        sums.box = box_of(target.node);
        sums.sums = target.kind == TargetKind::strided;
        sums.tangent = program.has_tangent(sums.sums ? input : target.node);
        add(sums);
    } else {
        const int value = operand(target.kind == TargetKind::pooled ? input : target.node);
        const bool shared = !values[std::size_t(value)].boxes.empty() || value + 1 < int(values.size());
        if (shared) copy(value);
    }
    values.back().merged = true;
    choose_halos();
    count_steps();
    choose_angles();
    lay_out();
}

// Says whether a node is a source of the segment whose rows are there as a convolution takes them in, and in any order.
bool Plan::is_pulled(int node) const {
    const Node& n = (*program_)[node];
    return n.op == Op::input || n.op == Op::avg_pool || n.op == Op::upsample;
}

// Says whether a node is a convolution with a stride whose sums come from a band.
bool Plan::is_banded(int node) const {
    const bool makes_it = target.kind == TargetKind::strided && target.node == node;
    return (*program_)[node].is_strided() && !makes_it;
}

int Plan::add(Value value) {
    if (value.kind == ValueKind::map) {
        const Box& box = boxes[std::size_t(value.box)];
        value.lag = values[std::size_t(box.value)].lag + box.radius();
    }
    for (const int n : {value.a, value.b})
        if (n >= 0) value.lag = std::max(value.lag, values[std::size_t(n)].lag);
    for (const int n : {value.a, value.b}) {
        if (n < 0) continue;
        Value& taken = values[std::size_t(n)];
        taken.merged = true;
        taken.depth = std::max(taken.depth, value.lag - taken.lag + 1);
    }
    values.push_back(value);
    return int(values.size()) - 1;
}

// Makes the value of a source anew for each that takes it in, at the lag that suits it.
int Plan::pulled(int node, int lag) {
    const Node& source = (*program_)[node];
    Value value(noise_ ? ValueKind::noise : ValueKind::image, node);
    value.lag = lag;
    value.tangent = program_->has_tangent(node);
    if (!program_->is_image(node)) {
        const bool up = source.op == Op::upsample;
        value.kind = up ? ValueKind::upsampled : ValueKind::banded;
        for (const Source& s : sources_of(*program_, *targets_, target))
            if (s.node == node) value.target = s.target;
        // These are the sums of a strided convolution: S is not yet added to T.
        if (source.op == Op::conv) value.tangent = program_->has_tangent(source.input());
    }
    return add(value);
}

// Returns what a convolution, a merge or the segment's end takes in.
int Plan::operand(int node) { return is_pulled(node) ? pulled(node, 0) : value_of(node); }

// Returns the window of a convolution; it is one row for a convolution whose sums are in a band, and for an activation
// whose input is not a convolution.
int Plan::box_of(int node) {
    if (box_of_[std::size_t(node)] >= 0) return box_of_[std::size_t(node)];
    const Node& n = (*program_)[node];
    const bool banded = is_banded(node), summed = n.op == Op::conv && !banded;
    Box box{};
    box.node = node;
    box.slots = summed ? n.kernel_size : 1;
    box.rows = ring_rows(box.slots);
    box.value = banded ? pulled(node, 0) : operand(n.input());
    // A value holds its field times the factor of its first box, so that sums need none; a box with another takes a
    // copy.
    const double scale = summed ? program_->scale(node) : 1.0;
    if (!values[std::size_t(box.value)].boxes.empty() && values[std::size_t(box.value)].gain != scale)
        box.value = copy(box.value);
    Value& value = values[std::size_t(box.value)];
    value.gain = scale;
    value.boxes.push_back(int(boxes.size()));
    boxes.push_back(box);
    return box_of_[std::size_t(node)] = int(boxes.size()) - 1;
}

int Plan::value_of(int node) {
    if (value_of_[std::size_t(node)] >= 0) return value_of_[std::size_t(node)];
    const Node& n = (*program_)[node];
    int made;
    if (is_merge(n.op)) {
        made = merge(node);
    } else {
        Value value(ValueKind::map, node);
        value.tangent = program_->has_tangent(node);
        value.box = box_of(is_activation(n.op) && (*program_)[n.input()].op == Op::conv ? n.input() : node);
        made = add(value);
    }
    return value_of_[std::size_t(node)] = made;
}

int Plan::merge(int node) {
    const Node& n = (*program_)[node];
    Value value(ValueKind::merge, node);
    value.tangent = program_->has_tangent(node);
    int* ends[] = {&value.a, &value.b};
    int lag = 0;
    for (std::size_t m = 0; m < 2; ++m) {
        if (is_pulled(n.inputs[m])) continue;
        *ends[m] = value_of(n.inputs[m]);
        lag = std::max(lag, values[std::size_t(*ends[m])].lag);
    }
    for (std::size_t m = 0; m < 2; ++m)
        if (is_pulled(n.inputs[m])) *ends[m] = pulled(n.inputs[m], lag);
    value.share_a = {program_->share(node, 0), program_->tangent_share(node, 0)};
    value.share_b = {program_->share(node, 1), program_->tangent_share(node, 1)};
    return add(value);
}

int Plan::copy(int value) {
    Value made(ValueKind::merge, values[std::size_t(value)].node);
    made.tangent = values[std::size_t(value)].tangent;
    made.a = value;
    return add(made);
}

void Plan::choose_halos() {
    for (std::size_t v = values.size(); v-- > 0;) {
        const Value& value = values[v];
        if (value.kind == ValueKind::map) {
            Box& box = boxes[std::size_t(value.box)];
            box.halo = std::max(box.halo, value.halo);
            int& needed = values[std::size_t(box.value)].halo;
            needed = std::max(needed, box.halo + box.radius());
        }
        for (const int n : {value.a, value.b})
            if (n >= 0) values[std::size_t(n)].halo = std::max(values[std::size_t(n)].halo, value.halo);
    }
}

// With zeros a box sees k//2 rows outside, and a value makes the rows of the block; on the torus it makes as many more
// as are read.
void Plan::count_steps() {
    const bool circular = program_->circular();
    for (Box& box : boxes) box.first_row = -(circular ? box.halo + box.radius() : box.radius());
    for (const Value& value : values) {
        int low = circular ? -value.halo : 0;
        for (const int b : value.boxes) low = std::min(low, boxes[std::size_t(b)].first_row);
        first_step = std::min(first_step, low + value.lag);
        steps_beyond = std::max(steps_beyond, value.lag - low);
    }
}

// A 1x1 convolution without bias between two rectifiers keeps the angles.
void Plan::choose_angles() {
    for (std::size_t b = 0; b < boxes.size(); ++b) {
        Box& box = boxes[b];
        const Node& node = (*program_)[box.node];
        const Value& value = values[std::size_t(box.value)];
        box.angles = node.op == Op::conv && node.stride == 1 && node.kernel_size == 1 && node.bias_var == 0 &&
                     value.kind == ValueKind::map && (*program_)[value.node].op == Op::rectifier &&
                     value.boxes.size() == 1 && !value.merged;
        for (const Value& map : values)
            if (map.kind == ValueKind::map && map.box == int(b))
                box.angles = box.angles && (*program_)[map.node].op == Op::rectifier;
    }
}

void Plan::lay_out() {
    // Upsampling writes whole cells: up to factor - 1 columns more on either side.
    const std::ptrdiff_t beside = std::max(supported_factor - 1, program_->max_radius());
    const std::ptrdiff_t halo = beside * shape.batch;
    left = round_up(halo);
    row_stride = left + round_up(std::ptrdiff_t(shape.width) * shape.batch + 2 * halo) + 2 * chunk;
    std::ptrdiff_t end = 0;
    const auto take = [&](int rows) {
        const std::ptrdiff_t start = end;
        end += rows * row_stride;
        return start;
    };
    for (Box& box : boxes) box.base = take(2 * box.rows);
    const std::ptrdiff_t raw = take(2);
    for (Value& value : values) {
        const bool passing = value.boxes.size() == 1 && !value.merged;  // read by its box at once, then not again
        const Box* box = passing ? &boxes[std::size_t(value.boxes[0])] : nullptr;
        value.base = !passing ? take(2 * value.depth) : box->slots == 1 ? box->base : raw;
    }
    lane_stride = end;
}

}  // namespace ntkfast
