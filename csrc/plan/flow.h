// A Flow says which fields travel through a pointwise map.
#pragma once

namespace ntkfast {

// The covariance travels alone, or T does as well, which is [trainable] S where no T' comes in, and [trainable] S + sum
// T' elsewhere.  The first_ ones serve where no T' comes in, as behind the image.
enum class Flow { covariance, tangent, first_covariance, first_tangent };
constexpr int flows = 4;
constexpr bool has_tangent(Flow flow) { return flow == Flow::tangent || flow == Flow::first_tangent; }

}  // namespace ntkfast
