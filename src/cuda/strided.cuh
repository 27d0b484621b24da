#pragma once

#include <algorithm>
#include <array>
#include <cstdlib>

#include "cuda/launch.h"
#include "params.h"

/// Strided tensors of one shape as kernels walk over them: few dimensions, 32-bit indices, 64-bit offsets.
namespace chipmunk::cuda {

template <int kOperands>
struct Offsets {
  int64_t values[kOperands] = {};
};

/// Innermost dimension first: ordered by the strides of operand 0, the output, and merged where every operand allows
/// it.
template <int kOperands>
struct StridedShape {
  int rank = 0;  // at least 1, once made
  std::array<int64_t, kMaxCopyRank> sizes{};
  std::array<Offsets<kOperands>, kMaxCopyRank> strides{};

  int64_t count() const {
    int64_t result = 1;
    for (int i = 0; i < rank; ++i) result *= sizes[static_cast<size_t>(i)];
    return result;
  }
};

template <int kOperands>
StridedShape<kOperands> make_strided_shape(int rank, const int64_t* shape,
                                           const std::array<const int64_t*, kOperands>& strides) {
  struct Dimension {
    int64_t size;
    Offsets<kOperands> strides;
  };
  std::array<Dimension, kMaxCopyRank> dimensions{};
  size_t count = 0;
  for (int i = 0; i < rank; ++i) {
    if (shape[i] == 1) continue;
    dimensions[count].size = shape[i];
    for (size_t o = 0; o < kOperands; ++o) dimensions[count].strides.values[o] = strides[o][i];
    ++count;
  }
  std::stable_sort(dimensions.begin(), dimensions.begin() + count, [](const Dimension& a, const Dimension& b) {
    return std::abs(a.strides.values[0]) < std::abs(b.strides.values[0]);
  });
  StridedShape<kOperands> result;
  size_t merged = 0;  // number of dimensions of the result
  for (size_t i = 0; i < count; ++i) {
    bool continues = merged > 0;
    for (size_t o = 0; continues && o < kOperands; ++o) {
      continues = dimensions[i].strides.values[o] == result.strides[merged - 1].values[o] * result.sizes[merged - 1];
    }
    if (continues) {
      result.sizes[merged - 1] *= dimensions[i].size;
    } else {
      result.sizes[merged] = dimensions[i].size;
      result.strides[merged++] = dimensions[i].strides;
    }
  }
  if (merged == 0) {
    result.sizes[0] = 1;
    std::fill_n(result.strides[merged++].values, kOperands, 1);
  }
  result.rank = static_cast<int>(merged);
  return result;
}

/// Makes every `width` neighbouring elements one, with strides to match; false where an operand does not hold them side
/// by side, or not at multiples of them.
template <int kOperands>
bool widen(StridedShape<kOperands>& shape, int64_t width) {
  if (shape.sizes[0] % width != 0) return false;
  for (int64_t stride : shape.strides[0].values) {
    if (stride != 1) return false;
  }
  const auto rank = static_cast<size_t>(shape.rank);
  for (size_t i = 1; i < rank; ++i) {
    for (int64_t stride : shape.strides[i].values) {
      if (stride % width != 0) return false;
    }
  }
  shape.sizes[0] /= width;
  for (size_t i = 1; i < rank; ++i) {
    for (int64_t& stride : shape.strides[i].values) stride /= width;
  }
  return true;
}

/// body(part, offsets of its first element) for parts that 31 bits can index, which together are the shape.
template <int kOperands, class Body>
void for_each_part(const StridedShape<kOperands>& shape, const Offsets<kOperands>& first, const Body& body) {
  if (shape.count() < int64_t{1} << 31) return body(shape, first);
  const auto longest = static_cast<size_t>(std::max_element(shape.sizes.begin(), shape.sizes.begin() + shape.rank) -
                                           shape.sizes.begin());
  StridedShape<kOperands> half = shape;
  half.sizes[longest] = shape.sizes[longest] / 2;
  for_each_part(half, first, body);
  Offsets<kOperands> middle = first;
  for (size_t o = 0; o < kOperands; ++o) {
    middle.values[o] += half.sizes[longest] * shape.strides[longest].values[o];
  }
  half.sizes[longest] = shape.sizes[longest] - half.sizes[longest];
  for_each_part(half, middle, body);
}

/// Division by a number known before the launch: a multiplication. Divisor and dividends are below 2^31.
struct Divider {
  uint32_t divisor = 1, multiplier = 1, shift = 0;

  Divider() = default;
  explicit Divider(int64_t number) : divisor(static_cast<uint32_t>(number)) {
    while (uint64_t{1} << shift < divisor) ++shift;
    multiplier = static_cast<uint32_t>((((uint64_t{1} << shift) - divisor) << 32) / divisor + 1);
  }
  __device__ uint32_t divide(uint32_t dividend) const { return (__umulhi(dividend, multiplier) + dividend) >> shift; }
};

/// Finds the element that an index stands for.
template <int kOperands>
class StridedIndex {
 public:
  StridedIndex(const StridedShape<kOperands>& shape, const Offsets<kOperands>& first)
      : rank_(shape.rank), first_(first) {
    for (int i = 0; i < rank_; ++i) {
      sizes_[i] = Divider(shape.sizes[static_cast<size_t>(i)]);
      strides_[i] = shape.strides[static_cast<size_t>(i)];
    }
  }

  __device__ Offsets<kOperands> offsets(uint32_t index) const {
    Offsets<kOperands> result = first_;
#pragma unroll 1
    for (int i = 0; i < rank_; ++i) {
      // The outermost index needs no division.
      const uint32_t rest = i + 1 < rank_ ? sizes_[i].divide(index) : 0;
      const int64_t along = index - rest * sizes_[i].divisor;
#pragma unroll
      for (int o = 0; o < kOperands; ++o) result.values[o] += along * strides_[i].values[o];
      index = rest;
    }
    return result;
  }

 private:
  int rank_;
  Offsets<kOperands> first_;
  Divider sizes_[kMaxCopyRank];
  Offsets<kOperands> strides_[kMaxCopyRank];
};

}  // namespace chipmunk::cuda
