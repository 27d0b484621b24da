#pragma once

#include <string>

#include "core/context.h"
#include "params.h"

/// Validation shared by the op functions. `what` names op and argument, e.g. "linear: gate".
namespace chipmunk::ops {

In in(const Tensor& tensor);
Out out(const Tensor& tensor);

[[noreturn]] void fail_shape(const std::string& what, const std::string& expected, const Tensor& found);

/// The tensor exists, is on the context's device and has this shape.
void check_shape(const Context& context, const Tensor& tensor, const Dims& shape, const char* what);
/// The same for an argument that may be empty.
void check_optional_shape(const Context& context, const Tensor& tensor, const Dims& shape, const char* what);
/// The tensor exists and is on the context's device.
void check_present(const Context& context, const Tensor& tensor, const char* what);
void check_dtype(const Tensor& tensor, DType dtype, const char* what);
void check_floating(const Tensor& tensor, const char* what);
/// The tensor has the dtype of activations.
void check_activation(const Context& context, const Tensor& tensor, const char* what);
/// The innermost dimension has stride 1 (or size <= 1).
void check_inner_dense(const Tensor& tensor, const char* what);
void check_dense(const Tensor& tensor, const char* what);

/// A dense f32 tensor, or i32 or u8, of this shape on the context's device.
void check_f32(const Context& context, const Tensor& tensor, const Dims& shape, const char* what);
void check_i32(const Context& context, const Tensor& tensor, const Dims& shape, const char* what);
void check_u8(const Context& context, const Tensor& tensor, const Dims& shape, const char* what);
/// [B, tokens, heads, D] with a dense head dimension, in the dtype of activations.
void check_heads(const Context& context, const Tensor& tensor, const char* what);
[[noreturn]] void fail_argument(const std::string& what, const std::string& expected, int64_t found);

HeadStrides head_strides(const Tensor& tensor);

/// [T, C] as [1, T, C], [B, T, C] as it is; throws for other ranks.
Tensor as_batched_rows(const Tensor& tensor, const char* what);
/// Any rank >= 1 as [rows, C]; throws if the leading dimensions cannot be merged into one stride.
Tensor as_rows(const Tensor& tensor, const char* what);

}  // namespace chipmunk::ops
