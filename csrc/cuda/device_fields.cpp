#include "cuda/device_fields.h"

#include <algorithm>

namespace ntkfast::cuda {
namespace {

// Uploads the planes of several padded rows, one behind the other.
template <class Real>
Array<Real> uploaded(const Geometry& g, const std::vector<std::pair<const PaddedRows<Real>*, int>>& parts,
                     Stream stream) {
    int count = 0;
    for (const auto& part : parts) count += part.second;
    std::vector<Real> host(std::size_t(g.elements(count)), Real(0));
    for (int y = 0; y < g.height; ++y) {
        Real* to = Geometry::at(g, host.data(), count, y) - g.left;
        for (const auto& [rows, planes] : parts)
            for (int c = 0; c < planes; ++c, to += g.pitch) {
                const Real* from = rows->row(y) + c * rows->plane_stride();
                for (int n = 0; n < g.pitch; ++n) {
                    const int x = g.circular ? modulo(n - g.left, g.width) : n - g.left;
                    if (x >= 0 && x < g.width) to[n] = from[x];
                }
            }
    }
    return Array<Real>(host, stream);
}

}  // namespace

template <class Real>
Geometry DeviceFields<Real>::geometry(const Program& program, const Shape& shape, int columns) {
    Geometry g{};
    g.height = shape.height;
    g.width = shape.width;
    g.circular = program.circular();
    g.margin = g.circular ? 0 : std::max(1, program.max_radius());
    g.left = (columns + 3) / 4 * 4;
    // Pixel j lies up to a turn beyond i on the torus.
    g.pitch = (g.left + (g.circular ? 2 : 1) * g.width + columns + 3) / 4 * 4;
    return g;
}

template <class Real>
DeviceFields<Real>::DeviceFields(const Program& program, const Fields<Real>& fields, int columns, Stream stream)
    : diagonal_(fields.diagonal(program), stream) {
    for (int level = 0; level <= program.levels(); ++level)
        geometry_.push_back(geometry(program, at_level(program, fields.shape, level), columns));
    const auto at = [&](int node) -> const Geometry& { return geometry(program[node].level); };
    if (!fields.noise) {
        images_.emplace(0, uploaded<Real>(at(0), {{&fields.image, fields.shape.channels}}, stream));
        for (const auto& [n, rows] : fields.pooled_images)
            images_.emplace(n, uploaded<Real>(at(n), {{&rows, fields.shape.channels}}, stream));
    }
    for (const auto& [n, map] : fields.maps)
        roots_.emplace(n,
                       uploaded<Real>(at(n), {{&map.root.p, 1}, {&map.root.inverse, 1}, {&map.root.rest, 1}}, stream));
    for (const auto& [n, rows] : fields.halves)
        halves_.emplace(n, uploaded<Real>(at(program[n].input()), {{&rows, 1}}, stream));
    for (const auto& [n, rows] : fields.spread) spread_.emplace(n, uploaded<Real>(at(n), {{&rows, 1}}, stream));
}

template <class Real>
void DeviceFields<Real>::set_spread(int node, int level, const PaddedRows<Real>& rows, Stream stream) {
    spread_.at(node) = Array<Real>();
    spread_.at(node) = uploaded<Real>(geometry(level), {{&rows, 1}}, stream);
}

template <class Real>
std::int64_t DeviceFields<Real>::bytes(const Program& program, const Shape& shape, bool noise, int columns) {
    const auto planes = [&](int level, int count) {
        return Array<Real>::bytes(geometry(program, at_level(program, shape, level), columns).elements(count));
    };
    std::int64_t sum = Array<double>::bytes(shape.pixels());
    for (int n = 0; n < program.size(); ++n) {
        const Node& node = program[n];
        if (program.is_image(n) && !noise) sum += planes(node.level, shape.channels);
        if (is_activation(node.op) || program.is_bare(n)) sum += planes(node.level, 3);
        if (node.op == Op::conv) sum += planes(program[node.input()].level, 1);
        if (node.op == Op::avg_pool || (node.op == Op::upsample && node.bilinear)) sum += planes(node.level, 1);
    }
    return sum;
}

template class DeviceFields<float>;
template class DeviceFields<double>;

}  // namespace ntkfast::cuda
