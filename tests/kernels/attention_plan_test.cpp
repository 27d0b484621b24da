#include "cuda/sm90/attention_plan.h"

#include <gtest/gtest.h>

namespace chipmunk::cuda::sm90 {
namespace {

TEST(ItemsInParts, AreThoseOfAnUnfilledRoundWithRoomForTheirParts) {
  EXPECT_EQ(items_in_parts(552, 132, 3), 24);
  EXPECT_EQ(items_in_parts(528, 132, 3), 0);
  EXPECT_EQ(items_in_parts(528 + 44, 132, 3), 44);
  EXPECT_EQ(items_in_parts(528 + 45, 132, 3), 0);
  EXPECT_EQ(items_in_parts(12, 132, 3), 12);
  EXPECT_EQ(items_in_parts(1, 1, 3), 0);
  EXPECT_EQ(items_in_parts(0, 132, 3), 0);
}

TEST(ItemsInParts, LeaveFullRoundsAndFitOneRound) {
  for (int multiprocessors : {1, 2, 3, 78, 114, 132}) {
    for (int items = 0; items < 1000; ++items) {
      const int divided = items_in_parts(items, multiprocessors, 3);
      ASSERT_GE(divided, 0);
      ASSERT_LE(divided * 3, multiprocessors);
      ASSERT_TRUE(divided == 0 || (items - divided) % multiprocessors == 0);
    }
  }
}

}  // namespace
}  // namespace chipmunk::cuda::sm90
