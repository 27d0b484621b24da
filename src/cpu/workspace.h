#pragma once

#include <memory>

#include "core/context.h"
#include "params.h"

namespace chipmunk::cpu {

/// Scratch memory of one op, taken from the context's allocator so that its peak is reported.
class Workspace {
 public:
  Workspace(const Context& context, int64_t floats);
  float* data() const { return static_cast<float*>(storage_->data()); }

 private:
  std::shared_ptr<Storage> storage_;
};

/// A vector of n values of any floating dtype as f32: itself where it is that already, else an upcast copy.
/// data() is null where the argument is not given.
class F32Vector {
 public:
  F32Vector(const Context& context, const In& source, int64_t n);
  const float* data() const { return data_; }

 private:
  std::shared_ptr<Storage> storage_;
  const float* data_;
};

/// Throws kUnsupported, naming op and dtype, unless the dtype is f32.
void require_f32(DType dtype, const char* what);

inline const float* f32(const In& in) { return static_cast<const float*>(in.data); }
inline float* f32(const Out& out) { return static_cast<float*>(out.data); }

inline int64_t divide_up(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }
inline int64_t round_up(int64_t value, int64_t multiple) { return divide_up(value, multiple) * multiple; }

}  // namespace chipmunk::cpu
