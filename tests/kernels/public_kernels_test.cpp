#include <cmath>
#include <cstring>
#include <limits>

#include "chipmunk/error.h"
#include "chipmunk/kernels.h"
#include "core/device_runtime.h"
#include "kernels/public_arguments.h"
#include "ops/attention.h"
#include "ops/column_attention.h"
#include "support/op_test.h"

namespace chipmunk::test {
namespace {

using kernels::Epilogue;
using kernels::Kernels;
using kernels::Stream;

/// chipmunk/kernels.h gives, on plain pointers, what the engine's ops give.
class PublicKernelsTest : public OpCaseTest<OnlyCase> {
 protected:
  static constexpr int64_t kBatch = 2, kHeads = 3, kQueries = 400, kKeys = 450, kHeadDim = 64, kGroups = 3;

  Kernels make_kernels() const { return Kernels(context().device()); }
  Stream stream() const { return static_cast<Stream>(context().runtime().native_stream(StreamKind::kCompute)); }

  Tensor queries() { return random({kBatch, kQueries, kHeads, kHeadDim}); }
  Tensor keys() { return random({kBatch, kKeys, kHeads, kHeadDim}); }
  Tensor rows() { return random({kBatch, kHeads, kQueries}, DType::kF32); }
  Tensor empty_rows() const { return context().empty({kBatch, kHeads, kQueries}, DType::kF32); }
  Tensor empty_heads() const { return context().empty({kBatch, kQueries, kHeads, kHeadDim}); }

  void expect_same_bits(const Tensor& a, const Tensor& b) {
    const Tensor first = context().to_host(a), second = context().to_host(b);
    ASSERT_EQ(first.bytes(), second.bytes());
    EXPECT_EQ(std::memcmp(first.data(), second.data(), first.bytes()), 0);
  }

  /// Lists of 0, some and all keys.
  ops::ColumnSet columns() {
    const int64_t capacity = 160;
    std::vector<int32_t> indices, counts;
    for (int64_t row = 0; row < kBatch * kHeads * kGroups; ++row) {
      for (int32_t i = 0; i < capacity; ++i) indices.push_back(static_cast<int32_t>(2 * i + row % 2));
      counts.push_back(static_cast<int32_t>(row % 3 == 0 ? 0 : row % 3 == 1 ? capacity - row : kKeys));
    }
    return {from_ints(indices).reshape({kBatch, kHeads, kGroups, capacity}),
            from_ints(counts).reshape({kBatch, kHeads, kGroups}), kernels::kGroupRows};
  }
};

TEST_P(PublicKernelsTest, Attention) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Tensor q = queries(), k = keys(), v = keys(), lengths = from_ints({kKeys, 123}), lse_before = rows();
  const Dims sums_shape = {kBatch, kHeads, kGroups, kKeys};
  const Tensor out = empty_heads(), lse = empty_rows(), sums = context().empty(sums_shape, DType::kF32);
  ops::AttentionOptions options;
  options.scale = 0.2f;
  options.key_lengths = lengths;
  options.lse = empty_rows();
  options.column_sums = context().empty(sums_shape, DType::kF32);
  options.column_lse = lse_before;
  options.group_size = kernels::kGroupRows;
  const Tensor expected = empty_heads();
  ops::attention_into(context(), q, k, v, expected, options);

  auto arguments = plain_arguments<kernels::Attention>(q, k, v, out);
  arguments.scale = 0.2f;
  arguments.lse = lse.data_as<float>();
  arguments.key_lengths = lengths.data_as<int32_t>();
  arguments.column_sums = sums.data_as<float>();
  arguments.column_lse = lse_before.data_as<float>();
  make_kernels().attention(arguments, stream());
  expect_same_bits(out, expected);
  expect_same_bits(lse, options.lse);
  expect_same_bits(sums, options.column_sums);
}

TEST_P(PublicKernelsTest, ColumnAttentionWithEveryEpilogue) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Kernels library = make_kernels();
  const Tensor q = queries(), k = keys(), v = keys(), residual = queries(), lse_all = rows();
  const ops::ColumnSet set = columns();
  for (const Epilogue epilogue :
       {Epilogue::kNone, Epilogue::kAdd, Epilogue::kSubtract, Epilogue::kSplit, Epilogue::kMerge}) {
    ops::ColumnAttentionOptions options;
    options.epilogue = static_cast<ColumnEpilogue>(epilogue);
    options.residual = residual;
    options.lse_all = lse_all;
    options.lse = empty_rows();
    const bool writes_rest = epilogue == Epilogue::kSplit;
    const Tensor rest = writes_rest ? empty_rows() : rows();
    options.lse_rest = writes_rest ? empty_rows() : rest;
    const Tensor out = empty_heads(), expected = empty_heads(), lse = empty_rows();
    ops::column_attention_into(context(), q, k, v, set, expected, options);

    auto arguments = plain_arguments<kernels::ColumnAttention>(q, k, v, out);
    arguments.indices = set.indices.data_as<int32_t>();
    arguments.counts = set.counts.data_as<int32_t>();
    arguments.capacity = set.indices.dim(3);
    arguments.lse = lse.data_as<float>();
    arguments.epilogue = epilogue;
    arguments.residual = plain_heads(residual);
    arguments.lse_all = lse_all.data_as<float>();
    arguments.lse_rest = rest.data_as<float>();
    library.column_attention(arguments, stream());
    expect_same_bits(out, expected);
    expect_same_bits(lse, options.lse);
    if (writes_rest) expect_same_bits(rest, options.lse_rest);
  }
}

TEST_P(PublicKernelsTest, Selection) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Tensor sums = random({kBatch, kHeads, kGroups, kKeys}, DType::kF32);
  const Tensor host_mask = make_host_tensor({kGroups, kKeys}, DType::kU8);
  for (int64_t i = 0; i < host_mask.numel(); ++i) host_mask.data_as<uint8_t>()[i] = i % 37 == 0 ? 1 : 0;
  const Tensor mask = context().to_device(host_mask);
  const auto make_set = [&] {
    const Tensor zeros = from_ints(std::vector<int32_t>(static_cast<size_t>(kBatch * kHeads * kGroups * 200), 0));
    return ops::ColumnSet{zeros.reshape({kBatch, kHeads, kGroups, 200}),
                          context().empty({kBatch, kHeads, kGroups}, DType::kI32), kernels::kGroupRows};
  };
  ops::ColumnSelection selection;
  selection.top_k = 60;
  selection.multiple_of = 8;
  selection.static_columns = mask;
  selection.random.seed = 7;
  selection.random.step = 3;
  selection.random_threshold = random_threshold(0.05);
  const ops::ColumnSet expected = make_set(), set = make_set();
  ops::select_columns(context(), sums, selection, expected);

  kernels::Selection arguments;
  arguments.batch = kBatch;
  arguments.heads = kHeads;
  arguments.groups = kGroups;
  arguments.key_tokens = kKeys;
  arguments.column_sums = sums.data_as<float>();
  arguments.top_k = 60;
  arguments.multiple_of = 8;
  arguments.static_columns = mask.data_as<uint8_t>();
  arguments.random_share = 0.05;
  arguments.random_seed = 7;
  arguments.random_step = 3;
  arguments.indices = set.indices.data_as<int32_t>();
  arguments.counts = set.counts.data_as<int32_t>();
  arguments.capacity = 200;
  make_kernels().select_columns(arguments, stream());
  expect_same_bits(set.indices, expected.indices);
  expect_same_bits(set.counts, expected.counts);
}

/// The error that a call ends with.
template <class Call>
std::string error_of(const Call& call, ErrorCode code) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "expected an error";
  return {};
}

TEST_P(PublicKernelsTest, SaysWhatIsWrong) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Kernels library = make_kernels();
  const Tensor q = queries(), k = keys(), out = empty_heads();
  const auto good = plain_arguments<kernels::Attention>(q, k, k, out);
  const auto attention_error = [&](const auto& change, ErrorCode code) {
    kernels::Attention arguments = good;
    change(arguments);
    return error_of([&] { library.attention(arguments, stream()); }, code);
  };
  EXPECT_NE(attention_error([](auto& a) { a.k.data = nullptr; }, ErrorCode::kInvalidArgument).find("attention: k"),
            std::string::npos);
  attention_error([](auto& a) { a.sizes.heads = -1; }, ErrorCode::kInvalidArgument);
  attention_error([](auto& a) { a.out.token_stride = -8; }, ErrorCode::kInvalidArgument);
  const Tensor sums = context().empty({kBatch, kHeads, kGroups, kKeys}, DType::kF32);
  attention_error([&](auto& a) { a.column_sums = sums.data_as<float>(); }, ErrorCode::kInvalidArgument);
  if (context().device().kind == DeviceKind::kCuda) {
    EXPECT_NE(attention_error([](auto& a) { a.q.token_stride += 1; }, ErrorCode::kUnsupported).find("multiple of 8"),
              std::string::npos);
    attention_error([](auto& a) { a.v.data = static_cast<const char*>(a.v.data) + 2; }, ErrorCode::kUnsupported);
  }

  const ops::ColumnSet set = columns();
  auto sparse = plain_arguments<kernels::ColumnAttention>(q, k, k, out);
  sparse.indices = set.indices.data_as<int32_t>();
  sparse.counts = set.counts.data_as<int32_t>();
  sparse.capacity = set.indices.dim(3);
  const auto sparse_error = [&](const auto& change, ErrorCode code) {
    kernels::ColumnAttention arguments = sparse;
    change(arguments);
    return error_of([&] { library.column_attention(arguments, stream()); }, code);
  };
  sparse_error([](auto& a) { a.counts = nullptr; }, ErrorCode::kInvalidArgument);
  sparse_error([](auto& a) { a.group_rows = 0; }, ErrorCode::kInvalidArgument);
  sparse_error([](auto& a) { a.epilogue = Epilogue::kAdd; }, ErrorCode::kInvalidArgument);
  EXPECT_NE(sparse_error(
                [&](auto& a) {
                  a.epilogue = Epilogue::kMerge;
                  a.residual = good.q;
                },
                ErrorCode::kInvalidArgument)
                .find("lse_all"),
            std::string::npos);

  kernels::Selection selection;
  selection.heads = selection.groups = 1;
  selection.key_tokens = kKeys;
  selection.random_share = 1.5;
  error_of([&] { library.select_columns(selection, stream()); }, ErrorCode::kInvalidArgument);
}

TEST(PublicKernels, NoSuchDevice) {
  error_of([] { Kernels(Device{DeviceKind::kCuda, 1000}); }, ErrorCode::kBackendUnavailable);
}

CHIPMUNK_INSTANTIATE(PublicKernelsTest, ::testing::Values(OnlyCase{}));

}  // namespace
}  // namespace chipmunk::test
