#include <algorithm>
#include <cmath>
#include <random>

#include "core/column_selection.h"
#include "core/random_columns.h"
#include "ops/column_mlp.h"
#include "support/op_test.h"

namespace chipmunk::test {
namespace {

enum class Drifts { kContinuous, kFewValued, kNone, kOutliers, kNan, kLargeSample, kSmallSample };

/// GPUs look at a sample of a row first; of 12,288 features all that are sampled are such ones.
bool may_be_sampled(int64_t feature) { return feature / 4 % 16 == 8; }

struct RowsCase : NamedCase {
  int64_t batch, blocks, features, top_k;
  Drifts drifts = Drifts::kContinuous;
  int64_t multiple_of = 1;
  double random = 0.0;        // drawn
  bool given_random = false;  // a mask besides
  int64_t means_per_block = 1;
  int64_t missing_means = 0;  // of a sample's last block
};

const RowsCase kCases[] = {
    {"one_feature", 1, 1, 1, 1},
    {"odd", 2, 3, 77, 20, Drifts::kContinuous, 4, 0.1, true},
    {"flux", 1, 3, 12288, 3686, Drifts::kContinuous, 1, 0.05},
    {"flux_few_values", 1, 3, 12288, 3686, Drifts::kFewValued, 64, 0.05, true},
    {"flux_still", 1, 2, 12288, 3686, Drifts::kNone},
    {"flux_outliers", 1, 2, 12288, 100, Drifts::kOutliers},
    {"flux_nan", 1, 2, 12288, 3686, Drifts::kNan},
    {"flux_all", 1, 2, 12288, 12288},
    {"flux_none", 1, 2, 12288, 0, Drifts::kContinuous, 1, 0.05},
    {"flux_equal", 2, 2, 12288, 3686, Drifts::kFewValued, 1, 0.05, true},
    {"flux_large_sample", 1, 2, 12288, 3686, Drifts::kLargeSample},
    {"flux_large_sample_in_shared_memory", 1, 2, 12288, 3686, Drifts::kLargeSample, 2},
    {"flux_small_sample", 1, 2, 12288, 3686, Drifts::kSmallSample},
    {"flux_small_sample_in_shared_memory", 1, 2, 12288, 3686, Drifts::kSmallSample, 2},
    {"flux_means", 2, 3, 12288, 3686, Drifts::kContinuous, 1, 0.05, false, 4, 3},
    {"flux_means_in_shared_memory", 2, 3, 12288, 3686, Drifts::kContinuous, 2, 0.05, false, 4, 3},
    // A block's threads hold rows of 1,024 to 16,384 features.
    {"just_too_short_to_hold", 1, 2, 1020, 300, Drifts::kContinuous, 1, 0.05},
    {"shortest_held", 1, 2, 1024, 300, Drifts::kContinuous, 1, 0.05},
    {"held", 3, 2, 1028, 1, Drifts::kContinuous, 1, 0.05, true},
    {"held_but_one", 1, 2, 4096, 4095, Drifts::kFewValued},
    {"held_few_values", 1, 2, 4100, 2000, Drifts::kFewValued, 1, 0.0, true, 2, 1},
    {"wan", 1, 2, 13824, 4148, Drifts::kContinuous, 1, 0.05},
    {"wan_few_values", 1, 2, 13824, 4148, Drifts::kFewValued, 1, 0.05},
    {"longest_held", 1, 2, 16384, 5000, Drifts::kContinuous, 1, 0.05},
    {"longest_held_still", 1, 1, 16384, 5000, Drifts::kNone},
    {"just_too_long_to_hold", 1, 2, 16388, 5000, Drifts::kContinuous, 1, 0.05},
    {"odd_length", 1, 2, 12287, 3686, Drifts::kContinuous, 1, 0.05},
    {"longest_of_one_block", 1, 1, 53216, 9000},
    // Of clusters, where there are some.
    {"long", 1, 2, 60000, 20000, Drifts::kContinuous, 8, 0.05},
    {"long_few_values", 1, 1, 100003, 7000, Drifts::kFewValued, 8, 0.05, true},
};

class SelectedRowsTest : public OpCaseTest<RowsCase> {
 protected:
  /// Values whose differences from 0 are the drifts.
  std::vector<float> make_drifts(int64_t count) {
    std::mt19937 engine(7);
    std::normal_distribution<float> normal;
    std::vector<float> result(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      const bool sampled = may_be_sampled(i % test_case().features);
      float& x = result[static_cast<size_t>(i)];
      x = normal(engine);
      switch (test_case().drifts) {
        case Drifts::kFewValued: x = std::round(2.0f * x); break;
        case Drifts::kNone: x = 0.0f; break;
        case Drifts::kOutliers: x = engine() % 100 == 0 ? 1e4f * x : 1e-3f; break;
        case Drifts::kLargeSample: x += sampled ? 1000.0f : 0.0f; break;
        case Drifts::kSmallSample: x += sampled ? 0.0f : 1000.0f; break;
        case Drifts::kNan: x = engine() % 50 == 0 ? std::nanf("") : x; break;
        default: break;
      }
    }
    return result;
  }
};

TEST_P(SelectedRowsTest, MatchTheHost) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const RowsCase& c = test_case();
  const Dims shape = {c.batch, c.blocks, c.features};
  const int64_t rows = c.batch * c.blocks, means_of_sample = c.blocks * c.means_per_block - c.missing_means;
  const auto count = static_cast<size_t>(rows * c.features), features = static_cast<size_t>(c.features);
  const Dims means_shape = {c.batch, means_of_sample, c.features};
  const Tensor now = from_floats(means_shape, make_drifts(numel(means_shape)));
  const Tensor cached =
      from_floats(means_shape, std::vector<float>(static_cast<size_t>(numel(means_shape))), DType::kF32);
  std::vector<uint8_t> given(count);
  ops::FeatureSelection selection;
  if (c.given_random) {
    for (size_t i = 0; i < count; i += 13) given[i] = 1;
    const Tensor host = make_host_tensor(shape, DType::kU8);
    std::copy(given.begin(), given.end(), host.data_as<uint8_t>());
    selection.random_features = context().to_device(host);
  }
  selection.top_k = c.top_k;
  selection.multiple_of = c.multiple_of;
  selection.means_per_block = c.means_per_block;
  selection.random.seed = 5;
  selection.random.purpose = RandomPurpose::kMlpFeatures;
  selection.random_threshold = random_threshold(c.random);
  selection.drift = context().empty(shape, DType::kF32);
  const ops::FeatureSet set{context().empty(shape, DType::kI32), context().empty({c.batch, c.blocks}, DType::kI32),
                            128};
  ops::select_features(context(), now, cached, selection, set);

  const Array drift = read(selection.drift), counts = read(set.counts), renewed = read(cached), means = read(now);
  const Tensor lists = context().to_host(set.indices);
  for (int64_t row = 0; row < rows; ++row) {
    const size_t first = static_cast<size_t>(row) * features;
    std::vector<float> moved(features);
    std::vector<uint8_t> random(features), mask(features);
    const int64_t block = row % c.blocks, first_of_block = block * c.means_per_block;
    const int64_t first_mean = row / c.blocks * means_of_sample + first_of_block;
    const int64_t mean_count = std::min(c.means_per_block, means_of_sample - first_of_block);
    const auto mean_at = [&](int64_t r, size_t f) { return static_cast<size_t>(first_mean + r) * features + f; };
    for (size_t f = 0; f < features; ++f) {
      float sum = 0.0f;
      for (int64_t r = 0; r < mean_count; ++r) sum += std::abs(static_cast<float>(means.values[mean_at(r, f)]));
      moved[f] = static_cast<float>(drift.values[first + f]);
      ASSERT_TRUE(moved[f] == sum || (std::isnan(moved[f]) && std::isnan(sum))) << "feature " << f << " of row " << row;
    }
    RandomRow name = selection.random;
    name.batch = row / c.blocks;
    name.group = row % c.blocks;
    draw_random(name, selection.random_threshold, random);
    for (size_t f = 0; f < features; ++f) random[f] |= given[first + f];
    select_features(moved, random, c.top_k, c.multiple_of, mask);
    std::vector<int32_t> expected;
    for (size_t f = 0; f < features; ++f) {
      if (mask[f] != 0) expected.push_back(static_cast<int32_t>(f));
      for (int64_t r = 0; r < mean_count; ++r) {
        const double mean = mask[f] != 0 ? means.values[mean_at(r, f)] : 0.0, after = renewed.values[mean_at(r, f)];
        ASSERT_TRUE(after == mean || (std::isnan(after) && std::isnan(mean))) << "feature " << f << " of row " << row;
      }
    }
    ASSERT_EQ(static_cast<size_t>(counts.values[static_cast<size_t>(row)]), expected.size()) << "row " << row;
    const int32_t* list = lists.data_as<int32_t>() + first;
    ASSERT_TRUE(std::equal(expected.begin(), expected.end(), list)) << "row " << row;
  }
}

CHIPMUNK_INSTANTIATE(SelectedRowsTest, ::testing::ValuesIn(kCases));

}  // namespace
}  // namespace chipmunk::test
