#include "linear_survey.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend.h"
#include "ops/linear.h"

namespace chipmunk::cli {

LinearTimes time_linear(RandomTensors& random, const LinearShape& shape) {
  const Context& context = random.context();
  const auto& [m, n, k, activation, residual, gated] = shape;
  const Tensor x = random.normal({1, m, k}, DType::kBF16, 1.0f), out = context.empty({1, m, n});
  const Linear layer{random.normal({n, k}, DType::kBF16, 1.0f / std::sqrt(static_cast<float>(k))),
                     random.normal({n}, DType::kBF16, 1.0f)};
  ops::LinearEpilogue epilogue{activation, {}, {}};
  if (gated) epilogue.gate = random.normal({1, n}, DType::kBF16, 1.0f);
  if (residual) epilogue.residual = random.normal({1, m, n}, DType::kBF16, 1.0f);

  DeviceRuntime& runtime = context.runtime();
  const auto ours = [&] {
    constexpr int kRepeats = 20;
    const auto begin = runtime.record(StreamKind::kCompute);
    for (int i = 0; i < kRepeats; ++i) ops::linear_into(context, x, layer, out, epilogue);
    const auto end = runtime.record(StreamKind::kCompute);
    runtime.synchronize(*end);
    return runtime.elapsed_ms(*begin, *end) / kRepeats;
  };
  LinearParams params{};
  params.x = {x.data(), x.dtype()};
  params.weight = {layer.weight.data(), layer.weight.dtype()};
  params.bias = {layer.bias.data(), layer.bias.dtype()};
  params.out = {out.data(), out.dtype()};
  params.batch = 1;
  params.rows = m;
  params.in_features = params.x_row_stride = params.weight_row_stride = k;
  params.out_features = params.out_row_stride = n;
  params.activation = activation;

  // The library's before and after, since the clock falls as the chip warms up.
  ours();
  const double before = fastest_cublas_linear_ms(context, params);
  std::vector<double> ms{ours(), ours(), ours()};
  std::sort(ms.begin(), ms.end());
  return {ms[1], std::min(before, fastest_cublas_linear_ms(context, params))};
}

}  // namespace chipmunk::cli
