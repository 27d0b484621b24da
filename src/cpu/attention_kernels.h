#pragma once

#include <cstdint>

namespace chipmunk::cpu {

/// Keys that one pass of the online softmax takes: with 112 queries the scores (0.1 MB), the sums and a block of
/// packed values stay in a second-level cache.
constexpr int64_t kKeyBlock = 256;
/// A power-of-two stride would put the rows of a register tile into the same cache set.
constexpr int64_t kAttentionRowPad = 16;

/// Sizes that follow from the machine's registers.
struct AttentionGeometry {
  int64_t panel_width;  ///< keys, or values of a head, per packed panel; divides kKeyBlock
  int64_t query_block;  ///< query rows per task
};
AttentionGeometry attention_geometry();

/// Keys and values of one head, packed for the matrix kernel and padded with zeros.
struct PackedHead {
  float* keys;          // [padded_keys / width][head_dim][width]
  float* values;        // [padded_dim / width][padded_keys][width]
  int64_t padded_keys;  // multiple of the panel width
};

/// Packs keys [begin, begin + width) and their values; those past `key_tokens` become zeros.
struct PackTask {
  const float *k, *v;  // the head's first token
  int64_t k_stride, v_stride;
  int64_t key_tokens, head_dim;
};
void pack_head(const PackTask& task, int64_t begin, const PackedHead& head);

/// Keys (with their values) that are gathered into a packed head; null for all of them in order.
struct GatherTask {
  PackTask source;         // key_tokens: how many keys there are to choose from
  const int32_t* indices;  // [count] or null
  int64_t count;
  float* scratch;  // [2, panel_width, head_dim]
};
/// Packs the whole head; its padded_keys is count rounded up to the panel width.
void gather_head(const GatherTask& task, const PackedHead& head);

/// A block of query rows of one head.
struct AttentionTile {
  const float* q;  // [rows, head_dim], row stride q_stride
  int64_t q_stride;
  float* out;  // [rows, head_dim], row stride out_stride
  int64_t out_stride;
  float* lse;                  // [rows] or null
  const float* relative_bias;  // entry j belongs to key j in the first row; each later row begins one entry before
  PackedHead head;
  int64_t rows, head_dim;
  int64_t visible_keys;       // of the first row, may be negative
  int64_t visible_keys_step;  // more of them per row: 1 if causal, else 0
  int64_t visible_limit;      // at most
  float scale;
  const float* column_lse;  // [rows], with column_sums
  float* column_sums;       // [key tokens] or null: each row adds exp(score - column_lse)
  float* scratch;           // the calling thread's own, attention_scratch_floats(head_dim)
};
int64_t attention_scratch_floats(int64_t head_dim);
void attention_tile(const AttentionTile& tile);

}  // namespace chipmunk::cpu
