#pragma once

#include <vector>

#include "core/context.h"

namespace chipmunk {

/// Share of each query group's attention that its heaviest columns hold, at each of kMassFractions of the columns;
/// mean over all groups that have any. column_sums: f32 [.., columns] in host memory.
std::vector<double> attention_mass(const Tensor& column_sums);

/// |now - before| / |now| over all elements of two equal-shaped f32 tensors in host memory.
double relative_change(const Tensor& now, const Tensor& before);

}  // namespace chipmunk
