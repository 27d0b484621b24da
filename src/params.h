#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/random_columns.h"

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

/// Strides of q, k, v or o; the head dimension is dense.
struct HeadStrides {
  int64_t batch, token, head;
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

/// Among the columns of a linear's output: the heads of q, then as many of k, then others. Heads of q and k get an RMS
/// norm (where weights are given), then a rotary embedding (where cos is given) of the pairs (2i, 2i + 1).
struct HeadEpilogue {
  In q_weight, k_weight;                       // [D] or null
  const float *cos = nullptr, *sin = nullptr;  // [T, D / 2] dense or null
  int64_t heads = 0, head_dim = 0;             // columns [0, 2 heads D); 0 heads: there are none
  float epsilon = 0.0f;
};

/// out = residual + gate * (activation(x weight^T + bias) + addend), each of bias, gate, residual, addend optional;
/// then, of the heads among its columns, the norm and rotation. out may be residual (in place).
struct LinearParams {
  In x;         // [B, T, K], strides x_batch_stride, x_row_stride
  In weight;    // [N, K], row stride weight_row_stride; any floating dtype
  In bias;      // [N] or null
  In gate;      // [B, N] or null, stride gate_batch_stride
  In residual;  // [B, T, N] or null, strides residual_batch_stride, residual_row_stride
  In addend;  // [B, T, N] or null, strides addend_batch_stride, addend_row_stride; where Backend::fuses_addend says so
  Out out;    // [B, T, N], strides out_batch_stride, out_row_stride
  int64_t batch, rows, in_features, out_features;  // B, T, K, N
  int64_t x_batch_stride, x_row_stride;
  int64_t weight_row_stride;
  int64_t gate_batch_stride;
  int64_t residual_batch_stride, residual_row_stride;
  int64_t addend_batch_stride, addend_row_stride;
  int64_t out_batch_stride, out_row_stride;
  // Where Backend::takes_dense_tokens says so, tokens may lie side by side in place of channels: the row stride is 1
  // then, and this another.
  int64_t x_column_stride = 1, out_column_stride = 1;
  Activation activation = Activation::kNone;
  HeadEpilogue heads;  // excludes activation, gate, residual and addend
  // [N] or null. Given, the weight is kF8E4M3, its row n times weight_scale[n], and the rows of x are quantised as
  // core/fp8_rows.h says before they are multiplied.
  const float* weight_scale = nullptr;
  // The kernel that was queued last writes nothing that this op reads and does not use what it writes: both may run at
  // once. Everything before that one is complete when a kernel begins.
  bool overlaps_last = false;
};

/// q and k among the columns of a linear's output, as the op on them sees them.
inline QkNormRopeParams qk_norm_rope_of(const LinearParams& p) {
  const int64_t columns = p.heads.heads * p.heads.head_dim;
  const auto element = static_cast<int64_t>(size_of(p.out.dtype));
  const HeadStrides strides{p.out_batch_stride, p.out_row_stride, p.heads.head_dim};
  return {p.out,
          {static_cast<char*>(p.out.data) + columns * element, p.out.dtype},
          p.heads.q_weight,
          p.heads.k_weight,
          p.heads.cos,
          p.heads.sin,
          strides,
          strides,
          p.batch,
          p.rows,
          p.heads.heads,
          p.heads.head_dim,
          p.heads.epsilon};
}

/// Each row of x as core/fp8_rows.h quantises it.
struct QuantizeRowsParams {
  In x;           // [B, T, C], strides x_batch_stride, x_row_stride
  Out out;        // [B, T, C] dense, kF8E4M3
  float* scales;  // [B, T], stride scale_batch_stride
  int64_t batch, rows, channels;
  int64_t x_batch_stride, x_row_stride;
  int64_t scale_batch_stride;
};

/// out[r] = scales[r] * x[r].
struct DequantizeRowsParams {
  In x;                 // [R, C], row stride x_row_stride, kF8E4M3
  const float* scales;  // [R]
  Out out;              // [R, C] dense, in the dtype of activations
  int64_t rows, channels, x_row_stride;
};

/// Two linears of which neither writes what the other reads.
struct LinearPairParams {
  LinearParams first, second;
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
  // column_sums[b, h, g, j] = sum over the query rows i of group g of exp(score(i, j) - column_lse[b, h, i]); rows
  // whose column_lse is -inf count 0.
  float* column_sums = nullptr;       // [B, H, G, M] dense or null, G = ceil(N / group_size)
  const float* column_lse = nullptr;  // [B, H, N] dense; given together with column_sums; may be lse
  int64_t group_size = 1;
  HeadStrides q_strides, k_strides, v_strides, out_strides;
  int64_t batch, query_tokens, key_tokens, heads, kv_heads, head_dim;  // B, N, M, H, H_kv, D
  float scale = 1.0f;
  bool causal = false;  // key j is visible to query i where j <= i + (M - N)
};

/// How attention over some of the keys, A_S with its softmax denominators' logarithms lse_S, joins what is known of the
/// others. O is the output of a dense step, m = exp(lse_S - lse_all) the part of its softmax that the kept keys hold.
enum class ColumnEpilogue : uint8_t {
  kNone,      ///< out = A_S
  kAdd,       ///< out = residual + A_S
  kSubtract,  ///< out = residual - A_S
  kSplit,     ///< residual = O: out = O - m A_S, lse_rest = lse_all + ln(max(1 - m, 1e-7)); 0 and -inf for all keys
  kMerge,     ///< residual = kSplit's out R: out = (e^lse_all R + e^lse_S A_S) / (e^lse_rest + e^lse_S)
};

/// Attention in which the query rows of a group read the same few keys. A group without keys has A_S = 0.
struct ColumnAttentionParams {
  In q;                            // [B, N, H, D]
  In k, v;                         // [B, M, H, D]
  Out out;                         // [B, N, H, D]; may be residual
  In residual;                     // [B, N, H, D] or null; see epilogue
  const int32_t* indices;          // [B, H, G, capacity]: distinct keys, entries past the count are not read
  const int32_t* counts;           // [B, H, G]: in [0, capacity], or M: every key, and no list
  float* lse = nullptr;            // [B, H, N] dense or null: lse_S
  const float* lse_all = nullptr;  // [B, H, N] dense; kSplit and kMerge
  float* lse_rest = nullptr;       // [B, H, N] dense; written by kSplit, read by kMerge
  HeadStrides q_strides, k_strides, v_strides, out_strides, residual_strides;
  int64_t batch, query_tokens, key_tokens, heads, head_dim;  // B, N, M, H, D
  int64_t group_size, capacity;                              // G = ceil(N / group_size)
  float scale;
  ColumnEpilogue epilogue = ColumnEpilogue::kNone;
  bool overlaps_last = false;  // as of a linear
};

/// The keys of each group: static ones; and, where a group has room, those with the largest column sums and random
/// ones, as core/column_selection.h defines it; filled up to a multiple with the lowest others.
struct SelectColumnsParams {
  const float* column_sums;                 // [B, H, G, M] dense
  const uint8_t* static_columns = nullptr;  // [G, M] dense, of head h at h * static_head_stride; or null for none
  const uint8_t* random_columns = nullptr;  // [B, H, G, M] dense or null
  int32_t* indices;                         // [B, H, G, capacity], ascending, then those that fill up
  int32_t* counts;                          // [B, H, G]; M where more than capacity would be kept
  int64_t batch, heads, groups, key_tokens, capacity;
  int64_t static_head_stride = 0;
  int64_t top_k, room_keys, multiple_of = 1;
  RandomRow random;               // batch, head and group are filled in per row
  uint64_t random_threshold = 0;  // of drawn columns; 0 draws none
};

/// out[b, i] = mean of x[b, t] over the tokens of block i; the last block may be shorter.
struct BlockMeanParams {
  In x;     // [B, T, C], strides x_batch_stride, x_row_stride
  Out out;  // [B, ceil(T / block_rows), C] dense
  int64_t batch, rows, channels, block_rows;
  int64_t x_batch_stride, x_row_stride;
};

/// Linears of block means, one or two of which neither writes what the other reads.
struct BlockMeanLinearParams {
  struct Part {
    BlockMeanParams mean;
    LinearParams linear;  // its x is mean.out; it writes neither that nor mean.x
  };
  Part parts[2];
  int count;
};

/// The hidden features of each token block: those whose block means moved most since they were last computed, and
/// random ones, as core/column_selection.h defines it. The means of the chosen features are renewed.
struct SelectFeaturesParams {
  In means;                                  // [B, R, F] dense: block means of the pre-activations now
  float* cached_means;                       // [B, R, F] dense
  const uint8_t* random_features = nullptr;  // [B, blocks, F] dense or null
  float* drift = nullptr;                    // [B, blocks, F] dense or null: receives sum of |means - cached_means|
  int32_t* indices;                          // [B, blocks, capacity], ascending; past the count untouched
  int32_t* counts;                           // [B, blocks]; F where more than capacity would be kept
  int64_t batch, blocks, mean_blocks, features, capacity;  // mean_blocks: R
  int64_t means_per_block;                                 // a block's means; its last block may have fewer
  int64_t top_k, multiple_of = 1;
  RandomRow random;               // batch and group are filled in per row
  uint64_t random_threshold = 0;  // of drawn features; 0 draws none
};

/// For the features f that each token block keeps: new = activation(x . weight1[f] + bias1[f]), rounded to the dtype of
/// activations; out += (new - activations[f]) weight2[f]; activations[f] = new.
struct ColumnMlpParams {
  In x;        // [B, T, C], strides x_batch_stride, x_row_stride
  In weight1;  // [F, C], row stride weight1_row_stride; any floating dtype
  /// [F] or null. Given, weight1 is kF8E4M3, row n of it times weight1_scale[n], and the rows of x are rounded to
  /// f8_e4m3, each with a scale of its own, before they are multiplied (core/fp8_rows.h).
  const float* weight1_scale = nullptr;
  In bias1;                // [F] or null
  In weight2;              // [F, C_out]: the second layer's weight transposed, row stride weight2_row_stride
  Out activations;         // [B, T, F], strides activation_batch_stride, _row_stride, _feature_stride
  Out out;                 // [B, T, C_out] dense
  const int32_t* indices;  // [B, blocks, capacity]
  const int32_t* counts;   // [B, blocks]: in [0, capacity], or F: every feature, and no list
  int64_t batch, rows, channels, features, out_channels;
  int64_t block_rows, capacity;  // blocks = ceil(T / block_rows)
  int64_t x_batch_stride, x_row_stride, weight1_row_stride, weight2_row_stride;
  int64_t activation_batch_stride, activation_row_stride, activation_feature_stride;  // one of the latter two is 1
  /// What lies behind the tokens of a feature's activations is in use: of other tokens.
  bool activations_go_on = false;
  Activation activation;
  bool overlaps_last = false;  // as of a linear; of a pair, the first one's
};

/// Two of them: of a sequence whose first tokens and whose others have weights of their own. Counts and indices of the
/// second follow those of the first.
struct ColumnMlpPairParams {
  ColumnMlpParams first, second;
};

/// out = residual + gate * x. out may be residual.
struct GatedAddParams {
  In x;         // [B, T, C], strides x_batch_stride, x_row_stride
  In gate;      // [B, C], stride gate_batch_stride
  In residual;  // [B, T, C], strides residual_batch_stride, residual_row_stride
  Out out;      // [B, T, C], strides out_batch_stride, out_row_stride
  int64_t batch, rows, channels;
  int64_t x_batch_stride, x_row_stride;
  int64_t gate_batch_stride;
  int64_t residual_batch_stride, residual_row_stride;
  int64_t out_batch_stride, out_row_stride;
};

/// out = layer_norm(x) * weight + bias, then * (1 + scale) + shift; each pair optional. With an update, x += gate *
/// update comes first.
struct LayerNormParams {
  In x;             // [B, T, C], strides x_batch_stride, x_row_stride
  In update, gate;  // [B, T, C], strides update_batch_stride, update_row_stride, and [B, C]; or null
  Out updated;      // x again, where there is an update; then out is not x
  In weight, bias;  // [C] or null
  In scale, shift;  // [B, C] or null, stride modulation_batch_stride
  Out out;          // [B, T, C], strides out_batch_stride, out_row_stride; may be x
  int64_t batch, rows, channels;
  int64_t x_batch_stride, x_row_stride;
  int64_t update_batch_stride, update_row_stride, gate_batch_stride;
  int64_t modulation_batch_stride;
  int64_t out_batch_stride, out_row_stride;
  float epsilon;
};

/// Two norms of which neither writes what the other reads.
struct LayerNormPairParams {
  LayerNormParams first, second;
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
