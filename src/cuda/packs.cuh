#pragma once

#include <type_traits>

#include "cuda/activations.cuh"
#include "cuda/float_types.cuh"
#include "cuda/launch.h"
#include "params.h"

/// Rows are worked on in packs of neighbouring values: of bf16, 16 bytes, which one instruction moves. What is computed
/// does not depend on whether it does.
namespace chipmunk::cuda {

constexpr int kPack = 8;

struct Pack {
  float values[kPack];
};

/// A pack of bf16 as it lies in memory, two values a word: half the registers.
struct RawPack {
  uint32_t words[kPack / 2];
};

/// Values [first, first + kPack) of a row that ends at `end`; 0 past it. kWhole: at a multiple of the pack's bytes, and
/// none is past the end. kOnce: nobody reads them again soon, so that they are the first to leave L2.
template <bool kWhole, bool kOnce = false>
__device__ RawPack load_raw_pack(const bf16* row, int64_t first, int64_t end) {
  if constexpr (kWhole) {
    const auto* pack = reinterpret_cast<const uint4*>(row + first);
    const uint4 words = kOnce ? __ldcs(pack) : *pack;
    return {words.x, words.y, words.z, words.w};
  } else {
    const auto* bits = reinterpret_cast<const uint16_t*>(row);
    RawPack raw{};
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      if (first + i < end) raw.words[i / 2] |= static_cast<uint32_t>(bits[first + i]) << (i % 2 * 16);
    }
    return raw;
  }
}

__device__ inline Pack unpack(const RawPack& raw) {
  Pack pack;
#pragma unroll
  for (int i = 0; i < kPack / 2; ++i) {
    // A bf16 is the upper half of the f32 of the same value.
    pack.values[2 * i] = __uint_as_float(raw.words[i] << 16);
    pack.values[2 * i + 1] = __uint_as_float(raw.words[i] & 0xffff0000u);
  }
  return pack;
}

template <bool kWhole, class T>
__device__ Pack load_pack(const T* row, int64_t first, int64_t end) {
  if constexpr (std::is_same_v<T, bf16>) {
    return unpack(load_raw_pack<kWhole>(row, first, end));
  } else {
    Pack pack;
    if constexpr (kWhole) {
      const Vec<T, kPack> values = load_vec<T, kPack>(row + first);
#pragma unroll
      for (int i = 0; i < kPack; ++i) pack.values[i] = to_float(values.values[i]);
    } else {
#pragma unroll
      for (int i = 0; i < kPack; ++i) pack.values[i] = first + i < end ? to_float(row[first + i]) : 0.0f;
    }
    return pack;
  }
}

/// The same of an operand whose dtype is known at run time only.
template <bool kWhole>
__device__ Pack load_pack(const In& row, int64_t first, int64_t end) {
  switch (row.dtype) {
    case DType::kBF16: return load_pack<kWhole>(static_cast<const bf16*>(row.data), first, end);
    case DType::kF16: return load_pack<kWhole>(static_cast<const f16*>(row.data), first, end);
    case DType::kF8E4M3: return load_pack<kWhole>(static_cast<const f8_e4m3*>(row.data), first, end);
    case DType::kF8E5M2: return load_pack<kWhole>(static_cast<const f8_e5m2*>(row.data), first, end);
    default: return load_pack<kWhole>(static_cast<const float*>(row.data), first, end);
  }
}

/// Left to itself, the compiler may store the words one by one.
/// https://docs.nvidia.com/cuda/parallel-thread-execution/#data-movement-and-conversion-instructions-st
__device__ inline void store_16_bytes(void* p, uint4 value) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)), "r"(value.x),
               "r"(value.y), "r"(value.z), "r"(value.w)
               : "memory");
}

__device__ inline RawPack round_pack(const Pack& pack) {
  RawPack raw;
#pragma unroll
  for (int i = 0; i < kPack / 2; ++i) raw.words[i] = pack_bf16(pack.values[2 * i], pack.values[2 * i + 1]);
  return raw;
}

template <bool kWhole>
__device__ void store_pack(bf16* row, int64_t first, int64_t end, const Pack& pack) {
  if constexpr (kWhole) {
    const RawPack raw = round_pack(pack);
    store_16_bytes(row + first, {raw.words[0], raw.words[1], raw.words[2], raw.words[3]});
  } else {
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      if (first + i < end) row[first + i] = from_float<bf16>(pack.values[i]);
    }
  }
}

__device__ inline const bf16* as_bf16(const In& x) { return static_cast<const bf16*>(x.data); }
__device__ inline bf16* as_bf16(const Out& x) { return static_cast<bf16*>(x.data); }

template <Activation kActivation>
__device__ void activate_values(Pack& pack) {
#pragma unroll
  for (int i = 0; i < kPack; ++i) pack.values[i] = activate<kActivation>(pack.values[i]);
}

/// One decision for all values of a pack.
__device__ inline void activate(Activation activation, Pack& pack) {
  switch (activation) {
    case Activation::kNone: return;
    case Activation::kGeluTanh: return activate_values<Activation::kGeluTanh>(pack);
    case Activation::kGeluErf: return activate_values<Activation::kGeluErf>(pack);
    case Activation::kQuickGelu: return activate_values<Activation::kQuickGelu>(pack);
    case Activation::kSilu: return activate_values<Activation::kSilu>(pack);
    case Activation::kRelu: return activate_values<Activation::kRelu>(pack);
  }
}

/// Whether rows that start at `data` and at multiples of the strides after it may be read in whole packs.
template <class... Strides>
bool has_whole_packs(const void* data, DType dtype, int64_t channels, Strides... strides) {
  return channels % kPack == 0 && is_aligned(data, size_of(dtype), kPack * size_of(dtype), strides...);
}

}  // namespace chipmunk::cuda
