#include "core/column_selection.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <string>

#include "core/philox.h"
#include "core/random_columns.h"
#include "io/config.h"
#include "io/safetensors.h"
#include "sparse/column_mask.h"
#include "sparse_test_util.h"

namespace chipmunk {
namespace {

using test::expect_error;
using test::golden_method;
using test::values_of;

using Mask = std::vector<uint8_t>;

TEST(TopKCount, RoundsHalvesToEven) {
  EXPECT_EQ(top_k_count(0.2, 240, 32), 64) << "1.5 multiples";
  EXPECT_EQ(top_k_count(0.5, 5), 2);
  EXPECT_EQ(top_k_count(0.5, 7), 4);
  EXPECT_EQ(top_k_count(0.23, 100, 8), 24);
  EXPECT_EQ(top_k_count(1.0, 100, 8), 96) << "12.5 multiples round down";
  EXPECT_EQ(top_k_count(1.0, 100, 64), 100) << "never above N";
  EXPECT_EQ(top_k_count(1.0, 100), 100);
  EXPECT_EQ(top_k_count(0.0, 100), 0);
  EXPECT_EQ(top_k_count(0.004, 100), 0);
  EXPECT_EQ(top_feature_count(0.3, 96), 29);
  EXPECT_EQ(top_feature_count(0.25, 192), 48);
  EXPECT_EQ(top_feature_count(1.0, 7), 7);
  EXPECT_EQ(top_feature_count(0.0, 7), 0);
  for (double bad : {-0.1, 1.1, std::nan("")}) {
    expect_error(ErrorCode::kInvalidArgument, {"top_keys"}, [&] { top_k_count(bad, 10); });
    expect_error(ErrorCode::kInvalidArgument, {"top_keys"}, [&] { top_feature_count(bad, 10); });
  }
  expect_error(ErrorCode::kInvalidArgument, {"multiple_of"}, [] { top_k_count(0.1, 10, 0); });
}

Mask top_k(const std::vector<float>& scores, int64_t k) {
  Mask mask(scores.size());
  add_top_k(scores, k, mask);
  return mask;
}

TEST(TopK, TiesGoToTheLowerIndex) {
  EXPECT_EQ(top_k({1, 3, 3, 3, 2}, 2), (Mask{0, 1, 1, 0, 0}));
  EXPECT_EQ(top_k({0, 0, 0}, 1), (Mask{1, 0, 0}));
  EXPECT_EQ(top_k({-0.0f, 0.0f}, 1), (Mask{1, 0}));
  EXPECT_EQ(top_k({1, 2}, 5), (Mask{1, 1}));
  EXPECT_EQ(top_k({1, 2}, 0), (Mask{0, 0}));
  EXPECT_EQ(top_k({}, 3), Mask{});
  const float nan = std::nanf(""), infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(top_k({nan, 1, infinity, nan}, 3), (Mask{1, 1, 1, 0}));
}

TEST(TopK, EqualsASort) {
  std::vector<float> scores(997);
  uint32_t state = 1;
  for (float& score : scores) {
    state = state * 1664525u + 1013904223u;
    score = static_cast<float>(state >> 24);  // 256 values: many ties
  }
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  for (size_t k : {1u, 10u, 333u, 996u, 997u}) {
    Mask expected(scores.size());
    for (size_t i = 0; i < k; ++i) expected[order[i]] = 1;
    EXPECT_EQ(top_k(scores, static_cast<int64_t>(k)), expected) << k;
  }
}

TEST(TopK, EqualsTheReference) {
  const SafetensorsFile expected(golden_method("attention/expected.safetensors"));
  const Tensor sums = expected.tensor("colsum_prev.values"), mask = expected.tensor("topk.mask");
  ColumnMask got(10, 100);
  for (int64_t i = 0; i < got.rows; ++i) {
    add_top_k(values_of<float>(sums).subspan(static_cast<size_t>(i * 100), 100), top_k_count(0.23, 100, 8), got.row(i));
  }
  EXPECT_TRUE(std::ranges::equal(got.values, values_of<uint8_t>(mask)));
}

/// The masks and padded indices that follow from a step's expected column sums.
void expect_golden_columns(const std::string& folder, const std::string& step, const Tensor& random,
                           const Tensor& static_mask) {
  const JsonConfig params = JsonConfig::load(golden_method(folder + "/case.json")).object("params");
  const SafetensorsFile expected(golden_method(folder + "/expected.safetensors"));
  const Tensor sums = expected.tensor(step + ".colsum");
  const int64_t heads = sums.dim(1), groups = sums.dim(2), columns = sums.dim(3);
  const double top_keys = params.number("top_keys");
  const int64_t multiple = params.integer("multiple_of");
  const int64_t video = params.integer_or("video_len", columns);
  const ColumnRule rule{top_k_count(top_keys, columns, multiple),
                        static_cast<int64_t>(top_keys * static_cast<double>(video))};
  ColumnMask mask(heads * groups, columns);
  const Mask nothing(static_cast<size_t>(columns));
  for (int64_t i = 0; i < mask.rows; ++i) {
    const auto row = [&](const Tensor& tensor) {
      return values_of<uint8_t>(tensor).subspan(static_cast<size_t>(i * columns), nothing.size());
    };
    const auto row_sums = values_of<float>(sums).subspan(static_cast<size_t>(i * columns), nothing.size());
    if (static_mask) {
      select_columns(row_sums, row(random), row(static_mask), rule, mask.row(i));
    } else {
      select_columns(row_sums, {}, nothing, rule, mask.row(i));
    }
  }
  if (expected.contains(step + ".mask")) {
    const Tensor expected_mask = expected.tensor(step + ".mask");
    EXPECT_TRUE(std::ranges::equal(mask.values, values_of<uint8_t>(expected_mask)));
  }
  const ColumnIndices indices = to_indices(mask, multiple);
  const Tensor expected_indices = expected.tensor(step + ".indices"), counts = expected.tensor(step + ".counts");
  EXPECT_TRUE(std::ranges::equal(indices.indices, values_of<int32_t>(expected_indices)));
  EXPECT_TRUE(std::ranges::equal(indices.counts, values_of<int32_t>(counts)));
}

TEST(SelectColumns, EqualsTheReferences) {
  expect_golden_columns("delta-attention-fixed-mask", "step1", {}, {});
  expect_golden_columns("delta-attention-hd128", "step1", {}, {});
  const SafetensorsFile inputs(golden_method("delta-attention-new-mask/inputs.safetensors"));
  const Tensor static_mask = inputs.tensor("static_mask");
  for (const std::string step : {"1", "4"}) {
    SCOPED_TRACE(step);
    expect_golden_columns("delta-attention-new-mask", "step" + step, inputs.tensor("random_mask" + step), static_mask);
  }
}

TEST(SelectColumns, RoomRule) {
  const std::vector<float> sums = {5, 4, 3, 2, 1, 0};
  const Mask random = {0, 0, 0, 1, 0, 0}, fixed = {0, 0, 0, 0, 0, 1};
  const auto select = [&](const ColumnRule& rule) {
    Mask mask(6, 7);
    select_columns(sums, random, fixed, rule, mask);
    return mask;
  };
  EXPECT_EQ(select({2, 2}), (Mask{1, 1, 0, 1, 0, 1}));
  EXPECT_EQ(select({2, 4}), (Mask{1, 1, 0, 1, 0, 1})) << "1 + 4 < 6";
  EXPECT_EQ(select({2, 5}), fixed) << "no room";
  EXPECT_EQ(select({0, 0}), fixed) << "no top-k, no random either";
  EXPECT_EQ(select({6, 6}), Mask(6, 1)) << "all columns, whatever the room";
}

TEST(SelectColumns, BadShapes) {
  const std::vector<float> sums(6);
  Mask six(6), five(5);
  expect_error(ErrorCode::kShapeMismatch, {"mask", "6", "5"}, [&] { select_columns(sums, {}, six, {}, five); });
  expect_error(ErrorCode::kShapeMismatch, {"static"}, [&] { select_columns(sums, {}, five, {}, six); });
  expect_error(ErrorCode::kShapeMismatch, {"random"}, [&] { select_columns(sums, five, six, {}, six); });
  expect_error(ErrorCode::kShapeMismatch, {"random"}, [&] { select_features(sums, five, 1, 1, six); });
  expect_error(ErrorCode::kInvalidArgument, {"multiple_of"}, [&] { select_features(sums, {}, 1, 0, six); });
}

void expect_golden_features(const std::string& folder, const std::vector<int>& steps) {
  const JsonConfig params = JsonConfig::load(golden_method(folder + "/case.json")).object("params");
  const SafetensorsFile inputs(golden_method(folder + "/inputs.safetensors"));
  const SafetensorsFile expected(golden_method(folder + "/expected.safetensors"));
  for (int step : steps) {
    const std::string name = "step" + std::to_string(step);
    const Tensor drift = expected.tensor(name + ".diff");
    const std::string random_name = "random_mask" + std::to_string(step);
    const Tensor random = inputs.contains(random_name) ? inputs.tensor(random_name) : Tensor();
    const int64_t features = drift.dim(1);
    ColumnMask mask(drift.dim(0), features);
    for (int64_t i = 0; i < mask.rows; ++i) {
      const size_t begin = static_cast<size_t>(i * features), count = static_cast<size_t>(features);
      select_features(values_of<float>(drift).subspan(begin, count),
                      random ? values_of<uint8_t>(random).subspan(begin, count) : std::span<const uint8_t>(),
                      top_feature_count(params.number("top_keys"), features), params.integer("multiple_of"),
                      mask.row(i));
    }
    const ColumnIndices got = to_indices(mask);
    const Tensor indices = expected.tensor(name + ".indices"), counts = expected.tensor(name + ".counts");
    EXPECT_TRUE(std::ranges::equal(got.indices, values_of<int32_t>(indices))) << folder << " " << name;
    EXPECT_TRUE(std::ranges::equal(got.counts, values_of<int32_t>(counts))) << folder << " " << name;
  }
}

TEST(SelectFeatures, EqualsTheReferences) {
  expect_golden_features("delta-mlp", {1, 2, 3, 4, 5, 6, 7, 8, 9, 12});
  expect_golden_features("delta-mlp-128", {1, 2, 3, 4, 5});
}

TEST(SelectFeatures, FillsUpWithTheNextLargest) {
  const std::vector<float> drift = {1, 6, 2, 5, 3, 4, 0};
  const Mask random = {0, 0, 0, 0, 0, 0, 1};
  Mask mask(7);
  select_features(drift, random, 2, 4, mask);
  EXPECT_EQ(mask, (Mask{0, 1, 0, 1, 0, 1, 1}));
  select_features(drift, {}, 5, 4, mask);
  EXPECT_EQ(mask, Mask(7, 1)) << "never above F";
  select_features(drift, {}, 0, 4, mask);
  EXPECT_EQ(mask, Mask(7, 0));
}

TEST(RandomColumns, DependOnEveryPartOfTheName) {
  const RandomRow base{7, RandomPurpose::kAttentionColumns, 3, 1, 5, 2, 4, 6};
  std::vector<RandomRow> rows(9, base);
  rows[1].seed = uint64_t{7} + (uint64_t{1} << 32);
  rows[2].purpose = RandomPurpose::kMlpFeatures;
  rows[3].step = 4;
  rows[4].branch = 0;
  rows[5].layer = 6;
  rows[6].batch = 3;
  rows[7].head = 5;
  rows[8].group = 7;
  std::set<std::string> seen;
  for (const RandomRow& row : rows) {
    Mask mask(256);
    draw_random(row, random_threshold(0.5), mask);
    seen.emplace(mask.begin(), mask.end());
    Mask again(256, 9);
    draw_random(row, random_threshold(0.5), again);
    EXPECT_EQ(again, mask);
  }
  EXPECT_EQ(seen.size(), rows.size());
}

TEST(RandomColumns, BitsAreThoseOfTheDocumentedCounter) {
  const uint64_t seed = 0x0123456789abcdef;
  const RandomRow row{seed, RandomPurpose::kMlpFeatures, 0xabc, 0x9, 0xdef, 0x1234, 0x5678, 0x7654321};
  const uint64_t threshold = random_threshold(0.4);
  Mask mask(30);
  draw_random(row, threshold, mask);
  for (uint32_t j = 0; j < 30; ++j) {
    const PhiloxCounter counter = {j / 4, 0x97654321, 0x12345678, 0x02defabc};
    const uint32_t bits = philox4x32(counter, {0x89abcdef, 0x01234567})[j % 4];
    EXPECT_EQ(mask[j], bits < threshold ? 1 : 0) << j;
  }
}

TEST(RandomColumns, LongerRowsBeginAlike) {
  Mask longer(1003), shorter(10);
  draw_random({1}, random_threshold(0.3), longer);
  draw_random({1}, random_threshold(0.3), shorter);
  EXPECT_TRUE(std::equal(shorter.begin(), shorter.end(), longer.begin()));
}

TEST(RandomColumns, ShareIsTheProbability) {
  for (double probability : {0.01, 0.05, 0.5}) {
    const int64_t columns = 100000;
    Mask mask(static_cast<size_t>(columns));
    draw_random({42}, random_threshold(probability), mask);
    const double mean = probability * static_cast<double>(columns);
    // Five standard deviations of a binomial count.
    const double bound = 5.0 * std::sqrt(mean * (1.0 - probability));
    EXPECT_NEAR(static_cast<double>(std::count(mask.begin(), mask.end(), 1)), mean, bound);
  }
  Mask mask(1000, 5);
  draw_random({42}, random_threshold(0.0), mask);
  EXPECT_EQ(mask, Mask(1000, 0));
  draw_random({42}, random_threshold(1.0), mask);
  EXPECT_EQ(mask, Mask(1000, 1));
}

TEST(RandomColumns, BadArguments) {
  constexpr ErrorCode kCode = ErrorCode::kInvalidArgument;
  Mask mask(4);
  expect_error(kCode, {"probability"}, [] { random_threshold(1.5); });
  expect_error(kCode, {"probability"}, [] { random_threshold(std::nan("")); });
  RandomRow row;
  row.step = 4096;
  expect_error(kCode, {"step", "4096"}, [&] { draw_random(row, 0, mask); });
  row.step = 0;
  row.head = -1;
  expect_error(kCode, {"head", "-1"}, [&] { draw_random(row, 0, mask); });
}

}  // namespace
}  // namespace chipmunk
