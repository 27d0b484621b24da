#include <gtest/gtest.h>

#include <cstdint>

#include "chipmunk/error.h"
#include "core/context.h"
#include "core/memory_text.h"

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
  const std::shared_ptr<DeviceRuntime> runtime = make_cpu_runtime(size_t{10} << 20);
  const std::shared_ptr<Storage> kept = runtime->allocate(size_t{6} << 20);
  try {
    runtime->allocate(size_t{5} << 20);
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
    EXPECT_STREQ(error.what(), "allocating 5.00 MiB on cpu would exceed the limit of 10.00 MiB (6.00 MiB in use)");
  }
  EXPECT_EQ(runtime->memory().current_bytes, size_t{6} << 20);
  EXPECT_NO_THROW(runtime->allocate(size_t{4} << 20));
  runtime->trim();
  EXPECT_EQ(runtime->memory().current_bytes, size_t{6} << 20);
}

TEST(CpuRuntime, AHostWithoutMemoryIsAnErrorThatSaysSo) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "AddressSanitizer ends a program that asks for too much";
#endif
  const std::shared_ptr<DeviceRuntime> runtime = make_cpu_runtime(0);
  const std::shared_ptr<Storage> kept = runtime->allocate(2048);
  try {
    // Beyond any address space.
    runtime->allocate(size_t{1} << 60);
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
    for (const char* part : {"1048576.00 TiB", "the host has no more memory", "2.00 KiB in use"}) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
  EXPECT_EQ(runtime->memory().current_bytes, 2048u);
}

TEST(FormatBytes, TakesTheLargestUnitThatFits) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1536), "1.50 KiB");
  EXPECT_EQ(format_bytes(size_t{5} << 30), "5.00 GiB");
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
