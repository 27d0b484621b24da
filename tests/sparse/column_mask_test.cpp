#include "sparse/column_mask.h"

#include <algorithm>
#include <initializer_list>

#include "io/safetensors.h"
#include "sparse/static_columns.h"
#include "sparse_test_util.h"

namespace chipmunk {
namespace {

using test::expect_error;
using test::golden_method;
using test::values_of;

ColumnMask mask_of(int64_t columns, const std::vector<std::vector<int64_t>>& kept) {
  ColumnMask mask(static_cast<int64_t>(kept.size()), columns);
  for (size_t i = 0; i < kept.size(); ++i) {
    for (int64_t j : kept[i]) mask.row(static_cast<int64_t>(i))[static_cast<size_t>(j)] = 1;
  }
  return mask;
}

TEST(PackBits, EqualsTheReferences) {
  const SafetensorsFile inputs(golden_method("orders/inputs.safetensors"));
  const SafetensorsFile expected(golden_method("orders/expected.safetensors"));
  for (const char* name : {"bitpack.0", "bitpack.1", "bitpack.2", "bitpack.3"}) {
    const Tensor mask = inputs.tensor(std::string(name) + ".mask");
    const Tensor packed = expected.tensor(std::string(name) + ".packed");
    EXPECT_TRUE(std::ranges::equal(pack_bits(values_of<uint8_t>(mask)), values_of<uint8_t>(packed))) << name;
    EXPECT_TRUE(std::ranges::equal(unpack_bits(values_of<uint8_t>(packed), mask.numel()), values_of<uint8_t>(mask)));
  }
}

TEST(PackBits, FirstElementIsBitZero) {
  EXPECT_EQ(pack_bits(std::vector<uint8_t>{1, 0, 0, 7, 0, 0, 0, 0, 1}), (std::vector<uint8_t>{9, 1}));
  EXPECT_TRUE(pack_bits({}).empty());
  EXPECT_TRUE(unpack_bits({}, 0).empty());
  const std::vector<uint8_t> two(2);
  expect_error(ErrorCode::kShapeMismatch, {"17 bits", "found 2"}, [&] { unpack_bits(two, 17); });
  expect_error(ErrorCode::kShapeMismatch, {"-1"}, [&] { unpack_bits(two, -1); });
}

TEST(ColumnIndices, EqualTheReferences) {
  const SafetensorsFile inputs(golden_method("attention/inputs.safetensors"));
  const SafetensorsFile expected(golden_method("attention/expected.safetensors"));
  const Tensor top_k = expected.tensor("topk.mask"), random = inputs.tensor("random_mask");
  ColumnMask mask(10, 100);
  for (size_t i = 0; i < mask.values.size(); ++i) {
    mask.values[i] = values_of<uint8_t>(top_k)[i] | values_of<uint8_t>(random)[i];
  }
  for (int64_t multiple : {1, 8, 32}) {
    const std::string name = "indices.multiple" + std::to_string(multiple);
    const ColumnIndices got = to_indices(mask, multiple);
    const Tensor indices = expected.tensor(name + ".indices"), counts = expected.tensor(name + ".counts");
    EXPECT_TRUE(std::ranges::equal(got.indices, values_of<int32_t>(indices))) << name;
    EXPECT_TRUE(std::ranges::equal(got.counts, values_of<int32_t>(counts))) << name;
  }
}

TEST(ColumnIndices, FillUpWithTheLowestMissing) {
  const ColumnMask mask = mask_of(6, {{1, 4}, {}, {0, 1, 2, 3, 4, 5}, {5}, {1, 2, 3, 4, 5}});
  const ColumnIndices got = to_indices(mask, 4);
  EXPECT_EQ(got.counts, (std::vector<int32_t>{4, 0, 6, 4, 6}));
  EXPECT_EQ(got.indices, (std::vector<int32_t>{1,  4,  0,  2,  -1, -1,  //
                                               -1, -1, -1, -1, -1, -1,  //
                                               0,  1,  2,  3,  4,  5,   //
                                               5,  0,  1,  2,  -1, -1,  //
                                               1,  2,  3,  4,  5,  0}));
  EXPECT_EQ(to_indices(mask, int64_t{1} << 62).counts, (std::vector<int32_t>{6, 0, 6, 6, 6}));
}

TEST(ColumnIndices, AndBack) {
  const ColumnMask mask = mask_of(9, {{1, 4, 8}, {}, {0}});
  const ColumnIndices indices = to_indices(mask);
  EXPECT_EQ(to_mask(indices, 9).values, mask.values);
  ColumnIndices bad = indices;
  bad.counts[0] = 10;
  expect_error(ErrorCode::kInvalidArgument, {"row 0", "from 0 to 9", "found 10"}, [&] { to_mask(bad, 9); });
  expect_error(ErrorCode::kInvalidArgument, {"row 0", "below 8", "found 8"}, [&] { to_mask(indices, 8); });
  bad.counts.pop_back();
  expect_error(ErrorCode::kShapeMismatch, {"rows"}, [&] { to_mask(bad, 9); });
  expect_error(ErrorCode::kInvalidArgument, {"multiple_of"}, [&] { to_indices(mask, 0); });
}

TEST(StaticColumns, TextAndTextGroups) {
  // 3x3 tokens hold one voxel of 2x2 and a tail of 5; groups of 4: the voxel, tail, tail and text.
  const ColumnMask mask = static_columns({{1, 3, 3}, 3, {1, 2, 2}});
  ASSERT_EQ(mask.rows, 3);
  ASSERT_EQ(mask.columns, 12);
  for (int64_t g : {0, 1}) {
    EXPECT_EQ(mask.count(g), 3);
    for (size_t j = 9; j < 12; ++j) EXPECT_EQ(mask.row(g)[j], 1);
  }
  EXPECT_EQ(mask.count(2), 12) << "the group that holds text";
}

TEST(StaticColumns, WindowsNeverReachOutside) {
  for (int64_t local : std::initializer_list<int64_t>{1, 2, 3, 5, 100, int64_t{1} << 40}) {
    const ColumnMask mask = static_columns({{4, 12, 17}, 5, kVideoVoxel, {local, local, local}, 0.5, true, true});
    ASSERT_EQ(mask.columns, 4 * 12 * 17 + 5);
    for (int64_t g = 0; g < 4; ++g) {
      // Its own voxel is in the window.
      for (int64_t j = g * 192; j < (g + 1) * 192; ++j) ASSERT_EQ(mask.row(g)[static_cast<size_t>(j)], 1);
    }
  }
}

TEST(StaticColumns, OneDimensionalWindow) {
  ColumnMask mask(4, 20);
  add_1d_window(mask, 5, 0.3);  // 6 columns
  const std::vector<int64_t> begins = {0, 4, 9, 14};
  for (int64_t g = 0; g < 4; ++g) {
    EXPECT_EQ(mask.count(g), 6);
    for (int64_t j = 0; j < 6; ++j) {
      EXPECT_EQ(mask.row(g)[static_cast<size_t>(begins[static_cast<size_t>(g)] + j)], 1) << g;
    }
  }
  ColumnMask none(4, 20), all(4, 20);
  add_1d_window(none, 5, 0.0);
  add_1d_window(all, 5, 1.0);
  for (int64_t g = 0; g < 4; ++g) {
    EXPECT_EQ(none.count(g), 0);
    EXPECT_EQ(all.count(g), 20);
  }
}

TEST(StaticColumns, TextInFront) {
  ColumnMask mask(3, 10);
  keep_columns(mask, 0, 3);
  keep_all_in_groups_of(mask, 4, 0, 3);
  EXPECT_EQ(mask.count(0), 10);
  EXPECT_EQ(mask.count(1), 3);
  keep_all_in_groups_of(mask, 4, 3, 3);
  EXPECT_EQ(mask.count(1), 3) << "an empty range";
  keep_all_in_groups_of(mask, 4, 0, 5);
  EXPECT_EQ(mask.count(1), 10);
  EXPECT_EQ(mask.count(2), 3);
}

TEST(StaticColumns, BadArguments) {
  constexpr ErrorCode kCode = ErrorCode::kInvalidArgument;
  ColumnMask mask(1, 4);
  expect_error(kCode, {"[2, 5)"}, [&] { keep_columns(mask, 2, 5); });
  expect_error(kCode, {"group size"}, [&] { keep_all_in_groups_of(mask, 0, 0, 1); });
  expect_error(kCode, {"1.5"}, [&] { add_1d_window(mask, 4, 1.5); });
  expect_error(kCode, {"text"}, [] { static_columns({{1, 1, 1}, -1}); });
  expect_error(kCode, {"sides"}, [] { static_columns({{0, 1, 1}, 0}); });
  expect_error(kCode, {"window"}, [] { static_columns({{1, 1, 1}, 0, kVideoVoxel, {-1, 1, 1}}); });
}

}  // namespace
}  // namespace chipmunk
