#include "cpu/columns.h"

#include <algorithm>
#include <utility>

#include "math/activation_table.h"
#include "math/pair_math.h"
#include "plan/units.h"

namespace ntkfast {
namespace {

constexpr std::int64_t strip_budget = std::int64_t(64) << 20;  // the bytes of one object
constexpr std::int64_t block_budget = std::int64_t(2) << 20;   // the bytes of a block, about a second-level cache
constexpr double rounding =
    2e-14;  // E behind a pool or upsampling below this share of what cancels counts as 0: 5e-15 is
            // left of equal features where two such follow each other, an angle of 1e-7
constexpr double good_enough = 1.15;  // longer strips must pay this factor per row

Interval hull(Interval a, Interval b) { return {std::min(a.lo, b.lo), std::max(a.hi, b.hi)}; }

Interval interval(Range range) { return {range.low, range.high + 1}; }

Interval clip(Interval a, int lo, int hi) {
    const Interval out{std::max(a.lo, lo), std::min(a.hi, hi)};
    return out.size() > 0 ? out : Interval{lo, lo};
}

Interval wrap(Interval a, int period) { return a.size() >= period ? Interval{0, period} : a; }

// Calls visit(part) for the parts of an interval, `length` long but for the last.
template <class Visit> void for_parts(Interval whole, int length, Visit visit) {
    for (int lo = whole.lo; lo < whole.hi; lo += length) visit(Interval{lo, std::min(lo + length, whole.hi)});
}

// Adds to[x] += weight * from[stride*x + shift], stride 1 or supported_factor, wrapped or, outside [0, length), with
// `outside` in its place.
void add_shifted(double* __restrict to, int count, const double* __restrict from, int length, int stride, int shift,
                 double weight, bool circular, double outside) {
    const auto add = [&](int x0, int x1, const double* source) {  // source: the input of x = 0
        if (stride == 1)
            for (int x = x0; x < x1; ++x) to[x] += weight * source[x];
        else
            for (int x = x0; x < x1; ++x) to[x] += weight * source[supported_factor * x];
    };
    if (circular) {
        shift = modulo(shift, length);
        const int fold = std::min(count, (length - shift + stride - 1) / stride);  // first x that wraps
        add(0, fold, from + shift);
        add(fold, count, from + shift - length);
        return;
    }
    const int first = std::clamp((-shift + stride - 1) / stride, 0, count);
    const int last = shift >= length ? first : std::clamp((length - shift + stride - 1) / stride, first, count);
    for (int x = 0; x < first; ++x) to[x] += outside;
    add(first, last, from + shift);
    for (int x = last; x < count; ++x) to[x] += outside;
}

void add_row(double* __restrict to, const double* __restrict from, double weight, int count) {
    for (int x = 0; x < count; ++x) to[x] += weight * from[x];
}

// Adds e[x] += sum_c (x_c(i) - x_c(j))^2; channels lie `plane` apart.
template <int Channels>
void add_distances(double* __restrict e, const double* __restrict x_i, const double* __restrict x_j,
                   std::ptrdiff_t plane, int count) {
    double of_i[Channels];
    for (int c = 0; c < Channels; ++c) of_i[c] = x_i[c * plane];
    for (int x = 0; x < count; ++x) {
        double sum = e[x];
        for (int c = 0; c < Channels; ++c) sum += (of_i[c] - x_j[c * plane + x]) * (of_i[c] - x_j[c * plane + x]);
        e[x] = sum;
    }
}

// Applies a pointwise map to one row.
template <class Map>
void map_row(const double* __restrict e, const double* __restrict t, Root<double> i, const double* __restrict p,
             const double* __restrict inverse, const double* __restrict rest, double* __restrict e_out,
             double* __restrict t_out, int count, Map map) {
    for (int x = 0; x < count; ++x) {
        const Pair<double> pair = map(e[x], t[x], i, Root<double>{p[x], inverse[x], rest[x]});
        e_out[x] = pair.e;
        t_out[x] = pair.t;
    }
}

// Does the same without T'.
template <class Map>
void map_row(const double* __restrict e, Root<double> i, const double* __restrict p, const double* __restrict inverse,
             const double* __restrict rest, double* __restrict e_out, int count, Map map) {
    for (int x = 0; x < count; ++x) e_out[x] = map(e[x], 0.0, i, Root<double>{p[x], inverse[x], rest[x]}).e;
}

}  // namespace

// --- Blocks ---------------------------------------------------------------------------------------------------------

ColumnBlocks::ColumnBlocks(const Program& program, const Shape& shape)
    : program_(program), shape_(shape), kept_(std::size_t(program.size()), false), tangent_(kept_) {
    kept_.back() = true;
    for (int n = 0; n < program.size(); ++n) {
        const Node& node = program[n];
        shapes_.push_back(at_level(program, shape, node.level));
        if (node.goes_down()) kept_[std::size_t(n)] = true;
        if (node.op == Op::upsample) kept_[std::size_t(node.input())] = true;
        const auto before = [&](int m) { return tangent(m); };
        tangent_[std::size_t(n)] = program.kernel == Kernel::ntk &&
                                   (node.op == Op::conv || std::any_of(node.inputs.begin(), node.inputs.end(), before));
    }
    for (int k = 0; k < program.size(); ++k) {
        if (!kept(k)) continue;
        std::vector<bool> wanted(std::size_t(k) + 1, false);
        wanted.back() = true;
        Section section{k, {}, {}};
        for (int n = k; n >= 0; --n) {
            if (!wanted[std::size_t(n)]) continue;
            section.nodes.insert(section.nodes.begin(), n);
            for (const int m : program[n].inputs)
                if (!kept(m)) wanted[std::size_t(m)] = true;
        }
        section.released.resize(section.nodes.size());
        for (const int m : section.nodes) {
            std::size_t last = section.nodes.size();
            for (std::size_t at = 0; at < section.nodes.size(); ++at) {
                const std::vector<int>& inputs = program[section.nodes[at]].inputs;
                if (std::find(inputs.begin(), inputs.end(), m) != inputs.end()) last = at;
            }
            if (!kept(m)) section.released[last].push_back(m);
        }
        sections_.push_back(section);
    }
    choose_strip();
}

Interval ColumnBlocks::box_rows(int n, Interval i_y) const {
    const Node& node = program_[n];
    const int size = height(node.input());
    const Interval centres = interval(node.resampling().inputs({i_y.lo, i_y.hi - 1}));
    const Interval all{centres.lo - node.radius(), centres.hi + node.radius()};
    return circular() ? wrap(all, size) : clip(all, 0, size);
}

// Returns the pairs of a node's inputs that its own pairs need, before clipping.
PairWindow ColumnBlocks::needed(int n, const PairWindow& w) const {
    const Node& node = program_[n];
    const Resampling layer = node.resampling();
    const int radius = node.op == Op::conv ? node.radius() : 0;
    const auto side = [&](Interval i) {
        const Interval centres = interval(layer.inputs({i.lo, i.hi - 1}));
        return Interval{centres.lo - radius, centres.hi + radius};
    };
    return {side(w.i_y), side(w.i_x), interval(layer.reads({w.dy.lo, w.dy.hi - 1}))};
}

// Returns the same window without what lies outside the image, or beyond one turn of the torus.
PairWindow ColumnBlocks::clipped(int n, PairWindow w) const {
    const int h = height(n);
    if (circular()) return {wrap(w.i_y, h), wrap(w.i_x, width(n)), wrap(w.dy, h)};
    w.i_y = clip(w.i_y, 0, h);
    w.i_x = clip(w.i_x, 0, width(n));
    w.dy = clip(w.dy, 1 - w.i_y.hi, h - w.i_y.lo);
    return w;
}

void ColumnBlocks::demand(int n, std::vector<PairWindow>& windows, bool stop_at_kept) const {
    const PairWindow& own = windows[std::size_t(n)];
    if (own.empty()) return;
    for (const int m : program_[n].inputs) {
        if (stop_at_kept && kept(m)) continue;
        PairWindow& to = windows[std::size_t(m)];
        PairWindow all = needed(n, own);
        if (!to.empty()) all = {hull(all.i_y, to.i_y), hull(all.i_x, to.i_x), hull(all.dy, to.dy)};
        to = clipped(m, all);
    }
}

std::vector<PairWindow> ColumnBlocks::windows(std::int64_t pixel, int y0, int y1) const {
    const int y = int(pixel / shape_.width), x = int(pixel % shape_.width);
    std::vector<PairWindow> out(std::size_t(program_.size()));
    out.back() = {{y, y + 1}, {x, x + 1}, {y0 - y, y1 - y}};
    for (int n = program_.size() - 1; n > 0; --n) demand(n, out, false);
    return out;
}

std::vector<PairWindow> ColumnBlocks::windows(const Section& section, const PairWindow& block) const {
    std::vector<PairWindow> out(std::size_t(program_.size()));
    out[std::size_t(section.node)] = clipped(section.node, block);
    for (auto n = section.nodes.rbegin(); n != section.nodes.rend(); ++n) demand(*n, out, true);
    return out;
}

std::int64_t ColumnBlocks::field_bytes(int n, const PairWindow& window) const {
    return window.rows() * width(n) * (tangent(n) ? 2 : 1) * std::int64_t(sizeof(double));
}

ColumnBlocks::Cost ColumnBlocks::block_cost(const Section& section, const PairWindow& block) const {
    const std::vector<PairWindow> of_node = windows(section, block);
    Cost cost{0, 0};
    std::int64_t live = 0;
    for (std::size_t at = 0; at < section.nodes.size(); ++at) {
        const int n = section.nodes[at];
        const Node& node = program_[n];
        const PairWindow& window = of_node[std::size_t(n)];
        const double fields = tangent(n) ? 2 : 1, pairs = double(window.rows()) * width(n);
        std::int64_t sums = 0;
        if (node.op == Op::input) cost.work += 0.5 * (shape_.channels + 1) * pairs;
        if (is_merge(node.op)) cost.work += fields * pairs;
        if (is_activation(node.op)) cost.work += 12 * pairs;
        if (node.op == Op::conv) {
            const PairWindow along{box_rows(n, window.i_y), window.i_x, window.dy};
            sums = field_bytes(n, along);
            cost.work += 0.5 * node.kernel_size * fields * (pairs + double(along.rows()) * width(n));
        }
        if (node.op == Op::avg_pool || node.op == Op::upsample) cost.work += 6 * fields * pairs;
        if (!kept(n)) live += field_bytes(n, window);
        cost.bytes = std::max(cost.bytes, live + sums);
        for (const int m : section.released[at]) live -= field_bytes(m, of_node[std::size_t(m)]);
    }
    return cost;
}

// Returns a block of a size, in the middle of the window.
PairWindow ColumnBlocks::typical(const PairWindow& whole, const BlockSize& size) {
    const auto middle = [](Interval a, int length) {
        const int lo = a.lo + (a.size() - length) / 2;
        return Interval{lo, lo + length};
    };
    return {middle(whole.i_y, size.i_y), middle(whole.i_x, size.i_x), middle(whole.dy, size.dy)};
}

// Returns the size of the blocks with the least work among those that fit; the smallest where none does.
ColumnBlocks::BlockSize ColumnBlocks::block_size(const Section& section, const PairWindow& whole) const {
    const auto halvings = [](int n) {
        std::vector<int> sizes{n};
        while (sizes.back() > 1) sizes.push_back((sizes.back() + 1) / 2);
        return sizes;
    };
    BlockSize best{1, 1, 1};
    double least = INFINITY;
    for (const int i_y : halvings(whole.i_y.size()))
        for (const int i_x : halvings(whole.i_x.size()))
            for (const int dy : halvings(whole.dy.size())) {
                const BlockSize size{i_y, i_x, dy};
                const Cost cost = block_cost(section, typical(whole, size));
                const double work = cost.work / size.places();
                if (cost.bytes > block_budget || work >= least) continue;
                least = work;
                best = size;
            }
    return best;
}

ColumnBlocks::Cost ColumnBlocks::strip_cost(int rows) const {
    const int y0 = (shape_.height - rows) / 2;
    const std::int64_t pixel = std::int64_t(shape_.height / 2) * shape_.width + shape_.width / 2;
    const std::vector<PairWindow> whole = windows(pixel, y0, y0 + rows);
    Cost cost{0, 0};
    std::int64_t most = 0;
    for (const Section& section : sections_) {
        const PairWindow& window = whole[std::size_t(section.node)];
        const BlockSize size = block_size(section, window);
        const Cost block = block_cost(section, typical(window, size));
        cost.work += block.work * double(window.rows()) / size.places();
        cost.bytes += field_bytes(section.node, window);
        most = std::max(most, block.bytes);
    }
    cost.bytes += most;
    return cost;
}

void ColumnBlocks::choose_strip() {
    const int h = shape_.height;
    std::vector<std::pair<int, double>> candidates;  // rows, work a row
    std::vector<std::int64_t> bytes;
    for (int rows = std::min(h, std::max(8, program_.multiple()));; rows = std::min(h, 2 * rows)) {
        const Cost cost = strip_cost(rows);
        if (!candidates.empty() && cost.bytes > strip_budget) break;
        candidates.push_back({rows, cost.work / rows});
        bytes.push_back(cost.bytes);
        if (rows == h) break;
    }
    double least = INFINITY;
    for (const auto& [rows, work] : candidates) least = std::min(least, work);
    std::size_t chosen = 0;
    while (candidates[chosen].second > good_enough * least) ++chosen;
    strip_ = candidates[chosen].first;
    bytes_ = bytes[chosen];
}

// --- Rows -----------------------------------------------------------------------------------------------------------

Columns::Columns(const Program& program, const Fields<double>& fields)
    : program_(program), fields_(fields), blocks_(program, fields.shape), pairs_(std::size_t(program.size())),
      column_taps_(std::size_t(program.size())) {
    for (int n = 0; n < program.size(); ++n) {
        if (program[n].op != Op::avg_pool && program[n].op != Op::upsample) continue;
        const int length = blocks_.width(program[n].input());
        std::vector<ColumnTap>& columns = column_taps_[std::size_t(n)];
        for (int x = 0; x < blocks_.width(n); ++x) {
            const Taps taps = program[n].resampling().taps(x, length, blocks_.circular());
            columns.resize(std::size_t(taps.count));
            for (int a = 0; a < taps.count; ++a) {
                columns[std::size_t(a)].index.push_back(modulo(taps.index(a), length));
                columns[std::size_t(a)].weight.push_back(taps.weight(a));
            }
        }
    }
    row_.resize(std::size_t(fields.shape.width));
}

void Columns::rows(std::int64_t pixel, int y0, int y1, double* out, Monitor& monitor, bool leader) {
    const std::vector<PairWindow> whole = blocks_.windows(pixel, y0, y1);
    for (const ColumnBlocks::Section& section : blocks_.sections()) {
        const int k = section.node;
        const PairWindow& window = whole[std::size_t(k)];
        const int period = blocks_.circular() ? blocks_.height(k) : 0;
        allocate(k, window, blocks_.width(k), blocks_.tangent(k), period, period, pairs_[std::size_t(k)]);
        const ColumnBlocks::BlockSize size = blocks_.block_size(section, window);
        for_parts(window.i_y, size.i_y, [&](Interval i_y) {
            for_parts(window.i_x, size.i_x, [&](Interval i_x) {
                for_parts(window.dy, size.dy, [&](Interval dy) {
                    if (monitor.stopped()) return;
                    compute_block(section, {i_y, i_x, dy});
                    if (leader) monitor.ask();
                });
            });
        });
    }

    // The last node gives Theta = T, or S = (S_ii + S_jj)/2 - E.
    const int last = program_.size() - 1, width = fields_.shape.width;
    const Plane& variance = fields_.variance[std::size_t(last)];
    for_places(last, whole.back(), [&](const Place& at) {
        double* row = out + std::int64_t(at.j_y - y0) * width;
        const double* e = pairs_.back().e_row(at.i_y, at.i_x, at.dy);
        const double* t = blocks_.tangent(last) ? pairs_.back().t_row(at.i_y, at.i_x, at.dy) : nullptr;
        for (int x = 0; x < width; ++x) {
            const double covariance = (variance[std::size_t(at.i)] + variance[std::size_t(at.j + x)]) / 2 - e[x];
            row[x] = fields_.result_unit * (t ? t[x] : covariance);
        }
    });
    for (PairField& field : pairs_) release(field);
}

void Columns::compute_block(const ColumnBlocks::Section& section, const PairWindow& block) {
    const std::vector<PairWindow> of_node = blocks_.windows(section, block);
    if (of_node[std::size_t(section.node)].empty()) return;
    for (std::size_t at = 0; at < section.nodes.size(); ++at) {
        const int n = section.nodes[at];
        const PairWindow& window = of_node[std::size_t(n)];
        const int period = blocks_.circular() ? blocks_.height(n) : 0;
        if (n != section.node)
            allocate(n, window, blocks_.width(n), blocks_.tangent(n), period, period, pairs_[std::size_t(n)]);
        compute(n, window);
        for (const int m : section.released[at]) release(pairs_[std::size_t(m)]);
    }
}

std::ptrdiff_t Columns::PairField::at(int i_y, int i_x, int dy) const {
    const auto index = [](int n, Interval range, int period) {
        return std::ptrdiff_t(period > 0 ? modulo(n - range.lo, period) : n - range.lo);
    };
    const std::ptrdiff_t column =
        index(i_y, window.i_y, period_y) * window.i_x.size() + index(i_x, window.i_x, period_x);
    return (column * window.dy.size() + index(dy, window.dy, period_dy)) * width;
}

void Columns::allocate(int n, const PairWindow& window, int width, bool with_tangent, int period_y, int period_dy,
                       PairField& field) {
    field.window = window;
    field.period_y = period_y;
    field.period_x = blocks_.circular() ? blocks_.width(n) : 0;
    field.period_dy = period_dy;
    field.width = width;
    const auto take = [&](std::vector<double>& memory) {
        const std::size_t size = std::size_t(window.rows() * width);
        // Takes the smallest memory that is large enough, else the largest.
        const auto better = [size](const std::vector<double>& a, const std::vector<double>& b) {
            const bool a_fits = a.capacity() >= size, b_fits = b.capacity() >= size;
            return a_fits == b_fits ? (a.capacity() < b.capacity()) == a_fits : a_fits;
        };
        const auto best = std::min_element(spare_.begin(), spare_.end(), better);
        if (best != spare_.end()) {
            memory = std::move(*best);
            spare_.erase(best);
        }
        memory.resize(size);
    };
    take(field.e);
    if (with_tangent) take(field.t);
}

void Columns::release(PairField& field) {
    for (std::vector<double>* memory : {&field.e, &field.t})
        if (memory->capacity() > 0) spare_.push_back(std::exchange(*memory, {}));
}

// Visits all pairs of a region whose J lies inside the image.
template <class Visit> void Columns::for_places(int n, const PairWindow& region, Visit visit) const {
    const int h = blocks_.height(n), w = blocks_.width(n);
    for (int i_y = region.i_y.lo; i_y < region.i_y.hi; ++i_y)
        for (int i_x = region.i_x.lo; i_x < region.i_x.hi; ++i_x)
            for (int dy = region.dy.lo; dy < region.dy.hi; ++dy) {
                const int j_y = blocks_.circular() ? modulo(i_y + dy, h) : i_y + dy;
                if (j_y < 0 || j_y >= h) continue;
                const int pixel_y = modulo(i_y, h), pixel_x = modulo(i_x, w);
                visit(Place{i_y, i_x, dy, pixel_y, pixel_x, j_y, std::ptrdiff_t(pixel_y) * w + pixel_x,
                            std::ptrdiff_t(j_y) * w});
            }
}

void Columns::compute(int n, const PairWindow& region) {
    switch (program_[n].op) {
        case Op::input: enter_input(region); break;
        case Op::conv: convolve(n, region); break;
        case Op::avg_pool:
        case Op::upsample: resample(n, region); break;
        case Op::concat:
        case Op::add: merge(n, region); break;
        default: activate_pairs(n, region);
    }
    set_equal_pixels(n, region);
}

// Sets E(i,i) = 0, and T'(i,i) from the diagonals.
void Columns::set_equal_pixels(int n, const PairWindow& region) {
    PairField& field = pairs_[std::size_t(n)];
    for_places(n, region, [&](const Place& at) {
        if (at.j_y != at.pixel_y) return;
        field.e_row(at.i_y, at.i_x, at.dy)[at.pixel_x] = 0;
        if (blocks_.tangent(n))
            field.t_row(at.i_y, at.i_x, at.dy)[at.pixel_x] = fields_.tangent[std::size_t(n)][std::size_t(at.i)];
    });
}

// Computes E(i,j) = sum_c (x_c(i) - x_c(j))^2;  for noise, where i != j, Q(i,i).
void Columns::enter_input(const PairWindow& region) {
    const int width = blocks_.width(0);
    const std::ptrdiff_t plane = fields_.image.plane_stride();
    for_places(0, region, [&](const Place& at) {
        double* e = pairs_[0].e_row(at.i_y, at.i_x, at.dy);
        std::fill(e, e + width, fields_.noise ? fields_.variance[0][std::size_t(at.i)] : 0.0);
        if (fields_.noise) return;
        const double* x_i = fields_.image.row(at.pixel_y) + at.pixel_x;
        const double* x_j = fields_.image.row(at.j_y);
        int left = fields_.shape.channels;
        for (; left >= 3; left -= 3, x_i += 3 * plane, x_j += 3 * plane) add_distances<3>(e, x_i, x_j, plane, width);
        for (; left > 0; --left, x_i += plane, x_j += plane) add_distances<1>(e, x_i, x_j, plane, width);
    });
}

// --- Convolutions ----------------------------------------------------------------------------------------------------

// A convolution computes
//   E(I, J) = w/k^2 sum_delta E'(s I + delta, s J + delta)
//   T(I, J) = [trainable] S + w/k^2 sum_delta T'(s I + delta, s J + delta),   S = (S_ii + S_jj)/2 - E
// Outside the image (zeros) Q = T' = 0: with one pixel outside E' is Q/2 of the other, with both outside 0.
void Columns::convolve(int n, const PairWindow& region) {
    sum_along_rows(n, region);
    sum_along_columns(n, region);

    PairField& field = pairs_[std::size_t(n)];
    const Plane& variance = fields_.variance[std::size_t(n)];
    const double scale = program_.scale(n), trained = program_.trained(n);
    for_places(n, region, [&](const Place& at) {
        double* __restrict e = field.e_row(at.i_y, at.i_x, at.dy);
        for (int x = 0; x < field.width; ++x) e[x] *= scale;
        if (!blocks_.tangent(n)) return;
        double* __restrict t = field.t_row(at.i_y, at.i_x, at.dy);
        const double variance_i = variance[std::size_t(at.i)];
        const double* __restrict variance_j = &variance[std::size_t(at.j)];
        for (int x = 0; x < field.width; ++x) t[x] = scale * t[x] + trained * ((variance_i + variance_j[x]) / 2 - e[x]);
    });
}

// Computes sums(I', J') = sum_delta_x E'(..., J'_x = s J_x + delta_x) for all rows I'_y of the input inside the image,
// I_x and dy of the output.
void Columns::sum_along_rows(int n, const PairWindow& region) {
    const Node& node = program_[n];
    const int m = node.input(), s = node.stride, r = node.radius();
    const int h = blocks_.height(m), w = blocks_.width(m), count = blocks_.width(n);
    const bool circular = blocks_.circular(), with_tangent = blocks_.tangent(m);
    const PairField& in = pairs_[std::size_t(m)];
    const Plane& variance = fields_.variance[std::size_t(m)];
    const PairWindow along{blocks_.box_rows(n, region.i_y), region.i_x, region.dy};
    allocate(n, along, count, with_tangent, circular ? h : 0, circular ? blocks_.height(n) : 0, sums_);

    for (int i_y = along.i_y.lo; i_y < along.i_y.hi; ++i_y)
        for (int i_x = along.i_x.lo; i_x < along.i_x.hi; ++i_x)
            for (int dy = along.dy.lo; dy < along.dy.hi; ++dy) {
                const int j_y = circular ? modulo(i_y + s * dy, h) : i_y + s * dy;
                if (j_y < 0 || j_y >= h) continue;
                double* e = sums_.e_row(i_y, i_x, dy);
                double* t = with_tangent ? sums_.t_row(i_y, i_x, dy) : nullptr;
                std::fill(e, e + count, 0.0);
                if (t) std::fill(t, t + count, 0.0);
                for (int delta = -r; delta <= r; ++delta) {
                    const int from_x = s * i_x + delta;
                    if (!circular && (from_x < 0 || from_x >= w)) {
                        add_shifted(e, count, &variance[std::size_t(std::ptrdiff_t(j_y) * w)], w, s, delta, 0.5, false,
                                    0);
                        continue;
                    }
                    const double half_i =
                        variance[std::size_t(std::ptrdiff_t(modulo(i_y, h)) * w + modulo(from_x, w))] / 2;
                    add_shifted(e, count, in.e_row(i_y, from_x, s * dy), w, s, delta, 1, circular, half_i);
                    if (t) add_shifted(t, count, in.t_row(i_y, from_x, s * dy), w, s, delta, 1, circular, 0);
                }
            }
}

// Computes sum_delta_y of `sums_`; where I or J leaves the image, the sum along the row of the other's Q/2 takes its
// place.
void Columns::sum_along_columns(int n, const PairWindow& region) {
    const Node& node = program_[n];
    const int m = node.input(), s = node.stride, r = node.radius(), h = blocks_.height(m);
    const bool circular = blocks_.circular(), with_tangent = blocks_.tangent(m);
    PairField& field = pairs_[std::size_t(n)];
    side_range_ = circular
                      ? Interval{0, 0}
                      : clip({s * (region.i_y.lo + region.dy.lo) - r, s * (region.i_y.hi + region.dy.hi) + r}, 0, h);
    side_known_.assign(std::size_t(side_range_.size()), false);

    for_places(n, region, [&](const Place& at) {
        double* e = field.e_row(at.i_y, at.i_x, at.dy);
        double* t = blocks_.tangent(n) ? field.t_row(at.i_y, at.i_x, at.dy) : nullptr;
        std::fill(e, e + field.width, 0.0);
        if (t) std::fill(t, t + field.width, 0.0);
        for (int delta = -r; delta <= r; ++delta) {
            const int i_y = s * at.i_y + delta, j_y = i_y + s * at.dy;
            const bool i_inside = circular || (i_y >= 0 && i_y < h), j_inside = circular || (j_y >= 0 && j_y < h);
            if (i_inside && j_inside) {
                add_row(e, sums_.e_row(i_y, at.i_x, at.dy), 1, field.width);
                if (with_tangent) add_row(t, sums_.t_row(i_y, at.i_x, at.dy), 1, field.width);
            } else if (i_inside) {
                const double constant = side(n, i_y, at.i_x);
                for (int x = 0; x < field.width; ++x) e[x] += constant;
            } else if (j_inside) {
                add_side_row(n, j_y, e);
            }
        }
    });
    release(sums_);
}

// Computes sum_delta_x Q/2 at (y, s x + delta_x), with zeros.
double Columns::side(int n, int y, int x) const {
    const Node& node = program_[n];
    const int width = blocks_.width(node.input());
    const double* row = &fields_.variance[std::size_t(node.input())][std::size_t(std::ptrdiff_t(y) * width)];
    double sum = 0;
    for (int at = node.stride * x - node.radius(); at <= node.stride * x + node.radius(); ++at)
        if (at >= 0 && at < width) sum += row[at] / 2;
    return sum;
}

// Adds to[x] += side(n, j_y, x); each row is made once in a convolution.
void Columns::add_side_row(int n, int j_y, double* to) {
    const int width = blocks_.width(n);
    const std::size_t index = std::size_t(j_y - side_range_.lo);
    side_rows_.resize(std::max(side_rows_.size(), side_known_.size() * std::size_t(width)));
    double* row = &side_rows_[index * std::size_t(width)];
    if (!side_known_[index])
        for (int x = 0; x < width; ++x) row[x] = side(n, j_y, x);
    side_known_[index] = true;
    add_row(to, row, 1, width);
}

// --- Pointwise maps --------------------------------------------------------------------------------------------------

// Computes E' and T' from E and T. [trainable] S is in T already, and no scale of a following convolution is folded in.
void Columns::activate_pairs(int n, const PairWindow& region) {
    const Node& node = program_[n];
    const auto smooth = [&](auto activation) {
        using Activation = decltype(activation);
        const auto constants = Activation::make(smooth_units<double>(program_, n, fields_.unit), 1.0, 0.0);
        if (blocks_.tangent(n))
            map_pairs(n, region, [=](double e, double t, const Root<double>& i, const Root<double>& j) {
                return Activation::template apply<true>(e, t, i, j, constants);
            });
        else
            map_pairs(n, region, [=](double e, double, const Root<double>& i, const Root<double>& j) {
                return Activation::template apply<false>(e, 0, i, j, constants);
            });
    };
    if (node.op != Op::rectifier) return with_smooth<double>(activation_of(node.op), smooth);
    const double largest = fields_.maps.at(n).largest_root;
    const auto constants = ActivationConstants<double>::make(node.slope, program_.gain(n), 0.0, largest, false);
    if (blocks_.tangent(n))
        map_pairs(n, region, [=](double e, double t, const Root<double>& i, const Root<double>& j) {
            return activate<true>(e, t, i, j, constants);
        });
    else
        map_pairs(n, region, [=](double e, double, const Root<double>& i, const Root<double>& j) {
            return activate<false>(e, 0.0, i, j, constants);
        });
}

template <class Map> void Columns::map_pairs(int n, const PairWindow& region, Map map) {
    const MapFields<double>& fields = fields_.maps.at(n);
    const PairField& in = pairs_[std::size_t(program_[n].input())];
    PairField& out = pairs_[std::size_t(n)];
    const int width = out.width;
    for_places(n, region, [&](const Place& at) {
        const Root<const double*> of_i = fields.roots(at.pixel_y), of_j = fields.roots(at.j_y);
        const Root<double> i{of_i.p[at.pixel_x], of_i.inverse[at.pixel_x], of_i.rest[at.pixel_x]};
        const std::ptrdiff_t from = in.at(at.i_y, at.i_x, at.dy), to = out.at(at.i_y, at.i_x, at.dy);
        if (blocks_.tangent(n))
            map_row(&in.e[std::size_t(from)], &in.t[std::size_t(from)], i, of_j.p, of_j.inverse, of_j.rest,
                    &out.e[std::size_t(to)], &out.t[std::size_t(to)], width, map);
        else
            map_row(&in.e[std::size_t(from)], i, of_j.p, of_j.inverse, of_j.rest, &out.e[std::size_t(to)], width, map);
    });
}

// Computes a E_1 + b E_2, and the same for T'.
void Columns::merge(int n, const PairWindow& region) {
    PairField& out = pairs_[std::size_t(n)];
    for_places(n, region, [&](const Place& at) {
        double* e = out.e_row(at.i_y, at.i_x, at.dy);
        double* t = blocks_.tangent(n) ? out.t_row(at.i_y, at.i_x, at.dy) : nullptr;
        std::fill(e, e + out.width, 0.0);
        if (t) std::fill(t, t + out.width, 0.0);
        for (std::size_t side = 0; side < 2; ++side) {
            const int m = program_[n].inputs[side];
            const PairField& in = pairs_[std::size_t(m)];
            add_row(e, in.e_row(at.i_y, at.i_x, at.dy), program_.share(n, side), out.width);
            if (blocks_.tangent(m))
                add_row(t, in.t_row(at.i_y, at.i_x, at.dy), program_.tangent_share(n, side), out.width);
        }
    });
}

// --- Pools and upsampling --------------------------------------------------------------------------------------------

// A layer that changes the resolution computes
//   E'(p, r) = sum_ab A_pa A_rb E(a, b) - v(p) - v(r),   v(p) = 1/2 sum_aa' A_pa A_pa' E(a, a'),   T' = A T A^T
// A is a product of one matrix for the rows and one for the columns.  The rows of E and T' are summed first.
void Columns::resample(int n, const PairWindow& region) {
    const Node& node = program_[n];
    const int m = node.input(), h = blocks_.height(m), w = blocks_.width(m);
    const bool circular = blocks_.circular();
    const PairField& in = pairs_[std::size_t(m)];
    PairField& out = pairs_[std::size_t(n)];
    const Resampling layer = node.resampling();
    const std::vector<ColumnTap>& columns = column_taps_[std::size_t(n)];
    const auto spread = fields_.spread.find(n);

    for_places(n, region, [&](const Place& at) {
        const Taps i_y = layer.taps(at.i_y, h, circular), i_x = layer.taps(at.i_x, w, circular);
        const Taps j_y = layer.taps(at.i_y + at.dy, h, circular);
        for (const bool tangent : {false, true}) {
            if (tangent && !blocks_.tangent(n)) break;
            std::fill(row_.begin(), row_.end(), 0.0);
            for (int a = 0; a < i_y.count; ++a)
                for (int b = 0; b < i_x.count; ++b)
                    for (int c = 0; c < j_y.count; ++c) {
                        const std::ptrdiff_t from = in.at(i_y.index(a), i_x.index(b), j_y.index(c) - i_y.index(a));
                        const double weight = i_y.weight(a) * i_x.weight(b) * j_y.weight(c);
                        add_row(row_.data(), (tangent ? in.t : in.e).data() + from, weight, w);
                    }
            double* to = (tangent ? out.t : out.e).data() + out.at(at.i_y, at.i_x, at.dy);
            std::fill(to, to + out.width, 0.0);
            for (const ColumnTap& tap : columns) {
                const int* __restrict index = tap.index.data();
                const double* __restrict weight = tap.weight.data();
                for (int x = 0; x < out.width; ++x) to[x] += weight[x] * row_[std::size_t(index[x])];
            }
        }
        if (spread == fields_.spread.end()) return;
        double* e = out.e_row(at.i_y, at.i_x, at.dy);
        const double v_i = spread->second.row(at.pixel_y)[at.pixel_x];
        const double* v_j = spread->second.row(at.j_y);
        for (int x = 0; x < out.width; ++x) {
            const double left = e[x] - v_i - v_j[x];
            e[x] = left > rounding * e[x] ? left : 0;
        }
    });
}

}  // namespace ntkfast
