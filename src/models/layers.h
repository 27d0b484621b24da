#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "core/context.h"
#include "io/weight_map.h"
#include "ops/image.h"
#include "ops/linear.h"
#include "ops/norm.h"

/// Building blocks that several models share: how their weights bind by name, and small compositions of ops.
namespace chipmunk {

/// Receives named intermediates of a forward, for conformance tests and measurements. The tensor is only valid during
/// the call.
using TensorObserver = std::function<void(std::string_view name, const Tensor& tensor)>;

/// <name>.weight [out, in] and, with a bias, <name>.bias [out].
Linear take_linear(const WeightScope& scope, const std::string& name, int64_t out_features, int64_t in_features);
Linear take_linear_without_bias(const WeightScope& scope, const std::string& name, int64_t out_features,
                                int64_t in_features);
/// <name>.weight and <name>.bias, [channels].
ops::NormAffine take_norm(const WeightScope& scope, const std::string& name, int64_t channels);
/// <name>.weight [out, in, size, size] and <name>.bias, converted to the device's layout.
Conv2d take_conv2d(const Context& context, const WeightScope& scope, const std::string& name, int64_t out_channels,
                   int64_t in_channels, int64_t size);

/// A linear layer whose output features are stored in pieces, e.g. q, k and v.
struct ConcatLinear {
  std::vector<Linear> parts;

  int64_t out_features() const;
};

/// The layer with parts that lie one behind the other in memory, weights and biases alike, made one part: it takes one
/// matmul, which fills a GPU better than several small ones.
std::vector<Linear> join_adjacent(const ConcatLinear& layer);

/// out[..., columns of part i] = part_i(x).
void concat_linear_into(const Context& context, const Tensor& x, const ConcatLinear& layer, const Tensor& out);

/// [B, T, heads * D] as [B, T, heads, D].
Tensor split_heads(const Tensor& x, int64_t heads);

}  // namespace chipmunk
