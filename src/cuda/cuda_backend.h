#pragma once

#include <memory>

#include "backend.h"
#include "cuda/cuda_device.h"

namespace chipmunk::cuda {

class Matmul;

/// Every op on one NVIDIA GPU: activations in bf16, arithmetic in f32 (docs/architecture.md, "Numerics"). Work is
/// queued on the context's compute stream; nothing waits, and no launch depends on what a device computed.
class CudaBackend : public Backend {
 public:
  explicit CudaBackend(const DeviceProperties& device);
  ~CudaBackend() override;

  void linear(const Context& context, const LinearParams& params) override;
  void require_fp8_linears() const override;
  void linear_pair(const Context& context, const LinearPairParams& params) override;
  bool takes_dense_tokens(const LinearParams* calls, int count) const override;
  bool fuses_addend(const LinearParams* calls, int count) const override;
  void quantize_rows(const Context& context, const QuantizeRowsParams& params) override;
  void dequantize_rows(const Context& context, const DequantizeRowsParams& params) override;
  void attention(const Context& context, const AttentionParams& params) override;
  void column_attention(const Context& context, const ColumnAttentionParams& params) override;
  void select_columns(const Context& context, const SelectColumnsParams& params) override;
  void block_mean(const Context& context, const BlockMeanParams& params) override;
  void block_mean_linear(const Context& context, const BlockMeanLinearParams& params) override;
  void select_features(const Context& context, const SelectFeaturesParams& params) override;
  void column_mlp(const Context& context, const ColumnMlpParams& params) override;
  void column_mlp_pair(const Context& context, const ColumnMlpPairParams& params) override;
  /// As the kernels for Hopper GPUs take them.
  bool wants_dense_tokens() const override { return device_.major == kHopperMajor; }
  void gated_add(const Context& context, const GatedAddParams& params) override;
  void layer_norm(const Context& context, const LayerNormParams& params) override;
  void layer_norm_pair(const Context& context, const LayerNormPairParams& params) override;
  void rms_norm(const Context& context, const RmsNormParams& params) override;
  void qk_norm_rope(const Context& context, const QkNormRopeParams& params) override;
  void group_norm(const Context& context, const GroupNormParams& params) override;
  void activation(const Context& context, const ActivationParams& params) override;
  void clamp(const Context& context, const ClampParams& params) override;
  void gated_activation(const Context& context, const GatedActivationParams& params) override;
  void copy(const Context& context, const CopyParams& params) override;
  void axpby(const Context& context, const AxpbyParams& params) override;
  void embedding(const Context& context, const EmbeddingParams& params) override;
  void timestep_embedding(const Context& context, const TimestepEmbeddingParams& params) override;
  void conv2d(const Context& context, const Conv2dParams& params) override;
  void upsample_nearest(const Context& context, const UpsampleNearestParams& params) override;
  void blend(const Context& context, const BlendParams& params) override;
  void quantize_image(const Context& context, const QuantizeImageParams& params) override;

  const DeviceProperties& device() const { return device_; }

 private:
  /// x weight^T with bias, activation, gate and residual, by cuBLASLt or for few rows.
  void multiply(const Context& context, const LinearParams& params);
  /// The same with weights in f8_e4m3 that have scales (fp8_linear.cpp).
  void multiply_fp8(const Context& context, const LinearParams& params);
  /// A sparse MLP whose first weight is f8_e4m3 with scales, by what it and the rounded x are in bf16
  /// (fp8_column_mlp.cpp).
  void column_mlp_of_values(const Context& context, const ColumnMlpParams& params);
  /// One sparse MLP, or two in one launch, by Hopper's kernels; false where they do not take it (column_mlp.cu).
  bool run_on_hopper(const Context& context, const ColumnMlpParams* problems, int count) const;

  DeviceProperties device_;
  std::unique_ptr<Matmul> matmul_;
};

}  // namespace chipmunk::cuda
