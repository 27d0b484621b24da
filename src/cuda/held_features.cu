#include "cuda/cuda_error.h"
#include "cuda/feature_rows.cuh"
#include "cuda/held_features.h"
#include "cuda/held_top_k.cuh"
#include "cuda/launch.h"
#include "cuda/overlap.cuh"
#include "cuda/prefetch.cuh"

namespace chipmunk::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarpSize;
static_assert(kWarps == kWarpSize, "a lane a warp");
/// Neighbouring features that a thread has at a time; a row's quads go round the threads.
constexpr int kQuad = 4;
constexpr int kMaxQuads = 4;
/// Those of all threads.
constexpr int kTile = kThreads * kQuad;
constexpr int kColumnBits = 14;
static_assert(kMaxQuads * kTile == 1 << kColumnBits);

/// Which of a row's features a thread's are.
struct QuadColumns {
  __device__ static int first_of(int quad) { return quad * kTile + static_cast<int>(threadIdx.x) * kQuad; }
  __device__ int operator()(int i) const { return first_of(i / kQuad) + i % kQuad; }

  struct Holder {
    int thread, key;
  };
  __device__ static Holder holder_of(int column) {
    return {column % kTile / kQuad, column / kTile * kQuad + column % kQuad};
  }
};

template <int kQuads>
struct HeldShared {
  HeldTopKShared<kThreads> search;
  uint32_t kept[kWarps];  // a byte a quad
  uint16_t list[kQuads * kTile];
};

/// A thread's means of a row of them, 0 past its end. Those of now stay as they lie in memory: taken apart, they would
/// have to have arrived.
template <int kQuads>
struct QuadMeans {
  uint2 now[kQuads];
  float4 cached[kQuads];

  __device__ QuadMeans(const FeatureArguments& a, const MeanRows& rows, int r) {
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const int first = QuadColumns::first_of(q);
      const bool exists = first < a.columns;
      const int64_t at = int64_t{r} * a.columns + first;
      now[q] = exists ? *reinterpret_cast<const uint2*>(rows.now + at) : uint2{};
      cached[q] = exists ? *reinterpret_cast<const float4*>(rows.cached + at) : float4{};
    }
  }

  /// The four of now; a bf16 is the upper half of the f32 of the same value.
  __device__ float4 current(int q) const {
    return {__uint_as_float(now[q].x << 16), __uint_as_float(now[q].x & 0xffff0000u), __uint_as_float(now[q].y << 16),
            __uint_as_float(now[q].y & 0xffff0000u)};
  }

  __device__ void add_drift(float (&drift)[kQuads * kQuad]) const {
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const float4 is = current(q), was = cached[q];
      drift[q * kQuad] += fabsf(is.x - was.x);
      drift[q * kQuad + 1] += fabsf(is.y - was.y);
      drift[q * kQuad + 2] += fabsf(is.z - was.z);
      drift[q * kQuad + 3] += fabsf(is.w - was.w);
    }
  }

  /// The cached means of the features whose bits are set become those of now.
  __device__ void renew(const FeatureArguments& a, const MeanRows& rows, int r, uint32_t features) const {
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const int first = QuadColumns::first_of(q);
      if (first >= a.columns) continue;
      const float4 is = current(q), was = cached[q];
      const uint32_t bits = features >> (q * kQuad);
      const float4 renewed = {(bits & 1) != 0 ? is.x : was.x, (bits & 2) != 0 ? is.y : was.y,
                              (bits & 4) != 0 ? is.z : was.z, (bits & 8) != 0 ? is.w : was.w};
      *reinterpret_cast<float4*>(rows.cached + int64_t{r} * a.columns + first) = renewed;
    }
  }
};

/// Of drifts, which are not negative: larger ones have larger keys, and NaN has the smallest one. 0 is no drift's.
__device__ uint32_t drift_key(float drift) {
  const uint32_t bits = __float_as_uint(drift), infinity = 0x7f800000u;
  return bits <= infinity ? bits + 2 : 1;
}

/// How many features are kept before a thread's, quad by quad.
template <int kQuads>
struct Ranks {
  uint32_t before[kQuads];
  uint32_t all;
};

/// All threads call it with the bits of their features that are kept.
template <int kQuads>
__device__ Ranks<kQuads> rank(uint32_t kept, uint32_t (&of_warps)[kWarps]) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize, lane = static_cast<int>(threadIdx.x) % kWarpSize;
  // A byte a quad: a warp has 128 features of each.
  uint32_t counts = 0;
#pragma unroll
  for (int q = 0; q < kQuads; ++q) counts |= static_cast<uint32_t>(__popc(kept >> (q * kQuad) & 15u)) << (q * 8);
  const uint32_t before = warp_scan(counts);
  if (lane == kWarpSize - 1) of_warps[warp] = before + counts;
  __syncthreads();
  const uint32_t theirs = of_warps[lane];
  Ranks<kQuads> ranks{};
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    // Both sums at once: neither exceeds kTile.
    const uint32_t count = theirs >> (q * 8) & 255u;
    const uint32_t sums = __reduce_add_sync(kAllLanes, count | (lane < warp ? count << 16 : 0));
    ranks.before[q] = ranks.all + (sums >> 16) + (before >> (q * 8) & 255u);
    ranks.all += sums & 0xffffu;
  }
  return ranks;
}

template <int kQuads>
__global__ void __launch_bounds__(kThreads)
    select_held_features(const __grid_constant__ FeatureArguments a, const __grid_constant__ SampleRanks sample) {
  constexpr int kKeys = kQuads * kQuad;
  __shared__ HeldShared<kQuads> shared;
  const auto row = static_cast<int64_t>(blockIdx.x);
  const MeanRows rows(a, row, 0);
  const auto first = [](int q) { return QuadColumns::first_of(q); };
  const auto exists = [&](int q) { return first(q) < a.columns; };

  // What needs no memory comes while the kernels before end; cached means move closer.
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    if (threadIdx.x % 8 == 0 && exists(q)) prefetch_l2(rows.cached + first(q));
  }
  uint32_t kept = 0;
  if (a.draw.enabled) {
    const auto batch = static_cast<uint32_t>(row / a.blocks), block = static_cast<uint32_t>(row % a.blocks);
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      kept |= a.draw.quad(batch, a.head, block, static_cast<uint32_t>(first(q))) << (q * kQuad);
    }
  }
  HeldTopK<kThreads, kKeys, kColumnBits, QuadColumns> search(shared.search, {});
  wait_for_previous_kernels();
  let_next_kernel_begin();

  float drift[kKeys] = {};
#pragma unroll 1
  for (int r = 0; r < rows.count; ++r) {
    QuadMeans<kQuads>(a, rows, r).add_drift(drift);
  }
  uint32_t keys[kKeys], exist = 0;
#pragma unroll
  for (int i = 0; i < kKeys; ++i) {
    keys[i] = exists(i / kQuad) ? drift_key(drift[i]) : 0;
    exist |= static_cast<uint32_t>(exists(i / kQuad)) << i;
  }
  if (rows.drift != nullptr) {
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      if ((exist >> i & 1) != 0) rows.drift[QuadColumns()(i)] = drift[i];
    }
  }
  if (a.random_features != nullptr) {
    const uint8_t* given = a.random_features + row * a.columns;
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      if ((exist >> i & 1) != 0 && given[QuadColumns()(i)] != 0) kept |= 1u << i;
    }
  }
  if (a.top_k >= a.columns) {
    kept = ~0u;
  } else if (a.top_k > 0) {
    kept |= search.begin(keys, a.top_k, sample);
  }
  // On their way while the search ends.
  const QuadMeans<kQuads> first_means(a, rows, 0);
  kept = (kept | search.finish()) & exist;

  const Ranks<kQuads> ranks = rank<kQuads>(kept, shared.kept);
  const bool all = ranks.all > a.capacity;
  if (threadIdx.x == 0) a.counts[row] = all ? a.columns : static_cast<int32_t>(ranks.all);
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    uint32_t at = ranks.before[q];
#pragma unroll
    for (int k = 0; k < kQuad; ++k) {
      if ((kept >> (q * kQuad + k) & 1) != 0) shared.list[at++] = static_cast<uint16_t>(first(q) + k);
    }
  }
  const uint32_t renewed = all ? exist : kept;
  first_means.renew(a, rows, 0, renewed);
#pragma unroll 1
  for (int r = 1; r < rows.count; ++r) QuadMeans<kQuads>(a, rows, r).renew(a, rows, r, renewed);
  if (all) return;
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < static_cast<int>(ranks.all); i += kThreads) {
    a.indices[row * a.capacity + i] = shared.list[i];
  }
}

template <int kQuads>
void launch(cudaStream_t stream, const FeatureArguments& a, int64_t rows) {
  const auto kernel = select_held_features<kQuads>;
  // As the kernels before it have it.
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
        "select_features");
  const SampleRanks sample = SampleRanks::of(a.top_k, kQuads * kTile, HeldTopKShared<kThreads>::kSamples);
  launch_overlapping(kernel, dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0, stream, "select_features", a,
                     sample);
}

}  // namespace

bool takes_held_features(const FeatureArguments& a) {
  return a.multiple_of == 1 && a.columns >= kThreads && a.columns <= kMaxQuads * kTile && a.columns % kQuad == 0 &&
         is_aligned(a.means, sizeof(bf16), kQuad * sizeof(bf16)) &&
         is_aligned(a.cached_means, sizeof(float), kQuad * sizeof(float));
}

void launch_held_features(cudaStream_t stream, const FeatureArguments& a, int64_t rows) {
  switch (ceil_div(a.columns, kTile)) {
    case 1: return launch<1>(stream, a, rows);
    case 2: return launch<2>(stream, a, rows);
    case 3: return launch<3>(stream, a, rows);
    default: return launch<4>(stream, a, rows);
  }
}

}  // namespace chipmunk::cuda
