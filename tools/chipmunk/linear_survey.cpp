#include "linear_survey.h"

#include <cmath>
#include <vector>

#include "backend.h"
#include "ops/linear.h"
#include "stopwatch.h"

namespace chipmunk::cli {

std::function<void()> fastest_linear(const Context& context, const Tensor& x, const Linear& layer,
                                     Activation activation, const Tensor& out) {
  LinearParams params{};
  params.x = {x.data(), x.dtype()};
  params.weight = {layer.weight.data(), layer.weight.dtype()};
  params.bias = {layer.bias.data(), layer.bias.dtype()};
  params.out = {out.data(), out.dtype()};
  params.batch = 1;
  params.rows = x.dim(1);
  params.in_features = params.x_row_stride = params.weight_row_stride = layer.in_features();
  params.out_features = params.out_row_stride = layer.out_features();
  params.activation = activation;
  // The operands live as long as what is returned.
  return [operands = std::vector<Tensor>{x, layer.weight, layer.bias, out},
          run = fastest_cublas_linear(context, params)] { run(); };
}

LinearTimes time_linear(RandomTensors& random, const LinearShape& shape) {
  const Context& context = random.context();
  const auto& [m, n, k, activation, residual, gated] = shape;
  const Tensor x = random.normal({1, m, k}, DType::kBF16, 1.0f), out = context.empty({1, m, n});
  const Linear layer{random.normal({n, k}, DType::kBF16, 1.0f / std::sqrt(static_cast<float>(k))),
                     random.normal({n}, DType::kBF16, 1.0f)};
  ops::LinearEpilogue epilogue{activation, {}, {}};
  if (gated) epilogue.gate = random.normal({1, n}, DType::kBF16, 1.0f);
  if (residual) epilogue.residual = random.normal({1, m, n}, DType::kBF16, 1.0f);

  constexpr int kRounds = 9;
  Stopwatch watch(context, kRounds);
  watch.add("ours", [&] { ops::linear_into(context, x, layer, out, epilogue); });
  watch.add("cublas", fastest_linear(context, x, layer, activation, out));
  watch.run();
  return {watch.median("ours"), watch.median("cublas")};
}

}  // namespace chipmunk::cli
