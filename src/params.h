#pragma once

#include <cstdint>

#include "core/dtype.h"

/// Arguments of the backend's ops: plain data, validated by src/ops before a backend sees them.
/// Shapes stand beside each pointer, outermost first; the innermost dimension is dense unless a stride says otherwise.
/// All strides are in elements and 64 bits wide (118,784 tokens x 21,504 features exceed 2^31).
namespace chipmunk {

/// A buffer that an op reads; data is null where an optional argument is not given.
struct In {
  const void* data = nullptr;
  DType dtype = DType::kF32;
};

/// A buffer that an op writes.
struct Out {
  void* data = nullptr;
  DType dtype = DType::kF32;
};

enum class Activation : uint8_t {
  kNone,
  kGeluTanh,   ///< 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
  kGeluErf,    ///< 0.5 x (1 + erf(x / sqrt 2))
  kQuickGelu,  ///< x sigmoid(1.702 x)
  kSilu,       ///< x sigmoid(x)
  kRelu,
};

/// out = residual + gate * activation(x weight^T + bias), each of bias, gate, residual optional.
/// out may be residual (in place).
struct LinearParams {
  In x;         // [B, T, K], strides x_batch_stride, x_row_stride
  In weight;    // [N, K], row stride weight_row_stride; any floating dtype
  In bias;      // [N] or null
  In gate;      // [B, N] or null, stride gate_batch_stride
  In residual;  // [B, T, N] or null, strides residual_batch_stride, residual_row_stride
  Out out;      // [B, T, N], strides out_batch_stride, out_row_stride
  int64_t batch, rows, in_features, out_features;  // B, T, K, N
  int64_t x_batch_stride, x_row_stride;
  int64_t weight_row_stride;
  int64_t gate_batch_stride;
  int64_t residual_batch_stride, residual_row_stride;
  int64_t out_batch_stride, out_row_stride;
  Activation activation = Activation::kNone;
};

/// Strides of q, k, v or o; the head dimension is dense.
struct HeadStrides {
  int64_t batch, token, head;
};

/// out = softmax(scale q k^T + bias, masked) v, per head; lse = ln of the softmax's denominator.
/// A row with no visible key gives 0 and lse -inf.
struct AttentionParams {
  In q;                                  // [B, N, H, D]
  In k;                                  // [B, M, H_kv, D]; query head h reads head h / (H / H_kv)
  In v;                                  // [B, M, H_kv, D]
  Out out;                               // [B, N, H, D]
  float* lse = nullptr;                  // [B, H, N] dense or null
  const float* relative_bias = nullptr;  // [H, N + M - 1] or null; entry j - i + N - 1 is added to score (i, j)
  const int32_t* key_lengths = nullptr;  // [B] or null; keys at or past it are invisible
  HeadStrides q_strides, k_strides, v_strides, out_strides;
  int64_t batch, query_tokens, key_tokens, heads, kv_heads, head_dim;  // B, N, M, H, H_kv, D
  float scale = 1.0f;
  bool causal = false;  // key j is visible to query i where j <= i + (M - N)
};

/// out = layer_norm(x) * weight + bias, then * (1 + scale) + shift; each pair optional.
struct LayerNormParams {
  In x;             // [B, T, C], strides x_batch_stride, x_row_stride
  In weight, bias;  // [C] or null
  In scale, shift;  // [B, C] or null, stride modulation_batch_stride
  Out out;          // [B, T, C], strides out_batch_stride, out_row_stride; may be x
  int64_t batch, rows, channels;
  int64_t x_batch_stride, x_row_stride;
  int64_t modulation_batch_stride;
  int64_t out_batch_stride, out_row_stride;
  float epsilon;
};

/// out = x / sqrt(mean(x^2) + epsilon) * weight.
struct RmsNormParams {
  In x;       // [rows, C], row stride x_row_stride
  In weight;  // [C]
  Out out;    // [rows, C], row stride out_row_stride; may be x
  int64_t rows, channels;
  int64_t x_row_stride, out_row_stride;
  float epsilon;
};

/// In place on q and k: RMS norm over each head's D values (where weights are given), then rotary embedding (where
/// cos is given) of the pairs (2i, 2i + 1): (a, b) -> (a cos - b sin, a sin + b cos).
struct QkNormRopeParams {
  Out q, k;                                    // [B, T, H, D]
  In q_weight, k_weight;                       // [D] or null
  const float *cos = nullptr, *sin = nullptr;  // [T, D / 2] dense or null
  HeadStrides q_strides, k_strides;
  int64_t batch, tokens, heads, head_dim;
  float epsilon;
};

/// Normalises each group of C / groups channels over all pixels of an image, then * weight + bias, then activation.
struct GroupNormParams {
  In x;             // [B, pixels, C] dense
  In weight, bias;  // [C]
  Out out;          // [B, pixels, C] dense; may be x
  int64_t batch, pixels, channels, groups;
  float epsilon;
  Activation activation = Activation::kNone;
};

/// out = activation(x), rows of C values.
struct ActivationParams {
  In x;     // [rows, C], row stride x_row_stride
  Out out;  // [rows, C], row stride out_row_stride; may be x
  int64_t rows, channels;
  int64_t x_row_stride, out_row_stride;
  Activation activation;
};

/// out = min(max(x, low), high), rows of C values. NaN stays NaN.
struct ClampParams {
  In x;     // [rows, C], row stride x_row_stride
  Out out;  // [rows, C], row stride out_row_stride; may be x
  int64_t rows, channels;
  int64_t x_row_stride, out_row_stride;
  float low, high;
};

/// out = activation(gate) * x: the gated feed-forward of T5 v1.1 and Llama.
struct GatedActivationParams {
  In gate;  // [rows, C], row stride gate_row_stride
  In x;     // [rows, C], row stride x_row_stride
  Out out;  // [rows, C], row stride out_row_stride; may be gate or x
  int64_t rows, channels;
  int64_t gate_row_stride, x_row_stride, out_row_stride;
  Activation activation;
};

constexpr int kMaxCopyRank = 8;

/// out = x, between any strides and any two floating dtypes, or between equal dtypes. No overlap.
struct CopyParams {
  In x;
  Out out;
  int rank;
  int64_t shape[kMaxCopyRank];
  int64_t x_strides[kMaxCopyRank];  // 0 repeats
  int64_t out_strides[kMaxCopyRank];
};

/// out = alpha a + beta b, between any strides (0 repeats). out may be a or b.
struct AxpbyParams {
  In a, b;
  Out out;
  int rank;
  int64_t shape[kMaxCopyRank];
  int64_t a_strides[kMaxCopyRank], b_strides[kMaxCopyRank], out_strides[kMaxCopyRank];
  float alpha, beta;
};

/// out[i] = table[indices[i]].
struct EmbeddingParams {
  const int32_t* indices;  // [count], each in [0, table_rows): the caller's duty
  In table;                // [table_rows, C] dense; any floating dtype
  Out out;                 // [count, C] dense
  int64_t count, table_rows, channels;
};

/// out[b] = [cos(x f_0) .. cos(x f_{C/2-1}), sin(x f_0) ..], x = argument[b], f_i = exp(-ln(max_period) i / (C/2)),
/// frequencies and products in f32.
struct TimestepEmbeddingParams {
  const float* arguments;  // [B]
  Out out;                 // [B, C] dense
  int64_t batch, channels;
  float max_period;
};

/// 2-D convolution (cross-correlation) over channels-last images; out = conv(x) + bias + residual.
struct Conv2dParams {
  In x;         // [B, in_height, in_width, C_in] dense
  In weight;    // [C_out, kernel_height, kernel_width, C_in] dense, in the dtype of activations
  In bias;      // [C_out] or null
  In residual;  // [B, out_height, out_width, C_out] dense or null; may be out
  Out out;      // [B, out_height, out_width, C_out] dense
  int64_t batch, in_height, in_width, in_channels;
  int64_t out_height, out_width, out_channels;
  int64_t kernel_height, kernel_width, stride;
  int64_t pad_top, pad_left, pad_bottom, pad_right;
};

/// Every pixel becomes a square of factor x factor equal ones.
struct UpsampleNearestParams {
  In x;     // [B, height, width, C] dense
  Out out;  // [B, height * factor, width * factor, C] dense
  int64_t batch, height, width, channels;
  int64_t factor;
};

/// Cross-fades two neighbouring tiles: out[o, i, c] = previous[o, i, c] (1 - i/extent) + out[o, i, c] (i/extent).
struct BlendParams {
  In previous;  // [outer, extent, inner], strides previous_outer_stride, previous_stride, 1
  Out out;      // [outer, extent, inner], strides out_outer_stride, out_stride, 1
  int64_t outer, extent, inner;
  int64_t previous_outer_stride, previous_stride;
  int64_t out_outer_stride, out_stride;
};

/// out = round(clamp(x / 2 + 0.5, 0, 1) * 255): decoded images in [-1, 1] to bytes. NaN gives 0.
struct QuantizeImageParams {
  In x;          // [count] dense
  uint8_t* out;  // [count]
  int64_t count;
};

}  // namespace chipmunk
