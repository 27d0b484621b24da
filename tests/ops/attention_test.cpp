#include "ops/attention.h"

#include <cmath>
#include <limits>

#include "ops/qk_norm_rope.h"
#include "support/op_test.h"

namespace chipmunk::test {
namespace {

struct AttentionCase : NamedCase {
  int64_t batch, query_tokens, key_tokens, heads, kv_heads, head_dim;
  bool causal = false, bias = false;
  std::vector<int32_t> key_lengths = {};
  int64_t pad = 0;
  float q_scale = 1.0f;  // larger ones make the softmax sharp
};

const AttentionCase kCases[] = {
    // regular
    {"d64", 1, 64, 64, 2, 2, 64},
    {"d128", 1, 130, 130, 2, 2, 128},
    {"causal", 1, 77, 77, 3, 3, 64, true},
    {"bias", 1, 40, 40, 2, 2, 32, false, true},
    {"grouped_heads", 2, 33, 45, 6, 2, 16},
    {"key_lengths", 3, 20, 50, 2, 2, 32, false, false, {50, 17, 1}},
    {"strided", 2, 37, 41, 3, 3, 24, false, false, {}, 3},
    // corner
    {"one", 1, 1, 1, 1, 1, 1},
    {"one_key", 2, 19, 1, 2, 1, 8},
    {"one_query", 1, 1, 300, 2, 2, 16},
    {"primes", 1, 113, 257, 3, 1, 13},
    {"past_query_block", 1, 113, 64, 1, 1, 40},
    {"past_key_block", 1, 30, 257, 1, 1, 8},
    {"many_key_blocks", 1, 50, 1031, 1, 1, 32},
    {"d512", 1, 120, 290, 1, 1, 512},
    {"d160", 1, 20, 30, 2, 2, 160},
    {"causal_more_keys", 1, 30, 300, 2, 2, 16, true},
    {"causal_fewer_keys", 1, 50, 20, 2, 2, 16, true},
    {"causal_blocks", 1, 300, 300, 1, 1, 16, true},
    {"no_visible_key", 2, 20, 30, 2, 2, 16, false, false, {0, 30}},
    {"everything", 2, 150, 270, 4, 2, 20, true, true, {260, 131}, 2},
    {"sharp", 1, 40, 600, 2, 2, 64, false, false, {}, 0, 20.0f},
    {"flat", 1, 40, 600, 2, 2, 64, false, false, {}, 0, 0.001f},
};

class AttentionTest : public OpCaseTest<AttentionCase> {
 protected:
  struct Problem {
    Tensor q, k, v;
    ops::AttentionOptions options;
  };

  Problem make_problem(const AttentionCase& c) {
    Problem problem;
    problem.q =
        random_view({c.batch, c.query_tokens, c.heads, c.head_dim}, context().activation_dtype(), c.pad, c.q_scale);
    problem.k = random_view({c.batch, c.key_tokens, c.kv_heads, c.head_dim}, c.pad);
    problem.v = random_view({c.batch, c.key_tokens, c.kv_heads, c.head_dim}, c.pad);
    problem.options.causal = c.causal;
    if (c.bias) problem.options.relative_bias = random({c.heads, c.query_tokens + c.key_tokens - 1}, DType::kF32);
    if (!c.key_lengths.empty()) problem.options.key_lengths = from_ints(c.key_lengths);
    problem.options.lse = context().empty({c.batch, c.heads, c.query_tokens}, DType::kF32);
    return problem;
  }

  AttentionReference reference(const Problem& problem) {
    const auto dim = static_cast<float>(problem.q.dim(3));
    return reference_attention({read(problem.q), read(problem.k), read(problem.v), read(problem.options.relative_bias),
                                read(problem.options.key_lengths), 1.0f / std::sqrt(dim), problem.options.causal});
  }
};

TEST_P(AttentionTest, MatchesReference) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Problem problem = make_problem(test_case());
  const GuardedView out = make_guarded_view(context(), problem.q.shape(), 1, context().activation_dtype());
  ops::attention_into(context(), problem.q, problem.k, problem.v, out.view, problem.options);
  const AttentionReference expected = reference(problem);
  const double factor = 8.0 + std::sqrt(static_cast<double>(test_case().head_dim));
  expect_close(read(out.view), expected.out, factor);
  expect_close(read(problem.options.lse), expected.lse, factor);
  expect_untouched(context(), out);
}

TEST_P(AttentionTest, SameBitsTwice) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const auto run = [&] {
    const Problem problem = make_problem(test_case());
    const Tensor out = context().empty(problem.q.shape());
    ops::attention_into(context(), problem.q, problem.k, problem.v, out, problem.options);
    return read(out);
  };
  const Array first = run();
  open(device_name());
  expect_equal(run(), first);
  if (device_name() != "cpu") return;
  open("cpu", 1);
  expect_equal(run(), first);
}

CHIPMUNK_INSTANTIATE(AttentionTest, ::testing::ValuesIn(kCases));

class AttentionFormsTest : public OpCaseTest<OnlyCase> {};

TEST_P(AttentionFormsTest, OneBufferOfQkvAndOutOverQ) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  // As a fused projection leaves them: [B, T, 3, H, D].
  const Tensor qkv = random({2, 150, 3, 4, 16});
  const Tensor q = qkv.select(2, 0), k = qkv.select(2, 1), v = qkv.select(2, 2);
  const AttentionReference expected =
      reference_attention({read(q), read(k), read(v), {}, {}, 1.0 / std::sqrt(16.0), false});
  const Tensor out = context().empty(q.shape());
  ops::attention_into(context(), q, k, v, out);
  expect_close(read(out), expected.out, 12.0);
}

TEST_P(AttentionFormsTest, InfiniteBiasHidesKeys) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const float hidden = -std::numeric_limits<float>::infinity();
  const int64_t n = 30, m = 300;
  std::vector<float> bias(static_cast<size_t>(n + m - 1), hidden);
  // Only keys within three places of the query's own index stay visible; far rows of a block see none of it.
  for (int64_t offset = -3; offset <= 3; ++offset)
    bias[static_cast<size_t>(offset + n - 1)] = 0.25f * static_cast<float>(offset);
  const Tensor q = random({1, n, 1, 8}), k = random({1, m, 1, 8}), v = random({1, m, 1, 8});
  ops::AttentionOptions options;
  options.relative_bias = from_floats({1, n + m - 1}, bias, DType::kF32);
  const AttentionReference expected =
      reference_attention({read(q), read(k), read(v), read(options.relative_bias), {}, 1.0 / std::sqrt(8.0), false});
  const Tensor out = context().empty(q.shape());
  ops::attention_into(context(), q, k, v, out, options);
  expect_close(read(out), expected.out, 16.0);
}

TEST_P(AttentionFormsTest, NanInOneKeyReachesEveryRowThatSeesIt) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const int64_t tokens = 300;
  std::vector<float> values(static_cast<size_t>(tokens * 8), 0.5f);
  values[200 * 8] = std::numeric_limits<float>::quiet_NaN();
  const Tensor q = random({1, tokens, 1, 8}), k = from_floats({1, tokens, 1, 8}, values), v = random({1, tokens, 1, 8});
  const Tensor out = context().empty(q.shape());
  ops::AttentionOptions options;
  options.causal = true;
  ops::attention_into(context(), q, k, v, out, options);
  const Array got = read(out);
  for (int64_t i = 0; i < tokens; ++i) EXPECT_EQ(std::isnan(got[i * 8]), i >= 200) << i;
}

TEST_P(AttentionFormsTest, ScaleIsUsed) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Tensor q = random({1, 20, 2, 16}), k = random({1, 25, 2, 16}), v = random({1, 25, 2, 16});
  ops::AttentionOptions options;
  options.scale = 1.0f;
  const Tensor out = context().empty(q.shape());
  ops::attention_into(context(), q, k, v, out, options);
  expect_close(read(out), reference_attention({read(q), read(k), read(v), {}, {}, 1.0, false}).out, 12.0);
}

CHIPMUNK_INSTANTIATE(AttentionFormsTest, ::testing::Values(OnlyCase{}));

struct RopeCase : NamedCase {
  int64_t batch, tokens, heads, head_dim;
  bool norm, rope;
  int64_t pad = 0;
};

class QkNormRopeTest : public OpCaseTest<RopeCase> {};

TEST_P(QkNormRopeTest, MatchesReference) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const RopeCase& c = test_case();
  const Dims shape = {c.batch, c.tokens, c.heads, c.head_dim};
  const Tensor q = random_view(shape, c.pad), k = random_view(shape, c.pad);
  ops::QkNormRope arguments;
  if (c.norm) {
    arguments.q_weight = random({c.head_dim}, DType::kBF16);
    arguments.k_weight = random({c.head_dim});
  }
  if (c.rope) {
    arguments.cos = random({c.tokens, c.head_dim / 2}, DType::kF32);
    arguments.sin = random({c.tokens, c.head_dim / 2}, DType::kF32);
  }
  const Array cos = read(arguments.cos), sin = read(arguments.sin);
  const Reference expected_q = reference_norm_rope(read(q), read(arguments.q_weight), cos, sin, arguments.epsilon);
  const Reference expected_k = reference_norm_rope(read(k), read(arguments.k_weight), cos, sin, arguments.epsilon);
  ops::qk_norm_rope(context(), q, k, arguments);
  expect_close(read(q), expected_q, 8.0);
  expect_close(read(k), expected_k, 8.0);
}

CHIPMUNK_INSTANTIATE(QkNormRopeTest,
                     ::testing::Values(RopeCase{"d128", 1, 40, 3, 128, true, true},
                                       RopeCase{"d8", 2, 7, 2, 8, true, true}, RopeCase{"d2", 1, 5, 1, 2, true, true},
                                       RopeCase{"d26_strided", 2, 13, 3, 26, true, true, 2},
                                       RopeCase{"rope_only", 1, 33, 2, 64, false, true},
                                       RopeCase{"norm_only", 2, 33, 2, 17, true, false},
                                       RopeCase{"nothing", 1, 3, 2, 4, false, false}));

}  // namespace
}  // namespace chipmunk::test
