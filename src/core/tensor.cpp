#include "core/tensor.h"

#include <utility>

#include "chipmunk/error.h"

namespace chipmunk {
namespace {

/// One past the last element that the view can touch, in elements from its first; 0 if it has none.
/// Negative strides do not occur.
int64_t extent(const Dims& shape, const Dims& strides) {
  int64_t last = 0;
  for (int i = 0; i < shape.rank(); ++i) {
    if (shape[i] == 0) return 0;
    last += (shape[i] - 1) * strides[i];
  }
  return last + 1;
}

/// Strides under which `shape` views the elements of a tensor of old_shape/old_strides, or false if there are none.
bool view_strides(const Dims& old_shape, const Dims& old_strides, const Dims& shape, Dims* strides) {
  *strides = contiguous_strides(shape);
  if (numel(shape) == 0) return true;
  int old_dim = old_shape.rank() - 1;
  int dim = shape.rank() - 1;
  while (dim >= 0) {
    while (old_dim >= 0 && old_shape[old_dim] == 1) --old_dim;
    if (old_dim < 0) break;  // only sizes of 1 remain: any stride will do
    // Merge old dimensions into one run of evenly spaced elements.
    const int64_t unit = old_strides[old_dim];
    int64_t run = old_shape[old_dim--];
    while (old_dim >= 0 && (old_shape[old_dim] == 1 || old_strides[old_dim] == unit * run)) run *= old_shape[old_dim--];
    // Spend the run on the new dimensions.
    int64_t stride = unit;
    while (dim >= 0 && run > 1) {
      if (run % shape[dim] != 0) return false;
      (*strides)[dim] = stride;
      stride *= shape[dim];
      run /= shape[dim--];
    }
  }
  return true;
}

}  // namespace

Tensor::Tensor(std::shared_ptr<Storage> storage, size_t byte_offset, DType dtype, const Dims& shape,
               const Dims& strides)
    : storage_(std::move(storage)), byte_offset_(byte_offset), dtype_(dtype), shape_(shape), strides_(strides) {
  if (shape.rank() != strides.rank()) {
    throw Error(ErrorCode::kShapeMismatch, "shape " + chipmunk::to_string(shape) + " with strides " +
                                               chipmunk::to_string(strides) + ": different ranks");
  }
  for (int64_t size : shape) {
    if (size < 0) throw Error(ErrorCode::kShapeMismatch, "negative size in shape " + chipmunk::to_string(shape));
  }
  const size_t needed = byte_offset + static_cast<size_t>(extent(shape, strides)) * size_of(dtype);
  if (needed > storage_->bytes()) {
    throw Error(ErrorCode::kShapeMismatch, "a view of shape " + chipmunk::to_string(shape) + " needs " +
                                               std::to_string(needed) + " bytes of storage, found " +
                                               std::to_string(storage_->bytes()));
  }
}

Tensor::Tensor(std::shared_ptr<Storage> storage, size_t byte_offset, DType dtype, const Dims& shape)
    : Tensor(std::move(storage), byte_offset, dtype, shape, contiguous_strides(shape)) {}

Device Tensor::device() const { return empty() ? Device{} : storage_->device(); }

void* Tensor::data() const { return empty() ? nullptr : static_cast<char*>(storage_->data()) + byte_offset_; }

bool Tensor::is_contiguous() const {
  int64_t stride = 1;
  for (int i = rank() - 1; i >= 0; --i) {
    if (shape_[i] != 1 && strides_[i] != stride) return false;
    stride *= shape_[i];
  }
  return true;
}

int Tensor::normalise(int dimension) const {
  const int result = dimension < 0 ? dimension + rank() : dimension;
  if (result < 0 || result >= rank()) {
    throw Error(ErrorCode::kShapeMismatch,
                "dimension " + std::to_string(dimension) + " of a tensor of shape " + chipmunk::to_string(shape_));
  }
  return result;
}

void Tensor::check_element_size(size_t size) const {
  if (size != size_of(dtype_)) {
    throw Error(ErrorCode::kInternal, "element access of " + std::to_string(size) + " bytes to " + describe());
  }
}

Tensor Tensor::slice(int dimension, int64_t begin, int64_t end) const {
  const int i = normalise(dimension);
  if (begin < 0 || end < begin || end > shape_[i]) {
    throw Error(ErrorCode::kShapeMismatch, "slice [" + std::to_string(begin) + ", " + std::to_string(end) +
                                               ") of dimension " + std::to_string(i) + " of " + describe());
  }
  Tensor view = *this;
  view.shape_[i] = end - begin;
  view.byte_offset_ += static_cast<size_t>(begin * strides_[i]) * size_of(dtype_);
  return view;
}

Tensor Tensor::select(int dimension, int64_t index) const {
  const int i = normalise(dimension);
  const Tensor part = slice(i, index, index + 1);
  Tensor view = part;
  view.shape_ = {};
  view.strides_ = {};
  for (int j = 0; j < rank(); ++j) {
    if (j == i) continue;
    view.shape_.push_back(part.shape_[j]);
    view.strides_.push_back(part.strides_[j]);
  }
  return view;
}

Tensor Tensor::reshape(const Dims& shape) const {
  Dims full = shape;
  int64_t known = 1;
  int open = -1;
  for (int i = 0; i < full.rank(); ++i) {
    if (full[i] == -1 && open < 0) {
      open = i;
    } else {
      known *= full[i];
    }
  }
  if (open >= 0) full[open] = known == 0 ? 0 : numel() / known;
  Tensor view = *this;
  if (chipmunk::numel(full) != numel() || !view_strides(shape_, strides_, full, &view.strides_)) {
    throw Error(ErrorCode::kShapeMismatch, "cannot view " + describe() + " with strides " +
                                               chipmunk::to_string(strides_) + " as " + chipmunk::to_string(shape));
  }
  view.shape_ = full;
  return view;
}

Tensor Tensor::permute(const Dims& order) const {
  if (order.rank() != rank()) {
    throw Error(ErrorCode::kShapeMismatch, "permutation " + chipmunk::to_string(order) + " of " + describe());
  }
  Tensor view = *this;
  unsigned seen = 0;
  for (int i = 0; i < rank(); ++i) {
    const int from = normalise(static_cast<int>(order[i]));
    view.shape_[i] = shape_[from];
    view.strides_[i] = strides_[from];
    seen |= 1u << from;
  }
  if (seen != (1u << rank()) - 1u) {
    throw Error(ErrorCode::kShapeMismatch, "not a permutation: " + chipmunk::to_string(order));
  }
  return view;
}

Tensor Tensor::unsqueeze(int dimension) const {
  const int at = dimension < 0 ? dimension + rank() + 1 : dimension;
  if (at < 0 || at > rank()) {
    throw Error(ErrorCode::kShapeMismatch, "unsqueeze(" + std::to_string(dimension) + ") of " + describe());
  }
  Tensor view = *this;
  view.shape_ = {};
  view.strides_ = {};
  for (int i = 0; i <= rank(); ++i) {
    if (i == at) {
      view.shape_.push_back(1);
      view.strides_.push_back(0);
    }
    if (i < rank()) {
      view.shape_.push_back(shape_[i]);
      view.strides_.push_back(strides_[i]);
    }
  }
  return view;
}

Tensor Tensor::expand(int dimension, int64_t size) const {
  const int i = normalise(dimension);
  if (shape_[i] != 1 || size < 0) {
    throw Error(ErrorCode::kShapeMismatch, "expand dimension " + std::to_string(i) + " of " + describe() + " to " +
                                               std::to_string(size) + ": its size must be 1");
  }
  Tensor view = *this;
  view.shape_[i] = size;
  view.strides_[i] = 0;
  return view;
}

std::string Tensor::describe() const {
  if (empty()) return "(no tensor)";
  return std::string(to_string(dtype_)) + " " + chipmunk::to_string(shape_) + " on " + to_string(device());
}

}  // namespace chipmunk
