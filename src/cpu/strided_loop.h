#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>

#include "params.h"

namespace chipmunk::cpu {

/// Iterates over the elements of kOperands strided tensors of one shape as rows: dimensions are ordered by the strides
/// of operand 0 (the output) and merged where every operand allows it, so that rows are as long as they can be.
template <int kOperands>
class StridedLoop {
 public:
  using Offsets = std::array<int64_t, kOperands>;

  StridedLoop(int rank, const int64_t* shape, const std::array<const int64_t*, kOperands>& strides) {
    std::array<Dimension, kMaxCopyRank> sorted{};
    int count = 0;
    for (int i = 0; i < rank; ++i) {
      if (shape[i] == 0) empty_ = true;
      if (shape[i] == 1) continue;
      Dimension dimension{shape[i], {}};
      for (int o = 0; o < kOperands; ++o)
        dimension.strides[static_cast<size_t>(o)] = strides[static_cast<size_t>(o)][i];
      sorted[static_cast<size_t>(count++)] = dimension;
    }
    std::stable_sort(sorted.begin(), sorted.begin() + count, [](const Dimension& a, const Dimension& b) {
      return std::abs(a.strides[0]) > std::abs(b.strides[0]);
    });
    for (int i = 0; i < count; ++i) append(sorted[static_cast<size_t>(i)]);
    if (rank_ == 0) dimensions_[static_cast<size_t>(rank_++)] = Dimension{1, {}};
  }

  /// Rows in all; 0 if the tensors are empty.
  int64_t rows() const { return empty_ ? 0 : rows_excluding(rank_ - 1); }
  int64_t inner_size() const { return dimensions_[static_cast<size_t>(rank_ - 1)].size; }
  Offsets inner_strides() const { return dimensions_[static_cast<size_t>(rank_ - 1)].strides; }
  /// Offsets of the first element of row r.
  Offsets offsets(int64_t r) const { return offsets_excluding(r, rank_ - 1, rank_ - 1); }

  int rank() const { return rank_; }
  int64_t size(int i) const { return dimensions_[static_cast<size_t>(i)].size; }
  int64_t stride(int i, int operand) const {
    return dimensions_[static_cast<size_t>(i)].strides[static_cast<size_t>(operand)];
  }
  /// Number of combinations of the dimensions other than the innermost and `dimension`.
  int64_t rows_excluding(int dimension) const {
    int64_t count = empty_ ? 0 : 1;
    for (int i = 0; i < rank_ - 1; ++i) {
      if (i != dimension) count *= size(i);
    }
    return count;
  }
  /// Offsets of combination r of those.
  Offsets offsets_excluding(int64_t r, int dimension) const { return offsets_excluding(r, dimension, rank_ - 1); }

 private:
  struct Dimension {
    int64_t size;
    Offsets strides;
  };

  Offsets offsets_excluding(int64_t r, int dimension, int inner) const {
    Offsets result{};
    for (int i = rank_ - 1; i >= 0; --i) {
      if (i == dimension || i == inner) continue;
      const int64_t index = r % size(i);
      r /= size(i);
      for (int o = 0; o < kOperands; ++o) result[static_cast<size_t>(o)] += index * stride(i, o);
    }
    return result;
  }

  void append(const Dimension& next) {
    if (rank_ > 0) {
      Dimension& last = dimensions_[static_cast<size_t>(rank_ - 1)];
      bool mergeable = true;
      for (size_t o = 0; o < kOperands; ++o) mergeable &= last.strides[o] == next.strides[o] * next.size;
      if (mergeable) {
        last.size *= next.size;
        last.strides = next.strides;
        return;
      }
    }
    dimensions_[static_cast<size_t>(rank_++)] = next;
  }

  std::array<Dimension, kMaxCopyRank> dimensions_{};  // outermost first
  int rank_ = 0;
  bool empty_ = false;
};

}  // namespace chipmunk::cpu
