#include <algorithm>
#include <cmath>
#include <random>

#include "core/column_selection.h"
#include "core/random_columns.h"
#include "ops/column_mlp.h"
#include "support/op_test.h"

namespace chipmunk::test {
namespace {

enum class Drifts { kContinuous, kFewValued, kNone, kOutliers, kNan };

struct RowsCase : NamedCase {
  int64_t batch, blocks, features, top_k;
  Drifts drifts = Drifts::kContinuous;
  int64_t multiple_of = 1;
  double random = 0.0;        // drawn
  bool given_random = false;  // a mask besides
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
    for (float& x : result) {
      x = normal(engine);
      switch (test_case().drifts) {
        case Drifts::kFewValued: x = std::round(2.0f * x); break;
        case Drifts::kNone: x = 0.0f; break;
        case Drifts::kOutliers: x = engine() % 100 == 0 ? 1e4f * x : 1e-3f; break;
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
  const int64_t rows = c.batch * c.blocks;
  const auto count = static_cast<size_t>(rows * c.features), features = static_cast<size_t>(c.features);
  const Tensor now = from_floats(shape, make_drifts(rows * c.features));
  const Tensor cached = from_floats(shape, std::vector<float>(count), DType::kF32);
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
    for (size_t f = 0; f < features; ++f) moved[f] = static_cast<float>(drift.values[first + f]);
    RandomRow name = selection.random;
    name.batch = row / c.blocks;
    name.group = row % c.blocks;
    draw_random(name, selection.random_threshold, random);
    for (size_t f = 0; f < features; ++f) random[f] |= given[first + f];
    select_features(moved, random, c.top_k, c.multiple_of, mask);
    std::vector<int32_t> expected;
    for (size_t f = 0; f < features; ++f) {
      if (mask[f] != 0) expected.push_back(static_cast<int32_t>(f));
      const double mean = mask[f] != 0 ? means.values[first + f] : 0.0;
      const double after = renewed.values[first + f];
      ASSERT_TRUE(after == mean || (std::isnan(after) && std::isnan(mean))) << "feature " << f << " of row " << row;
    }
    ASSERT_EQ(static_cast<size_t>(counts.values[static_cast<size_t>(row)]), expected.size()) << "row " << row;
    const int32_t* list = lists.data_as<int32_t>() + first;
    ASSERT_TRUE(std::equal(expected.begin(), expected.end(), list)) << "row " << row;
  }
}

CHIPMUNK_INSTANTIATE(SelectedRowsTest, ::testing::ValuesIn(kCases));

}  // namespace
}  // namespace chipmunk::test
