#include "linear_survey.h"

#include <algorithm>
#include <cmath>
#include <functional>
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

  const std::function<void()> ours = [&] { ops::linear_into(context, x, layer, out, epilogue); },
                              cublas = fastest_cublas_linear(context, params);
  DeviceRuntime& runtime = context.runtime();
  const auto time = [&](const std::function<void()>& body, std::vector<double>* ms) {
    constexpr int kRepeats = 10;
    const auto begin = runtime.record(StreamKind::kCompute);
    for (int i = 0; i < kRepeats; ++i) body();
    const auto end = runtime.record(StreamKind::kCompute);
    runtime.synchronize(*end);
    ms->push_back(runtime.elapsed_ms(*begin, *end) / kRepeats);
  };
  const auto median = [](std::vector<double> ms) {
    std::sort(ms.begin(), ms.end());
    return ms[ms.size() / 2];
  };
  constexpr int kRounds = 9;
  std::vector<double> ours_ms, cublas_ms;
  // In turns: the clock falls as the chip warms up.
  for (int round = 0; round < kRounds; ++round) {
    time(ours, &ours_ms);
    time(cublas, &cublas_ms);
  }
  return {median(ours_ms), median(cublas_ms)};
}

}  // namespace chipmunk::cli
