#include "program.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace ntkfast {

void Program::check() const {
    if (stages.empty()) throw std::invalid_argument("program: needs at least one stage");
    for (size_t s = 0; s < stages.size(); ++s) {
        const Stage& stage = stages[s];
        const std::string where = "program: stage " + std::to_string(s) + ": ";
        if (stage.kernel_size < 1 || stage.kernel_size % 2 == 0)
            throw std::invalid_argument(where + "kernel_size must be odd, got " + std::to_string(stage.kernel_size));
        if (!(stage.weight_var > 0) || !std::isfinite(stage.weight_var))
            throw std::invalid_argument(where + "weight_var must be positive and finite");
        if (!(stage.bias_var >= 0) || !std::isfinite(stage.bias_var))
            throw std::invalid_argument(where + "bias_var must be >= 0 and finite");
        if (!std::isfinite(stage.slope)) throw std::invalid_argument(where + "slope must be finite");
    }
    if (stages.back().has_activation) throw std::invalid_argument("program: the last stage must have no activation");
}

int Program::reach(int s) const {
    int sum = 0;
    for (int n = s; n < size(); ++n) sum += stages[n].radius();
    return sum;
}

int Program::max_radius() const {
    int most = 0;
    for (const Stage& stage : stages) most = std::max(most, stage.radius());
    return most;
}

}  // namespace ntkfast
