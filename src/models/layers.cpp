#include "models/layers.h"

namespace chipmunk {
namespace {

/// Both are dense, of one storage and dtype, of rows of one length, and b begins where a ends.
bool continues(const Tensor& a, const Tensor& b) {
  if (a.empty() || b.empty()) return a.empty() && b.empty();
  return a.storage() == b.storage() && a.dtype() == b.dtype() && a.is_contiguous() && b.is_contiguous() &&
         (a.rank() == 1 || a.dim(1) == b.dim(1)) && static_cast<const char*>(a.data()) + a.bytes() == b.data();
}

/// a with the rows of b, which continues it.
Tensor extended(const Tensor& a, const Tensor& b) {
  if (a.empty()) return {};
  Dims shape = a.shape();
  shape[0] += b.dim(0);
  const auto offset = static_cast<const char*>(a.data()) - static_cast<const char*>(a.storage()->data());
  return Tensor(a.storage(), static_cast<size_t>(offset), a.dtype(), shape);
}

}  // namespace

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

std::vector<Linear> join_adjacent(const ConcatLinear& layer) {
  std::vector<Linear> joined;
  for (const Linear& part : layer.parts) {
    if (!joined.empty() && continues(joined.back().weight, part.weight) && continues(joined.back().bias, part.bias) &&
        continues(joined.back().scale, part.scale)) {
      Linear& last = joined.back();
      last = {extended(last.weight, part.weight), extended(last.bias, part.bias), extended(last.scale, part.scale)};
    } else {
      joined.push_back(part);
    }
  }
  return joined;
}

void concat_linear_into(const Context& context, const Tensor& x, const ConcatLinear& layer, const Tensor& out) {
  int64_t begin = 0;
  for (const Linear& part : join_adjacent(layer)) {
    const int64_t end = begin + part.out_features();
    ops::linear_into(context, x, part, out.slice(-1, begin, end));
    begin = end;
  }
}

Tensor split_heads(const Tensor& x, int64_t heads) { return x.reshape({x.dim(0), x.dim(1), heads, x.dim(2) / heads}); }

}  // namespace chipmunk
