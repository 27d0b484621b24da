#include <memory>

#include "backend.h"
#include "cuda/matmul.h"

namespace chipmunk {

std::function<void()> fastest_cublas_linear(const Context& context, const LinearParams& params) {
  cuda::MatmulProblem problem;
  problem.rows = params.rows;
  problem.columns = params.out_features;
  problem.depth = params.in_features;
  problem.a = params.x.data;
  problem.a_row_stride = params.x_row_stride;
  problem.b = params.weight.data;
  problem.b_row_stride = params.weight_row_stride;
  problem.bias = params.bias.data;
  problem.out = params.out.data;
  problem.out_row_stride = params.out_row_stride;
  if (cuda::Matmul::fuses(params.activation)) problem.activation = params.activation;
  const auto matmul = std::make_shared<cuda::Matmul>();
  return [matmul, run = matmul->fastest(context, problem)] { run(); };
}

}  // namespace chipmunk
