// Networks are graphs here, built node by node; the C++ tests run over those listed below.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "plan/program.h"

namespace networks {

using ntkfast::Node;
using ntkfast::Op;

// A Graph is under construction.  Each function appends a node behind node `at`, the last one by default, and returns
// its index.
class Graph {
public:
    Graph() { nodes_.push_back({Op::input, {}, 0}); }

    static constexpr int factor = ntkfast::supported_factor;
    int last() const { return int(nodes_.size()) - 1; }
    const std::vector<Node>& nodes() const { return nodes_; }

    int conv(int kernel_size, double weight_var = 2, double bias_var = 0, bool trainable = true, int stride = 1,
             int at = -1) {
        Node node = follow(Op::conv, at, stride > 1 ? 1 : 0);
        node.kernel_size = kernel_size;
        node.stride = stride;
        node.weight_var = weight_var;
        node.bias_var = bias_var;
        node.trainable = trainable;
        return append(node);
    }
    int strided(int kernel_size, double bias_var = 0, int at = -1) {
        return conv(kernel_size, 2, bias_var, true, factor, at);
    }
    int rectifier(double slope = 0, int at = -1) {
        Node node = follow(Op::rectifier, at, 0);
        node.slope = slope;
        return append(node);
    }
    int activation(Op op, int at = -1) { return append(follow(op, at, 0)); }
    int pool(int at = -1) {
        Node node = follow(Op::avg_pool, at, 1);
        node.factor = factor;
        return append(node);
    }
    int upsample(bool bilinear, int at = -1) {
        Node node = follow(Op::upsample, at, -1);
        node.factor = factor;
        node.bilinear = bilinear;
        return append(node);
    }
    int concat(int shortcut, int branch, double share = 0.5) {
        Node node{Op::concat, {shortcut, branch}, nodes_[std::size_t(shortcut)].level};
        node.shares[0] = 1 - share;
        node.shares[1] = share;
        return append(node);
    }
    int add(int shortcut, int branch) {
        return append({Op::add, {shortcut, branch}, nodes_[std::size_t(shortcut)].level});
    }

private:
    Node follow(Op op, int at, int down) const {
        const int from = at < 0 ? last() : at;
        return {op, {from}, nodes_[std::size_t(from)].level + down};
    }
    int append(const Node& node) {
        nodes_.push_back(node);
        return last();
    }
    std::vector<Node> nodes_;
};

struct Network {
    std::string name;
    int levels;
    std::vector<Node> nodes;
};

inline Network finish(const std::string& name, const Graph& graph) {
    const ntkfast::Program program{graph.nodes(), ntkfast::Padding::zeros, ntkfast::Kernel::ntk};
    program.check();
    return {name, program.levels(), graph.nodes()};
}

// Appends Conv, ReLU, Skip([AvgPool, the next level, Upsample]), Conv, ReLU.
inline void unet_level(Graph& g, int levels, bool bilinear) {
    g.conv(3);
    const int shortcut = g.rectifier();
    if (levels == 0) return;
    g.pool();
    unet_level(g, levels - 1, bilinear);
    g.concat(shortcut, g.upsample(bilinear), 0.3);
    g.conv(3);
    g.rectifier();
}

inline Network unet(int levels, bool bilinear) {
    Graph g;
    unet_level(g, levels, bilinear);
    g.conv(1);
    return finish("unet " + std::to_string(levels) + (bilinear ? " bilinear" : " nearest"), g);
}

inline Network vanilla(int depth, int kernel_size) {
    Graph g;
    for (int n = 0; n < depth; ++n) {
        g.conv(kernel_size);
        g.rectifier();
    }
    g.conv(1);
    return finish("vanilla " + std::to_string(depth) + " " + std::to_string(kernel_size), g);
}

// These have one resolution and are sequences.
inline std::vector<Network> chains() {
    std::vector<Network> out = {vanilla(1, 5), vanilla(5, 3), vanilla(1, 11)};
    {
        Graph g;
        g.conv(7, 1.3, 0.2);
        out.push_back(finish("conv 7", g));
    }
    {
        Graph g;
        g.conv(3, 2, 0, false), g.rectifier(), g.conv(7, 1.1, 0.3), g.rectifier(-0.5), g.conv(3, 0.7, 0.1, false);
        out.push_back(finish("frozen", g));
    }
    {
        Graph g;
        g.conv(9), g.conv(3), g.rectifier(1.5), g.conv(5), g.conv(3, 2, 0.5);
        out.push_back(finish("linear", g));
    }
    {
        Graph g;
        g.conv(13), g.rectifier(0.2), g.conv(15), g.rectifier(-1), g.conv(1);
        out.push_back(finish("13 15", g));
    }
#define NETWORKS_SMOOTH(name, Activation) {#name, Op::name},
    for (const auto& [name, op] :
         std::vector<std::pair<const char*, Op>>{NTKFAST_ACTIVATIONS(NTKFAST_NO_ROW, NETWORKS_SMOOTH)}) {
        Graph g;
        g.conv(3, 1.2, 0.1), g.activation(op), g.conv(5, 2, 0, false), g.activation(op), g.conv(3);
        out.push_back(finish(name, g));
    }
    return out;
}

// These have skips at one resolution.
inline std::vector<Network> skips() {
    std::vector<Network> out;
    {
        Graph g;
        g.conv(3);
        const int shortcut = g.rectifier();
        g.conv(5, 1.5, 0.1);
        g.concat(shortcut, g.rectifier(0.1), 0.7);
        g.conv(3);
        out.push_back(finish("concat", g));
    }
    {
        Graph g;  // a convolution with two consumers, the sum of two Gaussians before an activation
        const int shortcut = g.conv(3);
        g.rectifier();
        const int sum = g.add(shortcut, g.conv(5, 1.5, 0.2));
        g.rectifier(0.3);
        g.conv(3);
        g.add(sum, g.conv(1, 1, 0, false));
        g.activation(Op::gelu);
        g.conv(1);
        out.push_back(finish("residual", g));
    }
    {
        Graph g;  // the image beside the features
        g.conv(3);
        g.concat(0, g.activation(Op::erf), 0.4);
        g.conv(3);
        out.push_back(finish("image beside", g));
    }
    return out;
}

// These have several resolutions.
inline std::vector<Network> pyramids() {
    std::vector<Network> out = {unet(1, true), unet(1, false), unet(2, true), unet(2, false)};
    for (const bool bilinear : {true, false}) {
        Graph g;  // autoencoder
        g.conv(3), g.rectifier(), g.pool(), g.conv(3), g.rectifier(), g.pool(), g.conv(3), g.rectifier();
        g.upsample(bilinear), g.conv(3), g.rectifier(), g.upsample(bilinear), g.conv(3), g.rectifier(), g.conv(1);
        out.push_back(finish(std::string("autoencoder ") + (bilinear ? "bilinear" : "nearest"), g));
    }
    {
        Graph g;
        g.strided(3, 0.1), g.rectifier(), g.strided(5), g.activation(Op::gelu), g.upsample(true), g.conv(3, 1.1, 0.2);
        g.rectifier(0.2), g.upsample(false), g.conv(5);
        out.push_back(finish("strides", g));
    }
    {
        Graph g;
        g.strided(1), g.rectifier(), g.upsample(true), g.conv(3);
        out.push_back(finish("stride 1x1", g));
    }
    {
        Graph
            g;  // Gaussians that are pooled and upsampled before their activation, no activation between two crossings
        g.conv(3, 2, 0.1), g.pool(), g.rectifier(), g.conv(3), g.pool(), g.upsample(true), g.activation(Op::sin),
            g.conv(3);
        g.upsample(true), g.rectifier(-1), g.conv(3);
        out.push_back(finish("pooled Gaussians", g));
    }
    {
        Graph g;  // linear layers before the first convolution
        g.pool(), g.upsample(true), g.conv(3), g.rectifier(), g.conv(1);
        out.push_back(finish("pooled image", g));
    }
    {
        Graph g;  // two poolings in a row, two upsamplings in a row, and the shallower branch summed in
        g.conv(3);
        const int shortcut = g.rectifier();
        g.pool(), g.pool(), g.conv(3), g.rectifier(), g.upsample(true), g.upsample(true);
        const int deep = g.conv(3);
        const int sum = g.add(shortcut, deep);
        g.strided(3, 0, sum), g.activation(Op::cos), g.upsample(false), g.conv(3);
        g.concat(sum, g.rectifier());
        g.conv(3);
        out.push_back(finish("nested", g));
    }
    {
        Graph g;  // strided convolution that is upsampled as it is, and the same features upsampled in both ways
        g.conv(3), g.rectifier();
        const int coarse = g.strided(3);
        const int smooth = g.upsample(true, coarse);
        g.concat(smooth, g.upsample(false, coarse), 0.6);
        g.conv(5);
        out.push_back(finish("upsampled twice", g));
    }
    return out;
}

}  // namespace networks
