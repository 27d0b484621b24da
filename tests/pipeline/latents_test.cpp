#include "pipeline/latents.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/philox.h"
#include "support/contexts.h"

namespace chipmunk {
namespace {

TEST(PackedNoise, HoldsPatchesChannelByChannel) {
  const Context context = test::cpu_context();
  const LatentGeometry geometry{3, 4, 6};
  const Tensor packed = context.to_host(packed_noise(context, geometry, 2, 7));
  ASSERT_EQ(packed.shape(), (Dims{2, 6, 12}));
  for (int64_t sample = 0; sample < 2; ++sample) {
    std::vector<float> planes(3 * 4 * 6);
    philox_normals(7 + static_cast<uint64_t>(sample), planes);
    for (int64_t c = 0; c < 3; ++c) {
      for (int64_t y = 0; y < 4; ++y) {
        for (int64_t x = 0; x < 6; ++x) {
          const int64_t token = y / 2 * 3 + x / 2;
          const int64_t feature = c * 4 + y % 2 * 2 + x % 2;
          EXPECT_EQ(packed.data_as<float>()[(sample * 6 + token) * 12 + feature],
                    planes[static_cast<size_t>((c * 4 + y) * 6 + x)]);
        }
      }
    }
  }
}

TEST(PackedNoise, SampleOfABatchEqualsItsOwnSeed) {
  const Context context = test::cpu_context();
  const LatentGeometry geometry{16, 8, 8};
  const Tensor batch = packed_noise(context, geometry, 3, 40);
  const Tensor single = packed_noise(context, geometry, 1, 42);
  for (int64_t i = 0; i < single.numel(); ++i) {
    ASSERT_EQ(batch.select(0, 2).data_as<float>()[i], single.data_as<float>()[i]);
  }
}

TEST(UnpackLatents, InvertsThePackingAndScales) {
  const Context context = test::cpu_context();
  const LatentGeometry geometry{2, 6, 4};
  AutoencoderConfig config;
  config.scaling_factor = 0.5;
  config.shift_factor = 0.25;
  const Tensor packed = packed_noise(context, geometry, 2, 3);
  const Tensor latent = context.to_host(unpack_latents(context, packed, geometry, config));
  ASSERT_EQ(latent.shape(), (Dims{2, 6, 4, 2}));
  for (int64_t sample = 0; sample < 2; ++sample) {
    std::vector<float> planes(2 * 6 * 4);
    philox_normals(3 + static_cast<uint64_t>(sample), planes);
    for (int64_t c = 0; c < 2; ++c) {
      for (int64_t pixel = 0; pixel < 24; ++pixel) {
        EXPECT_FLOAT_EQ(latent.data_as<float>()[(sample * 24 + pixel) * 2 + c],
                        planes[static_cast<size_t>(c * 24 + pixel)] * 2.0f + 0.25f);
      }
    }
  }
}

}  // namespace
}  // namespace chipmunk
