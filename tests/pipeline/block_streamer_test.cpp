#include "models/block_streamer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "chipmunk/error.h"
#include "models/offloadable_weights.h"
#include "support/simulated_device.h"

/// When weights get to the device and leave it, on a simulated one.
namespace chipmunk {
namespace {

/// A model of blocks with two tensors each, all values different.
struct Model {
  std::vector<std::vector<Tensor>> blocks;
  std::vector<std::vector<Tensor>> original;

  explicit Model(int count) {
    float value = 0.0f;
    for (int i = 0; i < count; ++i) {
      // Sizes differ, so that a slot must have room for the largest.
      std::vector<Tensor> tensors = {make_host_tensor({100 + 10 * i, 3}, DType::kF32),
                                     make_host_tensor({7}, DType::kF32)};
      for (const Tensor& tensor : tensors) {
        for (int64_t k = 0; k < tensor.numel(); ++k) tensor.data_as<float>()[k] = value++;
      }
      blocks.push_back(tensors);
    }
    original = blocks;
  }

  std::vector<WeightGroup> groups() {
    std::vector<WeightGroup> groups;
    for (std::vector<Tensor>& block : blocks) groups.push_back({"block", {&block[0], &block[1]}});
    return groups;
  }

  /// The block's values are the original's, on a device of that kind.
  void expect(size_t block, DeviceKind kind) const {
    for (size_t i = 0; i < blocks[block].size(); ++i) {
      const Tensor& got = blocks[block][i];
      const Tensor& expected = original[block][i];
      ASSERT_EQ(got.device().kind, kind) << "block " << block;
      ASSERT_EQ(got.shape(), expected.shape());
      for (int64_t k = 0; k < got.numel(); ++k) {
        ASSERT_EQ(got.data_as<float>()[k], expected.data_as<float>()[k]) << "block " << block << ", value " << k;
      }
    }
  }
};

/// Runs a block as a forward does: its ops are queued between begin and end.
void run_block(const test::SimulatedDevice& device, const Model& model, WeightStreamer& streamer, int block) {
  streamer.begin_block(block);
  model.expect(static_cast<size_t>(block), DeviceKind::kCuda);
  for (const Tensor& tensor : model.blocks[static_cast<size_t>(block)]) device.use(tensor);
  streamer.end_block(block);
  model.expect(static_cast<size_t>(block), DeviceKind::kCpu);
}

class BlockCounts : public ::testing::TestWithParam<int> {};

TEST_P(BlockCounts, EveryForwardSeesItsWeights) {
  const int count = GetParam();
  const test::SimulatedDevice device;
  Model model(count);
  {
    BlockStreamer streamer(device.context(), model.groups(), {});
    EXPECT_EQ(device.context().runtime().memory().current_bytes, 0u);
    EXPECT_GT(device.pinned_bytes(), 0u);
    for (int forward = 0; forward < 3; ++forward) {
      for (int block = 0; block < count; ++block) run_block(device, model, streamer, block);
    }
    // Each block once a forward, and the first one for a forward that does not come; up to two blocks stay for good.
    EXPECT_EQ(device.stream_copies(), count <= 2 ? count : 3 * count + 1);
  }
  EXPECT_EQ(device.violations(), std::vector<std::string>());
  EXPECT_EQ(device.context().runtime().memory().current_bytes, 0u);
}

INSTANTIATE_TEST_SUITE_P(Counts, BlockCounts, ::testing::Values(1, 2, 3, 4, 7));

TEST(BlockStreamer, TakesTwoBlocksOfMemory) {
  const test::SimulatedDevice device;
  Model model(9);
  BlockStreamer streamer(device.context(), model.groups(), {});
  for (int block = 0; block < 9; ++block) run_block(device, model, streamer, block);
  // The largest block, each tensor rounded up to 256 bytes.
  const size_t largest = 2304 + 256;
  EXPECT_EQ(device.context().runtime().memory().peak_bytes, 2 * largest);
  streamer.release();
  EXPECT_EQ(device.context().runtime().memory().current_bytes, 0u);
  run_block(device, model, streamer, 0);
  EXPECT_EQ(device.violations(), std::vector<std::string>());
}

TEST(BlockStreamer, TheNextBlockIsUnderWayWhileOneComputes) {
  const test::SimulatedDevice device;
  Model model(5);
  BlockStreamer streamer(device.context(), model.groups(), {});
  for (int block = 0; block < 5; ++block) {
    streamer.begin_block(block);
    EXPECT_EQ(device.stream_copies(), block + 2);
    streamer.end_block(block);
    EXPECT_EQ(device.stream_copies(), block + 2);
  }
}

TEST(BlockStreamer, AForwardCutShortDoesNotDisturbTheNext) {
  const test::SimulatedDevice device;
  Model model(5);
  BlockStreamer streamer(device.context(), model.groups(), {});
  for (const int last : {0, 1, 2, 4}) {
    for (int block = 0; block < last; ++block) run_block(device, model, streamer, block);
    streamer.begin_block(last);
    device.use(model.blocks[static_cast<size_t>(last)][0]);
    // An op of this block failed: no end_block().
    if (last == 2) {
      streamer.release();
      model.expect(2, DeviceKind::kCpu);
    }
  }
  for (int block = 0; block < 5; ++block) run_block(device, model, streamer, block);
  EXPECT_EQ(device.violations(), std::vector<std::string>());
}

TEST(BlockStreamer, WithoutRoomForTwoBlocksNothingIsTaken) {
  const test::SimulatedDevice device(3000);
  Model model(3);
  BlockStreamer streamer(device.context(), model.groups(), {});
  for (int attempt = 0; attempt < 2; ++attempt) {
    try {
      streamer.begin_block(0);
      ADD_FAILURE() << "expected an error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
    }
    EXPECT_EQ(device.context().runtime().memory().current_bytes, 0u);
    model.expect(0, DeviceKind::kCpu);
  }
}

TEST(BlockStreamer, TellsHowFarItIs) {
  const test::SimulatedDevice device;
  Model model(3);
  std::vector<size_t> done;
  size_t total = 0;
  const BlockStreamer streamer(device.context(), model.groups(), [&](size_t bytes, size_t all) {
    done.push_back(bytes);
    total = all;
  });
  // Each tensor rounded up to 256 bytes; a block of this size is copied at once.
  EXPECT_EQ(total, size_t{1280 + 1536 + 1536 + 3 * 256});
  ASSERT_EQ(done.size(), 3u);
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
  EXPECT_EQ(done.back(), total);
}

TEST(SimulatedDevice, FindsWhatIsMissing) {
  // The tests above prove something only if a streamer that forgets to wait fails them.
  Model model(1);
  const Tensor& host = model.blocks[0][0];
  const auto copy = [&](DeviceRuntime& runtime, const Tensor& tensor) {
    runtime.copy(tensor.data(), runtime.device(), host.data(), Device{}, host.bytes(), StreamKind::kCopy);
  };
  {
    const test::SimulatedDevice device;
    DeviceRuntime& runtime = device.context().runtime();
    const Tensor tensor = device.context().empty(host.shape(), DType::kF32);
    copy(runtime, tensor);  // does not wait for the allocation
    EXPECT_EQ(device.violations().size(), 1u);
    EXPECT_NE(tensor.data_as<float>()[1], host.data_as<float>()[1]) << "read before the copy was waited for";
    runtime.wait(StreamKind::kCompute, *runtime.record(StreamKind::kCopy));
    EXPECT_EQ(tensor.data_as<float>()[1], host.data_as<float>()[1]);
    runtime.wait(StreamKind::kCopy, *runtime.record(StreamKind::kCompute));
    device.use(tensor);
    copy(runtime, tensor);  // does not wait for that use
    EXPECT_EQ(device.violations().size(), 2u);
  }
  const test::SimulatedDevice device;
  DeviceRuntime& runtime = device.context().runtime();
  {
    const Tensor tensor = device.context().empty(host.shape(), DType::kF32);
    runtime.wait(StreamKind::kCopy, *runtime.record(StreamKind::kCompute));
    copy(runtime, tensor);
  }
  EXPECT_EQ(device.violations().size(), 1u) << "given back under a copy";
}

TEST(OffloadableWeights, GoAndComeBack) {
  const test::SimulatedDevice device;
  DeviceRuntime& runtime = device.context().runtime();
  Model model(4);
  const void* first = model.blocks[0][0].data();
  OffloadableWeights weights(device.context(), model.groups());
  for (int round = 0; round < 2; ++round) {
    size_t reported = 0;
    weights.upload([&](size_t done, size_t total) {
      reported = done;
      EXPECT_EQ(total, weights.bytes());
    });
    EXPECT_EQ(reported, weights.bytes());
    for (size_t i = 0; i < 4; ++i) model.expect(i, DeviceKind::kCuda);
    weights.upload([](size_t, size_t) { ADD_FAILURE() << "they are there"; });
    EXPECT_GE(runtime.memory().current_bytes, weights.bytes());
    weights.release();
    EXPECT_EQ(runtime.memory().current_bytes, 0u);
    // The same host memory as before, not a copy of it.
    EXPECT_EQ(model.blocks[0][0].data(), first);
  }
  EXPECT_EQ(device.violations(), std::vector<std::string>());
}

/// Tensors that lie in several pieces, several in one piece, and more pieces than there are buffers for.
std::vector<Tensor> large_tensors() {
  std::vector<Tensor> tensors;
  for (const int64_t numel : {3, 30'000'000, 7, 100'000, 2'000'001}) {
    Tensor tensor = make_host_tensor({numel}, DType::kI32);
    for (int64_t i = 0; i < numel; ++i) tensor.data_as<int32_t>()[i] = static_cast<int32_t>(numel + i);
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.data(), b.data(), a.bytes()) == 0;
}

TEST(LargeWeights, ArriveWhole) {
  const std::vector<Tensor> original = large_tensors();
  const test::SimulatedDevice device;
  std::vector<Tensor> tensors = original;
  const std::vector<WeightGroup> groups = {{"first", {&tensors[0], &tensors[1], &tensors[2]}},
                                           {"second", {&tensors[3], &tensors[4]}}};
  OffloadableWeights weights(device.context(), groups);
  std::vector<size_t> done;
  weights.upload([&](size_t bytes, size_t) { done.push_back(bytes); });
  EXPECT_GT(done.size(), 30u);
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
  EXPECT_EQ(done.back(), weights.bytes());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(tensors[i].device().kind, DeviceKind::kCuda);
    EXPECT_TRUE(same_bytes(tensors[i], original[i])) << i;
  }
  weights.release();

  BlockStreamer streamer(device.context(), groups, {});
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_NE(tensors[i].data(), original[i].data());
    EXPECT_TRUE(same_bytes(tensors[i], original[i])) << i;
  }
  for (int block = 0; block < 2; ++block) {
    streamer.begin_block(block);
    for (const Tensor* tensor : groups[static_cast<size_t>(block)].tensors) {
      EXPECT_TRUE(same_bytes(*tensor, original[static_cast<size_t>(tensor - tensors.data())]));
    }
    streamer.end_block(block);
  }
  EXPECT_EQ(device.violations(), std::vector<std::string>());
}

TEST(LargeWeights, AStoppedUploadLeavesNoThreadAndNoMemory) {
  std::vector<Tensor> tensors = large_tensors();
  const test::SimulatedDevice device;
  OffloadableWeights weights(device.context(), {{"all", {&tensors[0], &tensors[1], &tensors[2]}}});
  const auto stop = [](size_t done, size_t total) {
    if (done > total / 2) throw Error(ErrorCode::kCancelled, "stopped");
  };
  EXPECT_THROW(weights.upload(stop), Error);
  EXPECT_EQ(device.context().runtime().memory().current_bytes, 0u);
  EXPECT_EQ(device.pinned_bytes(), 0u);
  EXPECT_EQ(device.violations(), std::vector<std::string>());
}

TEST(OffloadableWeights, AFailedUploadLeavesNothingOnTheDevice) {
  // Room for the first groups only.
  const test::SimulatedDevice small(4000);
  Model model(4);
  OffloadableWeights weights(small.context(), model.groups());
  EXPECT_THROW(weights.upload({}), Error);
  EXPECT_FALSE(weights.on_device());
  EXPECT_EQ(small.context().runtime().memory().current_bytes, 0u);
  EXPECT_EQ(small.violations(), std::vector<std::string>());
  for (size_t i = 0; i < 4; ++i) model.expect(i, DeviceKind::kCpu);

  const test::SimulatedDevice device;
  OffloadableWeights stopped(device.context(), model.groups());
  const auto stop = [](size_t done, size_t) {
    if (done > 2000) throw Error(ErrorCode::kCancelled, "stopped");
  };
  EXPECT_THROW(stopped.upload(stop), Error);
  EXPECT_EQ(device.context().runtime().memory().current_bytes, 0u);
  EXPECT_EQ(device.violations(), std::vector<std::string>());
}

}  // namespace
}  // namespace chipmunk
