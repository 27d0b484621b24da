#pragma once

#include <cuda_bf16.h>

#include "cuda/activations.cuh"
#include "cuda/any_type.cuh"
#include "cuda/sm90/column_mlp_producer.cuh"
#include "cuda/sm90/merged_rows.cuh"

/// What becomes of the sums of the sparse MLP's two kernels (docs/kernels/column_mlp.md). Each warp has 16 rows of
/// them, and brings 128 columns at a time into the order of memory.
namespace chipmunk::cuda::sm90::mlp {

/// Features of which a warpgroup has products at a time; what a tile has for it.
constexpr int kHalfFeatures = 64, kHalves = 2;
static_assert(kConsumers * kHalves * kHalfFeatures == kTileWidth && kHalfFeatures == 4 * Exchange::kRows);

/// a - b of eight bf16 each, rounded once.
__device__ inline uint4 difference_of(uint4 a, uint4 b) {
  const auto difference = [](uint32_t of, uint32_t from) {
    const __nv_bfloat162 result =
        __hsub2(*reinterpret_cast<const __nv_bfloat162*>(&of), *reinterpret_cast<const __nv_bfloat162*>(&from));
    return *reinterpret_cast<const uint32_t*>(&result);
  };
  return make_uint4(difference(a.x, b.x), difference(a.y, b.y), difference(a.z, b.z), difference(a.w, b.w));
}

/// What a warp renews of a tile: 16 kept features of each half of its warpgroup's, and all tokens.
template <bool kF8>
class RenewedRows {
 public:
  /// Asks for the numbers of the features.
  __device__ RenewedRows(const Arguments& a, const RenewTiles& tile, int warpgroup) : a_(a), block_(tile.block) {
    const int first_token = a.first_row(block_) + Exchange::column(0);
    const int first_place =
        tile.first_place + warpgroup * kHalves * kHalfFeatures + warp_index() % 4 * Exchange::kRows + Exchange::row(0);
    places_ = tile.count - first_place;
    tokens_ = a.end_row(block_) - first_token;
    cache_ = a.activations + a.batch(block_) * a.activation_batch_stride + first_token;
    differences_ = a.differences + (block_ * a.kept_rows + first_place) * kTokens + Exchange::column(0);
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
#pragma unroll
      for (int i = 0; i < kRowsOfLane; ++i) {
        // Of a place past the list's end, the last one.
        const int at = min(first_place + place(half, i * Exchange::kRowSteps), tile.count - 1);
        features_[half][i] = a.feature(block_, tile.count, at);
      }
    }
  }

  /// Asks for biases and scales of the rows that a lane has of products' results; long after the features.
  __device__ void ask_biases_and_scales() {
    static_assert(kRowsOfLane == 4);
    const GatheredWeight& weight = a_.weight(block_);
    const int lane = lane_index(), from = lane / 4 % 4 * 8;
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int upper = __shfl_sync(0xffffffffu, features_[half][2 * r], from);
        const int lower = __shfl_sync(0xffffffffu, features_[half][2 * r + 1], from);
        const int feature = lane < 16 ? upper : lower;
        biases_[half][r] = weight.bias == nullptr ? 0.0f : load_any(weight.bias, a_.bias_dtype, feature);
        if constexpr (kF8) scales_[half][r] = weight.scales[feature];
      }
    }
  }

  /// A lane's chunks of what the cache has of a half.
  struct Old {
    uint4 chunks[Exchange::kSteps];
  };

  /// Brings activation(sums + bias) into the order of memory, and meanwhile asks for what is old.
  template <Activation kActivation>
  __device__ Old activate(const Exchange& exchange, int half, const float (&sums)[kTokens / 2]) const {
    Old old;
    __syncwarp();
#pragma unroll
    for (int block = 0; block < kTokens / 8; block += 2) {
      // Once some sums have made room.
      if (block == kTokens / 16) old = ask_old(half);
      uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 sum = {sums[4 * block + 2 * i], sums[4 * block + 2 * i + 1]};
        const float2 value = finished(sum, half, i % 2, block + i / 2);
        words[i] = pack_bf16(cuda::activate<kActivation>(value.x), cuda::activate<kActivation>(value.y));
      }
      store_matrices(exchange.matrices(block), words);
    }
    __syncwarp();
    return old;
  }

  /// Writes them to the cache, and their difference from what was there to the workspace.
  __device__ void write(const Exchange& exchange, int half, const Old& old) const {
#pragma unroll
    for (int i = 0; i < Exchange::kSteps; ++i) {
      const uint4 fresh = load_shared_16(exchange.chunk(i));
      const bool is_there = exists(half, i);
      if (is_there) *reinterpret_cast<uint4*>(cached(half, i)) = fresh;
      // Zeros for places past the list and tokens past the end: they are multiplied, too.
      *reinterpret_cast<uint4*>(differences_ + place(half, i) * kTokens + token(i)) =
          is_there ? difference_of(fresh, old.chunks[i]) : uint4{};
    }
  }

 private:
  static_assert(kExchangeColumns == kTokens);
  static constexpr int kRowsOfLane = Exchange::kSteps / Exchange::kRowSteps;  // of a half

  /// With scales and bias: two tokens of column block `block`, of the lane's row r.
  __device__ float2 finished(float2 sum, int half, int r, int block) const {
    const float bias = biases_[half][r];
    if constexpr (!kF8) return {sum.x + bias, sum.y + bias};
    const int first_token = a_.batch(block_) * a_.blocks_per_sample * kTokens + a_.first_row(block_);
    const float* of_tokens = a_.x_scales + first_token + block * 8 + lane_index() % 4 * 2;
    const float2 scale = *reinterpret_cast<const float2*>(of_tokens);
    return {fmaf(sum.x, scales_[half][r] * scale.x, bias), fmaf(sum.y, scales_[half][r] * scale.y, bias)};
  }
  __device__ Old ask_old(int half) const {
    Old old;
#pragma unroll
    for (int i = 0; i < Exchange::kSteps; ++i) {
      old.chunks[i] = uint4{};
      if (exists(half, i)) old.chunks[i] = *reinterpret_cast<const uint4*>(cached(half, i));
    }
    return old;
  }

  // Relative to the lane's first place in the block's list, and to its first token.
  __device__ static constexpr int place(int half, int step) { return half * kHalfFeatures + Exchange::row_step(step); }
  __device__ static constexpr int token(int step) { return Exchange::column_step(step); }
  __device__ bool exists(int half, int step) const { return place(half, step) < places_ && token(step) < tokens_; }
  __device__ __nv_bfloat16* cached(int half, int step) const {
    return cache_ + features_[half][step / Exchange::kRowSteps] * a_.activation_stride + token(step);
  }

  const Arguments& a_;
  int block_;
  int places_, tokens_;  // from the lane's first ones on
  __nv_bfloat16 *cache_, *differences_;
  int features_[kHalves][kRowsOfLane];
  float biases_[kHalves][2], scales_[kHalves][2];
};

/// What a warp adds to of a tile: 16 tokens, kWidth channels.
template <int kWidth>
class AddedRows {
 public:
  __device__ AddedRows(const Arguments& a, const Pipeline& pipeline, const AddTiles& tile, int warpgroup)
      : rows_(rows_of(a, pipeline, tile,
                      a.first_row(tile.block) + warpgroup * kHalfTokens + warp_index() % 4 * Exchange::kRows)) {}

  /// Asks for the first part of the output as it was.
  __device__ void ask() const { rows_.ask(); }
  /// out += sums.
  __device__ void add(const float (&sums)[kWidth / 2]) const {
    rows_.merge([&](float2 known, int at) { return float2{known.x + sums[at], known.y + sums[at + 1]}; });
  }

 private:
  using Rows = MergedRows<kWidth>;

  __device__ static Rows rows_of(const Arguments& a, const Pipeline& pipeline, const AddTiles& tile, int first_token) {
    const int64_t stride = a.out.strides.token;
    const RowsFrom out{
        a.out.data + a.batch(tile.block) * a.out.strides.batch + first_token * stride + tile.first_channel, stride};
    return Rows(pipeline.exchange(), out, a.end_row(tile.block) - first_token);
  }

  Rows rows_;
};

}  // namespace chipmunk::cuda::sm90::mlp
