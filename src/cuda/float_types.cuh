#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "core/dtype.h"

/// The floating dtypes as C++ types, and their conversion to and from f32 as core/float_formats.h defines it.
namespace chipmunk::cuda {

using bf16 = __nv_bfloat16;
using f16 = __half;
using f8_e4m3 = __nv_fp8_e4m3;
using f8_e5m2 = __nv_fp8_e5m2;

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return __bfloat162float(x); }
__device__ inline float to_float(f16 x) { return __half2float(x); }
__device__ inline float to_float(f8_e4m3 x) { return static_cast<float>(x); }
__device__ inline float to_float(f8_e5m2 x) { return static_cast<float>(x); }

template <class T>
__device__ T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline bf16 from_float<bf16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ inline f16 from_float<f16>(float x) {
  return __float2half_rn(x);
}

/// Two floats rounded to bf16 by one instruction, the first in the low half.
__device__ inline uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

/// Element `index` of a buffer whose dtype is known at run time only; for operands that are read once a column.
__device__ inline float load_any(const void* data, DType dtype, int64_t index) {
  switch (dtype) {
    case DType::kF32: return static_cast<const float*>(data)[index];
    case DType::kBF16: return to_float(static_cast<const bf16*>(data)[index]);
    case DType::kF16: return to_float(static_cast<const f16*>(data)[index]);
    case DType::kF8E4M3: return to_float(static_cast<const f8_e4m3*>(data)[index]);
    case DType::kF8E5M2: return to_float(static_cast<const f8_e5m2*>(data)[index]);
    default: return 0.0f;
  }
}

/// N neighbouring elements that move in one load or store.
template <class T, int N>
struct alignas(sizeof(T) * N) Vec {
  T values[N];
};

template <class T, int N>
__device__ Vec<T, N> load_vec(const T* p) {
  return *reinterpret_cast<const Vec<T, N>*>(p);
}
template <class T, int N>
__device__ void store_vec(T* p, const Vec<T, N>& x) {
  *reinterpret_cast<Vec<T, N>*>(p) = x;
}

}  // namespace chipmunk::cuda
