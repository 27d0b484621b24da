#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace chipmunk::cuda {

struct FeatureArguments;

/// Whether launch_held_features takes these rows: a block's registers have room for them, and they are long enough.
bool takes_held_features(const FeatureArguments& a);

/// The selection of features for rows whose keys a block's threads hold (docs/kernels/feature_selection.md).
void launch_held_features(cudaStream_t stream, const FeatureArguments& a, int64_t rows);

}  // namespace chipmunk::cuda
