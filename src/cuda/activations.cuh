#pragma once

#include "params.h"

/// The activation functions in f32; definitions in params.h. Written so that nothing cancels in the tails, with fast
/// exponentials and divisions: their 2 ulp vanish in the rounding to bf16.
namespace chipmunk::cuda {

/// x sigmoid(argument), of the argument in powers of 1/2: -log2(e) argument.
__device__ inline float gate_by_sigmoid(float x, float powers) {
  float power, inverse;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(powers));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + power));
  return x * inverse;
}

template <Activation kActivation>
__device__ float activate(float x) {
  if constexpr (kActivation == Activation::kGeluTanh) {
    // (1 + tanh(y)) / 2 is the sigmoid of 2 y.
    constexpr float kLinear = -2.3022082f, kCubic = -0.10294324f;  // -log2(e) 2 sqrt(2 / pi), and 0.044715 of it
    return gate_by_sigmoid(x, x * fmaf(kCubic, x * x, kLinear));
  } else if constexpr (kActivation == Activation::kGeluErf) {
    return 0.5f * x * erfcf(-0.7071067811865476f * x);
  } else if constexpr (kActivation == Activation::kQuickGelu) {
    return gate_by_sigmoid(x, -2.4554670f * x);
  } else if constexpr (kActivation == Activation::kSilu) {
    return gate_by_sigmoid(x, -1.4426950f * x);
  } else if constexpr (kActivation == Activation::kRelu) {
    // Unlike fmaxf, this keeps NaN.
    return x < 0.0f ? 0.0f : x;
  } else {
    return x;
  }
}

__device__ inline float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kGeluTanh: return activate<Activation::kGeluTanh>(x);
    case Activation::kGeluErf: return activate<Activation::kGeluErf>(x);
    case Activation::kQuickGelu: return activate<Activation::kQuickGelu>(x);
    case Activation::kSilu: return activate<Activation::kSilu>(x);
    case Activation::kRelu: return activate<Activation::kRelu>(x);
  }
  return x;
}

}  // namespace chipmunk::cuda
