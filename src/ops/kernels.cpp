#include "chipmunk/kernels.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <string>
#include <utility>

#include "backend.h"
#include "chipmunk/error.h"
#include "ops/attention.h"
#include "ops/check.h"
#include "ops/column_attention.h"

namespace chipmunk::kernels {
namespace {

using ContextOn = std::function<Context(void* stream)>;

ContextOn contexts_of(Device device) {
  if (device.kind == DeviceKind::kCuda) return make_cuda_stream_contexts(device.index);
  return [context = make_cpu_context({})](void*) { return context; };
}

/// The caller's memory as tensors.
class Foreign {
 public:
  explicit Foreign(const Context& context) : context_(context) {}

  Tensor heads(const ConstHeads& heads, const Sizes& sizes, int64_t tokens, const char* what) const {
    const Dims shape = {sizes.batch, tokens, sizes.heads, sizes.head_dim};
    const Dims strides = {heads.batch_stride, heads.token_stride, heads.head_stride, 1};
    const DType dtype = context_.activation_dtype();
    if (context_.device().kind == DeviceKind::kCuda) check_alignment(heads, what);
    return view(heads.data, dtype, shape, strides, what);
  }

  /// Dense; empty for null.
  Tensor optional(const void* data, DType dtype, const Dims& shape, const char* what) const {
    return data == nullptr ? Tensor{} : view(data, dtype, shape, contiguous_strides(shape), what);
  }
  Tensor dense(const void* data, DType dtype, const Dims& shape, const char* what) const {
    return view(data, dtype, shape, contiguous_strides(shape), what);
  }

 private:
  static void check_alignment(const ConstHeads& heads, const char* what) {
    constexpr int64_t kBytes = 16, kElements = kBytes / 2;
    const auto address = reinterpret_cast<uintptr_t>(heads.data);
    if (address % kBytes != 0) {
      throw Error(ErrorCode::kUnsupported,
                  "expected an address that is a multiple of 16, found one that is " +
                      std::to_string(address % kBytes) + " more",
                  what);
    }
    const std::pair<const char*, int64_t> strides[] = {
        {"batch", heads.batch_stride}, {"token", heads.token_stride}, {"head", heads.head_stride}};
    for (const auto& [name, stride] : strides) {
      if (stride % kElements == 0) continue;
      throw Error(
          ErrorCode::kUnsupported,
          std::string("expected a ") + name + " stride that is a multiple of 8, found " + std::to_string(stride), what);
    }
  }

  Tensor view(const void* data, DType dtype, const Dims& shape, const Dims& strides, const char* what) const {
    int64_t last = 0;
    for (int i = 0; i < shape.rank(); ++i) {
      if (shape[i] < 0) ops::fail_argument(what, "sizes of at least 0", shape[i]);
      if (strides[i] < 0) ops::fail_argument(what, "strides of at least 0", strides[i]);
      last += std::max<int64_t>(shape[i] - 1, 0) * strides[i];
    }
    const int64_t elements = numel(shape) == 0 ? 0 : last + 1;
    if (data == nullptr && elements > 0)
      throw Error(ErrorCode::kInvalidArgument, "expected an address, found null", what);
    // The library takes no memory by const pointers; what it only reads, it does not write.
    auto storage = std::make_shared<Storage>(const_cast<void*>(data), static_cast<size_t>(elements) * size_of(dtype),
                                             context_.device(), [] {});
    return Tensor(std::move(storage), 0, dtype, shape, strides);
  }

  const Context& context_;
};

/// The enumerators mean the same in both; the public header does not see params.h.
ColumnEpilogue engine_epilogue(Epilogue epilogue) {
  static_assert(static_cast<int>(Epilogue::kNone) == static_cast<int>(ColumnEpilogue::kNone) &&
                static_cast<int>(Epilogue::kAdd) == static_cast<int>(ColumnEpilogue::kAdd) &&
                static_cast<int>(Epilogue::kSubtract) == static_cast<int>(ColumnEpilogue::kSubtract) &&
                static_cast<int>(Epilogue::kSplit) == static_cast<int>(ColumnEpilogue::kSplit) &&
                static_cast<int>(Epilogue::kMerge) == static_cast<int>(ColumnEpilogue::kMerge));
  return static_cast<ColumnEpilogue>(epilogue);
}

Dims rows_of(const Sizes& sizes) { return {sizes.batch, sizes.heads, sizes.query_tokens}; }

int64_t checked_groups(const Sizes& sizes, int64_t group_rows, const char* what) {
  if (group_rows < 1) ops::fail_argument(what, "at least 1 row a group", group_rows);
  return sizes.groups(group_rows);
}

}  // namespace

struct Kernels::State {
  ContextOn context_on;
};

Kernels::Kernels(Device device) : state_(std::make_unique<State>(State{contexts_of(device)})) {}
Kernels::~Kernels() = default;
Kernels::Kernels(Kernels&&) noexcept = default;
Kernels& Kernels::operator=(Kernels&&) noexcept = default;

void Kernels::attention(const Attention& a, Stream stream) const {
  const Context context = state_->context_on(stream);
  const Foreign foreign(context);
  const Sizes& s = a.sizes;
  ops::AttentionOptions options;
  options.scale = a.scale;
  options.lse = foreign.optional(a.lse, DType::kF32, rows_of(s), "attention: lse");
  options.key_lengths = foreign.optional(a.key_lengths, DType::kI32, {s.batch}, "attention: key_lengths");
  if (a.column_sums != nullptr) {
    options.group_size = a.group_rows;
    const int64_t groups = checked_groups(s, a.group_rows, "attention: group_rows");
    options.column_sums =
        foreign.dense(a.column_sums, DType::kF32, {s.batch, s.heads, groups, s.key_tokens}, "attention: column_sums");
    options.column_lse = foreign.dense(a.column_lse, DType::kF32, rows_of(s), "attention: column_lse");
  }
  ops::attention_into(context, foreign.heads(a.q, s, s.query_tokens, "attention: q"),
                      foreign.heads(a.k, s, s.key_tokens, "attention: k"),
                      foreign.heads(a.v, s, s.key_tokens, "attention: v"),
                      foreign.heads(a.out, s, s.query_tokens, "attention: out"), options);
}

void Kernels::column_attention(const ColumnAttention& a, Stream stream) const {
  const Context context = state_->context_on(stream);
  const Foreign foreign(context);
  const Sizes& s = a.sizes;
  const int64_t groups = checked_groups(s, a.group_rows, "column_attention: group_rows");
  const ops::ColumnSet columns{
      foreign.dense(a.indices, DType::kI32, {s.batch, s.heads, groups, a.capacity}, "column_attention: indices"),
      foreign.dense(a.counts, DType::kI32, {s.batch, s.heads, groups}, "column_attention: counts"), a.group_rows};
  ops::ColumnAttentionOptions options;
  options.scale = a.scale;
  options.epilogue = engine_epilogue(a.epilogue);
  options.lse = foreign.optional(a.lse, DType::kF32, rows_of(s), "column_attention: lse");
  if (a.epilogue != Epilogue::kNone) {
    options.residual = foreign.heads(a.residual, s, s.query_tokens, "column_attention: residual");
  }
  if (a.epilogue == Epilogue::kSplit || a.epilogue == Epilogue::kMerge) {
    options.lse_all = foreign.dense(a.lse_all, DType::kF32, rows_of(s), "column_attention: lse_all");
    options.lse_rest = foreign.dense(a.lse_rest, DType::kF32, rows_of(s), "column_attention: lse_rest");
  }
  ops::column_attention_into(context, foreign.heads(a.q, s, s.query_tokens, "column_attention: q"),
                             foreign.heads(a.k, s, s.key_tokens, "column_attention: k"),
                             foreign.heads(a.v, s, s.key_tokens, "column_attention: v"), columns,
                             foreign.heads(a.out, s, s.query_tokens, "column_attention: out"), options);
}

void Kernels::select_columns(const Selection& a, Stream stream) const {
  const Context context = state_->context_on(stream);
  const Foreign foreign(context);
  const Dims rows = {a.batch, a.heads, a.groups};
  const ops::ColumnSet columns{
      foreign.dense(a.indices, DType::kI32, {a.batch, a.heads, a.groups, a.capacity}, "select_columns: indices"),
      foreign.dense(a.counts, DType::kI32, rows, "select_columns: counts"), kGroupRows};
  ops::ColumnSelection selection;
  selection.top_k = a.top_k;
  selection.room_keys = a.room_keys;
  selection.multiple_of = a.multiple_of;
  selection.static_columns =
      foreign.optional(a.static_columns, DType::kU8, {a.groups, a.key_tokens}, "select_columns: static_columns");
  selection.random_threshold = random_threshold(a.random_share);
  selection.random.seed = a.random_seed;
  selection.random.step = a.random_step;
  ops::select_columns(context,
                      foreign.dense(a.column_sums, DType::kF32, {a.batch, a.heads, a.groups, a.key_tokens},
                                    "select_columns: column_sums"),
                      selection, columns);
}

}  // namespace chipmunk::kernels
