#pragma once

#include <memory>

#include "core/device_runtime.h"
#include "core/tensor.h"

namespace chipmunk {

class Backend;

/// Where work happens: a device with its memory and streams, and the ops for it. Passed first to everything that
/// computes; nothing is found through a global. Copies share the device.
class Context {
 public:
  /// activation_dtype: f32 on the CPU, bf16 on CUDA (docs/architecture.md, "Numerics").
  Context(std::shared_ptr<DeviceRuntime> runtime, std::shared_ptr<Backend> backend, DType activation_dtype);

  Device device() const { return runtime_->device(); }
  DeviceRuntime& runtime() const { return *runtime_; }
  Backend& backend() const { return *backend_; }
  DType activation_dtype() const { return activation_dtype_; }

  /// Uninitialised memory.
  Tensor empty(const Dims& shape, DType dtype) const;
  /// Uninitialised memory in the dtype of activations.
  Tensor empty(const Dims& shape) const { return empty(shape, activation_dtype_); }

  /// A host tensor's dense copy on this context's device; the tensor itself where it is there already. Throws
  /// kUnsupported for another device's.
  Tensor to_device(const Tensor& host) const;
  /// A dense copy in host memory, after everything queued before has run. Blocks.
  Tensor to_host(const Tensor& tensor) const;

 private:
  std::shared_ptr<DeviceRuntime> runtime_;
  std::shared_ptr<Backend> backend_;
  DType activation_dtype_;
};

/// A dense host tensor with uninitialised elements, for tests and for values that the host computes.
Tensor make_host_tensor(const Dims& shape, DType dtype);

}  // namespace chipmunk
