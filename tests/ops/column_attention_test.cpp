#include "ops/column_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "core/random_columns.h"
#include "ops/attention.h"
#include "support/column_reference.h"
#include "support/op_test.h"

namespace chipmunk::test {
namespace {

struct ColumnCase : NamedCase {
  int64_t batch, query_tokens, key_tokens, heads, head_dim, group_size;
  double kept = 0.3;  // probability of each key; 0: none, 1: all of them, without a list
  int64_t pad = 0;
};

const ColumnCase kCases[] = {
    {"regular", 1, 384, 384, 2, 64, 192},
    {"d128", 1, 200, 200, 2, 128, 192, 0.2},
    {"short_last_group", 1, 250, 250, 2, 32, 96},
    {"batch", 3, 70, 90, 2, 16, 24},
    {"strided", 2, 61, 53, 3, 24, 16, 0.4, 2},
    {"none", 1, 50, 60, 2, 8, 24, 0.0},
    {"every", 2, 100, 130, 2, 16, 24, 1.0},
    {"few", 1, 192, 1000, 1, 16, 192, 0.004},
    {"one", 1, 1, 1, 1, 1, 1, 1.0},
    {"group_larger_than_queries", 1, 30, 300, 2, 8, 192, 0.5},
    {"past_key_block", 1, 20, 700, 1, 8, 7, 0.6},
};

class ColumnAttentionTest : public OpCaseTest<ColumnCase> {
 protected:
  void make_problem() {
    const ColumnCase& c = test_case();
    const DType dtype = context().activation_dtype();
    q = random_view({c.batch, c.query_tokens, c.heads, c.head_dim}, dtype, c.pad);
    k = random_view({c.batch, c.key_tokens, c.heads, c.head_dim}, dtype, c.pad);
    v = random_view({c.batch, c.key_tokens, c.heads, c.head_dim}, dtype, c.pad);
    scale = 1.0 / std::sqrt(static_cast<double>(c.head_dim));
    choose_columns();
  }

  void choose_columns() {
    const ColumnCase& c = test_case();
    const int64_t groups = (c.query_tokens + c.group_size - 1) / c.group_size;
    kept = KeptColumns({c.batch, c.heads, groups, c.key_tokens});
    std::mt19937 engine(5);
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    for (uint8_t& value : kept.kept) value = uniform(engine) < c.kept;
    columns = upload(kept);
  }

  /// With room behind the longest list, filled with ids that must not be read.
  ops::ColumnSet upload(const KeptColumns& mask) {
    int64_t capacity = 0;
    for (int64_t row = 0; row < mask.rows(); ++row) {
      capacity = std::max(capacity, static_cast<int64_t>(mask.ids(row).size()));
    }
    capacity = test_case().kept >= 1.0 ? 0 : capacity + 2;
    std::vector<int32_t> ids(static_cast<size_t>(mask.rows() * capacity), -1), counts;
    for (int64_t row = 0; row < mask.rows(); ++row) {
      const std::vector<int32_t> list = mask.ids(row);
      counts.push_back(static_cast<int32_t>(list.size()));
      if (capacity > 0) std::copy(list.begin(), list.end(), ids.begin() + row * capacity);
    }
    const Dims& s = mask.shape;
    return {from_ints(ids).reshape({s[0], s[1], s[2], capacity}), from_ints(counts).reshape({s[0], s[1], s[2]}),
            test_case().group_size};
  }

  Tensor lse_buffer() {
    return context().empty({test_case().batch, test_case().heads, test_case().query_tokens}, DType::kF32);
  }
  AttentionReference reference() {
    return reference_column_attention(read(q), read(k), read(v), kept, test_case().group_size, scale);
  }
  double factor() const { return 8.0 + std::sqrt(static_cast<double>(test_case().head_dim)); }

  Tensor q, k, v;
  double scale = 1.0;
  KeptColumns kept{Dims{1, 1, 1, 1}};
  ops::ColumnSet columns;
};

TEST_P(ColumnAttentionTest, MatchesReference) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  make_problem();
  const GuardedView out = make_guarded_view(context(), q.shape(), 1, context().activation_dtype());
  ops::ColumnAttentionOptions options;
  options.lse = lse_buffer();
  ops::column_attention_into(context(), q, k, v, columns, out.view, options);
  const AttentionReference expected = reference();
  expect_close(read(out.view), expected.out, factor());
  expect_close(read(options.lse), expected.lse, factor());
  expect_untouched(context(), out);
}

TEST_P(ColumnAttentionTest, SameBitsTwiceAndOnOneThread) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const auto run = [&] {
    make_problem();
    const Tensor out = context().empty(q.shape());
    ops::column_attention_into(context(), q, k, v, columns, out);
    return read(out);
  };
  const Array first = run();
  open(device_name());
  expect_equal(run(), first);
  if (device_name() != "cpu") return;
  open("cpu", 1);
  expect_equal(run(), first);
}

TEST_P(ColumnAttentionTest, AddsToAndTakesFromWhatIsThere) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  make_problem();
  const AttentionReference expected = reference();
  for (const auto& [epilogue, sign] : {std::pair(ColumnEpilogue::kAdd, 1.0), {ColumnEpilogue::kSubtract, -1.0}}) {
    const Tensor residual = random(q.shape());
    Reference sum = expected.out;
    const Array before = read(residual);
    for (size_t i = 0; i < before.values.size(); ++i) {
      sum.value.values[i] = before.values[i] + sign * expected.out.value.values[i];
      sum.magnitude.values[i] += std::abs(before.values[i]);
    }
    ops::ColumnAttentionOptions options;
    options.epilogue = epilogue;
    options.residual = residual;
    ops::column_attention_into(context(), q, k, v, columns, residual, options);  // in place
    expect_close(read(residual), sum, factor());
  }
}

TEST_P(ColumnAttentionTest, MergeOfASplitIsTheDenseOutput) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  make_problem();
  const Tensor dense = context().empty(q.shape()), rest = context().empty(q.shape());
  ops::AttentionOptions dense_options;
  dense_options.lse = lse_buffer();
  ops::attention_into(context(), q, k, v, dense, dense_options);
  ops::ColumnAttentionOptions options;
  options.epilogue = ColumnEpilogue::kSplit;
  options.residual = dense;
  options.lse_all = dense_options.lse;
  options.lse_rest = lse_buffer();
  ops::column_attention_into(context(), q, k, v, columns, rest, options);
  options.epilogue = ColumnEpilogue::kMerge;
  options.residual = rest;
  ops::column_attention_into(context(), q, k, v, columns, rest, options);
  const AttentionReference expected = reference_attention({read(q), read(k), read(v), {}, {}, scale, false});
  expect_close(read(rest), expected.out, 2.0 * factor());
}

CHIPMUNK_INSTANTIATE(ColumnAttentionTest, ::testing::ValuesIn(kCases));

class ColumnAttentionFormsTest : public OpCaseTest<OnlyCase> {
 protected:
  struct Split {
    Tensor rest, lse_all, lse_rest;
  };
  /// One head of 4 dimensions, one group of 2 queries, 3 keys; the first key is kept.
  const ops::ColumnSet first_key() {
    return {from_ints({0}).reshape({1, 1, 1, 1}), from_ints({1}).reshape({1, 1, 1}), 2};
  }
  /// Queries that see the kept key with the given score and the two others with score 0.
  Tensor queries(float score) { return from_floats({1, 2, 1, 4}, {score, 0, 0, 0, score, 0, 0, 0}); }
  Tensor keys() { return from_floats({1, 3, 1, 4}, {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0}); }
  Tensor values() { return from_floats({1, 3, 1, 4}, {1, 0, 0, 2, 0, 1, 0, 2, 0, 0, 1, 2}); }
  Split split(float score) {
    const Tensor q = queries(score), dense = context().empty(q.shape());
    ops::AttentionOptions dense_options;
    dense_options.scale = 1.0f;
    dense_options.lse = context().empty({1, 1, 2}, DType::kF32);
    ops::attention_into(context(), q, keys(), values(), dense, dense_options);
    Split result{context().empty(q.shape()), dense_options.lse, context().empty({1, 1, 2}, DType::kF32)};
    ops::ColumnAttentionOptions options;
    options.scale = 1.0f;
    options.epilogue = ColumnEpilogue::kSplit;
    options.residual = dense;
    options.lse_all = result.lse_all;
    options.lse_rest = result.lse_rest;
    ops::column_attention_into(context(), q, keys(), values(), first_key(), result.rest, options);
    return result;
  }
  Array merge(const Split& stored, float score) {
    const Tensor q = queries(score), out = context().empty(q.shape());
    ops::ColumnAttentionOptions options;
    options.scale = 1.0f;
    options.epilogue = ColumnEpilogue::kMerge;
    options.residual = stored.rest;
    options.lse_all = stored.lse_all;
    options.lse_rest = stored.lse_rest;
    ops::column_attention_into(context(), q, keys(), values(), first_key(), out, options);
    return read(out);
  }
};

TEST_P(ColumnAttentionFormsTest, MergeAtAnyKeptMass) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  // Kept mass m = e^s / (e^s + 2): from 1e-9 to 1 - 1e-6.
  for (const float score : {-20.0f, -7.0f, -1.0f, 0.0f, 1.0f, 5.0f, 10.0f, 14.5f}) {
    const Split stored = split(score);
    // The same scores again, and mass that moves out of the kept set or into it.
    for (const float next : {score, score - 1.0f, score + 1.0f, score - 3.0f, score + 6.0f}) {
      const double kept = std::exp(static_cast<double>(next)), total = kept + 2.0;
      const Array got = merge(stored, next);
      // The stored part carries the rounding of 1 - m relative to what is left of it.
      const double rest_error = 16.0 * epsilon() * (1.0 + std::exp(static_cast<double>(score)) / 2.0);
      const double tolerance = 16.0 * epsilon() + std::min(1.0, rest_error) * 2.0 / total;
      EXPECT_NEAR(got[0], kept / total, tolerance) << score << " -> " << next;
      EXPECT_NEAR(got[1], 1.0 / total, tolerance) << score << " -> " << next;
      EXPECT_NEAR(got[3], 2.0, 2.0 * tolerance) << score << " -> " << next;
    }
  }
}

TEST_P(ColumnAttentionFormsTest, MergeKeepsFiniteWhereEverythingIsKept) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Split stored = split(60.0f);  // 1 - m is below what a float can tell
  for (const float next : {60.0f, 20.0f, 0.0f, -60.0f}) {
    const Array got = merge(stored, next);
    for (double value : got.values) EXPECT_TRUE(std::isfinite(value) && std::abs(value) < 4.0) << next << ": " << value;
  }
}

TEST_P(ColumnAttentionFormsTest, OrderOfTheKeysDoesNotMatter) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Tensor q = random({1, 64, 1, 32}), k = random({1, 300, 1, 32}), v = random({1, 300, 1, 32});
  std::vector<int32_t> ids(200);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  const auto run = [&] {
    const Tensor out = context().empty(q.shape());
    ops::column_attention_into(context(), q, k, v,
                               {from_ints(ids).reshape({1, 1, 1, 200}), from_ints({200}).reshape({1, 1, 1}), 64}, out);
    return read(out);
  };
  const Array ascending = run();
  std::shuffle(ids.begin(), ids.end(), std::mt19937(3));
  Reference expected{ascending, ascending};
  std::fill(expected.magnitude.values.begin(), expected.magnitude.values.end(), 1.0);
  expect_close(run(), expected, 8.0);
}

CHIPMUNK_INSTANTIATE(ColumnAttentionFormsTest, ::testing::Values(OnlyCase{}));

struct ColumnSumCase : NamedCase {
  int64_t batch, query_tokens, key_tokens, heads, head_dim, group_size;
  int64_t pad = 0;
};

const ColumnSumCase kColumnSumCases[] = {
    {"regular", 1, 384, 384, 2, 64, 192},        {"d128", 1, 200, 300, 2, 128, 192}, {"batch", 2, 50, 61, 3, 16, 24, 1},
    {"short_last_group", 1, 250, 700, 2, 8, 96}, {"one", 1, 1, 1, 1, 1, 1},          {"group_of_one", 1, 7, 9, 2, 8, 1},
};

class ColumnSumTest : public OpCaseTest<ColumnSumCase> {};

TEST_P(ColumnSumTest, MatchesReference) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const ColumnSumCase& c = test_case();
  // Of 3 multiprocessors, a GPU takes as many of four groups whole, and cuts the last one.
  for (const int multiprocessors : {0, 3}) {
    if (device_name() == "cpu" && multiprocessors > 0) break;
    if (multiprocessors > 0) open(device_name(), 2, multiprocessors);
    const DType dtype = context().activation_dtype();
    const Tensor q = random_view({c.batch, c.query_tokens, c.heads, c.head_dim}, dtype, c.pad);
    const Tensor k = random_view({c.batch, c.key_tokens, c.heads, c.head_dim}, dtype, c.pad);
    const Tensor v = random_view({c.batch, c.key_tokens, c.heads, c.head_dim}, dtype, c.pad);
    const double scale = 1.0 / std::sqrt(static_cast<double>(c.head_dim));
    ops::AttentionOptions options;
    options.lse = context().empty({c.batch, c.heads, c.query_tokens}, DType::kF32);
    // Of an earlier step: any values near those of this one.
    options.column_lse = random({c.batch, c.heads, c.query_tokens}, DType::kF32, 2.0f);
    const int64_t groups = (c.query_tokens + c.group_size - 1) / c.group_size;
    options.column_sums = context().empty({c.batch, c.heads, groups, c.key_tokens}, DType::kF32);
    options.group_size = c.group_size;
    const Tensor out = context().empty(q.shape());
    ops::attention_into(context(), q, k, v, out, options);
    const Array sums = read(options.column_sums);
    const double factor = 8.0 + std::sqrt(static_cast<double>(c.head_dim));
    expect_close(sums, reference_column_sums(read(q), read(k), read(options.column_lse), c.group_size, scale), factor);
    const AttentionReference expected = reference_attention({read(q), read(k), read(v), {}, {}, scale, false});
    expect_close(read(out), expected.out, factor);
    expect_close(read(options.lse), expected.lse, factor);
    ops::attention_into(context(), q, k, v, out, options);
    expect_equal(read(options.column_sums), sums);
  }
}

TEST_P(ColumnSumTest, RowsThatSawNoKeyDoNotCount) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const ColumnSumCase& c = test_case();
  const DType dtype = context().activation_dtype();
  const Tensor q = random({c.batch, c.query_tokens, c.heads, c.head_dim}, dtype);
  const Tensor k = random({c.batch, c.key_tokens, c.heads, c.head_dim}, dtype), v = random(k.shape(), dtype);
  Array lse = read(random({c.batch, c.heads, c.query_tokens}, DType::kF32)), reference_lse = lse;
  std::vector<float> values(lse.values.begin(), lse.values.end());
  for (size_t i = 0; i < values.size(); i += 3) {
    values[i] = -std::numeric_limits<float>::infinity();
    reference_lse.values[i] = 1e30;  // exp(score - this) is 0
  }
  ops::AttentionOptions options;
  options.column_lse = from_floats({c.batch, c.heads, c.query_tokens}, values, DType::kF32);
  options.lse = context().empty({c.batch, c.heads, c.query_tokens}, DType::kF32);
  const int64_t groups = (c.query_tokens + c.group_size - 1) / c.group_size;
  options.column_sums = context().empty({c.batch, c.heads, groups, c.key_tokens}, DType::kF32);
  options.group_size = c.group_size;
  ops::attention_into(context(), q, k, v, context().empty(q.shape()), options);
  const double scale = 1.0 / std::sqrt(static_cast<double>(c.head_dim));
  expect_close(read(options.column_sums), reference_column_sums(read(q), read(k), reference_lse, c.group_size, scale),
               8.0 + std::sqrt(static_cast<double>(c.head_dim)));
}

TEST_P(ColumnSumTest, ReadsTheOldLseWhereBothAreOneBuffer) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const ColumnSumCase& c = test_case();
  const Tensor q = random({c.batch, c.query_tokens, c.heads, c.head_dim});
  const Tensor k = random({c.batch, c.key_tokens, c.heads, c.head_dim}), v = random(k.shape());
  ops::AttentionOptions options;
  options.lse = options.column_lse = random({c.batch, c.heads, c.query_tokens}, DType::kF32);
  const Array old_lse = read(options.lse);
  const int64_t groups = (c.query_tokens + c.group_size - 1) / c.group_size;
  options.column_sums = context().empty({c.batch, c.heads, groups, c.key_tokens}, DType::kF32);
  options.group_size = c.group_size;
  ops::attention_into(context(), q, k, v, context().empty(q.shape()), options);
  const double scale = 1.0 / std::sqrt(static_cast<double>(c.head_dim));
  expect_close(read(options.column_sums), reference_column_sums(read(q), read(k), old_lse, c.group_size, scale),
               8.0 + std::sqrt(static_cast<double>(c.head_dim)));
}

CHIPMUNK_INSTANTIATE(ColumnSumTest, ::testing::ValuesIn(kColumnSumCases));

class SelectColumnsTest : public OpCaseTest<OnlyCase> {
 protected:
  static constexpr int64_t kBatch = 2, kHeads = 3, kGroups = 4, kKeys = 101;

  ops::ColumnSet empty_columns(int64_t capacity) {
    return {context().empty({kBatch, kHeads, kGroups, capacity}, DType::kI32),
            context().empty({kBatch, kHeads, kGroups}, DType::kI32), 24};
  }
  Tensor mask(const Dims& shape, double probability, unsigned seed) {
    const Tensor host = make_host_tensor(shape, DType::kU8);
    std::mt19937 engine(seed);
    std::bernoulli_distribution draw(probability);
    for (int64_t i = 0; i < host.numel(); ++i) host.data_as<uint8_t>()[i] = draw(engine);
    return context().to_device(host);
  }
  /// The k largest of a row by sorting; of equal ones the lower index.
  static std::vector<uint8_t> largest(const Array& sums, int64_t row, int64_t k) {
    std::vector<int64_t> order(kKeys);
    for (int64_t j = 0; j < kKeys; ++j) order[static_cast<size_t>(j)] = j;
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return sums[row * kKeys + a] > sums[row * kKeys + b]; });
    std::vector<uint8_t> kept(kKeys);
    for (int64_t i = 0; i < k; ++i) kept[static_cast<size_t>(order[static_cast<size_t>(i)])] = 1;
    return kept;
  }
  void expect_row(const ops::ColumnSet& columns, int64_t row, const std::vector<uint8_t>& expected) {
    const Array counts = read(columns.counts), indices = read(columns.indices);
    std::vector<int64_t> ids, got;
    for (int64_t j = 0; j < kKeys; ++j) {
      if (expected[static_cast<size_t>(j)] != 0) ids.push_back(j);
    }
    const int64_t capacity = columns.indices.dim(3);
    for (int64_t i = 0; i < static_cast<int64_t>(counts[row]); ++i) {
      got.push_back(static_cast<int64_t>(indices[row * capacity + i]));
    }
    EXPECT_EQ(got, ids) << "row " << row;
  }
  /// Few different values, so that many are equal.
  Tensor sums() {
    std::vector<float> values(static_cast<size_t>(kBatch * kHeads * kGroups * kKeys));
    std::mt19937 engine(9);
    for (float& value : values) value = static_cast<float>(engine() % 13);
    return from_floats({kBatch, kHeads, kGroups, kKeys}, values, DType::kF32);
  }
};

TEST_P(SelectColumnsTest, TopKWithTies) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Tensor column_sums = sums();
  const Array host = read(column_sums);
  for (const int64_t k : {0, 1, 17, 100, 101}) {
    ops::ColumnSelection selection;
    selection.top_k = k;
    const ops::ColumnSet columns = empty_columns(kKeys);
    ops::select_columns(context(), column_sums, selection, columns);
    for (int64_t row = 0; row < kBatch * kHeads * kGroups; ++row) expect_row(columns, row, largest(host, row, k));
  }
}

TEST_P(SelectColumnsTest, StaticAndRandomColumnsAndRoom) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Tensor column_sums = sums();
  const Array host = read(column_sums);
  for (const bool per_head : {false, true}) {
    ops::ColumnSelection selection;
    selection.top_k = 20;
    selection.room_keys = 60;
    selection.static_columns = mask(per_head ? Dims{kHeads, kGroups, kKeys} : Dims{kGroups, kKeys}, 0.4, 1);
    selection.random_columns = mask({kBatch, kHeads, kGroups, kKeys}, 0.1, 2);
    const ops::ColumnSet columns = empty_columns(kKeys);
    ops::select_columns(context(), column_sums, selection, columns);
    const Array fixed = read(selection.static_columns), drawn = read(selection.random_columns);
    bool with_room = false, without_room = false;
    for (int64_t row = 0; row < kBatch * kHeads * kGroups; ++row) {
      const int64_t static_row = row % (per_head ? kHeads * kGroups : kGroups);
      int64_t static_count = 0;
      for (int64_t j = 0; j < kKeys; ++j) static_count += fixed[static_row * kKeys + j] != 0;
      const bool room = static_count + selection.room_keys < kKeys;
      (room ? with_room : without_room) = true;
      std::vector<uint8_t> expected = largest(host, row, room ? selection.top_k : 0);
      for (int64_t j = 0; j < kKeys; ++j) {
        if (fixed[static_row * kKeys + j] != 0 || (room && drawn[row * kKeys + j] != 0))
          expected[static_cast<size_t>(j)] = 1;
      }
      expect_row(columns, row, expected);
    }
    EXPECT_TRUE(with_room && without_room) << "the masks exercise both";
  }
}

TEST_P(SelectColumnsTest, DrawsWhatTheHostDraws) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Tensor column_sums = sums();
  const Array host = read(column_sums);
  ops::ColumnSelection selection;
  selection.top_k = 5;
  selection.random.seed = 1234567890123;
  selection.random.step = 7;
  selection.random.layer = 3;
  selection.random.branch = 1;
  selection.random_threshold = random_threshold(0.2);
  const ops::ColumnSet columns = empty_columns(kKeys);
  ops::select_columns(context(), column_sums, selection, columns);
  for (int64_t row = 0; row < kBatch * kHeads * kGroups; ++row) {
    RandomRow name = selection.random;
    name.batch = row / kGroups / kHeads;
    name.head = row / kGroups % kHeads;
    name.group = row % kGroups;
    std::vector<uint8_t> expected(kKeys);
    draw_random(name, selection.random_threshold, expected);
    const std::vector<uint8_t> top = largest(host, row, 5);
    for (size_t j = 0; j < expected.size(); ++j) expected[j] |= top[j];
    expect_row(columns, row, expected);
  }
}

TEST_P(SelectColumnsTest, MoreThanTheCapacityMeansEveryKey) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  ops::ColumnSelection selection;
  selection.top_k = 10;
  const ops::ColumnSet columns = empty_columns(9);
  ops::select_columns(context(), sums(), selection, columns);
  for (double count : read(columns.counts).values) EXPECT_EQ(count, kKeys);
}

TEST_P(SelectColumnsTest, FillsUpToAMultipleWithTheLowestOthers) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Tensor column_sums = sums();
  const Array host = read(column_sums);
  ops::ColumnSelection selection;
  selection.top_k = 10;
  selection.multiple_of = 16;
  const ops::ColumnSet columns = empty_columns(kKeys);
  ops::select_columns(context(), column_sums, selection, columns);
  const Array counts = read(columns.counts), indices = read(columns.indices);
  for (int64_t row = 0; row < kBatch * kHeads * kGroups; ++row) {
    const std::vector<uint8_t> kept = largest(host, row, 10);
    std::vector<int64_t> expected, others;
    for (int64_t j = 0; j < kKeys; ++j) (kept[static_cast<size_t>(j)] != 0 ? expected : others).push_back(j);
    expected.insert(expected.end(), others.begin(), others.begin() + 6);
    ASSERT_EQ(counts[row], 16.0);
    for (int64_t i = 0; i < 16; ++i) {
      EXPECT_EQ(indices[row * kKeys + i], static_cast<double>(expected[static_cast<size_t>(i)])) << row;
    }
  }
}

CHIPMUNK_INSTANTIATE(SelectColumnsTest, ::testing::Values(OnlyCase{}));

}  // namespace
}  // namespace chipmunk::test
