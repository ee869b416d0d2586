// A Program is a network as the flat graph that every engine runs, with its split into pieces of one resolution.
#pragma once

#include <string>
#include <vector>

#include "math/activation_table.h"
#include "plan/resampling.h"

namespace ntkfast {

enum class Padding { zeros, circular };
enum class Kernel { ntk, nngp };
enum class Op {
    input,
    conv,
    NTKFAST_ACTIVATIONS(NTKFAST_ENUMERATOR, NTKFAST_ENUMERATOR)  // in the order of ActivationKind
    avg_pool,
    upsample,
    concat,
    add
};

// Throws std::invalid_argument for a name that is none of these.
Op op_from_name(const std::string& name);

inline bool is_activation(Op op) { return op > Op::conv && op < Op::avg_pool; }
inline ActivationKind activation_of(Op op) { return ActivationKind(int(op) - int(Op::conv) - 1); }
inline bool is_merge(Op op) { return op == Op::concat || op == Op::add; }

// A Node is one step of the graph; only the numbers of its own kind are read.
struct Node {
    Op op;
    std::vector<int> inputs;  // earlier nodes; (shortcut, branch) of a merge
    int level;                // layers that lower the resolution, less those that raise it, up to the node's output

    int kernel_size = 1, stride = 1;      // conv
    double weight_var = 1, bias_var = 0;  // conv
    bool trainable = false;               // conv
    double slope = 1;                     // rectifier: max(x, 0) + slope min(x, 0)
    int factor = 1;                       // avg_pool, upsample
    bool bilinear = false;                // upsample; else nearest
    double shares[2] = {1, 1};            // merges: factors of the two inputs

    // Every node has units of its own, chosen with the diagonals (plan/units.h): the engine holds Q, S and E of its
    // output over Fields::unit * 2^exponent, and T over Fields::unit * 2^tangent_exponent. Both exponents are even, so
    // that lengths have powers of 2 as well; where nothing is far from order one they are 0.
    int exponent = 0, tangent_exponent = 0;

    int input() const { return inputs[0]; }
    int radius() const { return kernel_size / 2; }
    bool is_strided() const { return op == Op::conv && stride > 1; }
    bool goes_down() const { return op == Op::avg_pool || is_strided(); }
    bool changes_level() const { return goes_down() || op == Op::upsample; }
    // Leads from the pixels of the input to those of the output; by a factor of 1 where the level stays.
    Resampling resampling() const {
        using Kind = Resampling::Kind;
        if (op == Op::avg_pool) return {Kind::pool, factor};
        if (op == Op::upsample) return {bilinear ? Kind::bilinear : Kind::nearest, factor};
        return {Kind::stride, op == Op::conv ? stride : 1};
    }
};

struct Program {
    std::vector<Node> nodes;  // node 0 is the input, the last one the output
    Padding padding;
    Kernel kernel;

    // Throws std::invalid_argument where the nodes make no network; the message names the node.
    void check() const;

    int size() const { return int(nodes.size()); }
    const Node& operator[](int n) const { return nodes[std::size_t(n)]; }
    bool circular() const { return padding == Padding::circular; }
    int levels() const;
    // Returns how many pixels of the image one of a level spans along either axis: the product of the factors on the
    // way down.
    int downsampling(int level) const;
    // Returns the number that the sides of an image must be multiples of.
    int multiple() const { return downsampling(levels()); }
    int max_radius() const;
    // Tells whether a node is the image or an average pool of it: an image again, known as exactly as the first.
    bool is_image(int n) const {
        return (*this)[n].op == Op::input || ((*this)[n].op == Op::avg_pool && is_image((*this)[n].input()));
    }
    // Tells whether the output of a convolution is read as it is: by something else than an activation, or as the
    // network's own.
    bool is_bare(int n) const;
    // Tells whether T' (or T) of a node is not identically zero: a convolution lies before it.
    bool has_tangent(int n) const;

    // These lead from the units of a node's inputs to its own. Q and E of the m-th input count `gain` times to those of
    // the node, but for what the node does itself; T' counts `tangent_gain` times.
    double gain(int n, std::size_t m = 0) const;
    double tangent_gain(int n, std::size_t m = 0) const;
    // Returns w/k^2 of a convolution, the factor of every box sum.
    double scale(int n) const;
    // Returns what S counts in T of a convolution: 0 where it is not trained.
    double trained(int n) const;
    // Return the factors of the m-th input of a merge, in E and in T'.
    double share(int n, std::size_t m) const { return (*this)[n].shares[m] * gain(n, m); }
    double tangent_share(int n, std::size_t m) const { return (*this)[n].shares[m] * tangent_gain(n, m); }
};

// A target's field is kept in bands, since it crosses from one resolution to another; it is always at the coarser of
// the two.
//   pooled:   raw output of an average pool, A E A^T and A T' A^T
//   strided:  box sums of a convolution with a stride
//   features: the output of a node that is to be upsampled
//   output:   not kept: T of the last node
enum class TargetKind { pooled, strided, features, output };

// A target is computed by one segment: everything between it and the crossings before it, at one resolution.
struct Target {
    TargetKind kind;
    int node;                  // the node whose output it is
    int level;                 // where it is kept
    Resampling sampling = {};  // from the segment's resolution to the target's
    int sweep_level() const { return sampling.factor > 1 ? level - 1 : level; }
    // These are the displacements of the segment, along one axis, that contribute to `displacement` of the target: the
    // first and the last.
    int first_sweep(int displacement) const { return sampling.reads({displacement, displacement}).low; }
    int last_sweep(int displacement) const { return sampling.reads({displacement, displacement}).high; }
    int sweep_step() const { return sampling.step(); }
    // Returns the last displacement of the target to which those of last_sweep() contribute: a pool's next one is
    // begun.
    int last_begun(int displacement) const { return sampling.read_by(last_sweep(displacement)).high; }
};

// A Source is where rows of a segment come from: the image, or a band.
struct Source {
    int node;                  // an image, or the node that changes the level
    int target;                // index of the band's target; -1 for an image
    Resampling sampling = {};  // from the band's resolution to the segment's
};

// Returns all targets in an order in which each comes behind those that it needs; the output is the last.
std::vector<Target> targets_of(const Program& program);

// Returns the index of the target that keeps a node's output in one way; -1 if none does.
int find_target(const std::vector<Target>& targets, TargetKind kind, int node);

// Returns the nodes that the segment of a target computes at its sweep level, in order, its sources among them.
std::vector<int> segment_nodes(const Program& program, const Target& target);

// Returns the sources among the nodes of a segment.
std::vector<Source> sources_of(const Program& program, const std::vector<Target>& targets, const Target& target);

}  // namespace ntkfast
