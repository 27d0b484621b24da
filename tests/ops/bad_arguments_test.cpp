#include <functional>

#include "chipmunk/error.h"
#include "ops/attention.h"
#include "ops/column_attention.h"
#include "ops/column_mlp.h"
#include "ops/elementwise.h"
#include "ops/fp8_rows.h"
#include "ops/image.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/qk_norm_rope.h"
#include "support/op_test.h"

/// What the op functions refuse before a backend sees it: a clear code, and a message that names op and argument.
namespace chipmunk::test {
namespace {

/// Makes tensors for a bad call.
struct Maker {
  const Context& context;
  Tensor operator()(const Dims& shape) const { return context.empty(shape); }
  Tensor operator()(const Dims& shape, DType dtype) const { return context.empty(shape, dtype); }
};

struct BadCall {
  const char* name;
  ErrorCode code;
  const char* mentions;
  std::function<void(const Context&, const Maker&)> run;
};

/// One head of 8 tokens with 4 dimensions, groups of 4 and room for 3 keys.
ops::ColumnSet small_columns(const Maker& t) { return {t({1, 1, 2, 3}, DType::kI32), t({1, 1, 2}, DType::kI32), 4}; }

/// Two blocks of 4 tokens with room for 3 features.
ops::FeatureSet small_features(const Maker& t) { return {t({1, 2, 3}, DType::kI32), t({1, 2}, DType::kI32), 4}; }

const BadCall kBadCalls[] = {
    {"column_attention_counts", ErrorCode::kShapeMismatch, "columns: counts",
     [](const Context& c, const Maker& t) {
       const Tensor x = t({1, 12, 1, 4});
       ops::column_attention_into(c, x, x, x, small_columns(t), t({1, 12, 1, 4}));
     }},
    {"column_attention_group_size", ErrorCode::kInvalidArgument, "column_attention: group_size",
     [](const Context& c, const Maker& t) {
       const Tensor x = t({1, 8, 1, 4});
       ops::ColumnSet columns = small_columns(t);
       columns.group_size = 0;
       ops::column_attention_into(c, x, x, x, columns, t({1, 8, 1, 4}));
     }},
    {"column_attention_residual", ErrorCode::kInvalidArgument, "column_attention: residual",
     [](const Context& c, const Maker& t) {
       const Tensor x = t({1, 8, 1, 4});
       ops::ColumnAttentionOptions options;
       options.epilogue = ColumnEpilogue::kAdd;
       ops::column_attention_into(c, x, x, x, small_columns(t), t({1, 8, 1, 4}), options);
     }},
    {"column_attention_lse_rest", ErrorCode::kShapeMismatch, "column_attention: lse_rest",
     [](const Context& c, const Maker& t) {
       const Tensor x = t({1, 8, 1, 4});
       ops::ColumnAttentionOptions options;
       options.epilogue = ColumnEpilogue::kMerge;
       options.residual = x;
       options.lse_all = t({1, 1, 8}, DType::kF32);
       options.lse_rest = t({1, 8, 1}, DType::kF32);
       ops::column_attention_into(c, x, x, x, small_columns(t), t({1, 8, 1, 4}), options);
     }},
    {"column_attention_integer_indices", ErrorCode::kInvalidArgument, "columns: indices",
     [](const Context& c, const Maker& t) {
       const Tensor x = t({1, 8, 1, 4});
       ops::column_attention_into(c, x, x, x, {t({1, 1, 2, 3}, DType::kI64), t({1, 1, 2}, DType::kI32), 4},
                                  t({1, 8, 1, 4}));
     }},
    {"select_columns_static", ErrorCode::kShapeMismatch, "select_columns: static_columns",
     [](const Context& c, const Maker& t) {
       ops::ColumnSelection selection;
       selection.static_columns = t({2, 7}, DType::kU8);
       ops::select_columns(c, t({1, 1, 2, 8}, DType::kF32), selection, small_columns(t));
     }},
    {"select_columns_multiple", ErrorCode::kInvalidArgument, "select_columns: multiple_of",
     [](const Context& c, const Maker& t) {
       ops::ColumnSelection selection;
       selection.multiple_of = 0;
       ops::select_columns(c, t({1, 1, 2, 8}, DType::kF32), selection, small_columns(t));
     }},
    {"column_sums_without_lse", ErrorCode::kInvalidArgument, "attention: column_lse",
     [](const Context& c, const Maker& t) {
       const Tensor x = t({1, 8, 1, 4});
       ops::AttentionOptions options;
       options.column_sums = t({1, 1, 2, 8}, DType::kF32);
       options.group_size = 4;
       ops::attention_into(c, x, x, x, t({1, 8, 1, 4}), options);
     }},
    {"column_mlp_weight", ErrorCode::kShapeMismatch, "column_mlp: second layer's weight",
     [](const Context& c, const Maker& t) {
       ops::column_mlp_into(c, t({1, 8, 4}), {t({6, 4}), {}}, Activation::kGeluTanh, t({4, 6}), small_features(t),
                            t({1, 8, 6}), t({1, 8, 4}));
     }},
    {"column_mlp_activations", ErrorCode::kShapeMismatch, "column_mlp: activations",
     [](const Context& c, const Maker& t) {
       ops::column_mlp_into(c, t({1, 8, 4}), {t({6, 4}), {}}, Activation::kGeluTanh, t({6, 4}), small_features(t),
                            t({1, 8, 5}), t({1, 8, 4}));
     }},
    {"column_mlp_no_parts", ErrorCode::kInvalidArgument, "column_mlp: parts",
     [](const Context& c, const Maker& t) {
       ops::column_mlp_into(c, t({1, 8, 4}), std::vector<ops::ColumnMlpPart>{}, Activation::kGeluTanh,
                            small_features(t), t({1, 8, 6}), t({1, 8, 4}));
     }},
    {"column_mlp_parts_of_too_many_tokens", ErrorCode::kShapeMismatch, "column_mlp: x",
     [](const Context& c, const Maker& t) {
       const ops::ColumnMlpPart part{5, {t({6, 4}), {}}, t({6, 4})};
       ops::column_mlp_into(c, t({1, 8, 4}), {part, part}, Activation::kGeluTanh, small_features(t), t({1, 8, 6}),
                            t({1, 8, 4}));
     }},
    {"column_mlp_parts_of_different_sizes", ErrorCode::kShapeMismatch, "column_mlp: the second part's first layer",
     [](const Context& c, const Maker& t) {
       ops::column_mlp_into(c, t({1, 8, 4}), {{4, {t({6, 4}), {}}, t({6, 4})}, {4, {t({5, 4}), {}}, t({5, 4})}},
                            Activation::kGeluTanh, small_features(t), t({1, 8, 6}), t({1, 8, 4}));
     }},
    {"select_features_means", ErrorCode::kShapeMismatch, "select_features: cached_means",
     [](const Context& c, const Maker& t) {
       ops::select_features(c, t({1, 2, 6}), t({1, 2, 5}, DType::kF32), {}, small_features(t));
     }},
    {"gated_add_gate", ErrorCode::kShapeMismatch, "gated_add: gate",
     [](const Context& c, const Maker& t) {
       ops::gated_add_into(c, t({2, 3, 4}), t({4}), t({2, 3, 4}), t({2, 3, 4}));
     }},
    {"layer_norm_update", ErrorCode::kShapeMismatch, "layer_norm: update",
     [](const Context& c, const Maker& t) {
       ops::layer_norm_into(c, t({2, 3, 4}), t({2, 3, 4}), 1e-6f, {}, {}, {t({2, 3, 5}), t({2, 4})});
     }},
    {"layer_norm_gate", ErrorCode::kShapeMismatch, "layer_norm: gate",
     [](const Context& c, const Maker& t) {
       ops::layer_norm_into(c, t({2, 3, 4}), t({2, 3, 4}), 1e-6f, {}, {}, {t({2, 3, 4}), t({2, 5})});
     }},
    {"layer_norm_updated_in_place", ErrorCode::kInvalidArgument, "layer_norm: out",
     [](const Context& c, const Maker& t) {
       const Tensor x = t({2, 3, 4});
       ops::layer_norm_into(c, x, x, 1e-6f, {}, {}, {t({2, 3, 4}), t({2, 4})});
     }},
    {"linear_depth", ErrorCode::kShapeMismatch, "linear: x",
     [](const Context& c, const Maker& t) { ops::linear(c, t({3, 4}), {t({5, 6}), {}}); }},
    {"linear_no_weight", ErrorCode::kInvalidArgument, "linear: weight",
     [](const Context& c, const Maker& t) { ops::linear(c, t({3, 4}), {}); }},
    {"linear_bias", ErrorCode::kShapeMismatch, "linear: bias",
     [](const Context& c, const Maker& t) { ops::linear(c, t({3, 4}), {t({5, 4}), t({4})}); }},
    {"linear_gate", ErrorCode::kShapeMismatch, "linear: gate",
     [](const Context& c, const Maker& t) {
       ops::linear(c, t({2, 3, 4}), {t({5, 4}), {}}, {Activation::kNone, t({1, 5}), {}});
     }},
    {"linear_scale", ErrorCode::kShapeMismatch, "linear: scale",
     [](const Context& c, const Maker& t) {
       ops::linear(c, t({3, 4}), {t({5, 4}, DType::kF8E4M3), {}, t({4}, DType::kF32)});
     }},
    {"linear_scale_dtype", ErrorCode::kInvalidArgument, "linear: scale",
     [](const Context& c, const Maker& t) {
       ops::linear(c, t({3, 4}), {t({5, 4}, DType::kF8E4M3), {}, t({5}, DType::kI32)});
     }},
    {"linear_scale_of_other_weight", ErrorCode::kInvalidArgument, "linear: weight with a scale",
     [](const Context& c, const Maker& t) {
       ops::linear(c, t({3, 4}), {t({5, 4}, DType::kF16), {}, t({5}, DType::kF32)});
     }},
    {"quantize_rows_dtype", ErrorCode::kInvalidArgument, "quantize_rows: x",
     [](const Context& c, const Maker& t) { ops::quantize_rows(c, t({3, 4}, DType::kF16)); }},
    {"dequantize_rows_scales", ErrorCode::kShapeMismatch, "dequantize_rows: scales",
     [](const Context& c, const Maker& t) { ops::dequantize_rows(c, t({3, 4}, DType::kF8E4M3), t({4}, DType::kF32)); }},
    {"column_mlp_scale", ErrorCode::kShapeMismatch, "column_mlp: first layer's scale",
     [](const Context& c, const Maker& t) {
       const Linear first{t({6, 4}, DType::kF8E4M3), {}, t({4}, DType::kF32)};
       ops::column_mlp_into(c, t({1, 8, 4}), first, Activation::kGeluTanh, t({6, 4}), small_features(t), t({1, 8, 6}),
                            t({1, 8, 4}));
     }},
    {"column_mlp_scaled_bf16", ErrorCode::kInvalidArgument, "column_mlp: first layer's weight with a scale",
     [](const Context& c, const Maker& t) {
       const Linear first{t({6, 4}, DType::kBF16), {}, t({6}, DType::kF32)};
       ops::column_mlp_into(c, t({1, 8, 4}), first, Activation::kGeluTanh, t({6, 4}), small_features(t), t({1, 8, 6}),
                            t({1, 8, 4}));
     }},
    {"linear_residual", ErrorCode::kShapeMismatch, "linear: residual",
     [](const Context& c, const Maker& t) {
       ops::linear(c, t({3, 4}), {t({5, 4}), {}}, {Activation::kNone, {}, t({3, 4})});
     }},
    {"linear_addend", ErrorCode::kShapeMismatch, "linear: addend",
     [](const Context& c, const Maker& t) {
       ops::linear(c, t({3, 4}), {t({5, 4}), {}}, {Activation::kNone, t({1, 5}), t({3, 5}), {}, t({3, 4})});
     }},
    {"linear_addend_alone", ErrorCode::kInvalidArgument, "linear: addend",
     [](const Context& c, const Maker& t) {
       ops::linear(c, t({3, 4}), {t({5, 4}), {}}, {Activation::kNone, {}, t({3, 5}), {}, t({3, 5})});
     }},
    {"linear_out", ErrorCode::kShapeMismatch, "linear: out",
     [](const Context& c, const Maker& t) { ops::linear_into(c, t({3, 4}), {t({5, 4}), {}}, t({3, 6})); }},
    {"linear_integer_weight", ErrorCode::kInvalidArgument, "linear: weight",
     [](const Context& c, const Maker& t) { ops::linear(c, t({3, 4}), {t({5, 4}, DType::kI32), {}}); }},
    {"linear_transposed_x", ErrorCode::kUnsupported, "linear: x",
     [](const Context& c, const Maker& t) { ops::linear(c, t({4, 3}).permute({1, 0}), {t({5, 4}), {}}); }},
    {"linear_strided_out", ErrorCode::kUnsupported, "linear: out",
     [](const Context& c, const Maker& t) {
       ops::linear_into(c, t({1, 3, 4}), {t({5, 4}), {}}, t({5, 3, 2}).permute({2, 1, 0}).slice(0, 0, 1));
     }},
    {"block_mean_linear_calls", ErrorCode::kInvalidArgument, "block_mean_linear: calls",
     [](const Context& c, const Maker&) { ops::block_mean_linear_into(c, {}, 2); }},
    {"block_mean_linear_out", ErrorCode::kUnsupported, "block_mean_linear: out",
     [](const Context& c, const Maker& t) {
       ops::block_mean_linear_into(c, {{t({1, 8, 4}), {t({6, 4}), {}}, t({1, 6, 4}).permute({0, 2, 1})}}, 2);
     }},
    {"attention_head_dim", ErrorCode::kShapeMismatch, "attention: ",
     [](const Context& c, const Maker& t) {
       ops::attention_into(c, t({1, 3, 2, 8}), t({1, 3, 2, 4}), t({1, 3, 2, 4}), t({1, 3, 2, 8}));
     }},
    {"attention_heads", ErrorCode::kShapeMismatch, "attention: k",
     [](const Context& c, const Maker& t) {
       ops::attention_into(c, t({1, 3, 3, 8}), t({1, 3, 2, 8}), t({1, 3, 2, 8}), t({1, 3, 3, 8}));
     }},
    {"attention_values", ErrorCode::kShapeMismatch, "attention: v",
     [](const Context& c, const Maker& t) {
       ops::attention_into(c, t({1, 3, 2, 8}), t({1, 5, 2, 8}), t({1, 4, 2, 8}), t({1, 3, 2, 8}));
     }},
    {"attention_bias", ErrorCode::kShapeMismatch, "attention: relative_bias",
     [](const Context& c, const Maker& t) {
       ops::AttentionOptions options;
       options.relative_bias = t({2, 6}, DType::kF32);
       ops::attention_into(c, t({1, 3, 2, 8}), t({1, 5, 2, 8}), t({1, 5, 2, 8}), t({1, 3, 2, 8}), options);
     }},
    {"attention_key_lengths", ErrorCode::kInvalidArgument, "attention: key_lengths",
     [](const Context& c, const Maker& t) {
       ops::AttentionOptions options;
       options.key_lengths = t({1}, DType::kI64);
       ops::attention_into(c, t({1, 3, 2, 8}), t({1, 5, 2, 8}), t({1, 5, 2, 8}), t({1, 3, 2, 8}), options);
     }},
    {"linear_heads_too_wide", ErrorCode::kInvalidArgument, "linear",
     [](const Context& c, const Maker& t) {
       ops::LinearEpilogue epilogue;
       epilogue.heads = {2, 8, {}};
       ops::linear_into(c, t({3, 4}), {t({31, 4}), {}}, t({3, 31}), epilogue);
     }},
    {"linear_heads_activated", ErrorCode::kInvalidArgument, "linear",
     [](const Context& c, const Maker& t) {
       ops::LinearEpilogue epilogue;
       epilogue.activation = Activation::kSilu;
       epilogue.heads = {2, 8, {}};
       ops::linear_into(c, t({3, 4}), {t({32, 4}), {}}, t({3, 32}), epilogue);
     }},
    {"linear_heads_other_tokens", ErrorCode::kShapeMismatch, "linear",
     [](const Context& c, const Maker& t) {
       ops::LinearEpilogue epilogue;
       epilogue.heads = {2, 8, {{}, {}, t({4, 4}, DType::kF32), t({4, 4}, DType::kF32)}};
       ops::linear_into(c, t({3, 4}), {t({32, 4}), {}}, t({3, 32}), epilogue);
     }},
    {"qk_one_weight", ErrorCode::kInvalidArgument, "qk_norm_rope",
     [](const Context& c, const Maker& t) {
       ops::qk_norm_rope(c, t({1, 3, 2, 8}), t({1, 3, 2, 8}), {t({8}), {}, {}, {}});
     }},
    {"qk_odd_head", ErrorCode::kShapeMismatch, "qk_norm_rope",
     [](const Context& c, const Maker& t) {
       ops::qk_norm_rope(c, t({1, 3, 2, 7}), t({1, 3, 2, 7}), {{}, {}, t({3, 3}, DType::kF32), t({3, 3}, DType::kF32)});
     }},
    {"layer_norm_out", ErrorCode::kShapeMismatch, "layer_norm: out",
     [](const Context& c, const Maker& t) { ops::layer_norm_into(c, t({3, 4}), t({3, 5}), 1e-6f); }},
    {"layer_norm_lone_scale", ErrorCode::kInvalidArgument, "layer_norm",
     [](const Context& c, const Maker& t) { ops::layer_norm(c, t({3, 4}), 1e-6f, {}, {{}, t({1, 4})}); }},
    {"rms_norm_weight", ErrorCode::kShapeMismatch, "rms_norm: weight",
     [](const Context& c, const Maker& t) { ops::rms_norm(c, t({3, 4}), t({5}), 1e-6f); }},
    {"group_norm_groups", ErrorCode::kShapeMismatch, "group_norm: x",
     [](const Context& c, const Maker& t) { ops::group_norm(c, t({1, 2, 2, 6}), {t({6}), t({6})}, 4, 1e-6f); }},
    {"copy_shape", ErrorCode::kShapeMismatch, "copy: out",
     [](const Context& c, const Maker& t) { ops::copy_into(c, t({3, 4}), t({4, 3})); }},
    {"copy_to_integers", ErrorCode::kInvalidArgument, "copy: out",
     [](const Context& c, const Maker& t) { ops::copy_into(c, t({3, 4}), t({3, 4}, DType::kI32)); }},
    {"axpby_shape", ErrorCode::kShapeMismatch, "axpby: b",
     [](const Context& c, const Maker& t) { ops::axpby_into(c, 1.0f, t({3, 4}), 1.0f, t({3, 5}), t({3, 4})); }},
    {"activation_dtype", ErrorCode::kInvalidArgument, "activation: x",
     [](const Context& c, const Maker& t) { ops::activation(c, Activation::kSilu, t({3, 4}, DType::kF16)); }},
    {"gated_shape", ErrorCode::kShapeMismatch, "gated_activation: x",
     [](const Context& c, const Maker& t) { ops::gated_activation(c, Activation::kSilu, t({3, 4}), t({3, 5})); }},
    {"clamp_order", ErrorCode::kInvalidArgument, "clamp",
     [](const Context& c, const Maker& t) { ops::clamp_into(c, t({3, 4}), 1.0f, -1.0f, t({3, 4})); }},
    {"embedding_indices", ErrorCode::kInvalidArgument, "embedding: indices",
     [](const Context& c, const Maker& t) { ops::embedding(c, t({3}, DType::kI64), t({5, 4})); }},
    {"timestep_odd", ErrorCode::kInvalidArgument, "timestep_embedding",
     [](const Context& c, const Maker& t) { ops::timestep_embedding(c, t({3}, DType::kF32), 7); }},
    {"conv_channels", ErrorCode::kShapeMismatch, "conv2d: x",
     [](const Context& c, const Maker& t) { ops::conv2d(c, t({1, 4, 4, 3}), {t({2, 3, 3, 4}), {}}, {}); }},
    {"conv_small_image", ErrorCode::kShapeMismatch, "conv2d: x",
     [](const Context& c, const Maker& t) { ops::conv2d(c, t({1, 2, 2, 3}), {t({2, 3, 3, 3}), {}}, {}); }},
    {"upsample_factor", ErrorCode::kInvalidArgument, "upsample_nearest",
     [](const Context& c, const Maker& t) { ops::upsample_nearest(c, t({1, 2, 2, 3}), 0); }},
    {"blend_dimension", ErrorCode::kInvalidArgument, "blend",
     [](const Context& c, const Maker& t) { ops::blend_into(c, t({1, 2, 2, 3}), t({1, 2, 2, 3}), 0, 1); }},
    {"blend_seam", ErrorCode::kShapeMismatch, "blend",
     [](const Context& c, const Maker& t) { ops::blend_into(c, t({1, 2, 2, 3}), t({1, 2, 3, 3}), 1, 1); }},
    {"quantize_dtype", ErrorCode::kInvalidArgument, "quantize_image: x",
     [](const Context& c, const Maker& t) { ops::quantize_image(c, t({4}, DType::kU8)); }},
};

class BadArgumentsTest : public OpCaseTest<BadCall> {};

TEST_P(BadArgumentsTest, ThrowsItsCodeAndNamesTheArgument) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  try {
    test_case().run(context(), Maker{context()});
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(to_string(error.code()), to_string(test_case().code)) << error.what();
    EXPECT_NE(std::string(error.what()).find(test_case().mentions), std::string::npos) << error.what();
  }
}

CHIPMUNK_INSTANTIATE(BadArgumentsTest, ::testing::ValuesIn(kBadCalls));

TEST(CpuContextTest, RefusesNegativeThreadCounts) { EXPECT_THROW(make_cpu_context({-1, 0}), Error); }

TEST(CpuContextTest, ComputesInF32Only) {
  const Context context = make_cpu_context({1, 0});
  EXPECT_EQ(context.activation_dtype(), DType::kF32);
  const Tensor a = context.empty({2}), out = context.empty({2}, DType::kBF16);
  try {
    ops::axpby_into(context, 1.0f, a, 1.0f, a, out);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(error.what()).find("bf16"), std::string::npos) << error.what();
  }
}

TEST(CpuContextTest, ScratchMemoryCountsTowardsTheLimit) {
  const Context context = make_cpu_context({1, 1 << 20});
  const Tensor x = make_host_tensor({64, 2048}, DType::kF32), weight = make_host_tensor({512, 2048}, DType::kBF16);
  EXPECT_THROW(ops::linear(context, x, {weight, {}}), Error);
  EXPECT_EQ(context.runtime().memory().current_bytes, 0u);
}

}  // namespace
}  // namespace chipmunk::test
