#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "core/context.h"
#include "params.h"

namespace chipmunk {

/// One device's implementation of every op: pure virtual, so the compiler proves each backend complete; two of an op at
/// once are one after the other unless a backend does better.
/// Arguments are validated by src/ops. Ops queue work on the context's compute stream and never wait for it; the same
/// inputs give the same bits. Throws kUnsupported where a device cannot do a valid request, naming it.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual void linear(const Context& context, const LinearParams& params) = 0;
  /// Throws kUnsupported where there are no linears with scaled f8 weights.
  virtual void require_fp8_linears() const {}
  /// As two calls of linear, in one launch where that is faster.
  virtual void linear_pair(const Context& context, const LinearPairParams& params) {
    linear(context, params.first);
    linear(context, params.second);
  }
  /// Whether linear, or linear_pair for two, takes these, of which tokens lie side by side in x or in out.
  virtual bool takes_dense_tokens(const LinearParams* /*calls*/, int /*count*/) const { return false; }
  /// Whether linear, or linear_pair for two, adds addends at no cost to speak of; it is given none where not.
  virtual bool fuses_addend(const LinearParams* /*calls*/, int /*count*/) const { return false; }
  virtual void quantize_rows(const Context& context, const QuantizeRowsParams& params) = 0;
  virtual void dequantize_rows(const Context& context, const DequantizeRowsParams& params) = 0;
  virtual void attention(const Context& context, const AttentionParams& params) = 0;
  virtual void column_attention(const Context& context, const ColumnAttentionParams& params) = 0;
  virtual void select_columns(const Context& context, const SelectColumnsParams& params) = 0;
  virtual void block_mean(const Context& context, const BlockMeanParams& params) = 0;
  /// As block_mean, then linear, for each part; in kernels that overlap where that is faster.
  virtual void block_mean_linear(const Context& context, const BlockMeanLinearParams& params) = 0;
  virtual void select_features(const Context& context, const SelectFeaturesParams& params) = 0;
  virtual void column_mlp(const Context& context, const ColumnMlpParams& params) = 0;
  /// As two calls of column_mlp, in one launch where that is faster.
  virtual void column_mlp_pair(const Context& context, const ColumnMlpPairParams& params) {
    column_mlp(context, params.first);
    column_mlp(context, params.second);
  }
  /// Whether column_mlp is faster on activations whose tokens, not features, lie side by side.
  virtual bool wants_dense_tokens() const { return false; }
  virtual void gated_add(const Context& context, const GatedAddParams& params) = 0;
  virtual void layer_norm(const Context& context, const LayerNormParams& params) = 0;
  /// As two calls of layer_norm, in one launch where that is faster.
  virtual void layer_norm_pair(const Context& context, const LayerNormPairParams& params) {
    layer_norm(context, params.first);
    layer_norm(context, params.second);
  }
  virtual void rms_norm(const Context& context, const RmsNormParams& params) = 0;
  virtual void qk_norm_rope(const Context& context, const QkNormRopeParams& params) = 0;
  virtual void group_norm(const Context& context, const GroupNormParams& params) = 0;
  virtual void activation(const Context& context, const ActivationParams& params) = 0;
  virtual void clamp(const Context& context, const ClampParams& params) = 0;
  virtual void gated_activation(const Context& context, const GatedActivationParams& params) = 0;
  virtual void copy(const Context& context, const CopyParams& params) = 0;
  virtual void axpby(const Context& context, const AxpbyParams& params) = 0;
  virtual void embedding(const Context& context, const EmbeddingParams& params) = 0;
  virtual void timestep_embedding(const Context& context, const TimestepEmbeddingParams& params) = 0;
  virtual void conv2d(const Context& context, const Conv2dParams& params) = 0;
  virtual void upsample_nearest(const Context& context, const UpsampleNearestParams& params) = 0;
  virtual void blend(const Context& context, const BlendParams& params) = 0;
  virtual void quantize_image(const Context& context, const QuantizeImageParams& params) = 0;
};

struct CpuOptions {
  int threads = 0;          ///< OpenMP threads of every op; 0 for all cores
  size_t memory_limit = 0;  ///< bytes of activations, 0 for no cap
};

struct CudaOptions {
  int index = 0;
  size_t memory_limit = 0;  ///< bytes, 0 for no cap
  int multiprocessors = 0;  ///< that launches are planned for; 0 for those that the device has
};

/// A context that runs on the CPU in f32. Throws kInvalidArgument for a negative thread count.
Context make_cpu_context(const CpuOptions& options);

/// Number of CUDA devices that this build can use; 0 without a driver or when built without the CUDA toolkit.
int cuda_device_count();
/// What `version` prints of the CUDA backend: "CUDA 13.0, driver for 13.1, 1 device", or why there is none, e.g. "built
/// without CUDA".
std::string cuda_description();

/// What is told of a GPU.
struct CudaDeviceDescription {
  std::string name, bus_id;
  int compute_major = 0, compute_minor = 0;
  int multiprocessors = 0;
  size_t memory_bytes = 0, l2_bytes = 0, shared_bytes_per_block = 0;
  int clock_mhz = 0;      ///< highest of the multiprocessors
  bool usable = false;    ///< by this build
  std::string attention;  ///< the attention kernels that it gets
};
/// Those of this machine; none without a driver or when built without the CUDA toolkit.
std::vector<CudaDeviceDescription> cuda_devices();
/// A context on a GPU. Throws kBackendUnavailable if this build or machine has none of that index.
Context make_cuda_context(const CudaOptions& options);
/// Makes contexts whose compute stream is the caller's, a cudaStream_t that outlives them; a GPU's share what is costly
/// to make. Throws as make_cuda_context does.
std::function<Context(void* stream)> make_cuda_stream_contexts(int index);
/// For benchmarks: what queues x w^T + bias by the fastest of the algorithms that cuBLASLt has for it, with the
/// activation where it fuses that one; gate and residual are left out. x, w and bias in bf16 on a GPU, one batch; they
/// and the context outlive the result. Times the algorithms: overwrites out and blocks.
std::function<void()> fastest_cublas_linear(const Context& context, const LinearParams& params);

}  // namespace chipmunk
