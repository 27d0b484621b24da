#include "bench_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "chipmunk/error.h"
#include "core/float_formats.h"
#include "ops/elementwise.h"

namespace chipmunk::cli {

Tensor normal_tensor(const Context& context, const Dims& shape, DType dtype, uint64_t seed) {
  constexpr int64_t kDrawn = (int64_t{1} << 22) + 1009;
  const int64_t count = numel(shape);
  const int64_t drawn = std::min(count, kDrawn);
  const Tensor host = make_host_tensor({drawn}, dtype);
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < drawn; ++i) {
    if (dtype == DType::kF32) {
      host.data_as<float>()[i] = normal(engine);
    } else {
      host.data_as<uint16_t>()[i] = float_to_bf16(normal(engine));
    }
  }
  const Tensor part = context.to_device(host);
  if (drawn == count) return part.reshape(shape);
  const Tensor whole = context.empty({count}, dtype);
  for (int64_t at = 0; at < count; at += drawn) {
    const int64_t length = std::min(drawn, count - at);
    ops::copy_into(context, part.slice(0, 0, length), whole.slice(0, at, at + length));
  }
  return whole.reshape(shape);
}

std::vector<float> to_floats(const Context& context, const Tensor& tensor) {
  const Tensor dense = ops::to_dense(context, tensor, DType::kF32);
  const Tensor host = context.to_host(dense);
  return {host.data_as<float>(), host.data_as<float>() + host.numel()};
}

double checked(const std::string& what, double error, double bound) {
  if (error <= bound) return error;
  throw Error(ErrorCode::kInternal, fmt::format("relative error {:.3g}, expected at most {:.3g}", error, bound), what);
}

}  // namespace chipmunk::cli
