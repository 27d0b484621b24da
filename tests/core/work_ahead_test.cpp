#include "core/work_ahead.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <vector>

namespace chipmunk {
namespace {

TEST(WorkAhead, DoesEveryPartOnce) {
  for (const size_t count : {0, 1, 2, 17, 500}) {
    std::vector<int> times(count);
    WorkAhead work(count, [&](size_t part) { ++times[part]; });
    work.allow(count);
    for (size_t part = 0; part < count; ++part) {
      work.await(part);
      EXPECT_EQ(times[part], 1) << part << " of " << count;
    }
  }
}

TEST(WorkAhead, NoPartBeforeItIsAllowed) {
  constexpr size_t kBuffers = 3, kParts = 400;
  std::array<size_t, kBuffers> buffers{};
  std::atomic<size_t> allowed{0}, early{0};
  WorkAhead work(kParts, [&](size_t part) {
    if (part >= allowed) ++early;
    buffers[part % kBuffers] = part;
  });
  for (size_t part = 0; part < kParts; ++part) {
    allowed = part + kBuffers;
    work.allow(allowed);
    work.await(part);
    ASSERT_EQ(buffers[part % kBuffers], part);
  }
  EXPECT_EQ(early, 0u);
}

TEST(WorkAhead, WhatIsNotBegunIsLeftUndone) {
  std::atomic<size_t> begun{0}, ended{0};
  {
    WorkAhead work(1000, [&](size_t) {
      ++begun;
      ++ended;
    });
    work.allow(5);
    work.await(0);
  }
  EXPECT_GE(begun, 1u);
  EXPECT_LE(begun, 5u);
  EXPECT_EQ(begun, ended);
}

}  // namespace
}  // namespace chipmunk
