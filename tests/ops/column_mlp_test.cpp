#include "ops/column_mlp.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <tuple>
#include <vector>

#include "core/random_columns.h"
#include "ops/elementwise.h"
#include "ops/fp8_rows.h"
#include "support/column_reference.h"
#include "support/op_test.h"
#include "support/reference.h"

namespace chipmunk::test {
namespace {

struct MlpCase : NamedCase {
  int64_t batch, rows, channels, features, out_channels, block_rows;
  double kept = 0.3;  // probability of each feature; 0: none, 1: all of them, without a list
  DType weight_dtype = DType::kF32;
  int64_t pad = 0;
  bool bias = true;
  Activation activation = Activation::kGeluTanh;
  bool dense_tokens = false;  // of the activations
  bool scaled = false;        // the first weight's rows have scales, and x is rounded like them
};

const MlpCase kCases[] = {
    {"regular", 1, 256, 64, 256, 64, 128},
    {"bf16", 1, 200, 128, 512, 128, 128, 0.35, DType::kBF16},
    {"f16", 1, 40, 33, 70, 17, 16, 0.5, DType::kF16},
    {"f8", 1, 40, 16, 64, 32, 16, 0.5, DType::kF8E4M3},
    {"batch_strided", 3, 50, 24, 60, 20, 16, 0.4, DType::kF32, 2},
    {"no_bias", 2, 19, 7, 11, 5, 8, 0.5, DType::kF32, 0, false},
    {"none", 1, 30, 8, 40, 8, 16, 0.0},
    {"every", 2, 70, 20, 300, 40, 32, 1.0, DType::kBF16},
    {"many_features", 1, 20, 16, 1500, 24, 128, 0.6},
    {"many_channels", 1, 20, 600, 40, 700, 16, 0.6},
    {"large_blocks", 1, 700, 16, 40, 24, 512, 0.6},
    {"one", 1, 1, 1, 1, 1, 1, 1.0},
    {"silu", 1, 33, 12, 30, 12, 16, 0.5, DType::kF32, 0, true, Activation::kSilu},
    {"tokens", 2, 37, 12, 30, 12, 16, 0.5, DType::kF32, 0, true, Activation::kGeluTanh, true},
    {"tokens_every", 1, 37, 12, 30, 12, 16, 1.0, DType::kF32, 0, true, Activation::kGeluTanh, true},
    // For the kernels of Hopper GPUs.
    {"hopper", 2, 300, 128, 1000, 512, 128, 0.35, DType::kBF16, 0, true, Activation::kGeluTanh, true},
    {"hopper_few", 1, 128, 64, 300, 256, 128, 0.02, DType::kBF16, 0, false, Activation::kSilu, true},
    {"hopper_none", 1, 200, 64, 100, 256, 128, 0.0, DType::kBF16, 0, true, Activation::kGeluTanh, true},
    {"hopper_every", 1, 200, 192, 600, 256, 128, 1.0, DType::kBF16, 0, true, Activation::kGeluTanh, true},
    {"hopper_one_row", 3, 1, 64, 70, 256, 128, 0.5, DType::kBF16, 0, true, Activation::kGeluTanh, true},
    {"scaled", 2, 50, 24, 60, 20, 16, 0.4, DType::kF8E4M3, 0, true, Activation::kGeluTanh, false, true},
    {"scaled_every", 1, 37, 40, 30, 12, 16, 1.0, DType::kF8E4M3, 2, false, Activation::kGeluTanh, true, true},
    {"hopper_scaled", 2, 300, 256, 1000, 512, 128, 0.35, DType::kF8E4M3, 0, true, Activation::kGeluTanh, true, true},
    {"hopper_scaled_every", 1, 200, 384, 600, 256, 128, 1.0, DType::kF8E4M3, 0, true, Activation::kSilu, true, true},
    {"hopper_scaled_strided", 1, 77, 128, 300, 256, 128, 0.5, DType::kF8E4M3, 16, false, Activation::kGeluTanh, true,
     true},
    {"hopper_tiles_left_over", 1, 1300, 64, 700, 4096, 128, 0.4, DType::kBF16, 0, true, Activation::kGeluTanh, true},
};

/// What problems of one MLP and of two are made of.
template <class Case>
class MlpTest : public OpCaseTest<Case> {
 protected:
  Tensor make_activations(int64_t batch, int64_t tokens, int64_t features, bool dense_tokens) {
    if (!dense_tokens) return this->random({batch, tokens, features});
    const int64_t padded = (tokens + 7) / 8 * 8;
    return this->random({batch, features, padded}).permute({0, 2, 1}).slice(1, 0, tokens);
  }
  /// kept: [B, blocks, F].
  ops::FeatureSet make_features(const KeptColumns& kept, int64_t capacity, int64_t block_rows) {
    const int64_t batch = kept.shape[0], blocks = kept.shape[1];
    std::vector<int32_t> ids(static_cast<size_t>(kept.rows() * capacity), -1), counts;
    for (int64_t row = 0; row < kept.rows(); ++row) {
      const std::vector<int32_t> list = kept.ids(row);
      counts.push_back(static_cast<int32_t>(list.size()));
      if (capacity > 0) std::copy(list.begin(), list.end(), ids.begin() + row * capacity);
    }
    return {this->from_ints(ids).reshape({batch, blocks, capacity}), this->from_ints(counts).reshape({batch, blocks}),
            block_rows};
  }
};

class ColumnMlpTest : public MlpTest<MlpCase> {
 protected:
  void make_problem() {
    const MlpCase& c = test_case();
    x = random_view({c.batch, c.rows, c.channels}, context().activation_dtype(), c.pad);
    const float scale = 1.0f / std::sqrt(static_cast<float>(c.channels));
    first.weight = random_view({c.features, c.channels}, c.weight_dtype, c.pad, scale);
    const DType other_dtype = c.scaled ? DType::kBF16 : c.weight_dtype;
    if (c.scaled) first.scale = random({c.features}, DType::kF32);
    if (c.bias) first.bias = random({c.features}, other_dtype, 0.5f);
    second = random_view({c.features, c.out_channels}, other_dtype, c.pad);
    activations = make_activations(c.batch, c.rows, c.features, c.dense_tokens);
    out = random({c.batch, c.rows, c.out_channels});
    const int64_t blocks = (c.rows + c.block_rows - 1) / c.block_rows;
    kept = KeptColumns({c.batch, blocks, c.features});
    std::mt19937 engine(5);
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    for (uint8_t& value : kept.kept) value = uniform(engine) < c.kept;
    features = make_features(kept, c.kept >= 1.0 ? 0 : c.features, c.block_rows);
  }

  /// x as the first layer multiplies it, and its weight as it means it.
  Array multiplied_x() {
    if (!test_case().scaled) return read(x);
    const ops::Fp8Rows rows = ops::quantize_rows(context(), x);
    return scaled(read(rows.values), read(rows.scales));
  }
  Array meant_weight() { return first.scale ? scaled(read(first.weight), read(first.scale)) : read(first.weight); }

  Tensor x, second, activations, out;
  Linear first;
  KeptColumns kept{Dims{1, 1, 1}};
  ops::FeatureSet features;

 private:
  static Array scaled(Array rows, const Array& scales) {
    const int64_t columns = numel(rows.shape) / numel(scales.shape);
    for (int64_t i = 0; i < numel(rows.shape); ++i) rows[i] *= scales[i / columns];
    return rows;
  }
};

TEST_P(ColumnMlpTest, MatchesReference) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  make_problem();
  const MlpCase& c = test_case();
  const ColumnMlpReference expected =
      reference_column_mlp(multiplied_x(), meant_weight(), read(first.bias), c.activation, read(second), kept,
                           c.block_rows, read(activations), read(out));
  ops::column_mlp_into(context(), x, first, c.activation, second, features, activations, out);
  const double factor = 8.0 + std::sqrt(static_cast<double>(std::max(c.channels, c.features)));
  expect_close(read(activations), expected.activations, factor);
  expect_close(read(out), expected.out, factor);
}

TEST_P(ColumnMlpTest, SameBitsTwiceAndOnOneThread) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const auto run = [&] {
    make_problem();
    ops::column_mlp_into(context(), x, first, test_case().activation, second, features, activations, out);
    return read(out);
  };
  const Array once = run();
  open(device_name());
  expect_equal(run(), once);
  if (device_name() != "cpu") return;
  open("cpu", 1);
  expect_equal(run(), once);
}

TEST_P(ColumnMlpTest, TheSameStepAgainChangesNothing) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  make_problem();
  const auto run = [&] {
    ops::column_mlp_into(context(), x, first, test_case().activation, second, features, activations, out);
    return read(out);
  };
  // The difference is taken between rounded activations, so nothing is left of it.
  const Array once = run();
  expect_equal(run(), once);
}

CHIPMUNK_INSTANTIATE(ColumnMlpTest, ::testing::ValuesIn(kCases));

struct PartsCase : NamedCase {
  int64_t batch, tokens, other_tokens, channels, features, out_channels, block_rows;
  DType weight_dtype = DType::kF32;
  bool dense_tokens = false, scaled = false;
};
const PartsCase kPartsCases[] = {
    {"regular", 2, 48, 32, 24, 60, 20, 16},
    {"no_whole_blocks", 2, 19, 30, 24, 60, 20, 16, DType::kBF16},
    {"one_token_each", 1, 1, 1, 8, 12, 8, 16},
    {"tokens", 2, 24, 37, 12, 30, 12, 16, DType::kF32, true},
    // For the kernels of Hopper GPUs: together, in whole blocks or not, and one after the other.
    {"hopper", 1, 256, 500, 128, 700, 512, 128, DType::kBF16, true},
    {"hopper_two_samples", 2, 128, 300, 64, 300, 256, 128, DType::kBF16, true},
    {"hopper_no_whole_blocks", 1, 200, 333, 64, 500, 256, 128, DType::kBF16, true},
    {"hopper_apart", 1, 131, 140, 64, 300, 256, 128, DType::kBF16, true},
    {"hopper_scaled", 1, 136, 300, 256, 600, 512, 128, DType::kF8E4M3, true, true},
    {"hopper_tiles_left_over", 1, 512, 1300, 64, 700, 4096, 128, DType::kBF16, true},
};

class ColumnMlpPartsTest : public MlpTest<PartsCase> {
 protected:
  ops::ColumnMlpPart make_part(int64_t tokens) {
    const PartsCase& c = test_case();
    const DType other_dtype = c.scaled ? DType::kBF16 : c.weight_dtype;
    Linear first{random({c.features, c.channels}, c.weight_dtype, 1.0f / std::sqrt(static_cast<float>(c.channels))),
                 random({c.features}, other_dtype, 0.5f), c.scaled ? random({c.features}, DType::kF32) : Tensor()};
    return {tokens, first, random({c.features, c.out_channels}, other_dtype)};
  }
  /// Some blocks keep nothing, some everything, the others about a third.
  KeptColumns choose(int64_t blocks) {
    KeptColumns kept({test_case().batch, blocks, test_case().features});
    std::mt19937 engine(5);
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    for (int64_t block = 0; block < kept.rows(); ++block) {
      const double share = block % 5 == 3 ? 0.0 : block % 5 == 2 ? 1.0 : 0.35;
      for (int64_t feature = 0; feature < kept.columns(); ++feature) kept.at(block, feature) = uniform(engine) < share;
    }
    return kept;
  }
  Tensor copy(const Tensor& tensor, const Tensor& to) {
    ops::copy_into(context(), tensor, to);
    return to;
  }
};

TEST_P(ColumnMlpPartsTest, AreAsEachAlone) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const PartsCase& c = test_case();
  const int64_t tokens = c.tokens + c.other_tokens;
  const int64_t split = (c.tokens + c.block_rows - 1) / c.block_rows;
  const int64_t blocks = split + (c.other_tokens + c.block_rows - 1) / c.block_rows;
  const Tensor x = random({c.batch, tokens, c.channels}), out = random({c.batch, tokens, c.out_channels});
  const Tensor activations = make_activations(c.batch, tokens, c.features, c.dense_tokens);
  const std::vector<ops::ColumnMlpPart> parts = {make_part(c.tokens), make_part(c.other_tokens)};
  const ops::FeatureSet features = make_features(choose(blocks), c.features, c.block_rows);
  struct Alone {
    Tensor activations, out;
  };
  std::vector<Alone> alone;
  for (const auto& [part, row, block, end_block] :
       {std::tuple(parts[0], int64_t{0}, int64_t{0}, split), std::tuple(parts[1], c.tokens, split, blocks)}) {
    const int64_t end = row + part.tokens;
    const auto own = [&](const Tensor& joint, const Tensor& to) { return copy(joint.slice(1, row, end), to); };
    const auto lists = [&](const Tensor& joint) {
      Dims shape = joint.shape();
      shape[1] = end_block - block;
      return copy(joint.slice(1, block, end_block), context().empty(shape, DType::kI32));
    };
    alone.push_back({own(activations, ops::empty_activations(context(), c.batch, part.tokens, c.features)),
                     own(out, context().empty({c.batch, part.tokens, c.out_channels}))});
    ops::column_mlp_into(context(), own(x, context().empty({c.batch, part.tokens, c.channels})), part.first,
                         Activation::kGeluTanh, part.second_transposed,
                         {lists(features.indices), lists(features.counts), c.block_rows}, alone.back().activations,
                         alone.back().out);
  }
  ops::column_mlp_into(context(), x, parts, Activation::kGeluTanh, features, activations, out);
  for (size_t i = 0; i < parts.size(); ++i) {
    const int64_t row = i == 0 ? 0 : c.tokens, end = row + parts[i].tokens;
    expect_equal(read(activations.slice(1, row, end)), read(alone[i].activations));
    expect_equal(read(out.slice(1, row, end)), read(alone[i].out));
  }
}

CHIPMUNK_INSTANTIATE(ColumnMlpPartsTest, ::testing::ValuesIn(kPartsCases));

class FeatureSelectionTest : public OpCaseTest<OnlyCase> {};

TEST_P(FeatureSelectionTest, BlockMeans) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const int64_t batch = 2, rows = 37, channels = 19, block = 16, blocks = 3;
  const Tensor x = random_view({batch, rows, channels}, context().activation_dtype(), 1);
  const Array values = read(x);
  Reference expected{Array({batch, blocks, channels}), Array({batch, blocks, channels})};
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t t = 0; t < rows; ++t) {
      const double share = 1.0 / static_cast<double>(std::min(block, rows - t / block * block));
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t at = (b * blocks + t / block) * channels + c;
        expected.value[at] += share * values[(b * rows + t) * channels + c];
        expected.magnitude[at] += share * std::abs(values[(b * rows + t) * channels + c]);
      }
    }
  }
  expect_close(read(ops::block_mean(context(), x, block)), expected, 4.0);
}

TEST_P(FeatureSelectionTest, LinearOfBlockMeans) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  struct Case {
    int64_t batch, rows, channels, features, block;
    DType dtype = DType::kBF16;
    int64_t pad = 0;
    bool bias = true;
  };
  // Means of few, some dozen and many rows; features that fill no tile.
  const Case cases[] = {
      {1, 37, 19, 21, 16},
      {1, 4300, 192, 1000, 128},
      {2, 700, 64, 200, 32, DType::kBF16, 8},
      {1, 1200, 640, 77, 128},
      {3, 160, 128, 64, 8},
      {1, 1040, 64, 130, 16, DType::kBF16, 0, false},
      {1, 400, 1024, 96, 32, DType::kF32},
  };
  for (const Case& c : cases) {
    const Tensor x = random_view({c.batch, c.rows, c.channels}, context().activation_dtype(), c.pad);
    Linear layer{random_view({c.features, c.channels}, c.dtype, c.pad), {}};
    if (c.bias) layer.bias = random({c.features}, c.dtype, 0.5f);
    const Tensor means = ops::block_mean(context(), x, c.block);
    const Array now = read(ops::block_mean_linear(context(), x, c.block, layer));
    const double factor = 4.0 + std::sqrt(static_cast<double>(c.channels));
    expect_close(now, reference_linear({read(means), read(layer.weight), read(layer.bias), {}, {}, Activation::kNone}),
                 factor);
    expect_equal(read(ops::block_mean_linear(context(), x, c.block, layer)), now);
    // With another one, of its own layer and rows, in either order.
    const ops::BlockMeanLinearCall other{random({2, 33, c.channels}),
                                         {random({72, c.channels}, DType::kBF16), {}},
                                         context().empty({2, (33 + c.block - 1) / c.block, 72})};
    const Array other_alone = read(ops::block_mean_linear(context(), other.x, c.block, other.layer));
    for (const bool is_first : {true, false}) {
      const ops::BlockMeanLinearCall call{x, layer, context().empty(now.shape)};
      ops::block_mean_linear_into(context(), is_first ? std::vector{call, other} : std::vector{other, call}, c.block);
      expect_equal(read(call.out), now);
      expect_equal(read(other.out), other_alone);
    }
  }
}

TEST_P(FeatureSelectionTest, ChoosesTheLargestDriftsAndRenewsTheirMeans) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  // Five means, two a block: the last block has one.
  const int64_t batch = 2, means = 5, blocks = 3, features = 50, k = 8, multiple = 6;
  const Tensor now = random({batch, means, features});
  const Tensor cached = random({batch, means, features}, DType::kF32);
  const Array now_values = read(now), before = read(cached);
  ops::FeatureSelection selection;
  selection.top_k = k;
  selection.multiple_of = multiple;
  selection.means_per_block = 2;
  selection.random.seed = 77;
  selection.random.purpose = RandomPurpose::kMlpFeatures;
  selection.random_threshold = random_threshold(0.1);
  selection.drift = context().empty({batch, blocks, features}, DType::kF32);
  const ops::FeatureSet set{context().empty({batch, blocks, features}, DType::kI32),
                            context().empty({batch, blocks}, DType::kI32), 128};
  ops::select_features(context(), now, cached, selection, set);
  const Array counts = read(set.counts), indices = read(set.indices), after = read(cached),
              drift = read(selection.drift);
  for (int64_t row = 0; row < batch * blocks; ++row) {
    const int64_t b = row / blocks, first = b * means + row % blocks * 2;
    const int64_t last = std::min(first + 2, (b + 1) * means);
    std::vector<double> moved(features);
    for (int64_t f = 0; f < features; ++f) {
      for (int64_t r = first; r < last; ++r) {
        moved[static_cast<size_t>(f)] += std::abs(now_values[r * features + f] - before[r * features + f]);
      }
      EXPECT_NEAR(drift[row * features + f], moved[static_cast<size_t>(f)], 1e-5);
    }
    std::vector<int64_t> order(features);
    for (int64_t f = 0; f < features; ++f) order[static_cast<size_t>(f)] = f;
    std::sort(order.begin(), order.end(),
              [&](int64_t a, int64_t c) { return moved[static_cast<size_t>(a)] > moved[static_cast<size_t>(c)]; });
    RandomRow name = selection.random;
    name.batch = b;
    name.group = row % blocks;
    std::vector<uint8_t> expected(features);
    draw_random(name, selection.random_threshold, expected);
    for (int64_t i = 0; i < k; ++i) expected[static_cast<size_t>(order[static_cast<size_t>(i)])] = 1;
    int64_t count = std::count(expected.begin(), expected.end(), 1);
    for (size_t i = 0; count % multiple != 0; ++i) {
      uint8_t& next = expected[static_cast<size_t>(order[i])];
      if (next == 0) next = 1, ++count;
    }
    ASSERT_EQ(static_cast<int64_t>(counts[row]), count);
    for (int64_t f = 0, i = 0; f < features; ++f) {
      const bool chosen = expected[static_cast<size_t>(f)] != 0;
      if (chosen) {
        EXPECT_EQ(indices[row * features + i++], static_cast<double>(f));
      }
      for (int64_t r = first; r < last; ++r) {
        EXPECT_EQ(after[r * features + f], (chosen ? now_values : before)[r * features + f]);
      }
    }
  }
}

TEST_P(FeatureSelectionTest, MoreThanTheCapacityMeansEveryFeature) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Tensor now = random({1, 2, 20}), cached = random({1, 2, 20}, DType::kF32);
  ops::FeatureSelection selection;
  selection.top_k = 6;
  const ops::FeatureSet set{context().empty({1, 2, 5}, DType::kI32), context().empty({1, 2}, DType::kI32), 128};
  ops::select_features(context(), now, cached, selection, set);
  for (double count : read(set.counts).values) EXPECT_EQ(count, 20.0);
  expect_equal(read(cached), read(now));
}

CHIPMUNK_INSTANTIATE(FeatureSelectionTest, ::testing::Values(OnlyCase{}));

class GatedAddTest : public OpCaseTest<OnlyCase> {};

TEST_P(GatedAddTest, MatchesReference) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const DType dtype = context().activation_dtype();
  const Tensor x = random_view({2, 7, 33}, dtype, 1), residual = random_view({2, 7, 33}, dtype, 2);
  const Tensor gate = random({2, 99}).slice(1, 33, 66);
  const GuardedView out = make_guarded_view(context(), {2, 7, 33}, 1, dtype);
  const Array xs = read(x), gates = read(gate), residuals = read(residual);
  Reference expected{Array(x.shape()), Array(x.shape())};
  for (int64_t i = 0; i < 2 * 7 * 33; ++i) {
    const double product = xs[i] * gates[i / (7 * 33) * 33 + i % 33];
    expected.value[i] = residuals[i] + product;
    expected.magnitude[i] = std::abs(residuals[i]) + std::abs(product);
  }
  ops::gated_add_into(context(), x, gate, residual, out.view);
  expect_close(read(out.view), expected, 2.0);
  expect_untouched(context(), out);
  ops::gated_add_into(context(), x, gate, residual, residual);
  expect_close(read(residual), expected, 2.0);
}

CHIPMUNK_INSTANTIATE(GatedAddTest, ::testing::Values(OnlyCase{}));

}  // namespace
}  // namespace chipmunk::test
