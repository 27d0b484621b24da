#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace chipmunk {

/// Sizes or strides of a tensor, outermost first: at most kMaxRank values, no heap memory.
class Dims {
 public:
  static constexpr int kMaxRank = 8;

  Dims() = default;
  Dims(std::initializer_list<int64_t> values);

  int rank() const { return rank_; }
  int64_t operator[](int i) const { return values_[static_cast<size_t>(i)]; }
  int64_t& operator[](int i) { return values_[static_cast<size_t>(i)]; }
  /// Throws kShapeMismatch beyond kMaxRank.
  void push_back(int64_t value);
  const int64_t* begin() const { return values_.data(); }
  const int64_t* end() const { return values_.data() + rank_; }
  bool operator==(const Dims& other) const;
  bool operator!=(const Dims& other) const { return !(*this == other); }

 private:
  std::array<int64_t, kMaxRank> values_{};
  int rank_ = 0;
};

/// Product of the sizes; 1 for rank 0.
int64_t numel(const Dims& shape);
/// Strides of a dense row-major tensor of that shape, in elements.
Dims contiguous_strides(const Dims& shape);
/// "[2, 3, 64]".
std::string to_string(const Dims& dims);

}  // namespace chipmunk
