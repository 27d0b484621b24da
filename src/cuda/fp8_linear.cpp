#include <string>

#include "chipmunk/error.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/linear_epilogue.h"
#include "cuda/matmul.h"
#include "cuda/quantize_rows.h"

/// Linears whose weights are f8_e4m3 with a scale a row (docs/fp8.md).
namespace chipmunk::cuda {
namespace {

/// The oldest that converts to f8_e4m3 and multiplies it.
constexpr int kMinMajor = 8, kMinMinor = 9;
/// cuBLASLt reads a bias in vectors, and wants f8 operands, scales and results to begin at multiples of as much.
constexpr size_t kAlignment = 16;
constexpr size_t kElement = size_of(DType::kBF16);

/// x's rows, quantised one behind the other; a sample's scales begin scale_stride after those before it.
struct QuantizedRows {
  Tensor values, scales;
  int64_t scale_stride;
};

QuantizedRows quantize(const Context& context, const LinearParams& params, DType dtype, int64_t scale_stride) {
  QuantizedRows rows{context.empty({params.batch * params.rows, params.in_features}, dtype),
                     context.empty({params.batch * scale_stride}, DType::kF32), scale_stride};
  launch_quantize_rows(compute_stream(context), {params.x,
                                                 {rows.values.data(), dtype},
                                                 rows.scales.data_as<float>(),
                                                 params.batch,
                                                 params.rows,
                                                 params.in_features,
                                                 params.x_batch_stride,
                                                 params.x_row_stride,
                                                 scale_stride});
  return rows;
}

/// One sample's product as cuBLASLt is to compute it from quantised rows; out and addend are the caller's to set.
MatmulProblem sample_problem(const LinearParams& params, const QuantizedRows& x, int64_t sample) {
  MatmulProblem problem;
  problem.rows = params.rows;
  problem.columns = params.out_features;
  problem.depth = params.in_features;
  problem.operand_dtype = DType::kF8E4M3;
  problem.a = static_cast<const char*>(x.values.data()) + sample * params.rows * params.in_features;
  problem.a_row_stride = params.in_features;
  problem.a_scales = x.scales.data_as<float>() + sample * x.scale_stride;
  problem.b = params.weight.data;
  problem.b_row_stride = params.out_features == 1 ? params.in_features : params.weight_row_stride;
  problem.b_scales = params.weight_scale;
  return problem;
}

char* rows_of(void* data, int64_t sample, int64_t batch_stride) {
  return static_cast<char*>(data) + sample * batch_stride * static_cast<int64_t>(kElement);
}

/// Scales and bias with one sample's gate multiplied in.
struct GatedColumns {
  Tensor scales, bias;
};

GatedColumns gate_columns(const Context& context, const LinearParams& params, int64_t sample) {
  GatedColumns gated{context.empty({params.out_features}, DType::kF32), context.empty({params.out_features})};
  const void* gate = rows_of(const_cast<void*>(params.gate.data), sample, params.gate_batch_stride);
  launch_gate_columns(compute_stream(context), {params.weight_scale, params.bias, gate, gated.scales.data_as<float>(),
                                                gated.bias.data(), params.out_features});
  return gated;
}

/// Samples that follow each other without a gap, and have no gate each, are one.
LinearParams merge_samples(const LinearParams& params) {
  const auto continues = [&](int64_t batch_stride, int64_t row_stride) {
    return rows_continue(params.batch, params.rows, batch_stride, row_stride);
  };
  LinearParams merged = params;
  if (params.batch == 1 || params.gate.data != nullptr || !continues(params.x_batch_stride, params.x_row_stride) ||
      !continues(params.out_batch_stride, params.out_row_stride) ||
      (params.residual.data != nullptr && !continues(params.residual_batch_stride, params.residual_row_stride))) {
    return merged;
  }
  merged.rows *= params.batch;
  merged.batch = 1;
  return merged;
}

/// The products of e4m3 values as such, in bf16 operands, which hold them exactly; scales come after. For sizes and
/// GPUs that cuBLASLt has no f8 product for.
void multiply_widened(const Context& context, CudaBackend& backend, Matmul& matmul, const LinearParams& params) {
  const QuantizedRows x = quantize(context, params, DType::kBF16, params.rows);
  const Tensor weight = context.empty({params.out_features, params.in_features});
  CopyParams copy{};
  copy.x = params.weight;
  copy.out = {weight.data(), DType::kBF16};
  copy.rank = 2;
  copy.shape[0] = params.out_features;
  copy.shape[1] = copy.out_strides[0] = params.in_features;
  copy.x_strides[0] = params.weight_row_stride;
  copy.x_strides[1] = copy.out_strides[1] = 1;
  backend.copy(context, copy);

  const Tensor product = context.empty({params.batch * params.rows, params.out_features});
  MatmulProblem problem;
  problem.rows = params.batch * params.rows;
  problem.columns = problem.out_row_stride = params.out_features;
  problem.depth = problem.a_row_stride = problem.b_row_stride = params.in_features;
  problem.a = x.values.data();
  problem.b = weight.data();
  problem.out = product.data();
  matmul.run(context, problem);
  launch_linear_epilogue(compute_stream(context), product.data(), params.rows * params.out_features,
                         params.out_features, params, true, x.scales.data_as<float>());
}

}  // namespace

void CudaBackend::require_fp8_linears() const {
  if (device_.major > kMinMajor || (device_.major == kMinMajor && device_.minor >= kMinMinor)) return;
  const auto name = [](int major, int minor) { return std::to_string(major) + "." + std::to_string(minor); };
  throw Error(ErrorCode::kUnsupported,
              "expected a GPU of compute capability " + name(kMinMajor, kMinMinor) + " or newer, found " +
                  name(device_.major, device_.minor),
              "fp8");
}

void CudaBackend::multiply_fp8(const Context& context, const LinearParams& given) {
  require_fp8_linears();
  const LinearParams params = merge_samples(given);
  const bool has_bias = params.bias.data != nullptr;
  const bool gated = params.gate.data != nullptr;
  // A gate is multiplied into scales and bias, so that residual + gate * (product + bias) is a matmul with an addend.
  const bool adds = params.residual.data != nullptr && params.activation == Activation::kNone;
  const bool fuses_bias =
      !has_bias || gated || (params.bias.dtype == DType::kBF16 && is_aligned(params.bias.data, kElement, kAlignment));
  const bool fused = fuses_bias && Matmul::fuses(params.activation) &&
                     (params.activation == Activation::kNone || (!gated && params.residual.data == nullptr));

  const auto problem_of = [&](const QuantizedRows& x, int64_t sample) {
    MatmulProblem problem = sample_problem(params, x, sample);
    problem.out = rows_of(params.out.data, sample, params.out_batch_stride);
    problem.out_row_stride = params.out_row_stride;
    problem.activation = params.activation;
    problem.bias = params.bias.data;
    if (adds) {
      problem.addend = rows_of(const_cast<void*>(params.residual.data), sample, params.residual_batch_stride);
      problem.addend_row_stride = params.residual_row_stride;
    }
    return problem;
  };
  // Every sample's rows of x and out are aligned as the first one's are, or none is taken.
  const bool aligned_samples =
      params.batch == 1 || (is_aligned(params.out.data, kElement, kAlignment, params.out_batch_stride) &&
                            is_aligned(params.residual.data, kElement, kAlignment, params.residual_batch_stride));
  if (!fused || !aligned_samples) return multiply_widened(context, *this, *matmul_, params);

  const auto scale_stride = round_up(params.rows, static_cast<int64_t>(kAlignment / sizeof(float)));
  const QuantizedRows x = quantize(context, params, DType::kF8E4M3, scale_stride);
  if (!Matmul::takes_fp8(device_, problem_of(x, 0))) return multiply_widened(context, *this, *matmul_, params);
  for (int64_t sample = 0; sample < params.batch; ++sample) {
    MatmulProblem problem = problem_of(x, sample);
    GatedColumns columns;
    if (gated) {
      columns = gate_columns(context, params, sample);
      problem.b_scales = columns.scales.data_as<float>();
      problem.bias = columns.bias.data();
    }
    matmul_->run(context, problem);
  }
}

}  // namespace chipmunk::cuda
