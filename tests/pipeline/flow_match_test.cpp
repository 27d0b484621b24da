#include "pipeline/flow_match.h"

#include <gtest/gtest.h>

#include <cmath>

#include "chipmunk/error.h"
#include "sparse/schedule.h"

namespace chipmunk {
namespace {

TEST(FlowMatchSigmas, FallFromOneToZero) {
  FlowMatchConfig config;
  for (const bool dynamic : {false, true}) {
    config.use_dynamic_shifting = dynamic;
    for (int steps : {1, 2, 4, 28, 50, 1000}) {
      const std::vector<float> sigmas = flow_match_sigmas(config, steps, 1024);
      ASSERT_EQ(sigmas.size(), static_cast<size_t>(steps) + 1);
      EXPECT_FLOAT_EQ(sigmas.front(), 1.0f);
      EXPECT_EQ(sigmas.back(), 0.0f);
      for (size_t i = 1; i < sigmas.size(); ++i) EXPECT_LT(sigmas[i], sigmas[i - 1]);
    }
  }
}

TEST(FlowMatchSigmas, ShiftFollowsTheFormula) {
  FlowMatchConfig config;
  config.shift = 3.0;
  EXPECT_NEAR(flow_match_sigmas(config, 4, 1)[1], 3.0 * 0.75 / (1.0 + 2.0 * 0.75), 1e-6);
  config.use_dynamic_shifting = true;
  // mu is linear in the number of tokens, also above max_image_seq_len.
  for (int64_t tokens : {256, 4096, 16384}) {
    const double mu = 0.5 + (1.15 - 0.5) * (static_cast<double>(tokens) - 256.0) / (4096.0 - 256.0);
    EXPECT_NEAR(flow_match_sigmas(config, 4, tokens)[1], std::exp(mu) / (std::exp(mu) + (1.0 / 0.75 - 1.0)), 1e-6);
  }
}

TEST(FlowMatchSigmas, NeedAStep) {
  EXPECT_THROW(flow_match_sigmas({}, 0, 256), Error);
  EXPECT_THROW(flow_match_sigmas({}, -3, 256), Error);
}

TEST(DenoisingSchedule, DenseStepsCoverTheSigmas) {
  const DenoisingSchedule schedule = DenoisingSchedule::dense({1.0f, 0.5f, 0.0f});
  ASSERT_EQ(schedule.steps().size(), 2u);
  EXPECT_EQ(schedule.steps()[1].index, 1);
  EXPECT_EQ(schedule.steps()[1].sigma, 0.5f);
  EXPECT_EQ(schedule.steps()[1].sigma_next, 0.0f);
  EXPECT_EQ(schedule.steps()[1].attention, AttentionStep::kDense);
  EXPECT_THROW(DenoisingSchedule::dense({1.0f}), Error);
}

}  // namespace
}  // namespace chipmunk
