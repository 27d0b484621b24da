#include "cuda/selection_plan.h"

#include <gtest/gtest.h>

namespace chipmunk::cuda {
namespace {

constexpr size_t kMost = 232448, kCounters = 12896;

TEST(StreamPlan, RanksLieAroundTheExpectedOne) {
  const StreamPlan plan = plan_stream(119056, 8334, kMost, kCounters);
  EXPECT_EQ(plan.samples, 1024);
  // 71.7 of the sample are expected among the largest, with a standard deviation of 8.2.
  EXPECT_EQ(plan.high_rank, 46);
  EXPECT_EQ(plan.low_rank, 98);
}

TEST(StreamPlan, HasNoRanksBeyondTheSample) {
  EXPECT_EQ(plan_stream(119056, 1, kMost, kCounters).high_rank, 0);
  EXPECT_EQ(plan_stream(119056, 119055, kMost, kCounters).low_rank, 0);
}

TEST(StreamPlan, FitsTwoBlocksOrOneWithinMemoryAndExpectsFewerCandidatesThanItHasRoomFor) {
  for (const size_t most : {size_t{101376}, size_t{166912}, kMost}) {
    const int64_t longest = longest_streamed_row(most, kCounters);
    EXPECT_EQ(plan_stream(longest + 1, 1, most, kCounters).samples, 0);
    for (int64_t columns = 10000; columns <= longest; columns += columns / 7) {
      for (const double share : {0.0, 0.001, 0.07, 0.165, 0.5, 0.9, 1.0}) {
        const auto top_k = static_cast<int64_t>(share * static_cast<double>(columns));
        const StreamPlan plan = plan_stream(columns, top_k, most, kCounters);
        ASSERT_GT(plan.samples, 0);
        ASSERT_LE(plan.shared_bytes + kCounters, most);
        ASSERT_LT(plan.high_rank, plan.samples);
        ASSERT_LT(plan.low_rank, plan.samples);
        const int low_rank = plan.low_rank > 0 ? plan.low_rank : plan.samples;
        ASSERT_GT(low_rank, plan.high_rank);
        const double expected = static_cast<double>(low_rank - plan.high_rank) * static_cast<double>(columns) /
                                static_cast<double>(plan.samples);
        // Ranks are integers: two of them may be the nearest that there are.
        ASSERT_LE(expected, 0.75 * plan.candidates + 2.0 * static_cast<double>(columns) / plan.samples);
      }
    }
  }
}

TEST(StreamPlan, TwoBlocksShareAMultiprocessor) {
  const StreamPlan plan = plan_stream(119056, 8334, kMost, kCounters);
  EXPECT_LE(2 * (plan.shared_bytes + kCounters + kReservedSharedBytes), kMost + kReservedSharedBytes);
}

TEST(SampleRanks, LieAroundTheExpectedOneWithinTheSample) {
  // 19.2 of the sample are expected among the largest, with a standard deviation of 3.7.
  const SampleRanks ranks = SampleRanks::of(3686, 12288, 64);
  EXPECT_EQ(ranks.high, 7);
  EXPECT_EQ(ranks.low, 31);
  for (const int64_t k : {1, 20, 6000, 12000, 12287}) {
    const SampleRanks any = SampleRanks::of(k, 12288, 64);
    EXPECT_GE(any.high, 0);
    EXPECT_LT(any.high, any.low);
    EXPECT_LT(any.low, 64);
  }
}

}  // namespace
}  // namespace chipmunk::cuda
