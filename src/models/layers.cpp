#include "models/layers.h"

namespace chipmunk {

Linear take_linear(const WeightScope& scope, const std::string& name, int64_t out_features, int64_t in_features) {
  return {scope.take(name + ".weight", {out_features, in_features}), scope.take(name + ".bias", {out_features})};
}

Linear take_linear_without_bias(const WeightScope& scope, const std::string& name, int64_t out_features,
                                int64_t in_features) {
  return {scope.take(name + ".weight", {out_features, in_features}), {}};
}

ops::NormAffine take_norm(const WeightScope& scope, const std::string& name, int64_t channels) {
  return {scope.take(name + ".weight", {channels}), scope.take(name + ".bias", {channels})};
}

Conv2d take_conv2d(const Context& context, const WeightScope& scope, const std::string& name, int64_t out_channels,
                   int64_t in_channels, int64_t size) {
  const Tensor weight = scope.take(name + ".weight", {out_channels, in_channels, size, size});
  return ops::make_conv2d(context, weight, scope.take(name + ".bias", {out_channels}));
}

int64_t ConcatLinear::out_features() const {
  int64_t total = 0;
  for (const Linear& part : parts) total += part.out_features();
  return total;
}

void concat_linear_into(const Context& context, const Tensor& x, const ConcatLinear& layer, const Tensor& out) {
  int64_t begin = 0;
  for (const Linear& part : layer.parts) {
    const int64_t end = begin + part.out_features();
    ops::linear_into(context, x, part, out.slice(-1, begin, end));
    begin = end;
  }
}

Tensor split_heads(const Tensor& x, int64_t heads) { return x.reshape({x.dim(0), x.dim(1), heads, x.dim(2) / heads}); }

}  // namespace chipmunk
