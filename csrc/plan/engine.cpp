#include "plan/engine.h"

#include <stdexcept>
#include <string>

namespace ntkfast {

void check_sizes(const Program& program, const Shape& shape) {
    program.check();
    if (shape.height < 1 || shape.width < 1 || shape.channels < 1 || shape.batch < 1)
        throw std::invalid_argument("image must not be empty");
    const int multiple = program.multiple();
    if (shape.height % multiple != 0 || shape.width % multiple != 0)
        throw std::invalid_argument("image must have sides that are multiples of " + std::to_string(multiple));
}

}  // namespace ntkfast
