#include "plan/program.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace ntkfast {
namespace {

struct Name {
    const char* name;
    Op op;
    int inputs;
};
#define NTKFAST_NAME(name, Activation) {#name, Op::name, 1},
constexpr Name names[] = {
    // The rows stand in the order of Op.
    {"input", Op::input, 0},
    {"conv", Op::conv, 1},
    NTKFAST_ACTIVATIONS(NTKFAST_NAME, NTKFAST_NAME)  // one input each
    {"avg_pool", Op::avg_pool, 1},
    {"upsample", Op::upsample, 1},
    {"concat", Op::concat, 2},
    {"add", Op::add, 2},
};
#undef NTKFAST_NAME

const Name& entry(Op op) { return names[int(op)]; }

bool positive(double x) { return x > 0 && std::isfinite(x); }

void check_node(const Node& node, const std::string& where) {
    const auto refuse = [&](const std::string& what) { throw std::invalid_argument(where + what); };
    if (node.op == Op::conv) {
        if (node.kernel_size < 1 || node.kernel_size % 2 == 0)
            refuse("kernel_size must be odd, got " + std::to_string(node.kernel_size));
        if (node.stride < 1) refuse("stride must be at least 1, got " + std::to_string(node.stride));
        if (!positive(node.weight_var)) refuse("weight_var must be positive and finite");
        if (!(node.bias_var >= 0) || !std::isfinite(node.bias_var)) refuse("bias_var must be >= 0 and finite");
    }
    // This is the one place that refuses other factors, for the loops that are made for supported_factor: the row
    // kernels `pool` (two neighbours), `upsample` (two phases with the same weights) and what calls them, UpsampledRows
    // (two taps a side) and the bands' sinks; in columns.cpp the rows of strided convolutions; on a card the stages
    // `upsampled`, into_bands, into_pool.
    if (node.changes_level() && node.resampling().factor != supported_factor)
        refuse("the resolution can change by a factor of " + std::to_string(supported_factor) + " only, got " +
               std::to_string(node.resampling().factor));
    if (!std::isfinite(node.slope)) refuse("slope must be finite");
    if (is_merge(node.op) && !(positive(node.shares[0]) && positive(node.shares[1])))
        refuse("shares must be positive and finite");
}

}  // namespace

Op op_from_name(const std::string& name) {
    for (const Name& candidate : names)
        if (name == candidate.name) return candidate.op;
    throw std::invalid_argument("program: no operation is called '" + name + "'");
}

void Program::check() const {
    if (nodes.empty() || nodes[0].op != Op::input) throw std::invalid_argument("program: node 0 must be the input");
    for (int n = 0; n < size(); ++n) {
        const Node& node = (*this)[n];
        const std::string where = "program: node " + std::to_string(n) + ": ";
        if (int(node.inputs.size()) != entry(node.op).inputs || (n > 0 && node.op == Op::input))
            throw std::invalid_argument(where + "wrong number of inputs");
        for (const int m : node.inputs) {
            if (m < 0 || m >= n) throw std::invalid_argument(where + "inputs must be earlier nodes");
            const int level = (*this)[m].level + (node.goes_down() ? 1 : node.op == Op::upsample ? -1 : 0);
            if (node.level != level || level < 0) throw std::invalid_argument(where + "wrong level");
        }
        check_node(node, where);
    }
    const Node& last = nodes.back();
    if (nodes[0].level != 0 || last.op != Op::conv || last.stride != 1 || last.level != 0)
        throw std::invalid_argument("program: the last node must be a convolution of stride 1 at level 0");
}

int Program::levels() const {
    int deepest = 0;
    for (const Node& node : nodes) deepest = std::max(deepest, node.level);
    return deepest;
}

int Program::downsampling(int level) const {
    int product = 1, reached = 0;
    for (const Node& node : nodes) {
        if (reached == level) break;
        if (node.level <= reached) continue;
        product *= node.resampling().factor;  // the first node of a level comes down to it
        ++reached;
    }
    return product;
}

int Program::max_radius() const {
    int most = 0;
    for (const Node& node : nodes) most = std::max(most, node.radius());
    return most;
}

bool Program::has_tangent(int n) const {
    if (kernel == Kernel::nngp) return false;
    const Node& node = (*this)[n];
    if (node.op == Op::conv) return true;
    return std::any_of(node.inputs.begin(), node.inputs.end(), [&](int m) { return has_tangent(m); });
}

double Program::gain(int n, std::size_t m) const {
    const Node& node = (*this)[n];
    return std::ldexp(1.0, (*this)[node.inputs[m]].exponent - node.exponent);
}

double Program::tangent_gain(int n, std::size_t m) const {
    const Node& node = (*this)[n];
    return std::ldexp(1.0, (*this)[node.inputs[m]].tangent_exponent - node.tangent_exponent);
}

double Program::scale(int n) const {
    const Node& node = (*this)[n];
    const double own = std::ldexp(node.weight_var, (*this)[node.input()].exponent - node.exponent);
    return own / (double(node.kernel_size) * node.kernel_size);
}

double Program::trained(int n) const {
    const Node& node = (*this)[n];
    return node.trainable ? std::ldexp(1.0, node.exponent - node.tangent_exponent) : 0.0;
}

bool Program::is_bare(int n) const {
    const bool read_otherwise = std::any_of(nodes.begin(), nodes.end(), [n](const Node& node) {
        return !is_activation(node.op) && std::count(node.inputs.begin(), node.inputs.end(), n) > 0;
    });
    return (*this)[n].op == Op::conv && (read_otherwise || n + 1 == size());
}

int find_target(const std::vector<Target>& targets, TargetKind kind, int node) {
    for (std::size_t t = 0; t < targets.size(); ++t)
        if (targets[t].kind == kind && targets[t].node == node) return int(t);
    return -1;
}

std::vector<Target> targets_of(const Program& program) {
    std::vector<Target> targets;
    for (int n = 0; n < program.size(); ++n) {
        const Node& node = program[n];
        if (node.op == Op::avg_pool && !program.is_image(n))
            targets.push_back({TargetKind::pooled, n, node.level, node.resampling()});
        if (node.is_strided()) targets.push_back({TargetKind::strided, n, node.level, node.resampling()});
        if (node.op == Op::upsample) {
            if (find_target(targets, TargetKind::features, node.input()) < 0)
                targets.push_back({TargetKind::features, node.input(), node.level + 1});
        }
    }
    targets.push_back({TargetKind::output, program.size() - 1, 0});
    return targets;
}

std::vector<int> segment_nodes(const Program& program, const Target& target) {
    std::vector<bool> wanted(std::size_t(program.size()), false);
    const bool below = target.kind == TargetKind::pooled || target.kind == TargetKind::strided;
    const int end = below ? program[target.node].input() : target.node;
    wanted[std::size_t(end)] = true;
    std::vector<int> nodes;
    for (int n = end; n >= 0; --n) {
        if (!wanted[std::size_t(n)]) continue;
        nodes.push_back(n);
        if (program[n].changes_level()) continue;
        for (const int m : program[n].inputs) wanted[std::size_t(m)] = true;
    }
    std::reverse(nodes.begin(), nodes.end());
    return nodes;
}

std::vector<Source> sources_of(const Program& program, const std::vector<Target>& targets, const Target& target) {
    std::vector<Source> sources;
    for (const int n : segment_nodes(program, target)) {
        const Node& node = program[n];
        if (program.is_image(n)) sources.push_back({n, -1});
        if (!node.changes_level() || program.is_image(n)) continue;
        const TargetKind kind = node.op == Op::avg_pool ? TargetKind::pooled : TargetKind::strided;
        if (node.op == Op::upsample)
            sources.push_back({n, find_target(targets, TargetKind::features, node.input()), node.resampling()});
        else
            sources.push_back({n, find_target(targets, kind, n)});
    }
    return sources;
}

}  // namespace ntkfast
