#pragma once

#include <cublasLt.h>

#include <array>
#include <functional>
#include <map>
#include <mutex>

#include "core/context.h"
#include "cuda/cuda_device.h"
#include "params.h"

namespace chipmunk::cuda {

/// out[i] = activation(scale a[i] b[i] + bias) + addend[i] for every i of a batch; row-major as all matrices here. An
/// activation excludes an addend.
struct MatmulProblem {
  int64_t batch = 1, rows = 0, columns = 0, depth = 0;
  const void* a = nullptr;  // [batch, rows, depth], or [batch, depth, rows] where a_is_depth_major
  const void* b = nullptr;  // [batch, columns, depth], or [batch, depth, columns] where b_is_depth_major
  int64_t a_batch_stride = 0, a_row_stride = 0;
  int64_t b_batch_stride = 0, b_row_stride = 0;
  bool a_is_depth_major = false, b_is_depth_major = false;
  DType operand_dtype = DType::kBF16;  // of a and b; or kF8E4M3 with a_scales and b_scales, see takes_fp8
  const float* a_scales = nullptr;     // [rows]: each factor of a row of a
  const float* b_scales = nullptr;     // [columns]
  void* out = nullptr;                 // [batch, rows, columns], strides out_batch_stride, out_row_stride
  DType out_dtype = DType::kBF16;      // or kF32
  int64_t out_batch_stride = 0, out_row_stride = 0;
  const void* addend = nullptr;  // like out, or null; may be out
  int64_t addend_batch_stride = 0, addend_row_stride = 0;
  const void* bias = nullptr;                 // bf16 [columns], 16-byte aligned, or null
  Activation activation = Activation::kNone;  // or kGeluTanh, kRelu
  float scale = 1.0f;
};

/// Matrix products by cuBLASLt. The choice of its algorithm is made once for each kind of problem and kept.
class Matmul {
 public:
  Matmul() = default;
  ~Matmul();
  Matmul(const Matmul&) = delete;
  Matmul& operator=(const Matmul&) = delete;

  /// Whether products of f8_e4m3 operands with a scale a row are there: on Hopper GPUs, one batch, depth and columns
  /// multiples of 16, as are addresses (of scales, too) and strides in bytes.
  static bool takes_fp8(const DeviceProperties& device, const MatmulProblem& problem);
  /// What a product's epilogue can do.
  static bool fuses(Activation activation);

  /// Queues the product on the compute stream. Throws kUnsupported where cuBLASLt has no algorithm.
  void run(const Context& context, const MatmulProblem& problem);

  /// For benchmarks: times all algorithms that cuBLASLt offers for the product, and gives what queues the fastest one;
  /// good for as long as this object, the context and the operands are. Blocks.
  std::function<void()> fastest(const Context& context, const MatmulProblem& problem);

 private:
  using Key = std::array<int64_t, 21>;
  static Key key_of(const MatmulProblem& problem);
  cublasLtHandle_t handle();

  std::mutex mutex_;
  cublasLtHandle_t handle_ = nullptr;
  std::map<Key, cublasLtMatmulHeuristicResult_t> algorithms_;
};

}  // namespace chipmunk::cuda
