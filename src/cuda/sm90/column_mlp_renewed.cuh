#pragma once

#include <cuda_bf16.h>

#include "cuda/activations.cuh"
#include "cuda/any_type.cuh"
#include "cuda/float_types.cuh"
#include "cuda/sm90/column_mlp_producer.cuh"

/// What becomes of the sums of the sparse MLP's first kernel (docs/kernels/column_mlp.md). Each warp has 16 rows of
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

/// What a warp renews: of each tile, 16 kept features of both halves of its warpgroup's, and all tokens. New
/// activations wait, those of the first half in the exchange and of the second in registers, and change places with the
/// old ones while the next tile's products run, a row of each lane at a time.
template <bool kF8>
class RenewedRows {
  static constexpr int kRowsOfLane = Exchange::kSteps / Exchange::kRowSteps;  // of a half

 public:
  /// Of a lane, which change places one after the other.
  static constexpr int kRows = kHalves * kRowsOfLane;

  __device__ RenewedRows(const Arguments& a, const Exchange& exchange, int warpgroup)
      : a_(a),
        exchange_(exchange),
        warp_place_(warpgroup * kHalves * kHalfFeatures + warp_index() % 4 * Exchange::kRows) {}

  /// Asks for the number of the lane's feature of a tile: lanes 0 to 15 have those of the first half.
  __device__ void ask_feature(const RenewTiles& tile) {
    const int lane = lane_index();
    const int place = tile.first_place + warp_place_ + lane / Exchange::kRows * kHalfFeatures + lane % Exchange::kRows;
    // Of a place past the list's end, the last one.
    feature_ = a_.feature(tile.block, tile.count, min(place, tile.count - 1));
  }
  /// Asks for that feature's bias and scale; long after its number.
  __device__ void ask_bias_and_scale(const RenewTiles& tile) {
    const GatheredWeight& weight = a_.weight(tile.block);
    bias_ = weight.bias == nullptr ? 0.0f : load_any(weight.bias, a_.bias_dtype, feature_);
    if constexpr (kF8) scale_ = weight.scales[feature_];
  }
  /// Asks for the old activations of a tile's first row, into the exchange. No row waits any more.
  __device__ void ask_first_row(const RenewTiles& tile) const {
    ask_row(lane_tile(tile), 0, __shfl_sync(0xffffffffu, feature_, Exchange::row(0)), 0);
  }

  /// Takes activation(sums + bias) of the tile whose first row was asked for: of its first half or of both.
  template <Activation kActivation>
  __device__ void take(const RenewTiles& tile, bool both, const float (&low)[kTokens / 2],
                       const float (&high)[kTokens / 2]) {
    tile_ = lane_tile(tile);
    take_old(0);
    __syncwarp();
    store_shared(feature_address(lane_index()), static_cast<uint32_t>(feature_));
#pragma unroll
    for (int i = 0; i < kMatrices; ++i) {
      uint32_t words[4];
      activate<kActivation>(tile.block, 0, i, low, words);
      store_matrices(exchange_.matrices(2 * i), words);
    }
    if (both) {
#pragma unroll
      for (int i = 0; i < kMatrices; ++i) activate<kActivation>(tile.block, 1, i, high, second_half_[i]);
    }
    __syncwarp();
    next_ = 0;
    end_ = both ? kRows : kRowsOfLane;
  }

  /// Has the next row change places, if one waits, and asks for the old activations of the one behind.
  __device__ void renew_row() {
    if (next_ >= end_) return;
    const int row = next_ % kRowsOfLane;
    if (next_ > 0) take_old((next_ - 1) % kRowsOfLane);
    if (next_ == kRowsOfLane) exchange_.put(second_half_);
    write_row(next_, old_);
    ++next_;
    // They come where this row was.
    if (next_ < end_) ask_row(tile_, next_, feature_of(next_), row);
  }
  /// Has all that wait change places, one after the other.
  __device__ void renew_rows() {
#pragma unroll 1
    while (next_ < end_) renew_row();
  }
  /// The same at once, when no products run that want the registers.
  __device__ void renew_last_rows() {
    // What was asked for; it is asked for again.
    wait_copies();
    uint4 old[kRows][Exchange::kRowSteps];
#pragma unroll
    for (int n = 0; n < kRows; ++n) {
      if (n < next_ || n >= end_) continue;
      const __nv_bfloat16* from = tile_.cache + feature_of(n) * a_.activation_stride;
#pragma unroll
      for (int i = 0; i < Exchange::kRowSteps; ++i) {
        old[n][i] = uint4{};
        if (tile_.has(n, i)) old[n][i] = *reinterpret_cast<const uint4*>(from + token(i));
      }
    }
#pragma unroll
    for (int n = 0; n < kRows; ++n) {
      if (n < next_ || n >= end_) continue;
      if (n == kRowsOfLane) exchange_.put(second_half_);
      write_row(n, old[n]);
    }
    next_ = end_;
  }

 private:
  static constexpr int kMatrices = Exchange::kMatrices;
  static_assert(kExchangeColumns == kTokens && kHalves * Exchange::kRows == 32);

  // Of a lane's row n, from the first half's first on.
  __device__ static int first_step(int n) { return n % kRowsOfLane * Exchange::kRowSteps; }
  /// Places from the lane's first row on.
  __device__ static int place(int n) { return n / kRowsOfLane * kHalfFeatures + Exchange::row_step(first_step(n)); }
  __device__ static constexpr int token(int i) { return Exchange::column_step(i); }

  /// What a lane has of a tile, from its first row and token on.
  struct LaneTile {
    int places, tokens;
    __nv_bfloat16 *cache, *differences;

    __device__ bool has(int n, int i) const { return place(n) < places && token(i) < tokens; }
  };
  __device__ LaneTile lane_tile(const RenewTiles& tile) const {
    const int place = tile.first_place + warp_place_ + Exchange::row(0);
    const int token = a_.first_row(tile.block) + Exchange::column(0);
    return {tile.count - place, a_.end_row(tile.block) - token,
            a_.activations + a_.batch(tile.block) * a_.activation_batch_stride + token,
            a_.differences + (tile.block * a_.kept_rows + place) * kTokens + Exchange::column(0)};
  }

  /// Where the exchange has its chunks.
  __device__ uint32_t chunk(int n, int i) const { return exchange_.chunk(first_step(n)) + token(i) * 2; }

  /// Where the numbers of the tile's features are, in the order of lanes that asked for them: between the exchange's
  /// rows.
  __device__ uint32_t feature_address(int i) const { return exchange_.unused(i / 4) + i % 4 * 4; }
  __device__ int feature_of(int n) const {
    return static_cast<int>(
        load_shared(feature_address(n / kRowsOfLane * Exchange::kRows + Exchange::row(first_step(n)))));
  }

  /// Asks for the old activations of row n, to where the exchange has row `to`.
  __device__ void ask_row(const LaneTile& tile, int n, int feature, int to) const {
    const __nv_bfloat16* from = tile.cache + feature * a_.activation_stride;
#pragma unroll
    for (int i = 0; i < Exchange::kRowSteps; ++i) copy_16(chunk(to, i), from + token(i), tile.has(n, i));
  }
  __device__ void take_old(int from) {
    wait_copies();
#pragma unroll
    for (int i = 0; i < Exchange::kRowSteps; ++i) old_[i] = load_shared_16(chunk(from, i));
  }
  /// Row n to the cache, and its difference from what was there to the workspace.
  __device__ void write_row(int n, const uint4 (&old)[Exchange::kRowSteps]) const {
    __nv_bfloat16* to = tile_.cache + feature_of(n) * a_.activation_stride;
#pragma unroll
    for (int i = 0; i < Exchange::kRowSteps; ++i) {
      const uint4 fresh = load_shared_16(chunk(n, i));
      const bool is_there = tile_.has(n, i);
      if (is_there) *reinterpret_cast<uint4*>(to + token(i)) = fresh;
      // Zeros for places past the list and tokens past the end: they are multiplied, too.
      *reinterpret_cast<uint4*>(tile_.differences + place(n) * kTokens + token(i)) =
          is_there ? difference_of(fresh, old[i]) : uint4{};
    }
  }

  /// activation(sums + bias) of four matrices: of two blocks of 8 tokens, 2 i and 2 i + 1.
  template <Activation kActivation>
  __device__ void activate(int token_block, int half, int i, const float (&sums)[kTokens / 2],
                           uint32_t (&words)[4]) const {
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      const float2 sum = {sums[8 * i + 2 * m], sums[8 * i + 2 * m + 1]};
      const float2 value = finished(sum, token_block, half, m % 2, 2 * i + m / 2);
      words[m] = pack_bf16(cuda::activate<kActivation>(value.x), cuda::activate<kActivation>(value.y));
    }
  }
  /// With scales and bias: two tokens of column block `block`, of row r of those that a lane has of products' results.
  __device__ float2 finished(float2 sum, int token_block, int half, int r, int block) const {
    const int from = half * Exchange::kRows + r * 8 + lane_index() / 4;
    const float bias = __shfl_sync(0xffffffffu, bias_, from);
    if constexpr (!kF8) return {sum.x + bias, sum.y + bias};
    const float feature_scale = __shfl_sync(0xffffffffu, scale_, from);
    const int first_token = a_.batch(token_block) * a_.blocks_per_sample * kTokens + a_.first_row(token_block);
    const float* of_tokens = a_.x_scales + first_token + block * 8 + lane_index() % 4 * 2;
    const float2 scale = *reinterpret_cast<const float2*>(of_tokens);
    return {fmaf(sum.x, feature_scale * scale.x, bias), fmaf(sum.y, feature_scale * scale.y, bias)};
  }

  const Arguments& a_;
  Exchange exchange_;
  int warp_place_;  // of the warp's first feature in a tile
  // Of the tile whose products run.
  int feature_;
  float bias_, scale_;
  // Of the one whose rows wait: the next one of a lane's, and the end of them.
  int next_ = 0, end_ = 0;
  LaneTile tile_;
  uint32_t second_half_[kMatrices][4];
  uint4 old_[Exchange::kRowSteps];  // of the next row, if that is the first
};

}  // namespace chipmunk::cuda::sm90::mlp
