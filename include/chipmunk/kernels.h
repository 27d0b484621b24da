#pragma once

#include <cstdint>
#include <memory>

#include "chipmunk/device.h"

struct CUstream_st;

/// The attention kernels and the selection between them by themselves, on the caller's memory and streams: for programs
/// that have an engine of their own. Link chipmunk::kernels. docs/kernels/ says what each computes and how fast it is.
namespace chipmunk::kernels {

/// A cudaStream_t; null is the default stream. Not used on the CPU.
using Stream = CUstream_st*;

/// Query rows that share a list of keys, and the only number with kernels for Hopper GPUs.
constexpr int64_t kGroupRows = 192;

/// [batch, tokens, heads, head_dim] in bf16 (float on the CPU); strides in elements, the head dimension is dense. On a
/// GPU, the address and all strides are multiples of 16 bytes.
struct Heads {
  void* data = nullptr;
  int64_t batch_stride = 0, token_stride = 0, head_stride = 0;
};
struct ConstHeads {
  const void* data = nullptr;
  int64_t batch_stride = 0, token_stride = 0, head_stride = 0;

  ConstHeads() = default;
  ConstHeads(const void* values, int64_t batch, int64_t token, int64_t head)
      : data(values), batch_stride(batch), token_stride(token), head_stride(head) {}
  ConstHeads(const Heads& heads)  // NOLINT(google-explicit-constructor): as T* becomes const T*
      : ConstHeads(heads.data, heads.batch_stride, heads.token_stride, heads.head_stride) {}
};

struct Sizes {
  int64_t batch = 1, heads = 0, query_tokens = 0, key_tokens = 0, head_dim = 0;  ///< B, H, N, M, D

  /// G.
  int64_t groups(int64_t group_rows = kGroupRows) const { return (query_tokens + group_rows - 1) / group_rows; }
};

/// out = softmax(scale q k^T) v.
struct Attention {
  Sizes sizes;
  ConstHeads q, k, v;
  Heads out;
  float scale = 0.0f;                    ///< 0: 1 / sqrt(D)
  float* lse = nullptr;                  ///< [B, H, N] or null: receives ln of each row's softmax denominator
  const int32_t* key_lengths = nullptr;  ///< [B] or null: keys at or past it are invisible
  /// [B, H, G, M] or null: receives the sum over a group's rows of exp(score - column_lse).
  float* column_sums = nullptr;
  const float* column_lse = nullptr;  ///< [B, H, N], with column_sums; may be lse, whose old values count
  int64_t group_rows = kGroupRows;
};

/// How attention over some of the keys, A_S with its softmax denominators' logarithms lse_S, joins what is known of the
/// others. O is the output of a dense step, m = exp(lse_S - lse_all) the part of its softmax that the kept keys hold.
enum class Epilogue : uint8_t {
  kNone,      ///< out = A_S
  kAdd,       ///< out = residual + A_S
  kSubtract,  ///< out = residual - A_S
  kSplit,     ///< residual = O: out = O - m A_S, lse_rest = lse_all + ln(max(1 - m, 1e-7)); 0 and -inf for all keys
  kMerge,     ///< residual = kSplit's out R: out = (e^lse_all R + e^lse_S A_S) / (e^lse_rest + e^lse_S)
};

/// Attention in which the rows of a group read the same few keys. A group without keys has A_S = 0.
struct ColumnAttention {
  Sizes sizes;
  ConstHeads q, k, v;
  Heads out;                         ///< may be residual
  float scale = 0.0f;                ///< 0: 1 / sqrt(D)
  const int32_t* indices = nullptr;  ///< [B, H, G, capacity]: distinct keys; entries past the count are not read
  const int32_t* counts = nullptr;   ///< [B, H, G]: in [0, capacity], or M: every key, and no list
  int64_t capacity = 0;
  float* lse = nullptr;  ///< [B, H, N] or null: receives lse_S
  Epilogue epilogue = Epilogue::kNone;
  ConstHeads residual;             ///< like out; for every epilogue but kNone
  const float* lse_all = nullptr;  ///< [B, H, N]; for kSplit and kMerge
  float* lse_rest = nullptr;       ///< [B, H, N]; written by kSplit, read by kMerge
  int64_t group_rows = kGroupRows;
};

/// The keys of each group: static ones; and those with the largest column sums (of equal ones the first), and random
/// ones, unless static_columns and room_keys leave no key over. A group that would keep more than `capacity` keeps all.
struct Selection {
  int64_t batch = 1, heads = 0, groups = 0, key_tokens = 0;  ///< B, H, G, M
  const float* column_sums = nullptr;                        ///< [B, H, G, M]
  int64_t top_k = 0;
  int64_t room_keys = 0;
  int64_t multiple_of = 1;                  ///< counts are rounded up to it with the lowest other keys
  const uint8_t* static_columns = nullptr;  ///< [G, M], 1 for keys that are always kept; or null
  double random_share = 0.0;                ///< of the keys, drawn for each row; in [0, 1]
  uint64_t random_seed = 0;
  int64_t random_step = 0;     ///< below 2^12: another draw
  int32_t* indices = nullptr;  ///< [B, H, G, capacity]: ascending, then those that round up
  int32_t* counts = nullptr;   ///< [B, H, G]; M where all are kept
  int64_t capacity = 0;
};

/// The kernels on one device. Calls queue work and return; they may come from several threads, and between the begin
/// and the end of a stream's capture. They throw Error: kInvalidArgument for null pointers and sizes or values out of
/// range, kShapeMismatch for what does not fit together, kUnsupported for what the device has no kernel for.
class Kernels {
 public:
  /// Throws kBackendUnavailable if this build or machine has no such device.
  explicit Kernels(Device device);
  ~Kernels();
  Kernels(Kernels&&) noexcept;
  Kernels& operator=(Kernels&&) noexcept;

  void attention(const Attention& arguments, Stream stream) const;
  void column_attention(const ColumnAttention& arguments, Stream stream) const;
  void select_columns(const Selection& arguments, Stream stream) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace chipmunk::kernels
