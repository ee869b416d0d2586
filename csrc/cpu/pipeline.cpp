#include "cpu/pipeline.h"

#include <algorithm>

#include "plan/map_choice.h"

namespace ntkfast {
namespace {

constexpr int E = 0, T = 1;

}  // namespace

template <class Real>
Pipeline<Real>::Pipeline(const Program& program, const Plan& plan, const Fields<Real>& fields,
                         const Stores<Real>& stores, const RowKernels<Real>& kernels, int lanes)
    : program_(program), plan_(plan), fields_(fields), stores_(stores), kernels_(kernels), maps_(plan.values.size()),
      upsampled_(plan.values.size()), exact_rows_(program, plan, fields, kernels, lanes) {
    for (std::size_t v = 0; v < plan.values.size(); ++v) {
        const Value& value = plan.values[v];
        if (value.kind == ValueKind::map) maps_[v] = make_map(value);
        if (value.kind != ValueKind::upsampled) continue;
        const Node& node = program[value.node];
        upsampled_[v] = std::make_unique<UpsampledRows<Real>>(plan.shape, program.circular(), node.resampling(),
                                                              node.bilinear ? &fields.spread.at(value.node) : nullptr,
                                                              value.gain, kernels, lanes);
    }
    join_last();
    // The buffers begin as zeros, so that chunks that run past a row's end compute on numbers, never on what memory
    // happened to hold.
    buffers_.assign(std::size_t(lanes * plan.lane_stride), Real(0));
    scratch_.assign(std::size_t(2 * plan.row_stride), Real(0));
}

template <class Real> std::int64_t Pipeline<Real>::bytes(const Program& program, const Plan& plan, int lanes) {
    std::int64_t sum = (lanes * plan.lane_stride + 2 * plan.row_stride) * std::int64_t(sizeof(Real)) +
                       ExactRows<Real>::bytes(program, plan, lanes);
    for (const Value& value : plan.values)
        if (value.kind == ValueKind::upsampled)
            sum += UpsampledRows<Real>::bytes(plan.shape, program[value.node].factor, lanes);
    return sum;
}

template <class Real> typename Pipeline<Real>::Map Pipeline<Real>::make_map(const Value& value) const {
    Map map{};
    if (value.sums) return map;
    const MapChoice<Real> choice = choose_map(program_, plan_, fields_, value);
    map.fields = &fields_.maps.at(value.node);
    map.flow = choice.flow;
    const Box& box = plan_.boxes[std::size_t(value.box)];
    const bool rectifier = program_[value.node].op == Op::rectifier;
    // Rows that hold N in place of E (Form::angle) have no doubtful pairs.
    map.redone = choice.redone ||
                 (rectifier && sizeof(Real) == 4 && !box.angles && ExactRows<Real>::serves(program_, plan_, box));
    map.always_redone = choice.always_redone;
    map.args.constants = choice.constants;
    map.args.smooth = choice.smooth;
    map.args.scale = Real(value.gain);
    const Node& node = program_[value.node];
    map.table = is_activation(node.op) ? &kernels_.activation[int(activation_of(node.op))]
                : choice.output        ? &kernels_.output
                                       : &kernels_.linear;
    return map;
}

// A rectifier whose only reader is the last convolution, 1x1, does that one as well: its rows need not be written and
// read, which saves two stores and two loads a pair.
template <class Real> void Pipeline<Real>::join_last() {
    const Value& end = plan_.end();
    if (end.kind != ValueKind::map || end.sums || plan_.target.kind != TargetKind::output) return;
    const Box& box = plan_.boxes[std::size_t(end.box)];
    const Value& before = plan_.values[std::size_t(box.value)];
    if (box.slots != 1 || before.kind != ValueKind::map || before.sums || before.boxes.size() != 1 || before.merged ||
        program_[before.node].op != Op::rectifier || is_activation(program_[end.node].op))
        return;
    Map &first = maps_[std::size_t(box.value)], &last = maps_.back();
    first.table = &kernels_.rectifier_output;
    first.last = int(plan_.values.size()) - 1;
    first.args.last_trained = has_tangent(last.flow) ? last.args.constants.trained : Real(1);
    last.done = true;
}

template <class Real>
void Pipeline<Real>::run(const Block& block, RowSink<Real>& sink, Monitor& monitor, bool leader) {
    block_ = &block;
    lanes_ = block.row_lanes(plan_.shape, program_.circular(), plan_.lane_stride);
    exact_rows_.begin(block, lanes_);
    const int end = block.rows + plan_.steps_beyond;
    const std::int64_t pairs_per_row = block.pairs_per_row() * plan_.shape.batch;
    std::int64_t unreported = 0;
    const Real *e[max_lanes], *t[max_lanes];
    for (int n = plan_.first_step; n < end && !monitor.stopped(); ++n) {
        for (std::size_t v = 0; v < plan_.values.size(); ++v) step(v, n - plan_.values[v].lag);
        const int y = n - plan_.end().lag;
        if (y < 0 || y >= block.rows) continue;
        const Rows rows = rows_of(plan_.end(), y);
        for (int b = 0; b < block.lanes; ++b)
            e[b] = rows.e + b * plan_.lane_stride, t[b] = rows.t + b * plan_.lane_stride;
        sink.row(block, block.row0 + y, e, t);
        unreported += pairs_per_row;
        if (unreported >= Monitor::stride) {
            monitor.advance(unreported, leader);
            unreported = 0;
        }
    }
    monitor.advance(unreported, leader);
}

// Makes row y of one value, and enters it into the boxes that take it in.  With zeros a box sees the image's rows and
// k//2 rows outside at either end, which are known in closed form; on the torus it sees as many rows beyond the image
// as the later ones need.
template <class Real> void Pipeline<Real>::step(std::size_t v, int y) {
    const Value& value = plan_.values[v];
    const int rows = block_->rows;
    const bool inside = program_.circular() ? y >= -value.halo && y < rows + value.halo : y >= 0 && y < rows;
    const Rows to = rows_of(value, y);
    if (inside) compute(v, y, to);
    for (const int b : value.boxes) {
        const Box& box = plan_.boxes[std::size_t(b)];
        if (y < box.first_row || y >= rows - box.first_row) continue;
        if (box.slots == 1) continue;  // a window of one row: the ring is the row itself
        push(box, value.tangent, y, inside ? &to : nullptr);
    }
}

template <class Real> void Pipeline<Real>::compute(std::size_t v, int y, Rows out) {
    const Value& value = plan_.values[v];
    switch (value.kind) {
        case ValueKind::image:
        case ValueKind::noise: return image_row(value, y, out.e);
        case ValueKind::banded: return banded_row(value, y, out);
        case ValueKind::upsampled:
            return upsampled_[v]->row(*block_, *stores_[std::size_t(value.target)],
                                      program_.circular() ? modulo(y, block_->rows) : y + block_->row0, out.e, out.t,
                                      value.tangent, plan_.lane_stride);
        case ValueKind::map: return maps_[v].done ? void() : map(value, maps_[v], y, out);
        case ValueKind::merge: break;
    }
    const Value& a = plan_.values[std::size_t(value.a)];
    const Value* b = value.b < 0 ? nullptr : &plan_.values[std::size_t(value.b)];
    const auto factor = [&](double share, const Value* from) {
        return from == nullptr ? Real(0) : Real(share * value.gain / from->gain);
    };
    const Rows from_a = rows_of(a, y), from_b = b ? rows_of(*b, y) : Rows{nullptr, nullptr};
    kernels_.combine(lanes_, out.e, from_a.e, factor(value.share_a.e, &a), from_b.e, factor(value.share_b.e, b));
    const Real t_a = factor(value.share_a.t, &a), t_b = factor(value.share_b.t, b);
    if (a.tangent)
        kernels_.combine(lanes_, out.t, from_a.t, t_a, b && b->tangent ? from_b.t : nullptr, t_b);
    else if (value.tangent)
        kernels_.combine(lanes_, out.t, from_b.t, t_b, nullptr, 0);
}

// Enters the horizontal sums of a row into the ring; without `raw` those of a row outside the image.
template <class Real> void Pipeline<Real>::push(const Box& box, bool tangent, int y, const Rows* raw) {
    const int slot = (y - box.first_row) % box.slots, i = y + block_->row0;
    Real *e = ring_row(box, E, slot), *t = ring_row(box, T, slot);
    if (raw == nullptr) {
        const PaddedRows<Real>& sums = fields_.half_sums.at(box.node);
        kernels_.outside_row(lanes_, e, tangent ? t : nullptr, sums.row(i), sums.row(i + block_->dy));
    } else {
        complete(box, y, raw->e, tangent ? raw->t : nullptr);
        kernels_.box_row(lanes_, e, raw->e, box.slots, plan_.shape.batch, scratch_.data());
        if (tangent) kernels_.box_row(lanes_, t, raw->t, box.slots, plan_.shape.batch, scratch_.data());
    }
    if (!box.blockwise()) return;
    gather(box, E, slot);
    if (tangent) gather(box, T, slot);
}

// Large kernels keep two-ended sums: when the k rows of a block of rows are complete they are replaced by their suffix
// sums, and `prefix` gathers the rows since; any window of k rows is one suffix plus the prefix, each a fresh sum of at
// most k rows: no difference is ever taken, so nothing drifts.
template <class Real> void Pipeline<Real>::gather(const Box& box, int field, int slot) {
    Real* row = ring_row(box, field, slot);
    Real* prefix = ring_row(box, field, box.slots);
    if (slot == box.slots - 1) {
        for (int n = slot - 1; n >= 0; --n)
            kernels_.add(lanes_, ring_row(box, field, n), ring_row(box, field, n), ring_row(box, field, n + 1));
    } else if (slot == 0) {
        for (int b = 0; b < lanes_.count; ++b)
            std::copy_n(row + b * lanes_.stride, round_up(lanes_.length[b]), prefix + b * lanes_.stride);
    } else {
        kernels_.add(lanes_, prefix, prefix, row);
    }
}

// Computes E = gain sum_c (x_c(i) - x_c(j))^2; for noise E is 1 for different pixels.
template <class Real> void Pipeline<Real>::image_row(const Value& value, int y, Real* e) {
    if (value.kind == ValueKind::image) {
        const PaddedRows<Real>& image = fields_.image_of(value.node);
        const int row = y + block_->row0;
        return kernels_.input(lanes_, e, image.row(row), image.row(row + block_->dy), image.plane_stride(),
                              fields_.shape.channels, Real(value.gain));
    }
    const Real different = Real(value.gain * fields_.variance[std::size_t(value.node)][0]);
    for (int b = 0; b < lanes_.count; ++b, e += lanes_.stride) {
        const bool same =
            modulo(block_->dy, plan_.shape.height) == 0 && modulo(block_->lane[b].dx, plan_.shape.width) == 0;
        std::fill_n(e, lanes_.length[b], same ? Real(0) : different);
    }
}

template <class Real> void Pipeline<Real>::banded_row(const Value& value, int y, Rows out) {
    const Band<Real>& band = stores_[std::size_t(value.target)]->at(block_->dy);
    const int row = program_.circular() ? modulo(y, block_->rows) : y + block_->row0;
    const bool pooled = program_[value.node].op == Op::avg_pool;
    for (int b = 0; b < lanes_.count; ++b, out.e += lanes_.stride, out.t += lanes_.stride) {
        const Displacement& lane = block_->lane[b];
        const std::ptrdiff_t n = lanes_.length[b];
        const Real *v_i = nullptr, *v_j = nullptr;
        if (pooled) {
            const PaddedRows<Real>& spread = fields_.spread.at(value.node);
            v_i = spread.row(row) + lanes_.at_i[b];
            v_j = spread.row(row + block_->dy) + lanes_.at_j[b];
        }
        kernels_.finish(out.e, band.e(row, lane.dx), v_i, v_j, Real(value.gain), n);
        if (value.tangent) kernels_.finish(out.t, band.t(row, lane.dx), nullptr, nullptr, Real(value.gain), n);
    }
}

// Fills the columns of a row that its box sees beyond the lanes.
template <class Real> void Pipeline<Real>::complete(const Box& box, int y, Real* e, Real* t) {
    if (!program_.circular()) {
        const PaddedRows<Real>& half = fields_.halves.at(box.node);
        const int i = y + block_->row0;
        return kernels_.outside(lanes_, e, t, half.row(i), half.row(i + block_->dy), halo(box));
    }
    for (int b = 0; b < lanes_.count; ++b) {
        wrap_columns(e + b * lanes_.stride, lanes_.length[b], halo(box));
        if (t != nullptr) wrap_columns(t + b * lanes_.stride, lanes_.length[b], halo(box));
    }
}

// Applies a pointwise map at row y, to the rows of its box.
template <class Real> void Pipeline<Real>::map(const Value& value, const Map& map, int y, Rows out) {
    const Box& box = plan_.boxes[std::size_t(value.box)];
    const Value& before = plan_.values[std::size_t(box.value)];
    MapArgs<Real> args = map.args;
    args.e_out = out.e;
    args.t_out = out.t;

    // The newest row of the window y - k//2 .. y + k//2 lies in `slot`; the oldest follows it.
    const int slot = (y + box.radius() - box.first_row) % box.slots;
    const int oldest = slot + 1 < box.slots ? slot + 1 : 0;
    int rows = box.slots;
    if (box.slots == 1) {
        const Rows row = rows_of(before, y);
        args.e[0] = row.e;
        args.t[0] = row.t;
    } else if (box.blockwise()) {
        rows = oldest == 0 ? 1 : 2;  // a complete block, or a suffix and the prefix
        args.e[0] = ring_row(box, E, oldest);
        args.t[0] = ring_row(box, T, oldest);
        args.e[1] = ring_row(box, E, box.slots);
        args.t[1] = ring_row(box, T, box.slots);
    } else {
        for (int n = 0, from = oldest; n < rows; ++n) {
            args.e[n] = ring_row(box, E, from);
            args.t[n] = ring_row(box, T, from);
            from = from + 1 < rows ? from + 1 : 0;
        }
    }
    if (value.sums) {
        static constexpr Real ones[max_direct_rows] = {1, 1, 1, 1, 1};
        const auto sum = [&](Real* to, const Real* const* from) {
            const Real* lane[max_direct_rows];
            for (int b = 0; b < lanes_.count; ++b) {
                for (int n = 0; n < rows; ++n) lane[n] = from[n] + b * lanes_.stride;
                kernels_.weighted(to + b * lanes_.stride, lane, ones, rows, lanes_.length[b]);
            }
        };
        sum(out.e, args.e);
        if (value.tangent) sum(out.t, args.t);
        return;
    }
    const int i = y + block_->row0;
    args.i = map.fields->roots(i);
    args.j = map.fields->roots(i + block_->dy);
    if (map.last >= 0) {
        const MapFields<Real>& last = *maps_[std::size_t(map.last)].fields;
        args.last_i = last.roots(i).p;
        args.last_j = last.roots(i + block_->dy).p;
        args.t_out = rows_of(plan_.end(), y).t;
    }
    const std::uint32_t doubts = (*map.table)[row_count_index(rows)][int(map.flow)](lanes_, args);
    const std::uint32_t chosen = map.always_redone ? ~std::uint32_t(0) : doubts;
    if (map.redone && chosen != 0) redo(value, map, args, rows, chosen, y);
}

// Computes row y of a rectifier again for some lanes, with E in double: where patches of different brightness are
// nearly parallel, or nearly opposite, the rounding of E would show.  That is rare in natural images, so that it need
// not be fast: an image of two flat halves, where all pairs are doubtful, takes several times as long.
template <class Real>
void Pipeline<Real>::redo(const Value& value, const Map& map, const MapArgs<Real>& args, int rows, std::uint32_t lanes,
                          int y) {
    const Box& box = plan_.boxes[std::size_t(value.box)];
    const auto& exact = map.last < 0 ? kernels_.activation_exact[int(activation_of(program_[value.node].op))]
                                     : kernels_.rectifier_output_exact;
    for (int b = 0; b < block_->lanes; ++b) {
        if ((lanes >> b & 1) == 0) continue;
        exact[program_.kernel == Kernel::ntk](lanes_, b, args, rows, map.flow == Flow::tangent,
                                              exact_rows_.column_sums(box, b, y), box.slots, plan_.shape.batch,
                                              program_.scale(box.node));
    }
}

template class Pipeline<float>;
template class Pipeline<double>;

}  // namespace ntkfast
