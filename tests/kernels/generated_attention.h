#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "core/context.h"
#include "ops/column_attention.h"

/// Attention problems drawn at random, and float64 references for some of their rows.
namespace chipmunk::test {

/// How q, k and v lie in memory.
enum class HeadLayout { kTokenMajor, kHeadMajor, kOneBuffer, kPaddedRows };
/// Which keys a group keeps.
enum class KeptKeys { kScattered, kClustered, kLocal };

struct GeneratedAttention {
  int64_t batch, heads, query_tokens, key_tokens, head_dim;
  HeadLayout layout;
  KeptKeys kept_keys;
  float q_scale;    // larger ones make the softmax sharp
  float lse_shift;  // how far the lse that column sums are relative to is off
  bool key_lengths, nan_in_query, nan_in_key;
  uint64_t seed;

  /// The problem with this number; max_elements bounds its largest tensor, max_scores batch * heads * N * M.
  static GeneratedAttention draw(uint64_t number, double max_elements, double max_scores);
  std::string describe() const;
};

/// bf16 values (or the context's activations) in host memory, and the same as a device tensor [B, N, H, D].
struct HeadTensor {
  std::vector<float> values;  // [B, N, H, D] dense
  Tensor tensor;
  int64_t tokens, heads, head_dim;

  const float* row(int64_t batch, int64_t token, int64_t head) const {
    return values.data() + ((batch * tokens + token) * heads + head) * head_dim;
  }
};

/// Normal values times scale; NaN in one row of each batch and head where nan_token >= 0.
HeadTensor make_heads(const Context& context, const GeneratedAttention& problem, int64_t tokens, uint64_t seed,
                      float scale, int64_t nan_token = -1);
/// What a device wrote, in place of the values that a tensor was made with.
std::vector<float> read_heads(const Context& context, const Tensor& tensor);

/// Lists of keys, on the host and the device; some groups have none, some all of them.
struct GeneratedColumns {
  std::vector<std::vector<int32_t>> ids;  // [B * H * G]
  ops::ColumnSet set;

  const std::vector<int32_t>& of(int64_t batch, int64_t head, int64_t row, const GeneratedAttention& problem) const;
};
GeneratedColumns make_columns(const Context& context, const GeneratedAttention& problem, int64_t group_size);

/// One query row's attention over some keys: exactly, and as plain bf16 code computes it, whose error is the yardstick.
struct RowReference {
  std::vector<double> out, plain;
  double lse;
};
/// keys: their ids, of the batch and head.
RowReference attend_row(const float* q, const HeadTensor& k, const HeadTensor& v, int64_t batch, int64_t head,
                        const std::vector<int32_t>& keys, double scale);

}  // namespace chipmunk::test
