#include "linear_survey.h"

#include <cmath>
#include <vector>

#include "backend.h"
#include "ops/fp8_rows.h"
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

namespace {

/// A linear on random operands.
struct Problem {
  ops::LinearCall call;
  Linear in_bf16;  // the layer as cuBLASLt is to compute it

  Problem(RandomTensors& random, const LinearShape& shape, int64_t rows) {
    const int64_t n = shape.out_features, k = shape.in_features;
    call.x = random.normal({1, rows, k}, DType::kBF16, 1.0f);
    call.out = random.context().empty({1, rows, n});
    call.layer = {random.normal({n, k}, DType::kBF16, 1.0f / std::sqrt(static_cast<float>(k))),
                  random.normal({n}, DType::kBF16, 1.0f)};
    in_bf16 = call.layer;
    if (shape.fp8) {
      const ops::Fp8Rows weight = ops::quantize_rows(random.context(), in_bf16.weight);
      call.layer = {weight.values, in_bf16.bias, weight.scales};
    }
    call.epilogue.activation = shape.activation;
    if (shape.gated) call.epilogue.gate = random.normal({1, n}, DType::kBF16, 1.0f);
    if (shape.residual) call.epilogue.residual = random.normal({1, rows, n}, DType::kBF16, 1.0f);
    if (shape.addend) call.epilogue.addend = random.normal({1, rows, n}, DType::kBF16, 1.0f);
    if (shape.heads == 0) return;
    // q, k and v.
    const int64_t head_dim = n / shape.heads / 3;
    const auto weight = [&] { return random.normal({head_dim}, DType::kBF16, 1.0f); };
    const auto angles = [&] { return random.normal({rows, head_dim / 2}, DType::kF32, 1.0f); };
    call.epilogue.heads = {shape.heads, head_dim, {weight(), weight(), angles(), angles()}};
  }

  std::function<void()> fastest(const Context& context) const {
    return fastest_linear(context, call.x, in_bf16, call.epilogue.activation, call.out);
  }
};

}  // namespace

LinearTimes time_linear(RandomTensors& random, const LinearShape& shape) {
  const Context& context = random.context();
  std::vector<Problem> problems;
  std::vector<std::function<void()>> fastest;
  for (const int64_t rows : {shape.rows, shape.second_rows}) {
    if (rows > 0) problems.emplace_back(random, shape, rows);
  }
  for (const Problem& problem : problems) fastest.push_back(problem.fastest(context));

  constexpr int kRounds = 9;
  Stopwatch watch(context, kRounds);
  watch.add("ours", [&] {
    const ops::LinearCall& call = problems[0].call;
    if (problems.size() > 1) return ops::linear_pair_into(context, call, problems[1].call);
    ops::linear_into(context, call);
  });
  watch.add("cublas", [&] {
    for (const std::function<void()>& run : fastest) run();
  });
  watch.run();
  return {watch.median("ours"), watch.median("cublas")};
}

}  // namespace chipmunk::cli
