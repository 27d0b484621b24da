#include "cuda/cuda_backend.h"
#include "cuda/cuda_error.h"
#include "cuda/packs.cuh"
#include "cuda/reduce.cuh"

namespace chipmunk::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kPairs = kPack / 2;

/// Sum over the kLanes neighbouring lanes that share a head.
template <int kLanes>
__device__ float lanes_sum(float x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

template <int kLanes>
__device__ void normalise(Pack& x, const Pack& weight, float head_dim, float epsilon) {
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < kPack; ++i) squares = fmaf(x.values[i], x.values[i], squares);
  const float inverse = rsqrtf(__fdividef(lanes_sum<kLanes>(squares), head_dim) + epsilon);
#pragma unroll
  for (int i = 0; i < kPack; ++i) x.values[i] = x.values[i] * inverse * weight.values[i];
}

__device__ float2 rotate(float a, float b, float cos, float sin) { return {a * cos - b * sin, a * sin + b * cos}; }

__device__ void rotate(Pack& x, const Vec<float, kPairs>& cos, const Vec<float, kPairs>& sin) {
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const float2 turned = rotate(x.values[2 * i], x.values[2 * i + 1], cos.values[i], sin.values[i]);
    x.values[2 * i] = turned.x;
    x.values[2 * i + 1] = turned.y;
  }
}

/// One block a token: its heads share the angles. kLanes lanes a head, a pack of q and one of k each.
template <int kLanes>
__global__ void __launch_bounds__(kThreads) pack_kernel(const __grid_constant__ QkNormRopeParams p) {
  constexpr int kHeadsAtOnce = kThreads / kLanes;
  const int64_t b = blockIdx.x / static_cast<unsigned>(p.tokens), t = blockIdx.x % static_cast<unsigned>(p.tokens);
  const int head_dim = static_cast<int>(p.head_dim);
  const int first = static_cast<int>(threadIdx.x) % kLanes * kPack;
  const bool has_pack = first < head_dim;
  Pack q_weight{}, k_weight{};
  if (p.q_weight.data != nullptr && has_pack) {
    q_weight = load_pack<true>(p.q_weight, first, head_dim);
    k_weight = load_pack<true>(p.k_weight, first, head_dim);
  }
  Vec<float, kPairs> cos{}, sin{};
  if (p.cos != nullptr && has_pack) {
    const int64_t angle = t * (head_dim / 2) + first / 2;
    cos = load_vec<float, kPairs>(p.cos + angle);
    sin = load_vec<float, kPairs>(p.sin + angle);
  }

  bf16* q_token = as_bf16(p.q) + b * p.q_strides.batch + t * p.q_strides.token;
  bf16* k_token = as_bf16(p.k) + b * p.k_strides.batch + t * p.k_strides.token;
  for (int64_t base = 0; base < p.heads; base += kHeadsAtOnce) {
    const int64_t head = base + threadIdx.x / kLanes;
    // Lanes without a pack stay, since the sums want them.
    const bool active = has_pack && head < p.heads;
    bf16* q_head = q_token + head * p.q_strides.head;
    bf16* k_head = k_token + head * p.k_strides.head;
    Pack q{}, k{};
    if (active) {
      q = load_pack<true>(q_head, first, head_dim);
      k = load_pack<true>(k_head, first, head_dim);
    }
    if (p.q_weight.data != nullptr) {
      normalise<kLanes>(q, q_weight, static_cast<float>(head_dim), p.epsilon);
      normalise<kLanes>(k, k_weight, static_cast<float>(head_dim), p.epsilon);
    }
    if (p.cos != nullptr) {
      rotate(q, cos, sin);
      rotate(k, cos, sin);
    }
    if (active) {
      store_pack<true>(q_head, first, head_dim, q);
      store_pack<true>(k_head, first, head_dim, k);
    }
  }
}

/// Any head dimension and alignment: one warp a token's head, of q (y = 0) or k (y = 1), a pair of values a lane.
__global__ void __launch_bounds__(kThreads) pair_kernel(const __grid_constant__ QkNormRopeParams p) {
  const int64_t index = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kWarpSize;
  const int64_t head = index % p.heads, token = index / p.heads % p.tokens, batch = index / p.heads / p.tokens;
  if (batch >= p.batch) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int head_dim = static_cast<int>(p.head_dim);
  const bool is_q = blockIdx.y == 0;
  const In& weight = is_q ? p.q_weight : p.k_weight;
  const HeadStrides& strides = is_q ? p.q_strides : p.k_strides;
  bf16* x = as_bf16(is_q ? p.q : p.k) + batch * strides.batch + token * strides.token + head * strides.head;

  float inverse = 1.0f;
  if (weight.data != nullptr) {
    float squares = 0.0f;
    for (int i = lane; i < head_dim; i += kWarpSize) squares = fmaf(to_float(x[i]), to_float(x[i]), squares);
    inverse = rsqrtf(warp_sum(squares) / static_cast<float>(head_dim) + p.epsilon);
    // What other lanes have yet to read is written below.
    __syncwarp();
  }
  for (int pair = lane; 2 * pair < head_dim; pair += kWarpSize) {
    const int i = 2 * pair;
    // Without a rotation the dimension may be odd.
    const bool has_second = i + 1 < head_dim;
    float2 values = {to_float(x[i]), has_second ? to_float(x[i + 1]) : 0.0f};
    if (weight.data != nullptr) {
      values.x *= inverse * load_any(weight.data, weight.dtype, i);
      if (has_second) values.y *= inverse * load_any(weight.data, weight.dtype, i + 1);
    }
    if (p.cos != nullptr) {
      const int64_t angle = token * (head_dim / 2) + pair;
      values = rotate(values.x, values.y, p.cos[angle], p.sin[angle]);
    }
    x[i] = from_float<bf16>(values.x);
    if (has_second) x[i + 1] = from_float<bf16>(values.y);
  }
}

bool fits_packs(const QkNormRopeParams& params) {
  const auto fits = [&](const Out& x, const HeadStrides& strides, const In& weight) {
    return has_whole_packs(x.data, DType::kBF16, params.head_dim, strides.batch, strides.token, strides.head) &&
           has_whole_packs(weight.data, weight.dtype, params.head_dim);
  };
  constexpr size_t kAngleBytes = kPairs * sizeof(float);
  return params.head_dim <= kWarpSize * kPack && fits(params.q, params.q_strides, params.q_weight) &&
         fits(params.k, params.k_strides, params.k_weight) && is_aligned(params.cos, 1, kAngleBytes) &&
         is_aligned(params.sin, 1, kAngleBytes);
}

}  // namespace

void CudaBackend::qk_norm_rope(const Context& context, const QkNormRopeParams& params) {
  const int64_t rows = params.batch * params.tokens;
  if (rows == 0 || params.heads == 0 || params.head_dim == 0) return;
  const cudaStream_t stream = compute_stream(context);
  if (fits_packs(params)) {
    const auto kernel = params.head_dim <= 8 * kPack    ? pack_kernel<8>
                        : params.head_dim <= 16 * kPack ? pack_kernel<16>
                                                        : pack_kernel<32>;
    kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(params);
  } else {
    const dim3 grid(static_cast<unsigned>(ceil_div(rows * params.heads * kWarpSize, kThreads)), 2);
    pair_kernel<<<grid, kThreads, 0, stream>>>(params);
  }
  check_launch("qk_norm_rope");
}

}  // namespace chipmunk::cuda
