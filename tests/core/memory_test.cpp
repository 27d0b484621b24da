#include <gtest/gtest.h>

#include <cstdint>

#include "chipmunk/error.h"
#include "core/context.h"

namespace chipmunk {
namespace {

TEST(Storage, IsReleasedOnceWhenTheLastViewGoes) {
  int released = 0;
  Tensor view;
  {
    const auto storage = std::make_shared<Storage>(&released, sizeof(released), Device{}, [&released] { ++released; });
    view = Tensor(storage, 0, DType::kI32, {1}).select(0, 0);
  }
  EXPECT_EQ(released, 0);
  view = {};
  EXPECT_EQ(released, 1);
}

TEST(CpuRuntime, AlignsAndCounts) {
  const std::shared_ptr<DeviceRuntime> runtime = make_cpu_runtime(0);
  std::shared_ptr<Storage> first = runtime->allocate(100);
  std::shared_ptr<Storage> second = runtime->allocate(50);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first->data()) % 64, 0u);
  EXPECT_EQ(runtime->memory().current_bytes, 150u);
  first.reset();
  EXPECT_EQ(runtime->memory().current_bytes, 50u);
  EXPECT_EQ(runtime->memory().peak_bytes, 150u);
  runtime->reset_peak();
  EXPECT_EQ(runtime->memory().peak_bytes, 50u);
  EXPECT_NE(runtime->allocate(0)->data(), nullptr);
}

TEST(CpuRuntime, StorageMayOutliveIt) {
  std::shared_ptr<DeviceRuntime> runtime = make_cpu_runtime(0);
  std::shared_ptr<Storage> storage = runtime->allocate(10);
  runtime.reset();
  static_cast<char*>(storage->data())[9] = 1;
  storage.reset();
}

TEST(CpuRuntime, TheLimitIsAnErrorThatSaysSo) {
  const std::shared_ptr<DeviceRuntime> runtime = make_cpu_runtime(1000);
  const std::shared_ptr<Storage> kept = runtime->allocate(600);
  try {
    runtime->allocate(500);
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
    EXPECT_NE(std::string(error.what()).find("1000"), std::string::npos);
  }
  EXPECT_NO_THROW(runtime->allocate(400));
}

TEST(CpuRuntime, EventsTellTime) {
  const std::shared_ptr<DeviceRuntime> runtime = make_cpu_runtime(0);
  const auto begin = runtime->record(StreamKind::kCompute);
  const auto end = runtime->record(StreamKind::kCompute);
  runtime->synchronize(*end);
  EXPECT_GE(runtime->elapsed_ms(*begin, *end), 0.0);
}

TEST(Context, CopiesStridedTensorsToDenseHostMemory) {
  const Context context(make_cpu_runtime(0), nullptr, DType::kF32);
  const Tensor tensor = context.empty({3, 4});
  for (int i = 0; i < 12; ++i) tensor.data_as<float>()[i] = static_cast<float>(i);
  const Tensor columns = context.to_host(tensor.slice(1, 1, 3));
  ASSERT_TRUE(columns.is_contiguous());
  EXPECT_EQ(columns.data_as<float>()[2], 5.0f);
  const Tensor transposed = context.to_device(tensor.permute({1, 0}));
  ASSERT_TRUE(transposed.is_contiguous());
  EXPECT_EQ(transposed.data_as<float>()[1], 4.0f);
  // What is dense already is not copied.
  EXPECT_EQ(context.to_host(tensor).data(), tensor.data());
}

}  // namespace
}  // namespace chipmunk
