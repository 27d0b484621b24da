#pragma once

#include <vector>

#include "core/tensor.h"
#include "params.h"

/// Every op as naive loops in float64: the oracle that both backends face.
namespace chipmunk::test {

/// A dense array of doubles; empty() stands for an argument that is not given.
struct Array {
  Dims shape;
  std::vector<double> values;

  Array() = default;
  explicit Array(const Dims& dims) : shape(dims), values(static_cast<size_t>(numel(dims))) {}
  bool empty() const { return shape.rank() == 0; }
  int64_t dim(int i) const { return shape[i]; }
  double& operator[](int64_t i) { return values[static_cast<size_t>(i)]; }
  double operator[](int64_t i) const { return values[static_cast<size_t>(i)]; }
};

/// A result and, for each of its elements, the size of what was summed to get it: an implementation that rounds to a
/// relative precision epsilon may be off by about epsilon * magnitude (times the root of the number of terms).
struct Reference {
  Array value, magnitude;
};

/// The elements of a host tensor of any dtype and strides.
Array to_array(const Tensor& tensor);

double reference_activation(Activation activation, double x);

struct LinearArguments {
  Array x;         // [B, T, K]
  Array weight;    // [N, K]
  Array bias;      // [N]
  Array gate;      // [B, N]
  Array residual;  // [B, T, N]
  Activation activation = Activation::kNone;
  Array addend = {};  // [B, T, N]
};
Reference reference_linear(const LinearArguments& arguments);

struct AttentionArguments {
  Array q, k, v;        // [B, N, H, D], [B, M, H_kv, D]
  Array relative_bias;  // [H, N + M - 1]
  Array key_lengths;    // [B]
  double scale = 1.0;
  bool causal = false;
};
struct AttentionReference {
  Reference out;  // [B, N, H, D]
  Reference lse;  // [B, H, N]
};
AttentionReference reference_attention(const AttentionArguments& arguments);

/// x: [B, T, C]; weight, bias: [C]; scale, shift: [B, C].
Reference reference_layer_norm(const Array& x, const Array& weight, const Array& bias, const Array& scale,
                               const Array& shift, double epsilon);
/// x: [..., C].
Reference reference_rms_norm(const Array& x, const Array& weight, double epsilon);
/// x: [B, T, H, D]; weight: [D]; cos, sin: [T, D / 2].
Reference reference_norm_rope(const Array& x, const Array& weight, const Array& cos, const Array& sin, double epsilon);
/// x: [B, height, width, C].
Reference reference_group_norm(const Array& x, const Array& weight, const Array& bias, int64_t groups, double epsilon,
                               Activation activation);

struct ConvArguments {
  Array x;         // [B, height, width, C_in]
  Array weight;    // [C_out, kernel_height, kernel_width, C_in]
  Array bias;      // [C_out]
  Array residual;  // the output's shape
  int64_t stride = 1, pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
};
Reference reference_conv2d(const ConvArguments& arguments);

/// As params.h defines it, all in float64: the f32 frequencies it asks for differ by about |argument| * epsilon.
Reference reference_timestep_embedding(const Array& arguments, int64_t channels, double max_period);

}  // namespace chipmunk::test
