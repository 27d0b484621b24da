#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "backend.h"
#include "chipmunk/kernels.h"
#include "core/float_formats.h"
#include "kernels/public_arguments.h"
#include "support/op_test.h"

/// The kernels on streams of the caller's: captured and replayed, two at once, and again and again.
namespace chipmunk::test {
namespace {

using kernels::Kernels;

void check(cudaError_t status) { ASSERT_EQ(status, cudaSuccess) << cudaGetErrorString(status); }

/// A stream that ends with the object.
class OwnStream {
 public:
  OwnStream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~OwnStream() { cudaStreamDestroy(stream_); }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;

  cudaStream_t get() const { return stream_; }
  void wait() const { check(cudaStreamSynchronize(stream_)); }

 private:
  cudaStream_t stream_ = nullptr;
};

/// A step of the sparse method on tensors of its own: dense attention with column sums, the keys of each group,
/// attention over them split off the dense result, and merged with it again.
class Step {
 public:
  static constexpr int64_t kHeads = 5, kTokens = 1300, kHeadDim = 128, kTopK = 200;

  Step(const Context& context, uint64_t seed) : context_(context) {
    for (Tensor* tensor : {&q_, &k_, &v_, &out_, &rest_, &merged_})
      *tensor = context.empty({1, kTokens, kHeads, kHeadDim});
    for (Tensor* tensor : {&lse_, &before_, &rest_lse_}) *tensor = context.empty({1, kHeads, kTokens}, DType::kF32);
    const int64_t groups = sizes().groups();
    sums_ = context.empty({1, kHeads, groups, kTokens}, DType::kF32);
    indices_ = context.empty({1, kHeads, groups, kTopK}, DType::kI32);
    counts_ = context.empty({1, kHeads, groups}, DType::kI32);
    fill(seed);
  }

  /// Other queries, keys and values in the same places.
  void fill(uint64_t seed) {
    std::mt19937_64 engine(seed);
    std::normal_distribution<float> normal;
    for (const Tensor* tensor : {&q_, &k_, &v_, &before_}) {
      const Tensor host = make_host_tensor(tensor->shape(), tensor->dtype());
      for (int64_t i = 0; i < host.numel(); ++i) {
        const float value = tensor == &before_ ? 7.0f + 0.1f * normal(engine) : normal(engine);
        if (host.dtype() == DType::kF32) {
          host.data_as<float>()[i] = value;
        } else {
          host.data_as<uint16_t>()[i] = float_to_bf16(value);
        }
      }
      context_.runtime().copy(tensor->data(), context_.device(), host.data(), Device{}, host.bytes(),
                              StreamKind::kCompute);
      context_.runtime().synchronize();
    }
  }

  void queue(const Kernels& library, cudaStream_t stream) const {
    auto dense = plain_arguments<kernels::Attention>(q_, k_, v_, out_);
    dense.lse = lse_.data_as<float>();
    dense.column_sums = sums_.data_as<float>();
    dense.column_lse = before_.data_as<float>();
    library.attention(dense, stream);

    kernels::Selection selection;
    selection.heads = kHeads;
    selection.groups = sizes().groups();
    selection.key_tokens = kTokens;
    selection.column_sums = sums_.data_as<float>();
    selection.top_k = kTopK - 40;
    selection.random_share = 0.01;
    selection.indices = indices_.data_as<int32_t>();
    selection.counts = counts_.data_as<int32_t>();
    selection.capacity = kTopK;
    library.select_columns(selection, stream);

    auto sparse = plain_arguments<kernels::ColumnAttention>(q_, k_, v_, rest_);
    sparse.indices = selection.indices;
    sparse.counts = selection.counts;
    sparse.capacity = kTopK;
    sparse.lse_all = lse_.data_as<float>();
    sparse.lse_rest = rest_lse_.data_as<float>();
    sparse.epilogue = kernels::Epilogue::kSplit;
    sparse.residual = plain_heads(out_);
    library.column_attention(sparse, stream);
    sparse.epilogue = kernels::Epilogue::kMerge;
    sparse.residual = plain_heads(rest_);
    sparse.out = plain_heads(merged_);
    library.column_attention(sparse, stream);
  }

  /// The bytes of all results, after everything queued has run.
  std::vector<char> results() const {
    check(cudaDeviceSynchronize());
    std::vector<char> bytes;
    for (const Tensor* tensor : {&out_, &lse_, &sums_, &counts_, &rest_, &rest_lse_, &merged_}) {
      const Tensor host = context_.to_host(*tensor);
      const auto* data = static_cast<const char*>(host.data());
      bytes.insert(bytes.end(), data, data + host.bytes());
    }
    return bytes;
  }

 private:
  static kernels::Sizes sizes() { return {1, kHeads, kTokens, kTokens, kHeadDim}; }
  const Context& context_;
  Tensor q_, k_, v_, out_, rest_, merged_, lse_, before_, rest_lse_, sums_, indices_, counts_;
};

class StreamsTest : public OpCaseTest<OnlyCase> {
 protected:
  Kernels library() const { return Kernels(context().device()); }
};

TEST_P(StreamsTest, CapturedAndReplayed) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const OwnStream stream;
  const Kernels kernels = library();
  Step step(context(), 1), direct(context(), 2);
  direct.queue(kernels, stream.get());
  const std::vector<char> expected = direct.results();

  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeGlobal));
  step.queue(kernels, stream.get());
  check(cudaStreamEndCapture(stream.get(), &graph));
  check(cudaGraphInstantiate(&executable, graph, 0));
  check(cudaGraphLaunch(executable, stream.get()));
  EXPECT_NE(step.results(), expected);
  // The same launches with other values in the same memory.
  step.fill(2);
  check(cudaGraphLaunch(executable, stream.get()));
  EXPECT_EQ(step.results(), expected);
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}

TEST_P(StreamsTest, TwoAtOnce) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  constexpr int kRounds = 20;
  const OwnStream first, second;
  const Kernels kernels = library();
  const Step a(context(), 1), b(context(), 2);
  a.queue(kernels, first.get());
  const std::vector<char> expected_a = a.results();
  b.queue(kernels, first.get());
  const std::vector<char> expected_b = b.results();
  // From two threads, so that their launches interleave.
  const auto repeat = [&](const Step& step, const OwnStream& stream) {
    for (int i = 0; i < kRounds; ++i) step.queue(kernels, stream.get());
  };
  std::thread other(repeat, std::cref(b), std::cref(second));
  repeat(a, first);
  other.join();
  EXPECT_EQ(a.results(), expected_a);
  EXPECT_EQ(b.results(), expected_b);
}

TEST_P(StreamsTest, TwentyRunsGiveTheSameBits) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const OwnStream stream;
  const Kernels kernels = library();
  const Step step(context(), 1);
  step.queue(kernels, stream.get());
  const std::vector<char> expected = step.results();
  for (int i = 1; i < 20; ++i) {
    step.queue(kernels, stream.get());
    ASSERT_EQ(step.results(), expected) << "run " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Op, StreamsTest, ::testing::Values(std::tuple<std::string, OnlyCase>{"cuda", OnlyCase{}}),
                         CaseName());

}  // namespace
}  // namespace chipmunk::test
