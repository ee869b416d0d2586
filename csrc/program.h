// A network compiled to the flat list of stages that every engine runs.
#pragma once

#include <string>
#include <vector>

namespace ntkfast {

enum class Padding { zeros, circular };
enum class Kernel { ntk, nngp };

// One convolution and the pointwise activation max(x, ax) that follows it, if any.
struct Stage {
    int kernel_size;
    double weight_var;
    double bias_var;
    bool trainable;
    bool has_activation;
    double slope;

    int radius() const { return kernel_size / 2; }
    // w/k^2, the factor of every box sum.
    double scale() const { return weight_var / (double(kernel_size) * kernel_size); }
};

struct Program {
    std::vector<Stage> stages;
    Padding padding;
    Kernel kernel;

    // Throws std::invalid_argument where the stages make no network; the message names the stage.
    void check() const;

    int size() const { return int(stages.size()); }
    // Sum of the radii of stage s and all later ones: how far a pixel of the output reaches at the input of stage s.
    int reach(int s) const;
    int max_radius() const;
    // w/k^2 of stage s + 1, which the map of stage s applies; 1 after the last.
    double scale_after(int s) const { return s + 1 < size() ? stages[std::size_t(s) + 1].scale() : 1.0; }
    // Whether a field T' enters stage s; before the first activation it is identically zero.
    bool tangent_enters(int s) const { return kernel == Kernel::ntk && s > 0; }
    // Whether stage s leaves the angles of what stage s - 1's activation made, for an activation of its own.
    bool keeps_angles(int s) const {
        return s > 0 && s < size() && stages[std::size_t(s)].kernel_size == 1 && stages[std::size_t(s)].bias_var == 0 &&
               stages[std::size_t(s)].has_activation && stages[std::size_t(s) - 1].has_activation;
    }
    bool circular() const { return padding == Padding::circular; }
};

}  // namespace ntkfast
