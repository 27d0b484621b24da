#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/attention_kernels.h"
#include "cpu/cpu_backend.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace chipmunk {
namespace {

using namespace cpu;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
/// 1 - m is not trusted below this: it is the difference of two logarithms of sums.
constexpr float kMinRest = 1e-7f;

/// The query rows of one group of one head.
struct QueryGroup {
  int64_t batch, head, group;
  int64_t first_row, rows;
  const int32_t* indices;  // [count] or null for all keys
  int64_t count;
};

QueryGroup query_group(const ColumnAttentionParams& params, int64_t groups, int64_t task) {
  QueryGroup group{};
  group.batch = task / groups / params.heads;
  group.head = task / groups % params.heads;
  group.group = task % groups;
  group.first_row = group.group * params.group_size;
  group.rows = std::min(params.group_size, params.query_tokens - group.first_row);
  group.count = params.counts[task];
  group.indices = group.count == params.key_tokens ? nullptr : params.indices + task * params.capacity;
  return group;
}

int64_t offset(const QueryGroup& group, int64_t row, const HeadStrides& strides) {
  return group.batch * strides.batch + group.head * strides.head + (group.first_row + row) * strides.token;
}

struct RowWeights {
  float residual, sparse;
};

/// The factors of residual and A_S in one row; writes lse_rest for kSplit.
RowWeights row_weights(const ColumnAttentionParams& params, const QueryGroup& group, int64_t lse_index, float lse) {
  switch (params.epilogue) {
    case ColumnEpilogue::kNone: return {0.0f, 1.0f};
    case ColumnEpilogue::kAdd: return {1.0f, 1.0f};
    case ColumnEpilogue::kSubtract: return {1.0f, -1.0f};
    case ColumnEpilogue::kSplit: {
      const float all = params.lse_all[lse_index];
      if (group.count == params.key_tokens || all == -kInfinity) {
        params.lse_rest[lse_index] = -kInfinity;
        return {0.0f, 0.0f};
      }
      // The same sum with other terms may come out larger by rounding: m is at most 1.
      const float log_kept = std::min(lse - all, 0.0f);
      params.lse_rest[lse_index] = all + std::log(std::max(-std::expm1(log_kept), kMinRest));
      return {1.0f, -std::exp(log_kept)};
    }
    case ColumnEpilogue::kMerge: {
      const float rest = params.lse_rest[lse_index];
      const float largest = std::max(rest, lse);
      // Not by the larger one, which hides a NaN.
      if (rest == -kInfinity && lse == -kInfinity) return {0.0f, 0.0f};
      const float total = std::exp(rest - largest) + std::exp(lse - largest);
      const float residual = rest == -kInfinity ? 0.0f : std::exp(params.lse_all[lse_index] - largest) / total;
      return {residual, std::exp(lse - largest) / total};
    }
  }
  return {0.0f, 1.0f};
}

/// out = weights.residual * residual + weights.sparse * sparse. A weight of 0 leaves its operand unread.
void write_row(int64_t n, const float* residual, const float* sparse, RowWeights weights, float* out) {
  if (weights.residual == 0.0f) {
    for (int64_t i = 0; i < n; ++i) out[i] = weights.sparse == 0.0f ? 0.0f : weights.sparse * sparse[i];
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = weights.residual * residual[i] + weights.sparse * sparse[i];
  }
}

/// What one thread works in.
struct Scratch {
  float* gathered;  // rows of keys and values on their way into panels
  float* keys;
  float* values;
  float* sparse;  // [query block, head_dim]: A_S
  float* lse;     // [query block]
  float* tile;

  static int64_t floats(const AttentionGeometry& geometry, int64_t head_dim, int64_t keys) {
    const int64_t width = geometry.panel_width;
    return 2 * width * head_dim + round_up(keys, width) * (head_dim + round_up(head_dim, width)) +
           geometry.query_block * (head_dim + 1) + attention_scratch_floats(head_dim);
  }
  Scratch(float* memory, const AttentionGeometry& geometry, int64_t head_dim, int64_t most_keys) {
    const int64_t width = geometry.panel_width;
    gathered = memory;
    keys = gathered + 2 * width * head_dim;
    values = keys + round_up(most_keys, width) * head_dim;
    sparse = values + round_up(most_keys, width) * round_up(head_dim, width);
    lse = sparse + geometry.query_block * head_dim;
    tile = lse + geometry.query_block;
  }
};

void run_group(const ColumnAttentionParams& params, const QueryGroup& group, const AttentionGeometry& geometry,
               const Scratch& scratch) {
  const int64_t head_dim = params.head_dim;
  const PackedHead head{scratch.keys, scratch.values, round_up(group.count, geometry.panel_width)};
  const PackTask source{f32(params.k) + group.batch * params.k_strides.batch + group.head * params.k_strides.head,
                        f32(params.v) + group.batch * params.v_strides.batch + group.head * params.v_strides.head,
                        params.k_strides.token,
                        params.v_strides.token,
                        params.key_tokens,
                        head_dim};
  gather_head({source, group.indices, group.count, scratch.gathered}, head);
  // Equal tiles: a last one of few rows would read all keys for little work.
  const int64_t step = divide_up(group.rows, divide_up(group.rows, geometry.query_block));
  for (int64_t row = 0; row < group.rows; row += step) {
    AttentionTile tile{};
    tile.q = f32(params.q) + offset(group, row, params.q_strides);
    tile.q_stride = params.q_strides.token;
    tile.out = scratch.sparse;
    tile.out_stride = head_dim;
    tile.lse = scratch.lse;
    tile.head = head;
    tile.rows = std::min(step, group.rows - row);
    tile.head_dim = head_dim;
    tile.visible_keys = tile.visible_limit = group.count;
    tile.scale = params.scale;
    tile.scratch = scratch.tile;
    attention_tile(tile);
    for (int64_t r = 0; r < tile.rows; ++r) {
      const int64_t lse_index =
          (group.batch * params.heads + group.head) * params.query_tokens + group.first_row + row + r;
      if (params.lse != nullptr) params.lse[lse_index] = scratch.lse[r];
      const float* residual = params.residual.data == nullptr
                                  ? nullptr
                                  : f32(params.residual) + offset(group, row + r, params.residual_strides);
      write_row(head_dim, residual, scratch.sparse + r * head_dim,
                row_weights(params, group, lse_index, scratch.lse[r]),
                f32(params.out) + offset(group, row + r, params.out_strides));
    }
  }
}

}  // namespace

void CpuBackend::column_attention(const Context& context, const ColumnAttentionParams& params) {
  require_f32(params.q.dtype, "column_attention: q");
  require_f32(params.k.dtype, "column_attention: k");
  require_f32(params.v.dtype, "column_attention: v");
  require_f32(params.out.dtype, "column_attention: out");
  require_f32(params.residual.dtype, "column_attention: residual");
  const int64_t groups = divide_up(params.query_tokens, params.group_size);
  const int64_t tasks = params.batch * params.heads * groups;
  if (tasks == 0) return;
  const AttentionGeometry geometry = attention_geometry();
  const int64_t most_keys = *std::max_element(params.counts, params.counts + tasks);
  const int64_t scratch_floats = Scratch::floats(geometry, params.head_dim, most_keys);
  const Workspace memory(context, threads_ * scratch_floats);
  parallel_for(threads_, tasks, [&](int64_t task, int worker) {
    const Scratch scratch(memory.data() + worker * scratch_floats, geometry, params.head_dim, most_keys);
    run_group(params, query_group(params, groups, task), geometry, scratch);
  });
}

}  // namespace chipmunk
