#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace chipmunk::cpu {

/// n values of a floating dtype to float, exactly.
void upcast(const void* source, DType dtype, float* destination, int64_t n);

/// n floats to f32, bf16 or f16, rounded to nearest even. Throws kUnsupported for other dtypes: check first with
/// can_downcast().
void downcast(const float* source, void* destination, DType dtype, int64_t n);
bool can_downcast(DType dtype);

}  // namespace chipmunk::cpu
