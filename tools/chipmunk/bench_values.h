#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/context.h"

/// What benchmarks compute with, and what they say of a result before they time it.
namespace chipmunk::cli {

/// Normal values of f32 or bf16; large tensors repeat a part of them, since drawing takes longer than everything else.
Tensor normal_tensor(const Context& context, const Dims& shape, DType dtype, uint64_t seed);

/// The values of a device's tensor of any strides. Blocks.
std::vector<float> to_floats(const Context& context, const Tensor& tensor);

/// The error itself. Throws kInternal where it is above the bound or NaN.
double checked(const std::string& what, double error, double bound);

}  // namespace chipmunk::cli
