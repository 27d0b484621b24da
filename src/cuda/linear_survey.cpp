#include "backend.h"
#include "cuda/matmul.h"

namespace chipmunk {

double fastest_cublas_linear_ms(const Context& context, const LinearParams& params) {
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
  cuda::Matmul matmul;
  return matmul.fastest_ms(context, problem);
}

}  // namespace chipmunk
