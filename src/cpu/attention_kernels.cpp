#include "cpu/attention_kernels.h"

#include "cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/attention_kernels.cpp"
#include <hwy/foreach_target.h>
// foreach_target comes first.
#include <hwy/highway.h>

#include "cpu/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace chipmunk::cpu {
namespace HWY_NAMESPACE {

// A multiple of the register tile's rows, near 100: each pass over a key block is then reused by that many rows.
constexpr int64_t kQueryBlock = 112 / kTileRows * kTileRows;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

AttentionGeometry attention_geometry_simd() { return {tile_columns(), kQueryBlock}; }

/// Where the parts of a tile's scratch memory lie.
struct Scratch {
  explicit Scratch(int64_t head_dim) {
    const int64_t width = tile_columns();
    q_stride = head_dim + kAttentionRowPad;
    sum_stride = (head_dim + width - 1) / width * width + kAttentionRowPad;
    scores = kQueryBlock * q_stride;
    sums = scores + kQueryBlock * kScoreStride;
    maxima = sums + kQueryBlock * sum_stride;
    totals = maxima + kQueryBlock;
    end = totals + kQueryBlock;
  }
  static constexpr int64_t kScoreStride = kKeyBlock + kAttentionRowPad;
  int64_t q_stride, sum_stride;
  int64_t scores, sums, maxima, totals, end;
};

int64_t attention_scratch_floats_simd(int64_t head_dim) { return Scratch(head_dim).end; }

void pack_head_simd(const PackTask& task, int64_t begin, const PackedHead& head) {
  const int64_t width = tile_columns();
  const int64_t count = HWY_MIN(width, task.key_tokens - begin);
  pack_transposed<F32Format>(task.k + begin * task.k_stride, DType::kF32, task.k_stride, count, task.head_dim,
                             head.keys + begin * task.head_dim);
  for (int64_t slice = 0; slice < task.head_dim; slice += width) {
    const int64_t values = HWY_MIN(width, task.head_dim - slice);
    float* panel = head.values + slice * head.padded_keys + begin * width;
    if (values < width || count < width) std::memset(panel, 0, sizeof(float) * width * width);
    for (int64_t j = 0; j < count; ++j) {
      std::memcpy(panel + j * width, task.v + (begin + j) * task.v_stride + slice, sizeof(float) * values);
    }
  }
}

void gather_head_simd(const GatherTask& task, const PackedHead& head) {
  const int64_t width = tile_columns(), head_dim = task.source.head_dim;
  for (int64_t begin = 0; begin < task.count; begin += width) {
    const int64_t count = HWY_MIN(width, task.count - begin);
    // Rows side by side, so that keys and values are packed as those of a dense head.
    PackTask rows{task.scratch, task.scratch + width * head_dim, head_dim, head_dim, count, head_dim};
    for (int64_t j = 0; j < count; ++j) {
      const int64_t key = task.indices != nullptr ? task.indices[begin + j] : begin + j;
      std::memcpy(task.scratch + j * head_dim, task.source.k + key * task.source.k_stride, sizeof(float) * head_dim);
      std::memcpy(task.scratch + (width + j) * head_dim, task.source.v + key * task.source.v_stride,
                  sizeof(float) * head_dim);
    }
    pack_head_simd(rows, 0, {head.keys + begin * head_dim, head.values + begin * width, head.padded_keys});
  }
}

/// Adds a row's bias (base 2) to its scores.
HWY_INLINE void add_bias(const float* bias, int64_t n, float* scores) {
  const FloatVec log2e = hn::Set(FloatTag(), kLog2E);
  for_each_vector(n, [&](int64_t i, auto load, auto store)
                         HWY_ATTR { store(hn::MulAdd(load(bias + i), log2e, load(scores + i)), scores + i); });
}

HWY_INLINE float row_maximum(const float* scores, int64_t n) {
  const FloatTag d;
  FloatVec maximum = hn::Set(d, -std::numeric_limits<float>::infinity());
  const int64_t lanes = lanes_of(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) maximum = hn::Max(maximum, hn::LoadU(d, scores + i));
  float result = hn::GetLane(hn::MaxOfLanes(d, maximum));
  for (; i < n; ++i) result = HWY_MAX(result, scores[i]);
  return result;
}

/// scores[i] = 2^(scores[i] - maximum) for i < n, 0 for n <= i < depth; returns their sum.
HWY_INLINE float exponentiate(float maximum, int64_t n, int64_t depth, float* scores) {
  const FloatTag d;
  const int64_t lanes = lanes_of(d);
  const FloatVec shift = hn::Set(d, maximum);
  FloatVec total = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const FloatVec p = exp2_bounded(d, hn::Sub(hn::LoadU(d, scores + i), shift));
    total = hn::Add(total, p);
    hn::StoreU(p, d, scores + i);
  }
  if (i < n) {
    // Rows are padded past the key block, so that whole vectors can be read.
    const FloatVec p = hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(n - i)),
                                          exp2_bounded(d, hn::Sub(hn::LoadU(d, scores + i), shift)));
    total = hn::Add(total, p);
    hn::StoreU(p, d, scores + i);
    i += lanes;
  }
  for (; i < depth; ++i) scores[i] = 0.0f;
  return hn::GetLane(hn::SumOfLanes(d, total));
}

/// Turns a row's scores into probabilities relative to its running maximum, and brings what was summed before to it.
HWY_INLINE void softmax_step(int64_t n, int64_t depth, int64_t padded_dim, float* scores, float* sums, float* maximum,
                             float* total) {
  const float previous = *maximum;
  const float found = HWY_MAX(previous, row_maximum(scores, n));
  // A row whose scores are all -inf sees nothing: any finite maximum gives it probabilities of 0.
  const float reference = found == -std::numeric_limits<float>::infinity() ? 0.0f : found;
  const float sum = exponentiate(reference, n, depth, scores);
  if (found != previous && previous != -std::numeric_limits<float>::infinity()) {
    const float factor = std::exp2(previous - found);
    *total *= factor;
    const FloatVec scale = hn::Set(FloatTag(), factor);
    for_each_vector(padded_dim, [&](int64_t i, auto load, auto store)
                                    HWY_ATTR { store(hn::Mul(load(sums + i), scale), sums + i); });
  }
  *maximum = found;
  *total += sum;
}

/// column_sums += probabilities, which are relative to `maximum` (base 2), made relative to column_lse.
HWY_INLINE void add_column_sums(const float* probabilities, int64_t n, float maximum, float column_lse,
                                float* column_sums) {
  if (column_lse == -std::numeric_limits<float>::infinity()) return;
  const float exponent = HWY_MIN(maximum - column_lse * kLog2E, 127.0f);
  const FloatVec factor = hn::Set(FloatTag(), std::exp2(exponent));
  for_each_vector(n, [&](int64_t i, auto load, auto store) HWY_ATTR {
    store(hn::MulAdd(load(probabilities + i), factor, load(column_sums + i)), column_sums + i);
  });
}

HWY_INLINE int64_t visible_of_row(const AttentionTile& tile, int64_t row) {
  return HWY_MAX(int64_t{0}, HWY_MIN(tile.visible_keys + row * tile.visible_keys_step, tile.visible_limit));
}

/// out = sums / total, lse = ln of the softmax's denominator.
HWY_INLINE void finish_tile(const AttentionTile& tile, const Scratch& at) {
  for (int64_t r = 0; r < tile.rows; ++r) {
    const float total = tile.scratch[at.totals + r];
    const float* sums = tile.scratch + at.sums + r * at.sum_stride;
    float* out = tile.out + r * tile.out_stride;
    if (total == 0.0f) {
      std::memset(out, 0, sizeof(float) * tile.head_dim);
    } else {
      const FloatVec inverse = hn::Set(FloatTag(), 1.0f / total);
      for_each_vector(tile.head_dim, [&](int64_t i, auto load, auto store)
                                         HWY_ATTR { store(hn::Mul(load(sums + i), inverse), out + i); });
    }
    if (tile.lse != nullptr) {
      tile.lse[r] = total == 0.0f ? -std::numeric_limits<float>::infinity()
                                  : (tile.scratch[at.maxima + r] + std::log2(total)) * kLn2;
    }
  }
}

void attention_tile_simd(const AttentionTile& tile) {
  const int64_t width = tile_columns();
  const Scratch at(tile.head_dim);
  float* q = tile.scratch;
  float* scores = tile.scratch + at.scores;
  float* sums = tile.scratch + at.sums;
  const FloatVec scale = hn::Set(FloatTag(), tile.scale * kLog2E);
  for (int64_t r = 0; r < tile.rows; ++r) {
    for_each_vector(tile.head_dim, [&](int64_t i, auto load, auto store) HWY_ATTR {
      store(hn::Mul(load(tile.q + r * tile.q_stride + i), scale), q + r * at.q_stride + i);
    });
    tile.scratch[at.maxima + r] = -std::numeric_limits<float>::infinity();
    tile.scratch[at.totals + r] = 0.0f;
  }
  const int64_t padded_dim = at.sum_stride - kAttentionRowPad;
  // Later rows of a causal tile see more: the last one sees the most.
  const int64_t visible = visible_of_row(tile, tile.rows - 1);
  for (int64_t begin = 0; begin < visible; begin += kKeyBlock) {
    const int64_t depth = HWY_MIN(kKeyBlock, visible - begin);
    for (int64_t j = 0; j < depth; j += width) {
      multiply_panel(tile.rows, q, at.q_stride, tile.head.keys + (begin + j) * tile.head_dim, tile.head_dim, scores + j,
                     Scratch::kScoreStride, false);
    }
    for (int64_t r = 0; r < tile.rows; ++r) {
      const int64_t n = HWY_MAX(int64_t{0}, HWY_MIN(depth, visible_of_row(tile, r) - begin));
      float* row = scores + r * Scratch::kScoreStride;
      if (tile.relative_bias != nullptr) add_bias(tile.relative_bias - r + begin, n, row);
      softmax_step(n, depth, padded_dim, row, sums + r * at.sum_stride, tile.scratch + at.maxima + r,
                   tile.scratch + at.totals + r);
      if (tile.column_sums != nullptr) {
        const float maximum = tile.scratch[at.maxima + r];
        const bool sees_any = maximum != -std::numeric_limits<float>::infinity();
        add_column_sums(row, n, sees_any ? maximum : 0.0f, tile.column_lse[r], tile.column_sums + begin);
      }
    }
    for (int64_t slice = 0; slice < padded_dim; slice += width) {
      multiply_panel(tile.rows, scores, Scratch::kScoreStride,
                     tile.head.values + slice * tile.head.padded_keys + begin * width, depth, sums + slice,
                     at.sum_stride, begin > 0);
    }
  }
  finish_tile(tile, at);
}

}  // namespace HWY_NAMESPACE
}  // namespace chipmunk::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chipmunk::cpu {

HWY_EXPORT(attention_geometry_simd);
HWY_EXPORT(attention_scratch_floats_simd);
HWY_EXPORT(pack_head_simd);
HWY_EXPORT(gather_head_simd);
HWY_EXPORT(attention_tile_simd);

AttentionGeometry attention_geometry() { return HWY_DYNAMIC_DISPATCH(attention_geometry_simd)(); }

int64_t attention_scratch_floats(int64_t head_dim) {
  return HWY_DYNAMIC_DISPATCH(attention_scratch_floats_simd)(head_dim);
}

void pack_head(const PackTask& task, int64_t begin, const PackedHead& head) {
  HWY_DYNAMIC_DISPATCH(pack_head_simd)(task, begin, head);
}

void gather_head(const GatherTask& task, const PackedHead& head) { HWY_DYNAMIC_DISPATCH(gather_head_simd)(task, head); }

void attention_tile(const AttentionTile& tile) { HWY_DYNAMIC_DISPATCH(attention_tile_simd)(tile); }

}  // namespace chipmunk::cpu
#endif  // HWY_ONCE
