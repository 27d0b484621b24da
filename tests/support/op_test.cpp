#include "support/op_test.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <utility>

#include "core/float_formats.h"

namespace chipmunk::test {
namespace {

constexpr size_t kGuardBytes = 256;
constexpr unsigned char kGuardByte = 0xa5;
/// Every f32, bf16 and f16 made of these bytes is a NaN.
constexpr unsigned char kFreshByte = 0xff;
constexpr float kSentinel = -12345.0f;

class GuardedRuntime : public DeviceRuntime {
 public:
  GuardedRuntime(const Context& inner, std::shared_ptr<GuardReport> report)
      : inner_(std::make_shared<Context>(inner)), report_(std::move(report)) {}

  Device device() const override { return inner().device(); }

  std::shared_ptr<Storage> allocate(size_t bytes) override {
    const std::shared_ptr<Storage> block = inner().allocate(bytes + 2 * kGuardBytes);
    std::vector<unsigned char> fill(bytes + 2 * kGuardBytes, kFreshByte);
    std::memset(fill.data(), kGuardByte, kGuardBytes);
    std::memset(fill.data() + kGuardBytes + bytes, kGuardByte, kGuardBytes);
    inner().copy(block->data(), device(), fill.data(), Device{}, fill.size(), StreamKind::kCompute);
    inner().synchronize();
    auto* data = static_cast<unsigned char*>(block->data()) + kGuardBytes;
    return std::make_shared<Storage>(data, bytes, device(), [context = inner_, report = report_, block, bytes] {
      std::vector<unsigned char> found(bytes + 2 * kGuardBytes);
      context->runtime().copy(found.data(), Device{}, block->data(), block->device(), found.size(),
                              StreamKind::kCompute);
      context->runtime().synchronize();
      bool intact = true;
      for (size_t i = 0; i < kGuardBytes; ++i) {
        intact &= found[i] == kGuardByte && found[kGuardBytes + bytes + i] == kGuardByte;
      }
      if (!intact) ++report->damaged_blocks;
    });
  }

  std::shared_ptr<Storage> allocate_pinned(size_t bytes) override { return inner().allocate_pinned(bytes); }
  MemoryStatistics memory() const override { return inner().memory(); }
  void reset_peak() override { inner().reset_peak(); }
  void copy(void* destination, Device destination_device, const void* source, Device source_device, size_t bytes,
            StreamKind stream) override {
    inner().copy(destination, destination_device, source, source_device, bytes, stream);
  }
  std::unique_ptr<Event> record(StreamKind stream) override { return inner().record(stream); }
  void wait(StreamKind stream, const Event& event) override { inner().wait(stream, event); }
  void synchronize(const Event& event) override { inner().synchronize(event); }
  double elapsed_ms(const Event& begin, const Event& end) override { return inner().elapsed_ms(begin, end); }
  void synchronize() override { inner().synchronize(); }
  void* native_stream(StreamKind stream) const override { return inner().native_stream(stream); }

 private:
  DeviceRuntime& inner() const { return inner_->runtime(); }

  std::shared_ptr<Context> inner_;
  std::shared_ptr<GuardReport> report_;
};

void store_float(float value, DType dtype, void* data, int64_t index) {
  switch (dtype) {
    case DType::kF32: static_cast<float*>(data)[index] = value; return;
    case DType::kBF16: static_cast<uint16_t*>(data)[index] = float_to_bf16(value); return;
    case DType::kF16: static_cast<uint16_t*>(data)[index] = float_to_f16(value); return;
    // The upper byte of an f16 is the truncated e5m2.
    case DType::kF8E5M2: static_cast<uint8_t*>(data)[index] = static_cast<uint8_t>(float_to_f16(value) >> 8); return;
    case DType::kF8E4M3: {
      // f16 bits of value / 256 hold e4m3's seven bits below the top of the exponent.
      const uint16_t bits = float_to_f16(value / 256.0f);
      static_cast<uint8_t*>(data)[index] = static_cast<uint8_t>(((bits >> 8) & 0x80) | ((bits >> 7) & 0x7f));
      return;
    }
    default: throw std::logic_error("store_float: no floating dtype");
  }
}

Dims padded(const Dims& shape, int64_t pad) {
  Dims result;
  for (const int64_t size : shape) result.push_back(size + 2 * pad);
  return result;
}

Tensor inner_view(Tensor block, int64_t pad) {
  for (int i = 0; i < block.rank(); ++i) block = block.slice(i, pad, block.dim(i) - pad);
  return block;
}

}  // namespace

std::vector<std::string> test_devices() { return {"cpu", "cuda"}; }

bool device_available(const std::string& device) { return device == "cpu" || cuda_device_count() > 0; }

bool cuda_is_required() {
  const char* value = std::getenv("CHIPMUNK_REQUIRE_CUDA");
  return value != nullptr && std::string(value) == "1";
}

Context make_guarded_context(const std::string& device, int threads, std::shared_ptr<GuardReport> report,
                             int multiprocessors) {
  const auto inner = std::make_shared<Context>(device == "cpu" ? make_cpu_context({threads, 0})
                                                               : make_cuda_context({0, 0, multiprocessors}));
  // The backend lives as long as the context it came from.
  const std::shared_ptr<Backend> backend(inner, &inner->backend());
  return Context(std::make_shared<GuardedRuntime>(*inner, std::move(report)), backend, inner->activation_dtype());
}

void OpTest::open(const std::string& device, int threads, int multiprocessors) {
  OpTest::TearDown();
  report_ = std::make_shared<GuardReport>();
  context_ = std::make_unique<Context>(make_guarded_context(device, threads, report_, multiprocessors));
  seed_ = 1;
}

void OpTest::TearDown() {
  context_.reset();
  if (report_ != nullptr) {
    EXPECT_EQ(report_->damaged_blocks, 0) << "something was written next to a block of memory";
  }
}

Tensor OpTest::from_floats(const Dims& shape, const std::vector<float>& values, DType dtype) {
  const Tensor host = make_host_tensor(shape, dtype);
  for (int64_t i = 0; i < host.numel(); ++i) store_float(values[static_cast<size_t>(i)], dtype, host.data(), i);
  return context().to_device(host);
}

Tensor OpTest::from_ints(const std::vector<int32_t>& values) {
  const Tensor host = make_host_tensor({static_cast<int64_t>(values.size())}, DType::kI32);
  std::copy(values.begin(), values.end(), static_cast<int32_t*>(host.data()));
  return context().to_device(host);
}

Tensor OpTest::random(const Dims& shape, DType dtype, float scale) {
  std::mt19937_64 engine(seed_++);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(static_cast<size_t>(numel(shape)));
  for (float& value : values) value = normal(engine);
  return from_floats(shape, values, dtype);
}

Tensor OpTest::random_view(const Dims& shape, DType dtype, int64_t pad, float scale) {
  return inner_view(random(padded(shape, pad), dtype, scale), pad);
}

Array OpTest::read(const Tensor& tensor) {
  if (tensor.empty()) return {};
  // A device copies whole blocks only: fetch the storage that the view lies in.
  const Storage& storage = *tensor.storage();
  const Tensor bytes(tensor.storage(), 0, DType::kU8, {static_cast<int64_t>(storage.bytes())});
  const Tensor host = context().to_host(bytes);
  const auto offset = static_cast<size_t>(static_cast<char*>(tensor.data()) - static_cast<char*>(storage.data()));
  return to_array(Tensor(host.storage(), offset, tensor.dtype(), tensor.shape(), tensor.strides()));
}

void OpTest::expect_close(const Array& got, const Reference& expected, double factor) {
  ASSERT_EQ(to_string(got.shape), to_string(expected.value.shape));
  double worst = 0.0;
  int64_t worst_index = -1;
  for (int64_t i = 0; i < static_cast<int64_t>(got.values.size()); ++i) {
    const double value = expected.value[i];
    if (std::isnan(value) ? std::isnan(got[i]) : got[i] == value) continue;
    const double allowed = factor * epsilon() * (expected.magnitude[i] + std::abs(value));
    const double error = std::abs(got[i] - value) / allowed;
    // Written so that NaN and infinity count as wrong.
    if (!(error <= worst)) worst = std::isnan(error) ? INFINITY : error, worst_index = i;
  }
  EXPECT_LE(worst, 1.0) << "at element " << worst_index << " of " << to_string(got.shape) << ": got "
                        << got[worst_index] << ", expected " << expected.value[worst_index];
}

void OpTest::expect_equal(const Array& got, const Array& expected) {
  ASSERT_EQ(to_string(got.shape), to_string(expected.shape));
  for (int64_t i = 0; i < static_cast<int64_t>(got.values.size()); ++i) {
    const bool equal = std::isnan(expected[i]) ? std::isnan(got[i]) : got[i] == expected[i];
    ASSERT_TRUE(equal) << "at element " << i << " of " << to_string(got.shape) << ": got " << got[i] << ", expected "
                       << expected[i];
  }
}

GuardedView make_guarded_view(const Context& context, const Dims& shape, int64_t pad, DType dtype) {
  const Tensor host = make_host_tensor(padded(shape, pad), dtype);
  for (int64_t i = 0; i < host.numel(); ++i) store_float(kSentinel, dtype, host.data(), i);
  const Tensor block = context.to_device(host);
  return {block, inner_view(block, pad), pad};
}

void expect_untouched(const Context& context, const GuardedView& guarded) {
  const Tensor host = context.to_host(guarded.block);
  const Tensor sentinel = make_host_tensor({1}, host.dtype());
  store_float(kSentinel, host.dtype(), sentinel.data(), 0);
  const float expected = load_as_float(sentinel.data(), host.dtype(), 0);
  for (int64_t i = 0; i < host.numel(); ++i) {
    int64_t rest = i;
    bool inside = true;
    for (int d = host.rank() - 1; d >= 0; --d) {
      const int64_t index = rest % host.dim(d);
      rest /= host.dim(d);
      inside &= index >= guarded.pad && index < host.dim(d) - guarded.pad;
    }
    if (!inside) {
      ASSERT_EQ(load_as_float(host.data(), host.dtype(), i), expected) << "a sentinel was overwritten at element " << i;
    }
  }
}

}  // namespace chipmunk::test
