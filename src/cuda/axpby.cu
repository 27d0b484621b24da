#include "cuda/any_type.cuh"
#include "cuda/cuda_backend.h"
#include "cuda/cuda_error.h"
#include "cuda/strided.cuh"

namespace chipmunk::cuda {
namespace {

constexpr int kThreads = 256;

struct Arguments {
  In a, b;
  Out out;
  float alpha, beta;
  uint32_t count;
  StridedIndex<3> index;  // of out, a, b
};

__device__ float axpby(const Arguments& p, float a, float b) { return fmaf(p.alpha, a, p.beta * b); }

/// One thread an element.
__global__ void __launch_bounds__(kThreads) element_kernel(const __grid_constant__ Arguments p) {
  const uint32_t i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= p.count) return;
  const Offsets<3> at = p.index.offsets(i);
  const float a = load_any(p.a.data, p.a.dtype, at.values[1]), b = load_any(p.b.data, p.b.dtype, at.values[2]);
  store_any(p.out.data, p.out.dtype, at.values[0], axpby(p, a, b));
}

/// One thread a pack; offsets are in packs.
__global__ void __launch_bounds__(kThreads) pack_kernel(const __grid_constant__ Arguments p) {
  const uint32_t i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= p.count) return;
  const Offsets<3> at = p.index.offsets(i);
  Pack a = load_pack<true>(p.a, at.values[1] * kPack, 0);
  const Pack b = load_pack<true>(p.b, at.values[2] * kPack, 0);
#pragma unroll
  for (int k = 0; k < kPack; ++k) a.values[k] = axpby(p, a.values[k], b.values[k]);
  store_any_pack(p.out.data, p.out.dtype, at.values[0] * kPack, a);
}

}  // namespace

void CudaBackend::axpby(const Context& context, const AxpbyParams& params) {
  StridedShape<3> shape =
      make_strided_shape<3>(params.rank, params.shape, {params.out_strides, params.a_strides, params.b_strides});
  if (shape.count() == 0) return;
  const bool packs = starts_packs(params.out.data, params.out.dtype) && starts_packs(params.a.data, params.a.dtype) &&
                     starts_packs(params.b.data, params.b.dtype) && widen(shape, kPack);
  const auto kernel = packs ? pack_kernel : element_kernel;
  const cudaStream_t stream = compute_stream(context);
  for_each_part(shape, Offsets<3>{}, [&](const StridedShape<3>& part, const Offsets<3>& first) {
    const Arguments arguments{params.a,
                              params.b,
                              params.out,
                              params.alpha,
                              params.beta,
                              static_cast<uint32_t>(part.count()),
                              StridedIndex<3>(part, first)};
    kernel<<<static_cast<unsigned>(ceil_div(part.count(), kThreads)), kThreads, 0, stream>>>(arguments);
  });
  check_launch("axpby");
}

}  // namespace chipmunk::cuda
