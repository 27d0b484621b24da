#include <cstdint>
#include <limits>

#include "cuda/launch.h"
#include "cuda/sm90/attention.h"

namespace chipmunk::cuda::sm90 {
namespace {

/// What the copy engine and 16-byte accesses need.
bool rows_fit(const void* data, const HeadStrides& strides) {
  constexpr size_t kElement = 2, kBytes = 16;
  return is_aligned(data, kElement, kBytes, strides.batch, strides.token, strides.head);
}

/// The gathering kernel counts a row's bytes in 32 bits.
bool row_fits(const HeadStrides& strides) {
  constexpr int64_t kMax = std::numeric_limits<uint32_t>::max() / 2;
  return strides.token >= 0 && strides.token <= kMax;
}

/// The kernels count rows, keys and pieces of work in 32 bits.
bool counts_fit(int64_t batch, int64_t heads, int64_t query_tokens, int64_t key_tokens) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max() / 2;
  return query_tokens <= kMax && key_tokens <= kMax && batch * heads * ceil_div(query_tokens, 64) <= kMax;
}

bool is_hopper(const DeviceProperties& device) { return device.major == kHopperMajor; }

}  // namespace

bool takes(const DeviceProperties& device, const AttentionParams& params) {
  return is_hopper(device) && (params.head_dim == 64 || params.head_dim == 128) && params.key_tokens > 0 &&
         params.scale > 0.0f && !params.causal && params.relative_bias == nullptr &&
         rows_fit(params.q.data, params.q_strides) && rows_fit(params.k.data, params.k_strides) &&
         rows_fit(params.v.data, params.v_strides) && rows_fit(params.out.data, params.out_strides) &&
         counts_fit(params.batch, params.heads, params.query_tokens, params.key_tokens);
}

bool computes_column_sums(const AttentionParams& params) {
  return params.column_sums != nullptr && params.group_size == kColumnGroup;
}

bool takes(const DeviceProperties& device, const ColumnAttentionParams& params) {
  return is_hopper(device) && (params.head_dim == 64 || params.head_dim == 128) && params.scale > 0.0f &&
         params.group_size == kColumnGroup && rows_fit(params.q.data, params.q_strides) &&
         rows_fit(params.k.data, params.k_strides) && rows_fit(params.v.data, params.v_strides) &&
         row_fits(params.k_strides) && row_fits(params.v_strides) && rows_fit(params.out.data, params.out_strides) &&
         (params.residual.data == nullptr || rows_fit(params.residual.data, params.residual_strides)) &&
         counts_fit(params.batch, params.heads, params.query_tokens, params.key_tokens);
}

}  // namespace chipmunk::cuda::sm90
