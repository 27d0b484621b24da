#pragma once

#include "ops/linear.h"
#include "params.h"

namespace chipmunk::ops {

/// Checks the operands of a linear. Throws kShapeMismatch.
LinearParams linear_params(const Context& context, const Tensor& x, const Linear& layer, const Tensor& out,
                           const LinearEpilogue& epilogue);

}  // namespace chipmunk::ops
