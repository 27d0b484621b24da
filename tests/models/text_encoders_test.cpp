#include <gtest/gtest.h>

#include <cmath>

#include "chipmunk/error.h"
#include "models/clip_text.h"
#include "models/t5_encoder.h"
#include "models/token_ids.h"
#include "support/contexts.h"

namespace chipmunk {
namespace {

TEST(T5RelativeBucket, IsExactNearZeroAndMirrored) {
  for (int64_t distance = 0; distance < 8; ++distance) {
    EXPECT_EQ(t5_relative_bucket(-distance, 32, 128), distance);
    if (distance > 0) {
      EXPECT_EQ(t5_relative_bucket(distance, 32, 128), 16 + distance);
    }
  }
}

TEST(T5RelativeBucket, GrowsLogarithmicallyAndSaturates) {
  // Bucket b of 8..15 begins at 8 * 16^((b - 8) / 8).
  int64_t previous = 7;
  for (int64_t distance = 8; distance < 400; ++distance) {
    const int64_t bucket = t5_relative_bucket(-distance, 32, 128);
    EXPECT_GE(bucket, previous);
    EXPECT_LE(bucket, 15);
    previous = bucket;
  }
  EXPECT_EQ(t5_relative_bucket(-16, 32, 128), 10);
  EXPECT_EQ(t5_relative_bucket(-32, 32, 128), 12);
  EXPECT_EQ(t5_relative_bucket(-64, 32, 128), 14);
  EXPECT_EQ(t5_relative_bucket(-128, 32, 128), 15);
  EXPECT_EQ(t5_relative_bucket(100000, 32, 128), 31);
}

TEST(ClipPooling, TakesTheFirstEndTokenOrTheLargestId) {
  EXPECT_EQ(clip_pooling_position({7, 3, 9, 4, 9, 9}, 9), 2);
  EXPECT_EQ(clip_pooling_position({7, 3, 9, 4, 9, 9}, 2), 2);   // legacy: first of the largest ids
  EXPECT_EQ(clip_pooling_position({7, 3, 12, 4, 9, 9}, 9), 4);  // a larger id does not matter
  EXPECT_EQ(clip_pooling_position({7, 3, 4}, 9), 0);            // as the reference where there is none
}

TEST(TokenIds, BadIdsAreErrors) {
  const Context context = test::cpu_context();
  EXPECT_THROW(upload_token_ids(context, {}, 10), Error);
  EXPECT_THROW(upload_token_ids(context, {{}}, 10), Error);
  EXPECT_THROW(upload_token_ids(context, {{1, 2}, {1}}, 10), Error);
  EXPECT_THROW(upload_token_ids(context, {{1, 10}}, 10), Error);
  EXPECT_THROW(upload_token_ids(context, {{1, -1}}, 10), Error);
  EXPECT_EQ(upload_token_ids(context, {{1, 2}, {3, 4}}, 10).numel(), 4);
}

TEST(TextConfigs, RejectWhatTheyDoNotImplement) {
  const std::string t5 = R"({"vocab_size": 8, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2)";
  EXPECT_EQ(T5Config::from_json(JsonConfig::parse(t5 + "}", "t5")).attention_dim(), 8);
  EXPECT_THROW(T5Config::from_json(JsonConfig::parse(t5 + R"(, "feed_forward_proj": "relu"})", "t5")), Error);
  EXPECT_THROW(T5Config::from_json(JsonConfig::parse(R"({"vocab_size": 8})", "t5")), Error);
  const std::string clip = R"({"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,)";
  EXPECT_THROW(ClipTextConfig::from_json(JsonConfig::parse(clip + R"("num_attention_heads": 3})", "clip")), Error);
  EXPECT_THROW(
      ClipTextConfig::from_json(JsonConfig::parse(clip + R"("num_attention_heads": 2, "hidden_act": "relu"})", "clip")),
      Error);
}

}  // namespace
}  // namespace chipmunk
