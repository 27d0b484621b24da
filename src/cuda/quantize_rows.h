#pragma once

#include <cuda_runtime_api.h>

#include "params.h"

namespace chipmunk::cuda {

/// out may also be kBF16: then it receives the e4m3 values in bf16, which is exact.
void launch_quantize_rows(cudaStream_t stream, const QuantizeRowsParams& params);

/// What becomes of a linear's scales and bias where a gate is multiplied into them.
struct GateColumnsParams {
  const float* scales;  // [columns]
  In bias;              // [columns] or null
  const void* gate;     // bf16 [columns]
  float* gated_scales;  // [columns]: gate * scales
  void* gated_bias;     // bf16 [columns]: gate * bias, 0 without a bias
  int64_t columns;
};

void launch_gate_columns(cudaStream_t stream, const GateColumnsParams& params);

}  // namespace chipmunk::cuda
