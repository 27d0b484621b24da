#include "ops/column_attention.h"

#include <cmath>
#include <string>

#include "backend.h"
#include "ops/check.h"

namespace chipmunk::ops {
namespace {

int64_t group_count(const char* what, int64_t query_tokens, int64_t group_size) {
  if (group_size < 1) fail_argument(what, "at least 1", group_size);
  return (query_tokens + group_size - 1) / group_size;
}

/// Checks the parts of a column set and gives its capacity.
int64_t check_columns(const Context& context, const ColumnSet& columns, const Dims& counts_shape) {
  check_i32(context, columns.counts, counts_shape, "columns: counts");
  check_present(context, columns.indices, "columns: indices");
  if (columns.indices.rank() != 4) fail_shape("columns: indices", "rank 4 [B, H, G, capacity]", columns.indices);
  const int64_t capacity = columns.indices.dim(3);
  check_i32(context, columns.indices, {counts_shape[0], counts_shape[1], counts_shape[2], capacity},
            "columns: indices");
  return capacity;
}

}  // namespace

void column_attention_into(const Context& context, const Tensor& q, const Tensor& k, const Tensor& v,
                           const ColumnSet& columns, const Tensor& result, const ColumnAttentionOptions& options) {
  check_heads(context, q, "column_attention: q");
  check_heads(context, k, "column_attention: k");
  check_heads(context, v, "column_attention: v");
  check_heads(context, result, "column_attention: out");
  const int64_t batch = q.dim(0), n = q.dim(1), heads = q.dim(2), head_dim = q.dim(3), m = k.dim(1);
  check_shape(context, k, {batch, m, heads, head_dim}, "column_attention: k");
  check_shape(context, v, {batch, m, heads, head_dim}, "column_attention: v");
  check_shape(context, result, q.shape(), "column_attention: out");
  const int64_t groups = group_count("column_attention: group_size", n, columns.group_size);
  const int64_t capacity = check_columns(context, columns, {batch, heads, groups});
  const Dims lse_shape = {batch, heads, n};
  if (options.epilogue != ColumnEpilogue::kNone) {
    check_heads(context, options.residual, "column_attention: residual");
    check_shape(context, options.residual, q.shape(), "column_attention: residual");
  }
  if (options.epilogue == ColumnEpilogue::kSplit || options.epilogue == ColumnEpilogue::kMerge) {
    check_f32(context, options.lse_all, lse_shape, "column_attention: lse_all");
    check_f32(context, options.lse_rest, lse_shape, "column_attention: lse_rest");
  }
  if (options.lse) check_f32(context, options.lse, lse_shape, "column_attention: lse");

  ColumnAttentionParams params{};
  params.q = in(q);
  params.k = in(k);
  params.v = in(v);
  params.out = out(result);
  if (options.epilogue != ColumnEpilogue::kNone) {
    params.residual = in(options.residual);
    params.residual_strides = head_strides(options.residual);
  }
  params.indices = columns.indices.data_as<int32_t>();
  params.counts = columns.counts.data_as<int32_t>();
  params.lse = static_cast<float*>(options.lse.data());
  params.lse_all = static_cast<const float*>(options.lse_all.data());
  params.lse_rest = static_cast<float*>(options.lse_rest.data());
  params.q_strides = head_strides(q);
  params.k_strides = head_strides(k);
  params.v_strides = head_strides(v);
  params.out_strides = head_strides(result);
  params.batch = batch;
  params.query_tokens = n;
  params.key_tokens = m;
  params.heads = heads;
  params.head_dim = head_dim;
  params.group_size = columns.group_size;
  params.capacity = capacity;
  params.scale = options.scale != 0.0f ? options.scale : 1.0f / std::sqrt(static_cast<float>(head_dim));
  params.epilogue = options.epilogue;
  params.overlaps_last = options.overlaps_last;
  context.backend().column_attention(context, params);
}

void select_columns(const Context& context, const Tensor& column_sums, const ColumnSelection& selection,
                    const ColumnSet& columns) {
  check_present(context, column_sums, "select_columns: column_sums");
  if (column_sums.rank() != 4) fail_shape("select_columns: column_sums", "rank 4 [B, H, G, M]", column_sums);
  const int64_t batch = column_sums.dim(0), heads = column_sums.dim(1), groups = column_sums.dim(2);
  const int64_t m = column_sums.dim(3);
  check_f32(context, column_sums, column_sums.shape(), "select_columns: column_sums");
  if (selection.multiple_of < 1) fail_argument("select_columns: multiple_of", "at least 1", selection.multiple_of);

  SelectColumnsParams params{};
  if (selection.static_columns) {
    const bool per_head = selection.static_columns.rank() == 3;
    check_u8(context, selection.static_columns, per_head ? Dims{heads, groups, m} : Dims{groups, m},
             "select_columns: static_columns");
    params.static_head_stride = per_head ? groups * m : 0;
  }
  if (selection.random_columns) {
    check_u8(context, selection.random_columns, column_sums.shape(), "select_columns: random_columns");
  }
  params.capacity = check_columns(context, columns, {batch, heads, groups});
  params.column_sums = static_cast<const float*>(column_sums.data());
  params.static_columns = static_cast<const uint8_t*>(selection.static_columns.data());
  params.random_columns = static_cast<const uint8_t*>(selection.random_columns.data());
  params.indices = columns.indices.data_as<int32_t>();
  params.counts = columns.counts.data_as<int32_t>();
  params.batch = batch;
  params.heads = heads;
  params.groups = groups;
  params.key_tokens = m;
  params.top_k = selection.top_k;
  params.room_keys = selection.room_keys;
  params.multiple_of = selection.multiple_of;
  params.random = selection.random;
  params.random_threshold = selection.random_threshold;
  context.backend().select_columns(context, params);
}

}  // namespace chipmunk::ops
