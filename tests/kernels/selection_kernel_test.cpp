#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "core/column_selection.h"
#include "ops/column_attention.h"
#include "support/op_test.h"

namespace chipmunk::test {
namespace {

/// How a row's column sums are distributed: each is hard for some way of searching.
enum class Scores {
  kLogNormal,
  kNarrow,
  kWaves,
  kAscending,
  kDescending,
  kFewValues,
  kOneValue,
  kOutliers,
  kAnyFloat,
  // Not drawn, see CornerCases.
  kRounded,
  kTwoValues,
  kAllNan,
  kOneRun,
  kLargeWhereSampled,
  kSmallWhereSampled,
};
constexpr std::array kAllScores = {Scores::kLogNormal, Scores::kNarrow,     Scores::kWaves,
                                   Scores::kAscending, Scores::kDescending, Scores::kFewValues,
                                   Scores::kOneValue,  Scores::kOutliers,   Scores::kAnyFloat};

/// Whether a kernel that looks at a sample of a long row looks at this column: a copy of StreamedTopK's rule. Where it
/// no longer fits, the problems are easier than they are meant to be.
bool is_sampled(int64_t column, int64_t columns) {
  const int64_t samples = columns <= 65536 ? 512 : 1024;
  for (int64_t i = std::max<int64_t>(column * samples / columns - 1, 0); i <= column * samples / columns + 1; ++i) {
    const uint64_t fraction = static_cast<uint32_t>(i) * 0x9E3779B9u;
    const auto within = static_cast<int64_t>(fraction * static_cast<uint64_t>(columns / samples) >> 32);
    if (i * columns / samples + within == column) return true;
  }
  return false;
}

struct SelectionProblem {
  int64_t batch, heads, groups, keys, top_k;
  Scores scores;
  double static_share, random_share;
  uint64_t seed;
  int64_t capacity = 0;  // 0: as many as keys

  static SelectionProblem draw(uint64_t number, double max_keys) {
    std::mt19937_64 engine(number * 7919 + 3);
    const auto below = [&](uint64_t n) { return static_cast<int64_t>(engine() % n); };
    const auto uniform = [&] { return static_cast<double>(engine() >> 11) * 0x1p-53; };
    SelectionProblem p{};
    p.keys = std::max<int64_t>(1, static_cast<int64_t>(std::exp(uniform() * std::log(max_keys))));
    p.batch = 1 + below(2);
    p.heads = 1 + below(3);
    p.groups = 1 + below(5);
    // From one key to all of them, mostly the shares that people use.
    const double shares[] = {0.0, 0.01, 0.05, 0.07, 0.165, 0.3, 0.5, 0.9, 0.999, 1.0};
    p.top_k = std::clamp<int64_t>(static_cast<int64_t>(shares[below(10)] * static_cast<double>(p.keys)) + below(2), 0,
                                  p.keys);
    p.scores = kAllScores[number % kAllScores.size()];
    p.static_share = below(3) == 0 ? 0.1 : 0.0;
    p.random_share = below(3) == 0 ? 0.05 : 0.0;
    p.seed = engine();
    return p;
  }

  std::vector<float> row(uint64_t number) const {
    std::mt19937_64 engine(seed + number);
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<size_t>(keys));
    const float mean = 192.0f / static_cast<float>(keys);
    for (size_t i = 0; i < values.size(); ++i) {
      const float place = static_cast<float>(i) / static_cast<float>(values.size());
      switch (scores) {
        case Scores::kLogNormal: values[i] = mean * std::exp(2.0f * normal(engine)); break;
        case Scores::kNarrow: values[i] = mean * (1.0f + 1e-4f * normal(engine)); break;
        case Scores::kWaves: values[i] = mean * (1.0f + std::sin(400.0f * place) + 0.01f * normal(engine)); break;
        case Scores::kAscending: values[i] = place; break;
        case Scores::kDescending: values[i] = -place; break;
        case Scores::kFewValues: values[i] = static_cast<float>(engine() % 5); break;
        case Scores::kOneValue: values[i] = 0.25f; break;
        case Scores::kOutliers: values[i] = engine() % 50 == 0 ? 1e6f * normal(engine) : 1e-6f * normal(engine); break;
        case Scores::kAnyFloat: {
          const auto bits = static_cast<uint32_t>(engine());
          values[i] = std::bit_cast<float>(bits);  // NaN, infinities, and both zeros among them
          if (engine() % 8 == 0) values[i] = engine() % 2 == 0 ? 0.0f : -0.0f;
          break;
        }
        case Scores::kRounded: values[i] = std::round(10.0f * normal(engine)); break;
        case Scores::kTwoValues: values[i] = engine() % 10 < 3 ? 1.0f : -1.0f; break;
        case Scores::kAllNan: values[i] = std::numeric_limits<float>::quiet_NaN(); break;
        case Scores::kOneRun: values[i] = (place > 0.4f && place < 0.5f ? 3.0f : 0.0f) + 0.1f * normal(engine); break;
        case Scores::kLargeWhereSampled:
        case Scores::kSmallWhereSampled: {
          const float offset = scores == Scores::kLargeWhereSampled ? 10.0f : -10.0f;
          values[i] = normal(engine) + (is_sampled(static_cast<int64_t>(i), keys) ? offset : 0.0f);
          break;
        }
      }
    }
    return values;
  }
};

std::vector<uint8_t> drawn_mask(int64_t count, double share, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::bernoulli_distribution draw(share);
  std::vector<uint8_t> mask(static_cast<size_t>(count));
  for (uint8_t& value : mask) value = draw(engine) ? 1 : 0;
  return mask;
}

class SelectionKernelTest : public OpTest, public ::testing::WithParamInterface<std::tuple<std::string, uint64_t>> {
 protected:
  Tensor upload(const Dims& shape, const std::vector<uint8_t>& mask) const {
    const Tensor host = make_host_tensor(shape, DType::kU8);
    std::copy(mask.begin(), mask.end(), host.data_as<uint8_t>());
    return context().to_device(host);
  }
  std::vector<int32_t> download(const Tensor& tensor) const {
    const Tensor host = context().to_host(tensor);
    return {host.data_as<int32_t>(), host.data_as<int32_t>() + host.numel()};
  }

  /// Index for index what the host chooses, and beyond each list what was there before.
  void run(const SelectionProblem& p) const {
    const int64_t rows = p.batch * p.heads * p.groups;
    const Tensor host_sums = make_host_tensor({p.batch, p.heads, p.groups, p.keys}, DType::kF32);
    for (int64_t r = 0; r < rows; ++r) {
      const std::vector<float> row = p.row(static_cast<uint64_t>(r));
      std::copy(row.begin(), row.end(), host_sums.data_as<float>() + r * p.keys);
    }
    const std::vector<uint8_t> fixed = drawn_mask(p.groups * p.keys, p.static_share, p.seed + 1);
    const std::vector<uint8_t> random = drawn_mask(rows * p.keys, p.random_share, p.seed + 2);
    ops::ColumnSelection selection;
    selection.top_k = p.top_k;
    if (p.static_share > 0.0) selection.static_columns = upload({p.groups, p.keys}, fixed);
    if (p.random_share > 0.0) {
      selection.random_columns = upload({p.batch, p.heads, p.groups, p.keys}, random);
    }
    const int64_t capacity = p.capacity > 0 ? p.capacity : p.keys;
    const Tensor blank = make_host_tensor({p.batch, p.heads, p.groups, capacity}, DType::kI32);
    std::fill_n(blank.data_as<int32_t>(), blank.numel(), -7);
    const ops::ColumnSet columns{context().to_device(blank), context().empty({p.batch, p.heads, p.groups}, DType::kI32),
                                 192};
    ops::select_columns(context(), context().to_device(host_sums), selection, columns);

    const std::vector<int32_t> indices = download(columns.indices), counts = download(columns.counts);
    const ColumnRule rule{p.top_k, 0};
    std::vector<uint8_t> mask(static_cast<size_t>(p.keys));
    for (int64_t r = 0; r < rows; ++r) {
      const auto row = [&](const std::vector<uint8_t>& of, int64_t number) {
        return std::span(of).subspan(static_cast<size_t>(number * p.keys), static_cast<size_t>(p.keys));
      };
      select_columns({host_sums.data_as<float>() + r * p.keys, static_cast<size_t>(p.keys)}, row(random, r),
                     row(fixed, r % p.groups), rule, mask);
      std::vector<int32_t> expected;
      for (int64_t j = 0; j < p.keys; ++j) {
        if (mask[static_cast<size_t>(j)] != 0) expected.push_back(static_cast<int32_t>(j));
      }
      if (static_cast<int64_t>(expected.size()) > capacity) {
        ASSERT_EQ(counts[static_cast<size_t>(r)], p.keys) << "row " << r;
        expected.clear();
      } else {
        ASSERT_EQ(counts[static_cast<size_t>(r)], static_cast<int32_t>(expected.size())) << "row " << r;
      }
      expected.resize(static_cast<size_t>(capacity), -7);
      const auto got = indices.begin() + r * capacity;
      const auto wrong = std::mismatch(expected.begin(), expected.end(), got);
      ASSERT_EQ(wrong.first, expected.end()) << "row " << r << ", index " << wrong.first - expected.begin() << ": "
                                             << *wrong.second << " instead of " << *wrong.first;
    }
  }
};

TEST_P(SelectionKernelTest, GeneratedProblems) {
  const auto& [device, number] = GetParam();
  CHIPMUNK_OPEN_OR_SKIP(device);
  const bool small = device == "cpu";
  const uint64_t problems = small ? 18 : 90;
  for (uint64_t i = 0; i < problems; ++i) {
    const SelectionProblem p = SelectionProblem::draw(number * problems + i, small ? 3000.0 : 130000.0);
    SCOPED_TRACE("problem " + std::to_string(number * problems + i) + ": " + std::to_string(p.top_k) + " of " +
                 std::to_string(p.keys) + " keys, scores " + std::to_string(static_cast<int>(p.scores)));
    run(p);
    if (HasFatalFailure()) return;
  }
}

/// Of one device; the number is of no use.
class SelectionCornersTest : public SelectionKernelTest {};

TEST_P(SelectionCornersTest, MatchTheHost) {
  const std::string device = std::get<0>(GetParam());
  CHIPMUNK_OPEN_OR_SKIP(device);
  const bool small = device == "cpu";
  constexpr std::array kScores = {Scores::kLogNormal,         Scores::kNarrow,           Scores::kFewValues,
                                  Scores::kOneValue,          Scores::kAnyFloat,         Scores::kRounded,
                                  Scores::kTwoValues,         Scores::kAllNan,           Scores::kOneRun,
                                  Scores::kLargeWhereSampled, Scores::kSmallWhereSampled};
  // About the longest row that shared memory holds, and the longest with the smaller sample.
  const std::vector<int64_t> keys = small ? std::vector<int64_t>{1, 33, 2048}
                                          : std::vector<int64_t>{15487, 15488, 15489, 16384, 65536, 65537, 119056};
  for (const int64_t m : keys) {
    for (const Scores scores : kScores) {
      for (const int64_t top_k : {int64_t{1}, m * 7 / 100, m / 2, m - 1}) {
        // The list just fits, and does not.
        for (const int64_t spare : {0, -1}) {
          if (top_k + spare < 1) continue;
          const SelectionProblem p{
              1, 2, 1, m, top_k, scores, 0.0, 0.0, static_cast<uint64_t>(m + top_k), top_k + spare};
          SCOPED_TRACE(std::to_string(top_k) + " of " + std::to_string(m) + " keys, scores " +
                       std::to_string(static_cast<int>(scores)) + ", spare " + std::to_string(spare));
          run(p);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

/// A few long rows: few enough for a race checker.
TEST_P(SelectionCornersTest, FewLongRows) {
  const std::string device = std::get<0>(GetParam());
  CHIPMUNK_OPEN_OR_SKIP(device);
  const int64_t m = device == "cpu" ? 2048 : 20000;
  const std::array problems = {
      SelectionProblem{1, 2, 1, m, m * 7 / 100, Scores::kLogNormal, 0.1, 0.05, 1},  // candidates, listed and ranked
      SelectionProblem{1, 1, 1, m, m * 7 / 100, Scores::kNarrow, 0.0, 0.0, 2},      // nearly equal sums
      SelectionProblem{1, 1, 1, m, m / 2, Scores::kFewValues, 0.1, 0.0, 3},  // too many are equal: the radix search
      SelectionProblem{1, 1, 1, m, m / 2, Scores::kSmallWhereSampled, 0.0, 0.0,
                       4},  // a sample that misleads: the radix search
      SelectionProblem{1, 1, 1, m, 1, Scores::kAnyFloat, 0.0, 0.05, 5},
      SelectionProblem{1, 1, 1, m, 100, Scores::kLogNormal, 0.0, 0.0, 6, 99},  // a list that does not fit
  };
  for (const SelectionProblem& p : problems) {
    SCOPED_TRACE("problem " + std::to_string(p.seed));
    run(p);
    if (HasFatalFailure()) return;
  }
}

std::string test_name(const ::testing::TestParamInfo<SelectionKernelTest::ParamType>& info) {
  return std::get<0>(info.param) + "_" + std::to_string(std::get<1>(info.param));
}
// The CPU shows that the test itself is right.
INSTANTIATE_TEST_SUITE_P(Cpu, SelectionKernelTest,
                         ::testing::Combine(::testing::Values("cpu"), ::testing::Range<uint64_t>(0, 1)), test_name);
INSTANTIATE_TEST_SUITE_P(Gpu, SelectionKernelTest,
                         ::testing::Combine(::testing::Values("cuda"), ::testing::Range<uint64_t>(0, 4)), test_name);
INSTANTIATE_TEST_SUITE_P(Cpu, SelectionCornersTest, ::testing::Values(std::tuple("cpu", uint64_t{0})), test_name);
INSTANTIATE_TEST_SUITE_P(Gpu, SelectionCornersTest, ::testing::Values(std::tuple("cuda", uint64_t{0})), test_name);

}  // namespace
}  // namespace chipmunk::test
