#include "conformance/method_case.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <utility>
#include <vector>

#include "core/column_selection.h"
#include "models/flux_rope.h"
#include "models/layers.h"
#include "ops/attention.h"
#include "ops/elementwise.h"
#include "sparse/attention_state.h"
#include "sparse/mlp_state.h"

namespace chipmunk::conformance {
namespace {

/// Floating values in the dtype of activations, on the device; [B, H, N, D] becomes a view [B, N, H, D].
Tensor activations(const Context& context, const Tensor& host) {
  return ops::to_dense(context, context.to_device(host), context.activation_dtype());
}
Tensor token_major(const Tensor& heads_first) { return heads_first.permute({0, 2, 1, 3}); }

/// x_t = x0 + t * step * roll(x0, -1) along dimension `axis`.
Tensor input_of_step(const Context& context, const Tensor& x0, int axis, float factor) {
  const Tensor base = host_f32(context, context.to_device(x0));
  Tensor result = make_host_tensor(base.shape(), DType::kF32);
  int64_t inner = 1;
  for (int i = axis + 1; i < base.rank(); ++i) inner *= base.dim(i);
  const int64_t tokens = base.dim(axis);
  for (int64_t i = 0; i < base.numel(); ++i) {
    const int64_t token = i / inner % tokens, next = (token + 1) % tokens;
    result.data_as<float>()[i] = base.data_as<float>()[i] + factor * base.data_as<float>()[i + (next - token) * inner];
  }
  return activations(context, result);
}

/// Lists and counts as the fixtures hold them: -1 past a row's count, every id where a count stands for all.
void store_lists(const Context& context, const std::string& prefix, const Tensor& indices, const Tensor& counts,
                 const Dims& shape, Results& results) {
  const Tensor ids = context.to_host(indices), lengths = context.to_host(counts);
  const Tensor padded = make_host_tensor(shape, DType::kI32);
  std::fill_n(padded.data_as<int32_t>(), padded.numel(), -1);
  const int64_t columns = shape[shape.rank() - 1], capacity = ids.dim(-1);
  for (int64_t row = 0; row < lengths.numel(); ++row) {
    for (int64_t i = 0; i < lengths.data_as<int32_t>()[row]; ++i) {
      const bool listed = lengths.data_as<int32_t>()[row] <= capacity;
      padded.data_as<int32_t>()[row * columns + i] =
          listed ? ids.data_as<int32_t>()[row * capacity + i] : static_cast<int32_t>(i);
    }
  }
  results[prefix + "indices"] = padded;
  Dims counts_shape;
  for (int i = 0; i + 1 < shape.rank(); ++i) counts_shape.push_back(shape[i]);
  const Tensor copy = make_host_tensor(counts_shape, DType::kI32);
  std::memcpy(copy.data(), lengths.data(), copy.bytes());
  results[prefix + "counts"] = copy;
}

/// Rows of an output [B, H, N, D] at listed queries.
Tensor rows_of(const Tensor& output, const Tensor& rows) {
  const int64_t n = output.dim(2), dim = output.dim(3), count = rows.numel();
  const Tensor result = make_host_tensor({output.dim(0), output.dim(1), count, dim}, DType::kF32);
  for (int64_t head = 0; head < output.dim(0) * output.dim(1); ++head) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = rows.data_as<int32_t>()[i];
      std::copy_n(output.data_as<float>() + (head * n + row) * dim, dim,
                  result.data_as<float>() + (head * count + i) * dim);
    }
  }
  return result;
}

/// Dense attention with and without a key mask, after norm and rotary embedding (method/attention-hd128).
void compute_normed_attention(const Context& context, const CaseFolder& folder, Results& results) {
  const JsonConfig& params = folder.params();
  const int64_t head_dim = folder.input("norm_q").dim(0), heads = folder.input("q").dim(2) / head_dim;
  const auto heads_of = [&](const char* name) { return split_heads(activations(context, folder.input(name)), heads); };
  const Tensor q = heads_of("q"), k = heads_of("k"), v = heads_of("v");
  const Tensor positions = folder.input("positions");
  std::vector<double> places(positions.data_as<int32_t>(), positions.data_as<int32_t>() + positions.numel());
  const RopeTables rope = make_rope_tables(context, places, params.integers("axes_dims"), params.number("theta"));
  ops::qk_norm_rope(context, q, k,
                    {context.to_device(folder.input("norm_q")), context.to_device(folder.input("norm_k")), rope.cos,
                     rope.sin, 1e-6f});
  results["q_rope"] = host_f32(context, token_major(q));
  results["k_rope"] = host_f32(context, token_major(k));
  const Tensor valid_keys = make_host_tensor({q.dim(0)}, DType::kI32);
  std::fill_n(valid_keys.data_as<int32_t>(), q.dim(0), static_cast<int32_t>(params.integer("valid_keys")));
  for (const char* prefix : {"", "masked."}) {
    ops::AttentionOptions options;
    if (*prefix != '\0') options.key_lengths = context.to_device(valid_keys);
    options.lse = context.empty({q.dim(0), heads, q.dim(1)}, DType::kF32);
    const Tensor out = context.empty(q.shape());
    ops::attention_into(context, q, k, v, out, options);
    results[prefix + std::string("o")] = host_f32(context, token_major(out));
    results[prefix + std::string("lse")] = host_f32(context, options.lse);
  }
}

/// Two dense steps, column sums with both denominators, and attention over given lists (method/attention).
void compute_attention(const Context& context, const CaseFolder& folder, Results& results) {
  const int64_t group = folder.params().integer("group");
  const auto input = [&](const char* name) { return token_major(activations(context, folder.input(name))); };
  const Tensor v = input("v");
  const Dims lse_shape = {v.dim(0), v.dim(2), v.dim(1)};
  const Dims sums_shape = folder.expected_shape("colsum_prev.values");
  const auto run = [&](const Tensor& q, const Tensor& k, const std::string& name, const Tensor& column_lse,
                       const std::string& sums_name) {
    ops::AttentionOptions options;
    options.lse = context.empty(lse_shape, DType::kF32);
    if (column_lse) {
      options.column_lse = column_lse;
      options.column_sums = context.empty(sums_shape, DType::kF32);
      options.group_size = group;
    }
    const Tensor out = context.empty(q.shape());
    ops::attention_into(context, q, k, v, out, options);
    results[name + ".o"] = host_f32(context, token_major(out));
    results[name + ".lse"] = host_f32(context, options.lse);
    if (column_lse) results[sums_name] = host_f32(context, options.column_sums);
    return options.lse;
  };
  const Tensor q = input("q"), k = input("k"), q_next = input("q_next"), k_next = input("k_next");
  const Tensor lse = run(q, k, "dense", {}, "");
  run(q, k, "dense", lse, "colsum_same.values");
  run(q_next, k_next, "dense_next", lse, "colsum_prev.values");
  for (const char* name : {"multiple1", "multiple8", "multiple32", "edge"}) {
    const std::string lists = (std::strcmp(name, "edge") == 0 ? "sparse." : "indices.") + std::string(name);
    const ops::ColumnSet columns{context.to_device(folder.expected().at(lists + ".indices").value),
                                 context.to_device(folder.expected().at(lists + ".counts").value), group};
    const Tensor out = context.empty(q.shape());
    ops::column_attention_into(context, q_next, k_next, v, columns, out);
    results["sparse." + std::string(name) + ".o"] = host_f32(context, token_major(out));
  }
}

/// A sequence of steps through SparseAttentionState (method/delta-attention-*).
void compute_delta_attention(const Context& context, const CaseFolder& folder, Results& results) {
  const JsonConfig& params = folder.params();
  const Dims shape = folder.input("q0").shape();
  SparseAttentionPlan plan;
  plan.shape = {shape[0], shape[2], shape[1], shape[3]};
  plan.group_size = params.integer("group");
  plan.combine = AttentionCombine::kDifference;
  plan.multiple_of = params.integer("multiple_of");
  plan.capacity = shape[2];
  const double top_keys = params.number("top_keys");
  plan.top_k = top_k_count(top_keys, shape[2], plan.multiple_of);
  if (folder.has_input("static_mask")) {
    plan.static_columns = context.to_device(folder.input("static_mask"));
    plan.room_keys = static_cast<int64_t>(top_keys * params.number("video_len"));
  }
  const std::vector<int64_t> full_steps = params.integers("full_steps");
  const bool recompute = params.boolean("recompute_mask");
  SparseAttentionState state(std::make_shared<const SparseAttentionPlan>(plan), 0, 0);
  for (int step = 0; step < params.integer("steps"); ++step) {
    const bool full = std::find(full_steps.begin(), full_steps.end(), step) != full_steps.end();
    const bool first_choice = state.columns().indices.empty();
    const AttentionStep kind = step == 0                   ? AttentionStep::kDense
                               : !full                     ? AttentionStep::kSparse
                               : recompute || first_choice ? AttentionStep::kRefresh
                                                           : AttentionStep::kRecache;
    const auto input = [&](const char* name) {
      return token_major(input_of_step(context, folder.input(name), 2, static_cast<float>(step) / 16.0f));
    };
    const std::string random_name = "random_mask" + std::to_string(step);
    const Tensor random = folder.has_input(random_name) ? context.to_device(folder.input(random_name)) : Tensor();
    const Tensor q = input("q0"), k = input("k0"), v = input("v0"), out = context.empty(q.shape());
    state.forward(context, kind, step, q, k, v, out, random);
    const std::string prefix = "step" + std::to_string(step) + ".";
    const Tensor output = host_f32(context, token_major(out));
    results[prefix + "o"] = output;
    if (folder.has_input("rows")) results[prefix + "o_rows"] = rows_of(output, folder.input("rows"));
    if (kind == AttentionStep::kSparse) continue;
    results[prefix + "lse"] = host_f32(context, state.lse());
    if (!state.cache().empty()) results[prefix + "cache"] = host_f32(context, token_major(state.cache()));
    if (kind != AttentionStep::kRefresh) continue;
    results[prefix + "colsum"] = host_f32(context, state.column_sums());
    store_lists(context, prefix, state.columns().indices, state.columns().counts,
                {shape[0], shape[1], plan.groups(), shape[2]}, results);
  }
}

/// What the differences of a sparse step were, from the activations before and after it: [blocks, rows, slots].
Tensor packed_differences(const Tensor& before, const Tensor& after, const Tensor& indices, int64_t block_rows,
                          const Dims& shape) {
  const Tensor packed = make_host_tensor(shape, DType::kF32);
  std::fill_n(packed.data_as<float>(), packed.numel(), 0.0f);
  const int64_t rows = before.dim(-2), features = before.dim(-1), slots = shape[2];
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t block = row / block_rows;
    for (int64_t slot = 0; slot < slots; ++slot) {
      const int32_t feature = indices.data_as<int32_t>()[block * features + slot];
      if (feature < 0) continue;
      const int64_t at = row * features + feature;
      packed.data_as<float>()[(block * block_rows + row % block_rows) * slots + slot] =
          after.data_as<float>()[at] - before.data_as<float>()[at];
    }
  }
  return packed;
}

/// A sequence of steps through SparseMlpState (method/delta-mlp*).
void compute_delta_mlp(const Context& context, const CaseFolder& folder, Results& results) {
  const JsonConfig& params = folder.params();
  SparseMlpPlan plan;
  plan.top_keys = params.number("top_keys");
  plan.multiple_of = params.integer("multiple_of");
  plan.block_rows = params.integer("block_rows");
  plan.mean_rows = params.integer("mean_rows");
  plan.random_keys = 0.0;  // the fixture gives its random columns
  const auto weight = [&](const char* name) { return context.to_device(folder.input(name)); };
  MlpWeights weights{{weight("fc1.weight"), weight("fc1.bias")}, {weight("fc2.weight"), weight("fc2.bias")}, {}};
  weights.second_transposed =
      ops::to_dense(context, weights.second.weight.permute({1, 0}), weights.second.weight.dtype());
  const int64_t features = weights.first.out_features();
  plan.capacity = features;
  SparseMlpState state(std::make_shared<const SparseMlpPlan>(plan), 0, 0);
  state.keep_drift();
  int step = 0;
  for (const std::string& name : params.strings("kinds")) {
    const MlpStep kind = name == "full"     ? MlpStep::kFull
                         : name == "sparse" ? MlpStep::kSparseSelect
                                            : MlpStep::kSparseReuse;
    const Tensor x = input_of_step(context, folder.input("x0"), 0, static_cast<float>(step) / 32.0f).unsqueeze(0);
    const int64_t blocks = (x.dim(1) + plan.block_rows - 1) / plan.block_rows;
    const std::string random_name = "random_mask" + std::to_string(step);
    const Tensor random =
        folder.has_input(random_name) ? context.to_device(folder.input(random_name)).unsqueeze(0) : Tensor();
    const Tensor before = state.activations().empty() ? Tensor() : host_f32(context, state.activations());
    state.forward(context, kind, step, x, weights, random);
    const std::string prefix = "step" + std::to_string(step++) + ".";
    const Tensor after = host_f32(context, state.activations());
    results[prefix + "out"] = host_f32(context, state.output()).select(0, 0);
    results[prefix + "act"] = after.select(0, 0);
    results[prefix + "mid_mean"] = host_f32(context, state.means()).select(0, 0);
    if (kind != MlpStep::kSparseSelect) continue;
    results[prefix + "diff"] = host_f32(context, state.drift()).select(0, 0);
    store_lists(context, prefix, state.features().indices, state.features().counts, {blocks, features}, results);
    if (folder.expected().count(prefix + "packed") != 0) {
      results[prefix + "packed"] = packed_differences(before, after, results[prefix + "indices"], plan.block_rows,
                                                      folder.expected_shape(prefix + "packed"));
    }
  }
}

}  // namespace

Results compute_method_case(const Context& context, const CaseFolder& folder,
                            std::map<std::string, std::string>& failures) {
  using Compute = void (*)(const Context&, const CaseFolder&, Results&);
  // The input that a computation begins with.
  constexpr std::pair<const char*, Compute> kGroups[] = {{"norm_q", compute_normed_attention},
                                                         {"q_next", compute_attention},
                                                         {"q0", compute_delta_attention},
                                                         {"fc1.weight", compute_delta_mlp}};
  Results results;
  for (const auto& [input, compute] : kGroups) {
    if (!folder.has_input(input)) continue;
    try {
      compute(context, folder, results);
    } catch (const std::exception& error) {
      failures[input] = error.what();
    }
  }
  return results;
}

}  // namespace chipmunk::conformance
