#include "core/context.h"

#include <cstring>
#include <utility>

#include "chipmunk/error.h"

namespace chipmunk {
namespace {

/// Copies a strided host tensor into dense host memory, element by element where it must.
Tensor dense_host_copy(const Tensor& source) {
  Tensor result = make_host_tensor(source.shape(), source.dtype());
  if (source.numel() == 0) return result;
  const size_t element = size_of(source.dtype());
  const int rank = source.rank();
  // The longest dense suffix of dimensions is copied as one block.
  int64_t block = 1;
  int outer = rank;
  while (outer > 0 && (source.dim(outer - 1) == 1 || source.stride(outer - 1) == block)) block *= source.dim(--outer);
  Dims index;
  for (int i = 0; i < outer; ++i) index.push_back(0);
  char* out = static_cast<char*>(result.data());
  const char* base = static_cast<const char*>(source.data());
  for (int64_t done = 0; done < source.numel(); done += block) {
    int64_t offset = 0;
    for (int i = 0; i < outer; ++i) offset += index[i] * source.stride(i);
    std::memcpy(out + static_cast<size_t>(done) * element, base + static_cast<size_t>(offset) * element,
                static_cast<size_t>(block) * element);
    for (int i = outer - 1; i >= 0; --i) {
      if (++index[i] < source.dim(i)) break;
      index[i] = 0;
    }
  }
  return result;
}

}  // namespace

Context::Context(std::shared_ptr<DeviceRuntime> runtime, std::shared_ptr<Backend> backend, DType activation_dtype)
    : runtime_(std::move(runtime)), backend_(std::move(backend)), activation_dtype_(activation_dtype) {}

Tensor Context::empty(const Dims& shape, DType dtype) const {
  return Tensor(runtime_->allocate(static_cast<size_t>(chipmunk::numel(shape)) * size_of(dtype)), 0, dtype, shape);
}

Tensor Context::to_device(const Tensor& host) const {
  if (device().kind != DeviceKind::kCpu && host.device() == device()) return host;
  if (host.device().kind != DeviceKind::kCpu) {
    throw Error(ErrorCode::kUnsupported,
                "to_device takes a tensor on the host or on " + to_string(device()) + "; found " + host.describe());
  }
  Tensor dense = host.is_contiguous() ? host : dense_host_copy(host);
  if (device().kind == DeviceKind::kCpu) return dense;
  const Tensor result = empty(host.shape(), host.dtype());
  // The source is the caller's, who may free or change it at once; pinned memory may be released under way.
  const std::shared_ptr<Storage> staging = runtime_->allocate_pinned(dense.bytes());
  if (dense.bytes() > 0) std::memcpy(staging->data(), dense.data(), dense.bytes());
  runtime_->copy(result.data(), device(), staging->data(), Device{}, dense.bytes(), StreamKind::kCompute);
  return result;
}

Tensor Context::to_host(const Tensor& tensor) const {
  runtime_->synchronize();
  if (tensor.device().kind == DeviceKind::kCpu) return tensor.is_contiguous() ? tensor : dense_host_copy(tensor);
  if (!tensor.is_contiguous()) {
    throw Error(ErrorCode::kUnsupported, "to_host takes a dense device tensor; found strides " +
                                             chipmunk::to_string(tensor.strides()) + " for " + tensor.describe());
  }
  const Tensor result = make_host_tensor(tensor.shape(), tensor.dtype());
  runtime_->copy(result.data(), Device{}, tensor.data(), device(), tensor.bytes(), StreamKind::kCompute);
  runtime_->synchronize();
  return result;
}

Tensor make_host_tensor(const Dims& shape, DType dtype) {
  return Tensor(allocate_host(static_cast<size_t>(numel(shape)) * size_of(dtype)), 0, dtype, shape);
}

}  // namespace chipmunk
