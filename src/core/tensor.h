#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/dims.h"
#include "core/dtype.h"
#include "core/storage.h"

namespace chipmunk {

/// A strided view on shared storage. Copying a Tensor copies the view, never the data; views made from it share its
/// storage. A default-constructed Tensor is empty: it stands for "not given".
/// Dimension arguments may be negative and then count from the last one. Views throw kShapeMismatch on a bad range.
class Tensor {
 public:
  Tensor() = default;
  /// A view of `storage` that starts at byte_offset. strides are in elements.
  /// Throws kShapeMismatch if an element would lie outside of the storage.
  Tensor(std::shared_ptr<Storage> storage, size_t byte_offset, DType dtype, const Dims& shape, const Dims& strides);
  /// The same, dense and row-major.
  Tensor(std::shared_ptr<Storage> storage, size_t byte_offset, DType dtype, const Dims& shape);

  bool empty() const { return storage_ == nullptr; }
  explicit operator bool() const { return !empty(); }

  const Dims& shape() const { return shape_; }
  const Dims& strides() const { return strides_; }
  int rank() const { return shape_.rank(); }
  int64_t dim(int i) const { return shape_[normalise(i)]; }
  int64_t stride(int i) const { return strides_[normalise(i)]; }
  int64_t numel() const { return chipmunk::numel(shape_); }
  DType dtype() const { return dtype_; }
  Device device() const;
  /// Bytes of the elements, were they dense.
  size_t bytes() const { return static_cast<size_t>(numel()) * size_of(dtype_); }
  bool is_contiguous() const;
  const std::shared_ptr<Storage>& storage() const { return storage_; }

  /// Address of the first element, in the memory of device(). A Tensor is a handle: constness is the view's.
  void* data() const;
  /// data() as host pointer of type T; throws kInternal if sizeof(T) is not the element size.
  template <typename T>
  T* data_as() const {
    check_element_size(sizeof(T));
    return static_cast<T*>(data());
  }

  /// Elements [begin, end) along one dimension.
  Tensor slice(int dimension, int64_t begin, int64_t end) const;
  /// Index `index` along one dimension, which disappears.
  Tensor select(int dimension, int64_t index) const;
  /// The same elements in row-major order under another shape; one size may be -1. Throws kShapeMismatch if the
  /// strides do not allow it without a copy.
  Tensor reshape(const Dims& shape) const;
  /// Dimension i of the result is dimension order[i] of this tensor.
  Tensor permute(const Dims& order) const;
  /// Inserts a dimension of size 1 in front of `dimension` (rank() to append).
  Tensor unsqueeze(int dimension) const;
  /// Repeats a dimension of size 1 by stride 0.
  Tensor expand(int dimension, int64_t size) const;

  /// "f32 [2, 3] on cpu".
  std::string describe() const;

 private:
  int normalise(int dimension) const;
  void check_element_size(size_t size) const;

  std::shared_ptr<Storage> storage_;
  size_t byte_offset_ = 0;
  DType dtype_ = DType::kF32;
  Dims shape_;
  Dims strides_;
};

}  // namespace chipmunk
