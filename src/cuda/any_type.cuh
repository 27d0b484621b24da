#pragma once

#include "cuda/packs.cuh"

/// Elements and whole packs of operands whose dtype is known at run time only.
namespace chipmunk::cuda {

/// Rounded to nearest even; what is too large for an f8 becomes infinity, or NaN where the format has none.
__device__ inline __nv_fp8_storage_t to_f8(float x, DType dtype) {
  return __nv_cvt_float_to_fp8(x, __NV_NOSAT, dtype == DType::kF8E4M3 ? __NV_E4M3 : __NV_E5M2);
}

__device__ inline void store_any(void* data, DType dtype, int64_t index, float value) {
  switch (dtype) {
    case DType::kF32: static_cast<float*>(data)[index] = value; return;
    case DType::kBF16: static_cast<bf16*>(data)[index] = from_float<bf16>(value); return;
    case DType::kF16: static_cast<f16*>(data)[index] = from_float<f16>(value); return;
    default: static_cast<__nv_fp8_storage_t*>(data)[index] = to_f8(value, dtype); return;
  }
}

/// A pack that starts at a multiple of its bytes.
__device__ inline void store_any_pack(void* data, DType dtype, int64_t first, const Pack& pack) {
  const float(&v)[kPack] = pack.values;
  switch (dtype) {
    case DType::kF32: {
      float* to = static_cast<float*>(data) + first;
      store_16_bytes(
          to, make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]), __float_as_uint(v[3])));
      store_16_bytes(to + 4, make_uint4(__float_as_uint(v[4]), __float_as_uint(v[5]), __float_as_uint(v[6]),
                                        __float_as_uint(v[7])));
      return;
    }
    case DType::kBF16: store_pack<true>(static_cast<bf16*>(data), first, first + kPack, pack); return;
    case DType::kF16: {
      const auto pair = [&](int i) {
        const __half2 halves = __floats2half2_rn(v[i], v[i + 1]);
        return reinterpret_cast<const uint32_t&>(halves);
      };
      store_16_bytes(static_cast<f16*>(data) + first, make_uint4(pair(0), pair(2), pair(4), pair(6)));
      return;
    }
    default: {
      uint64_t bytes = 0;
#pragma unroll
      for (int i = 0; i < kPack; ++i) bytes |= static_cast<uint64_t>(to_f8(v[i], dtype)) << (8 * i);
      *reinterpret_cast<uint64_t*>(static_cast<char*>(data) + first) = bytes;
      return;
    }
  }
}

/// Whether every pack of a buffer lies at a multiple of its bytes.
inline bool starts_packs(const void* data, DType dtype) { return is_aligned(data, 1, kPack * size_of(dtype)); }

}  // namespace chipmunk::cuda
