#include "sparse/token_order.h"

#include <algorithm>
#include <cstdio>
#include <set>

#include "io/safetensors.h"
#include "sparse_test_util.h"

namespace chipmunk {
namespace {

using test::expect_error;
using test::golden_method;
using test::values_of;

void expect_permutation(const TokenOrder& order, int64_t size) {
  ASSERT_EQ(order.size(), size);
  ASSERT_EQ(order.inverse.size(), order.order.size());
  std::vector<bool> seen(static_cast<size_t>(size));
  for (size_t p = 0; p < order.order.size(); ++p) {
    const int32_t token = order.order[p];
    ASSERT_TRUE(token >= 0 && token < size && !seen[static_cast<size_t>(token)]);
    seen[static_cast<size_t>(token)] = true;
    ASSERT_EQ(order.inverse[static_cast<size_t>(token)], static_cast<int32_t>(p));
  }
}

TEST(TokenOrder, EqualsTheReferences) {
  const SafetensorsFile expected(golden_method("orders/expected.safetensors"));
  int found = 0;
  for (const std::string& name : expected.names()) {
    const std::string base = name.substr(0, name.rfind('.'));
    int t = 0, h = 0, w = 0, a = 0, b = 0, c = 0;
    TokenOrder order;
    if (std::sscanf(name.c_str(), "patch.%dx%d.%d.%d.order", &h, &w, &a, &b) == 4 && name.ends_with(".order")) {
      order = TokenOrder::image_patches(h, w, a, b);
    } else if (std::sscanf(name.c_str(), "voxel.%dx%dx%d.%dx%dx%d.order", &t, &h, &w, &a, &b, &c) == 6 &&
               name.ends_with(".order")) {
      order = TokenOrder::video_voxels({t, h, w}, {a, b, c});
    } else {
      continue;
    }
    ++found;
    const Tensor order_tensor = expected.tensor(name), inverse_tensor = expected.tensor(base + ".inverse");
    EXPECT_TRUE(std::ranges::equal(order.order, values_of<int32_t>(order_tensor))) << name;
    EXPECT_TRUE(std::ranges::equal(order.inverse, values_of<int32_t>(inverse_tensor))) << name;
  }
  EXPECT_EQ(found, 12);
}

TEST(TokenOrder, PatchesOfAnySides) {
  for (int64_t height = 1; height <= 19; ++height) {
    for (int64_t width : {1, 3, 4, 7, 8, 9, 17, 21}) {
      expect_permutation(TokenOrder::image_patches(height, width), height * width);
      expect_permutation(TokenOrder::image_patches(height, width, 6, 4), height * width);
    }
  }
}

TEST(TokenOrder, PatchesAreCutOffAtTheBorder) {
  // 3 x 5 with patches of 2 and 1: the last row and column are narrower patches, in their place.
  EXPECT_EQ(TokenOrder::image_patches(3, 5, 2, 1).order,
            (std::vector<int32_t>{0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14}));
  // An inner patch is cut off too where it does not divide the outer one.
  EXPECT_EQ(TokenOrder::image_patches(3, 3, 3, 2).order, (std::vector<int32_t>{0, 1, 3, 4, 2, 5, 6, 7, 8}));
  EXPECT_EQ(TokenOrder::image_patches(2, 3, int64_t{1} << 62, int64_t{1} << 61).order, TokenOrder::identity(6).order);
}

TEST(TokenOrder, VoxelsOfAnySides) {
  for (int64_t frames : {1, 3, 4, 5, 9}) {
    for (int64_t height : {1, 5, 6, 7, 13}) {
      for (int64_t width : {1, 7, 8, 9, 16}) {
        expect_permutation(TokenOrder::video_voxels({frames, height, width}), frames * height * width);
      }
    }
  }
}

TEST(TokenOrder, AVoxelIsACompactBox) {
  const VideoShape video{8, 12, 17};
  const TokenOrder order = TokenOrder::video_voxels(video);
  std::set<int64_t> frames, rows, columns;
  for (size_t p = 192; p < 384; ++p) {
    const int64_t token = order.order[p];
    frames.insert(token / (video.height * video.width));
    rows.insert(token / video.width % video.height);
    columns.insert(token % video.width);
  }
  EXPECT_EQ(frames, (std::set<int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(rows.size(), 6u);
  EXPECT_EQ(columns, (std::set<int64_t>{8, 9, 10, 11, 12, 13, 14, 15}));
}

TEST(TokenOrder, TextStaysInPlace) {
  const TokenOrder image = TokenOrder::image_patches(5, 6, 4, 2);
  const TokenOrder whole = image.surrounded_by(3, 2);
  expect_permutation(whole, 35);
  for (int32_t p : {0, 1, 2, 33, 34}) EXPECT_EQ(whole.order[static_cast<size_t>(p)], p);
  for (size_t p = 0; p < 30; ++p) EXPECT_EQ(whole.order[p + 3], image.order[p] + 3);
}

TEST(TokenOrder, BadArguments) {
  constexpr ErrorCode kCode = ErrorCode::kInvalidArgument;
  expect_error(kCode, {"at least 1", "1x0x4"}, [] { TokenOrder::image_patches(0, 4); });
  expect_error(kCode, {"inner", "outer 4", "inner 8"}, [] { TokenOrder::image_patches(8, 8, 4, 8); });
  expect_error(kCode, {"inner 0"}, [] { TokenOrder::image_patches(8, 8, 4, 0); });
  expect_error(kCode, {"voxel", "0x6x8"}, [] { TokenOrder::video_voxels({4, 6, 8}, {0, 6, 8}); });
  expect_error(kCode, {"2^31"}, [] { TokenOrder::image_patches(65536, 65536); });
  expect_error(kCode, {"2^31"}, [] { TokenOrder::video_voxels({int64_t{1} << 40, int64_t{1} << 40, 8}); });
  expect_error(kCode, {"negative"}, [] { TokenOrder::identity(2).surrounded_by(-1, 0); });
}

}  // namespace
}  // namespace chipmunk
