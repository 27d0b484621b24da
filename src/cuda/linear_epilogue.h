#pragma once

#include <cuda_runtime_api.h>

#include "params.h"

namespace chipmunk::cuda {

/// What is left of a linear layer once x weight^T lies in `product`, bf16 [B, T, N] dense: out = residual + gate *
/// activation(product + bias), with the shapes, strides and optional operands of params. product may be out.
/// Its rows may be strided. with_bias: false where the product has it already. product_scales, [B * T], is given where
/// the product has neither those factors of its rows nor params.weight_scale.
void launch_linear_epilogue(cudaStream_t stream, const void* product, int64_t product_batch_stride,
                            int64_t product_row_stride, const LinearParams& params, bool with_bias,
                            const float* product_scales = nullptr);

/// Whether launch_few_rows_linear is the faster way: few rows leave tensor cores idle, and the weights' bytes decide.
bool is_few_rows(const LinearParams& params);

/// A whole linear layer for a few rows; weights of any floating dtype are read as they are.
void launch_few_rows_linear(cudaStream_t stream, const LinearParams& params);

}  // namespace chipmunk::cuda
