#pragma once

#include <cuda.h>

#include "cuda/sm90/attention_rows.cuh"
#include "cuda/sm90/column_mlp.h"
#include "cuda/sm90/warpgroup.cuh"

/// What the sparse MLP's kernels work on, and in which order (docs/kernels/column_mlp.md).
namespace chipmunk::cuda::sm90::mlp {

constexpr int kTokens = static_cast<int>(kMlpBlock);
/// Of a step along the depth of a product.
constexpr int kDepth = 64;
/// Kept features, or output channels, of a tile; of a half of one, into which renew's are cut; of a quarter, for add's.
constexpr int kTileWidth = 256, kHalfWidth = 128, kQuarterWidth = 64;
/// Tokens of half a token block: a box of the differences, which one warpgroup of the add kernel computes.
constexpr int kHalfTokens = 64, kTokenHalves = kTokens / kHalfTokens;
/// Token blocks whose tiles follow each other for each range of features or channels: what they read of x or of the
/// differences has to stay in L2 beside the weights of a range. At most 64, which a warp looks after.
constexpr int kSectionBlocks = 40;

/// The weight that a kernel gathers rows of, with what goes with it in renew.
struct GatheredWeight {
  const char* data;
  const float* scales;  // [F], of f8_e4m3 alone
  const void* bias;     // [F] or null
};

/// Of both kernels.
struct Arguments {
  CUtensorMap boxed;  // renew: x; add: the differences
  /// Of a sample's first `split_blocks` token blocks, which end at row split_row, and of those from there on.
  GatheredWeight weights[2];
  int split_blocks, split_row;
  uint32_t weight_row_bytes;
  const int32_t *indices, *counts;  // of this launch's first token block on
  int64_t capacity;
  int features, blocks, first_block, blocks_per_sample, rows;
  int section;  // see kSectionBlocks
  int steps;    // renew: along the channels
  // renew
  bool overlaps_last;     // ColumnMlpParams has it
  const float* x_scales;  // of f8_e4m3 alone: [batch, blocks_per_sample * kTokens]
  DType bias_dtype;
  __nv_bfloat16* activations;  // [B, F, T]
  int64_t activation_batch_stride, activation_stride;
  __nv_bfloat16* differences;  // [blocks, kept_rows, kTokens]
  int64_t kept_rows;
  // add
  HeadRowsOut out;
  int channels;

  __device__ int count(int block) const { return counts[block]; }
  __device__ int batch(int block) const { return (first_block + block) / blocks_per_sample; }
  __device__ int first_row(int block) const {
    const int place = place_of(block);
    return place * kTokens - (place < split_blocks ? 0 : split_blocks * kTokens - split_row);
  }
  /// The row behind the block's last one, if the block has kTokens of them.
  __device__ int end_row(int block) const { return place_of(block) < split_blocks ? split_row : rows; }
  __device__ const GatheredWeight& weight(int block) const { return weights[place_of(block) < split_blocks ? 0 : 1]; }
  /// The feature in one place of a block's list.
  __device__ int feature(int block, int count, int position) const {
    return count == features ? position : indices[block * capacity + position];
  }

 private:
  /// Among its sample's.
  __device__ int place_of(int block) const { return (first_block + block) % blocks_per_sample; }
};

/// A block's pieces of work, one after the other: whole tiles, as many for every block; then, of those left over,
/// parts of kPartWidth, which go to the first blocks: those began first, where the kernel before this one still ran.
/// Where more than half of the blocks get one, they stay whole; where blocks are enough, parts of tiles that have token
/// halves are cut in two.
template <int kPartWidth, bool kHasTokenHalves>
class Units {
 public:
  __device__ explicit Units(int tiles)
      : whole_(2 * (tiles % blocks()) > blocks() ? tiles : tiles - tiles % blocks()),
        end_(whole_ + (tiles - whole_) * kParts) {
    if constexpr (kHasTokenHalves) {
      if ((end_ - whole_) * kTokenHalves <= blocks()) {
        is_cut_ = true;
        end_ += end_ - whole_;
      }
    }
  }

  int tile, first, width;  // of the tile's kTileWidth features or channels
  int token_half;          // -1: both; only if tiles have them
  __device__ bool next() {
    const int unit = next_ + static_cast<int>(blockIdx.x);
    next_ += blocks();
    if (unit >= end_) return false;
    int part = unit - whole_;
    const bool is_whole = part < 0;
    if constexpr (kHasTokenHalves) {
      token_half = -1;
      if (is_cut_ && !is_whole) {
        token_half = part % kTokenHalves;
        part /= kTokenHalves;
      }
    }
    tile = is_whole ? unit : whole_ + part / kParts;
    first = is_whole ? 0 : part % kParts * kPartWidth;
    width = is_whole ? kTileWidth : kPartWidth;
    return true;
  }

 private:
  static constexpr int kParts = kTileWidth / kPartWidth;

  __device__ static int blocks() { return static_cast<int>(gridDim.x); }

  int whole_, end_, next_ = 0;
  bool is_cut_ = false;
};

/// A warp's view of the renew kernel's tiles: within a section, those of all token blocks for one range of the kept
/// features follow each other, so that they share its weights. Ranges that a block does not have are passed over.
class RenewTiles {
 public:
  __device__ explicit RenewTiles(const Arguments& a) : a_(a), units_(count_tiles(a)) {}

  int block, count;
  int first_place, places;  // in the block's list, and how many of them
  /// Goes to the next tile, if there is one. All lanes take part.
  __device__ bool next() {
    while (units_.next()) {
      seek(units_.tile);
      first_place = range_ * kTileWidth + units_.first;
      places = min(count - first_place, units_.width);
      if (places > 0) return true;
    }
    return false;
  }

 private:
  static constexpr uint32_t kAll = 0xffffffffu;

  __device__ static int count_tiles(const Arguments& a) {
    int tiles = 0;
    for (int i = lane_index(); i < a.blocks; i += 32) tiles += (a.count(i) + kTileWidth - 1) / kTileWidth;
    return __reduce_add_sync(kAll, tiles);
  }

  /// Sets block and count to those of that tile; tiles come in ascending order.
  __device__ void seek(int tile) {
    while (tile >= before_ + __popc(low_) + __popc(high_)) {
      before_ += __popc(low_) + __popc(high_);
      if ((low_ | high_) == 0) {
        // The next section.
        first_block_ = next_block_;
        next_block_ = min(first_block_ + a_.section, a_.blocks);
        low_count_ = count_of(lane_index());
        high_count_ = count_of(32 + lane_index());
        range_ = -1;
      }
      ++range_;
      low_ = __ballot_sync(kAll, low_count_ > range_ * kTileWidth);
      high_ = __ballot_sync(kAll, high_count_ > range_ * kTileWidth);
    }
    const int among = tile - before_, below = __popc(low_);
    const bool is_low = among < below;
    const int place = nth_set(is_low ? low_ : high_, is_low ? among : among - below);
    block = first_block_ + (is_low ? 0 : 32) + place;
    count = __shfl_sync(kAll, is_low ? low_count_ : high_count_, place);
  }
  __device__ int count_of(int place) const {
    return first_block_ + place < next_block_ ? a_.count(first_block_ + place) : 0;
  }
  /// Where the bit lies that has n set bits below it.
  __device__ static int nth_set(uint32_t bits, int n) {
    const int lane = lane_index();
    const bool found = (bits >> lane & 1) != 0 && __popc(bits & ((1u << lane) - 1)) == n;
    return __ffs(static_cast<int>(__ballot_sync(kAll, found))) - 1;
  }

  const Arguments& a_;
  Units<kHalfWidth, false> units_;
  int before_ = 0, range_ = -1;
  int first_block_ = 0, next_block_ = 0, low_count_ = 0, high_count_ = 0;
  uint32_t low_ = 0, high_ = 0;  // the section's blocks that have this range
};

/// The add kernel's tiles: within a section, those of all token blocks for one range of channels follow each other, so
/// that they share its weights. Blocks that keep nothing are passed over.
class AddTiles {
 public:
  __device__ explicit AddTiles(const Arguments& a) : a_(a), units_(a.blocks * ranges(a)) {}

  int block, count, steps;
  int first_channel;
  bool is_whole;
  /// Whether the tile has that half of the block's tokens.
  __device__ bool has_half(int token_half) const { return units_.token_half < 0 || units_.token_half == token_half; }
  __device__ int token_halves() const { return units_.token_half < 0 ? kTokenHalves : 1; }
  __device__ bool next() {
    while (units_.next()) {
      const int section = units_.tile / (a_.section * ranges(a_)), first_block = section * a_.section;
      const int blocks = min(a_.section, a_.blocks - first_block), at = units_.tile - first_block * ranges(a_);
      const int range = at / blocks;
      block = first_block + at - range * blocks;
      count = __shfl_sync(0xffffffffu, a_.count(block), 0);
      steps = (count + kDepth - 1) / kDepth;
      is_whole = units_.width == kTileWidth;
      first_channel = range * kTileWidth + units_.first;
      if (count > 0) return true;
    }
    return false;
  }

 private:
  __device__ static int ranges(const Arguments& a) { return a.channels / kTileWidth; }

  const Arguments& a_;
  Units<kQuarterWidth, true> units_;
};

}  // namespace chipmunk::cuda::sm90::mlp
