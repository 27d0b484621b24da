#include "ops/check.h"

#include <algorithm>

#include "chipmunk/error.h"

namespace chipmunk::ops {

In in(const Tensor& tensor) { return {tensor.data(), tensor.dtype()}; }

Out out(const Tensor& tensor) { return {tensor.data(), tensor.dtype()}; }

void fail_shape(const std::string& what, const std::string& expected, const Tensor& found) {
  throw Error(ErrorCode::kShapeMismatch, "expected " + expected + ", found " + found.describe(), what);
}

void check_present(const Context& context, const Tensor& tensor, const char* what) {
  if (tensor.empty()) throw Error(ErrorCode::kInvalidArgument, "required, but not given", what);
  if (tensor.device() != context.device()) {
    throw Error(ErrorCode::kInvalidArgument,
                "expected a tensor on " + to_string(context.device()) + ", found " + tensor.describe(), what);
  }
}

void check_shape(const Context& context, const Tensor& tensor, const Dims& shape, const char* what) {
  check_present(context, tensor, what);
  if (tensor.shape() != shape) fail_shape(what, to_string(shape), tensor);
}

void check_optional_shape(const Context& context, const Tensor& tensor, const Dims& shape, const char* what) {
  if (!tensor.empty()) check_shape(context, tensor, shape, what);
}

void check_dtype(const Tensor& tensor, DType dtype, const char* what) {
  if (tensor.dtype() != dtype) {
    throw Error(ErrorCode::kInvalidArgument,
                "expected dtype " + std::string(to_string(dtype)) + ", found " + tensor.describe(), what);
  }
}

void check_floating(const Tensor& tensor, const char* what) {
  if (!is_floating(tensor.dtype())) {
    throw Error(ErrorCode::kInvalidArgument, "expected a floating dtype, found " + tensor.describe(), what);
  }
}

void check_activation(const Context& context, const Tensor& tensor, const char* what) {
  check_dtype(tensor, context.activation_dtype(), what);
}

void check_inner_dense(const Tensor& tensor, const char* what) {
  if (tensor.rank() > 0 && tensor.dim(-1) > 1 && tensor.stride(-1) != 1) {
    throw Error(ErrorCode::kUnsupported,
                "expected a dense innermost dimension, found strides " + to_string(tensor.strides()), what);
  }
}

void check_dense(const Tensor& tensor, const char* what) {
  if (!tensor.is_contiguous()) {
    throw Error(ErrorCode::kUnsupported, "expected a dense tensor, found strides " + to_string(tensor.strides()), what);
  }
}

namespace {

void check_dense_array(const Context& context, const Tensor& tensor, DType dtype, const Dims& shape, const char* what) {
  check_shape(context, tensor, shape, what);
  check_dtype(tensor, dtype, what);
  check_dense(tensor, what);
}

}  // namespace

void check_f32(const Context& context, const Tensor& tensor, const Dims& shape, const char* what) {
  check_dense_array(context, tensor, DType::kF32, shape, what);
}

void check_i32(const Context& context, const Tensor& tensor, const Dims& shape, const char* what) {
  check_dense_array(context, tensor, DType::kI32, shape, what);
}

void check_u8(const Context& context, const Tensor& tensor, const Dims& shape, const char* what) {
  check_dense_array(context, tensor, DType::kU8, shape, what);
}

void check_heads(const Context& context, const Tensor& tensor, const char* what) {
  check_present(context, tensor, what);
  if (tensor.rank() != 4) fail_shape(what, "rank 4 [B, tokens, heads, D]", tensor);
  check_activation(context, tensor, what);
  check_inner_dense(tensor, what);
}

void fail_argument(const std::string& what, const std::string& expected, int64_t found) {
  throw Error(ErrorCode::kInvalidArgument, "expected " + expected + ", found " + std::to_string(found), what);
}

HeadStrides head_strides(const Tensor& tensor) { return {tensor.stride(0), tensor.stride(1), tensor.stride(2)}; }

Tensor as_batched_rows(const Tensor& tensor, const char* what) {
  if (tensor.rank() == 2) return tensor.unsqueeze(0);
  if (tensor.rank() != 3) fail_shape(what, "rank 2 or 3", tensor);
  return tensor;
}

Tensor as_rows(const Tensor& tensor, const char* what) {
  if (tensor.rank() < 1) fail_shape(what, "rank 1 or more", tensor);
  check_inner_dense(tensor, what);
  return tensor.rank() == 2 ? tensor
                            : tensor.reshape({tensor.numel() / std::max<int64_t>(tensor.dim(-1), 1), tensor.dim(-1)});
}

}  // namespace chipmunk::ops
