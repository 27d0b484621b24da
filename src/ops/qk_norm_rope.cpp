#include "ops/qk_norm_rope.h"

#include <string>

#include "backend.h"
#include "chipmunk/error.h"
#include "ops/check.h"

namespace chipmunk::ops {

void check_qk_norm_rope(const Context& context, const QkNormRope& arguments, int64_t tokens, int64_t head_dim,
                        const char* what) {
  const std::string op = what;
  if (arguments.q_weight.empty() != arguments.k_weight.empty() || arguments.cos.empty() != arguments.sin.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "q_weight and k_weight, cos and sin come in pairs", op);
  }
  for (const Tensor& weight : {arguments.q_weight, arguments.k_weight}) {
    if (!weight) continue;
    const std::string name = op + ": q_weight, k_weight";
    check_shape(context, weight, {head_dim}, name.c_str());
    check_floating(weight, name.c_str());
    check_dense(weight, name.c_str());
  }
  if (!arguments.cos) return;
  if (head_dim % 2 != 0) {
    throw Error(ErrorCode::kShapeMismatch,
                "expected an even head dimension for rotary embedding, found " + std::to_string(head_dim), op);
  }
  for (const Tensor& table : {arguments.cos, arguments.sin}) {
    const std::string name = op + ": cos, sin";
    check_shape(context, table, {tokens, head_dim / 2}, name.c_str());
    check_dtype(table, DType::kF32, name.c_str());
    check_dense(table, name.c_str());
  }
}

void qk_norm_rope(const Context& context, const Tensor& q, const Tensor& k, const QkNormRope& arguments) {
  check_heads(context, q, "qk_norm_rope: q");
  check_heads(context, k, "qk_norm_rope: k");
  check_shape(context, k, q.shape(), "qk_norm_rope: k");
  const int64_t tokens = q.dim(1), head_dim = q.dim(3);
  check_qk_norm_rope(context, arguments, tokens, head_dim, "qk_norm_rope");

  QkNormRopeParams params{};
  params.q = out(q);
  params.k = out(k);
  params.q_weight = in(arguments.q_weight);
  params.k_weight = in(arguments.k_weight);
  params.cos = static_cast<const float*>(arguments.cos.data());
  params.sin = static_cast<const float*>(arguments.sin.data());
  params.q_strides = head_strides(q);
  params.k_strides = head_strides(k);
  params.batch = q.dim(0);
  params.tokens = tokens;
  params.heads = q.dim(2);
  params.head_dim = head_dim;
  params.epsilon = arguments.epsilon;
  context.backend().qk_norm_rope(context, params);
}

}  // namespace chipmunk::ops
