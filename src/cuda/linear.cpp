#include "cuda/sm90/linear.h"

#include <algorithm>

#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/linear_epilogue.h"
#include "cuda/matmul.h"

namespace chipmunk::cuda {
namespace {

/// cuBLASLt reads a bias in vectors.
constexpr size_t kBiasAlignment = 16;

/// The weight in bf16: as it is, or converted into `storage`.
void bind_weight(const Context& context, Backend& backend, const LinearParams& params, Tensor* storage,
                 MatmulProblem* problem) {
  problem->b = params.weight.data;
  problem->b_row_stride = params.out_features == 1 ? params.in_features : params.weight_row_stride;
  if (params.weight.dtype == DType::kBF16) return;
  *storage = context.empty({params.out_features, params.in_features}, DType::kBF16);
  CopyParams copy{};
  copy.x = params.weight;
  copy.out = {storage->data(), DType::kBF16};
  copy.rank = 2;
  copy.shape[0] = params.out_features;
  copy.shape[1] = params.in_features;
  copy.x_strides[0] = params.weight_row_stride;
  copy.x_strides[1] = 1;
  copy.out_strides[0] = params.in_features;
  copy.out_strides[1] = 1;
  backend.copy(context, copy);
  problem->b = storage->data();
  problem->b_row_stride = params.in_features;
}

/// Whether cuBLASLt takes an x of which tokens lie side by side.
bool takes_dense_tokens_of_x(const LinearParams& p) {
  return p.out_column_stride == 1 && p.weight_scale == nullptr && p.heads.heads == 0 && !is_few_rows(p);
}

}  // namespace

void CudaBackend::linear(const Context& context, const LinearParams& params) {
  if (params.batch == 0 || params.rows == 0 || params.out_features == 0) return;
  if (sm90::prefers_own_linear(device_, &params, 1)) {
    return sm90::launch_linears(compute_stream(context), device_, &params, 1);
  }
  multiply(context, params);
  if (params.heads.heads > 0) qk_norm_rope(context, qk_norm_rope_of(params));
}

void CudaBackend::linear_pair(const Context& context, const LinearPairParams& params) {
  const LinearParams both[] = {params.first, params.second};
  if (sm90::prefers_own_linear(device_, both, 2)) {
    return sm90::launch_linears(compute_stream(context), device_, both, 2);
  }
  Backend::linear_pair(context, params);
}

bool CudaBackend::takes_dense_tokens(const LinearParams* calls, int count) const {
  return std::all_of(calls, calls + count, takes_dense_tokens_of_x) || sm90::prefers_own_linear(device_, calls, count);
}

bool CudaBackend::fuses_addend(const LinearParams* calls, int count) const {
  return sm90::prefers_own_linear(device_, calls, count);
}

void CudaBackend::multiply(const Context& context, const LinearParams& params) {
  if (params.weight_scale != nullptr) return multiply_fp8(context, params);
  const cudaStream_t stream = compute_stream(context);
  if (is_few_rows(params)) return launch_few_rows_linear(stream, params);

  const bool fused_bias =
      params.bias.data == nullptr ||
      (params.bias.dtype == DType::kBF16 && is_aligned(params.bias.data, size_of(DType::kBF16), kBiasAlignment));
  // cuBLASLt adds after the activation and knows no gate.
  const bool fused =
      fused_bias && Matmul::fuses(params.activation) && params.gate.data == nullptr && params.residual.data == nullptr;

  MatmulProblem problem;
  Tensor weight, product;
  bind_weight(context, *this, params, &weight, &problem);
  problem.columns = params.out_features;
  problem.depth = params.in_features;
  problem.a = params.x.data;
  problem.a_is_depth_major = params.x_column_stride != 1;
  problem.a_row_stride = problem.a_is_depth_major ? params.x_column_stride : params.x_row_stride;
  problem.a_batch_stride = params.x_batch_stride;
  problem.bias = fused_bias ? params.bias.data : nullptr;
  if (fused) {
    problem.activation = params.activation;
    problem.out = params.out.data;
    problem.out_row_stride = params.out_row_stride;
    problem.out_batch_stride = params.out_batch_stride;
  } else {
    product = context.empty({params.batch, params.rows, params.out_features}, DType::kBF16);
    problem.out = product.data();
    problem.out_row_stride = params.out_features;
    problem.out_batch_stride = params.rows * params.out_features;
  }
  const bool one_batch = !problem.a_is_depth_major &&
                         rows_continue(params.batch, params.rows, problem.a_batch_stride, problem.a_row_stride) &&
                         rows_continue(params.batch, params.rows, problem.out_batch_stride, problem.out_row_stride);
  problem.batch = one_batch ? 1 : params.batch;
  problem.rows = one_batch ? params.batch * params.rows : params.rows;
  matmul_->run(context, problem);
  if (!fused) {
    launch_linear_epilogue(stream, product.data(), params.rows * params.out_features, params.out_features, params,
                           !fused_bias);
  }
}

}  // namespace chipmunk::cuda
