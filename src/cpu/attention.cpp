#include <algorithm>

#include "cpu/attention_kernels.h"
#include "cpu/cpu_backend.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace chipmunk {
namespace {

using namespace cpu;

/// Packed keys and values held at a time, if one head does not need more: many small heads share one pass.
constexpr int64_t kPackedBytes = int64_t{32} << 20;

/// The rows of the equal tiles, of at most `most`, that `rows` rows are cut into.
int64_t equal_share(int64_t rows, int64_t most) { return divide_up(rows, divide_up(rows, most)); }

/// A group of (sample, key/value head) pairs that is packed, then attended to.
struct HeadGroup {
  int64_t first, count;
  float* packed;
  int64_t padded_keys, padded_dim;

  PackedHead head(int64_t pair, int64_t head_dim) const {
    float* keys = packed + (pair - first) * padded_keys * (head_dim + padded_dim);
    return {keys, keys + padded_keys * head_dim, padded_keys};
  }
};

void pack_group(int threads, const AttentionParams& params, const HeadGroup& group, int64_t width) {
  const int64_t panels = group.padded_keys / width;
  parallel_for(threads, group.count * panels, [&](int64_t task, int) {
    const int64_t pair = group.first + task / panels;
    const int64_t b = pair / params.kv_heads, h = pair % params.kv_heads;
    const PackTask pack{f32(params.k) + b * params.k_strides.batch + h * params.k_strides.head,
                        f32(params.v) + b * params.v_strides.batch + h * params.v_strides.head,
                        params.k_strides.token,
                        params.v_strides.token,
                        params.key_tokens,
                        params.head_dim};
    pack_head(pack, task % panels * width, group.head(pair, params.head_dim));
  });
}

AttentionTile make_tile(const AttentionParams& params, const HeadGroup& group, int64_t pair, int64_t h, int64_t query,
                        int64_t rows) {
  const int64_t b = pair / params.kv_heads;
  AttentionTile tile{};
  tile.q = f32(params.q) + b * params.q_strides.batch + h * params.q_strides.head + query * params.q_strides.token;
  tile.q_stride = params.q_strides.token;
  tile.out =
      f32(params.out) + b * params.out_strides.batch + h * params.out_strides.head + query * params.out_strides.token;
  tile.out_stride = params.out_strides.token;
  if (params.lse != nullptr) tile.lse = params.lse + (b * params.heads + h) * params.query_tokens + query;
  if (params.relative_bias != nullptr) {
    tile.relative_bias =
        params.relative_bias + h * (params.query_tokens + params.key_tokens - 1) + params.query_tokens - 1 - query;
  }
  tile.head = group.head(pair, params.head_dim);
  tile.rows = rows;
  tile.head_dim = params.head_dim;
  tile.visible_limit = params.key_tokens;
  if (params.key_lengths != nullptr) {
    tile.visible_limit = std::clamp<int64_t>(params.key_lengths[b], 0, params.key_tokens);
  }
  tile.visible_keys = params.causal ? query + params.key_tokens - params.query_tokens + 1 : tile.visible_limit;
  tile.visible_keys_step = params.causal ? 1 : 0;
  tile.scale = params.scale;
  return tile;
}

}  // namespace

void CpuBackend::attention(const Context& context, const AttentionParams& params) {
  require_f32(params.q.dtype, "attention: q");
  require_f32(params.k.dtype, "attention: k");
  require_f32(params.v.dtype, "attention: v");
  require_f32(params.out.dtype, "attention: out");
  if (params.batch * params.query_tokens * params.heads == 0) return;
  const AttentionGeometry geometry = attention_geometry();
  const int64_t width = geometry.panel_width;
  const int64_t padded_keys = round_up(params.key_tokens, width), padded_dim = round_up(params.head_dim, width);
  const int64_t pairs = params.batch * params.kv_heads;
  const int64_t pair_floats = padded_keys * (params.head_dim + padded_dim);
  const int64_t group_pairs = std::clamp<int64_t>(
      kPackedBytes / static_cast<int64_t>(sizeof(float)) / std::max<int64_t>(pair_floats, 1), 1, pairs);
  const Workspace packed(context, group_pairs * pair_floats);
  const int64_t scratch_floats = attention_scratch_floats(params.head_dim);
  const Workspace scratch(context, threads_ * scratch_floats);

  const int64_t heads_per_pair = params.heads / params.kv_heads;
  // Column sums are added up by one task a group of query rows, in a fixed order.
  const bool summed = params.column_sums != nullptr;
  const int64_t task_rows = summed ? params.group_size : geometry.query_block;
  const int64_t query_blocks = divide_up(params.query_tokens, task_rows);
  for (int64_t first = 0; first < pairs; first += group_pairs) {
    const HeadGroup group{first, std::min(group_pairs, pairs - first), packed.data(), padded_keys, padded_dim};
    pack_group(threads_, params, group, width);
    parallel_for(threads_, group.count * heads_per_pair * query_blocks, [&](int64_t task, int worker) {
      const int64_t pair = first + task / (heads_per_pair * query_blocks);
      const int64_t h = pair % params.kv_heads * heads_per_pair + task / query_blocks % heads_per_pair;
      const int64_t block = task % query_blocks;
      const int64_t end = std::min((block + 1) * task_rows, params.query_tokens);
      const int64_t step = equal_share(end - block * task_rows, geometry.query_block);
      for (int64_t query = block * task_rows; query < end; query += step) {
        AttentionTile tile = make_tile(params, group, pair, h, query, std::min(step, end - query));
        tile.scratch = scratch.data() + worker * scratch_floats;
        if (summed) {
          const int64_t head = pair / params.kv_heads * params.heads + h;
          tile.column_lse = params.column_lse + head * params.query_tokens + query;
          tile.column_sums = params.column_sums + (head * query_blocks + block) * params.key_tokens;
          if (query == block * task_rows) std::fill_n(tile.column_sums, params.key_tokens, 0.0f);
        }
        attention_tile(tile);
      }
    });
  }
}

}  // namespace chipmunk
