#pragma once

#include "backend.h"

namespace chipmunk {

/// Every op in f32 on the host, on a fixed number of OpenMP threads. Results do not depend on how work is shared among
/// the threads.
class CpuBackend : public Backend {
 public:
  /// threads >= 1.
  explicit CpuBackend(int threads) : threads_(threads) {}

  void linear(const Context& context, const LinearParams& params) override;
  void quantize_rows(const Context& context, const QuantizeRowsParams& params) override;
  void dequantize_rows(const Context& context, const DequantizeRowsParams& params) override;
  void attention(const Context& context, const AttentionParams& params) override;
  void column_attention(const Context& context, const ColumnAttentionParams& params) override;
  void select_columns(const Context& context, const SelectColumnsParams& params) override;
  void block_mean(const Context& context, const BlockMeanParams& params) override;
  void block_mean_linear(const Context& context, const BlockMeanLinearParams& params) override;
  void select_features(const Context& context, const SelectFeaturesParams& params) override;
  void column_mlp(const Context& context, const ColumnMlpParams& params) override;
  void gated_add(const Context& context, const GatedAddParams& params) override;
  void layer_norm(const Context& context, const LayerNormParams& params) override;
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

 private:
  /// x weight^T with bias, activation, gate and residual.
  void multiply(const Context& context, const LinearParams& params);

  int threads_;
};

}  // namespace chipmunk
