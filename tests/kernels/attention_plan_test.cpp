#include "cuda/sm90/attention_plan.h"

#include <gtest/gtest.h>

namespace chipmunk::cuda::sm90 {
namespace {

TEST(ItemsInParts, AreThoseOfAnUnfilledRoundWithRoomForTheirParts) {
  EXPECT_EQ(items_in_parts(552, 132, 3, 1), 24);
  EXPECT_EQ(items_in_parts(528, 132, 3, 1), 0);
  EXPECT_EQ(items_in_parts(528 + 44, 132, 3, 1), 44);
  EXPECT_EQ(items_in_parts(528 + 45, 132, 3, 1), 0);
  EXPECT_EQ(items_in_parts(528 + 45, 132, 3, 2), 45);
  EXPECT_EQ(items_in_parts(528 + 88, 132, 3, 2), 88);
  EXPECT_EQ(items_in_parts(528 + 89, 132, 3, 2), 0);
  EXPECT_EQ(items_in_parts(12, 132, 3, 1), 12);
  EXPECT_EQ(items_in_parts(1, 1, 3, 1), 0);
  EXPECT_EQ(items_in_parts(0, 132, 3, 1), 0);
}

TEST(ItemsInParts, LeaveFullRoundsAndFitTheirOwn) {
  for (int part_rounds : {1, 2}) {
    for (int multiprocessors : {1, 2, 3, 78, 114, 132}) {
      for (int items = 0; items < 1000; ++items) {
        const int divided = items_in_parts(items, multiprocessors, 3, part_rounds);
        ASSERT_GE(divided, 0);
        ASSERT_LE(divided * 3, multiprocessors * part_rounds);
        ASSERT_TRUE(divided == 0 || (items - divided) % multiprocessors == 0);
      }
    }
  }
}

}  // namespace
}  // namespace chipmunk::cuda::sm90
