#include "ops/linear.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend.h"
#include "chipmunk/error.h"
#include "support/op_test.h"

namespace chipmunk::test {
namespace {

struct LinearCase : NamedCase {
  int64_t batch, rows, in_features, out_features;
  DType weight_dtype = DType::kF32;
  Activation activation = Activation::kNone;
  bool bias = false, gate = false, residual = false;
  int64_t pad = 0;  // of every operand that may be a view: strided rows and batches
  bool addend = false;
};

const LinearCase kCases[] = {
    // regular
    {"plain", 1, 64, 64, 64},
    {"bias", 1, 33, 48, 40, DType::kF32, Activation::kNone, true},
    {"gelu", 2, 20, 32, 64, DType::kF32, Activation::kGeluTanh, true},
    {"gate_residual", 2, 40, 64, 96, DType::kF32, Activation::kNone, true, true, true},
    {"addend", 1, 33, 64, 96, DType::kBF16, Activation::kNone, false, true, true, 0, true},
    {"everything", 3, 17, 40, 72, DType::kBF16, Activation::kGeluTanh, true, true, true, 3, true},
    // corner: one, primes, just past a tile
    {"one_by_one", 1, 1, 1, 1},
    {"one_by_one_many_rows", 1, 9, 1, 1},
    {"primes", 1, 127, 257, 131, DType::kBF16, Activation::kNone, true},
    {"primes_batched", 3, 13, 31, 37, DType::kF16, Activation::kSilu, true, true, true, 1},
    {"past_row_tile", 1, 127, 16, 33},
    {"past_column_tile", 1, 10, 19, 513, DType::kBF16},
    {"past_depth_tile", 1, 15, 513, 34, DType::kBF16},
    {"wide_panel", 1, 12, 2100, 2500, DType::kBF16, Activation::kNone, true},
    {"strided", 2, 29, 24, 50, DType::kF32, Activation::kNone, true, false, true, 5},
    // each weight dtype, many rows and few
    {"bf16", 1, 50, 70, 90, DType::kBF16},
    {"f16", 1, 50, 70, 90, DType::kF16},
    {"f8_e4m3", 1, 50, 70, 90, DType::kF8E4M3},
    {"f8_e5m2", 1, 50, 70, 90, DType::kF8E5M2},
    {"few_f32", 1, 1, 97, 67, DType::kF32, Activation::kSilu, true},
    {"few_bf16", 1, 2, 512, 130, DType::kBF16, Activation::kNone, true},
    {"few_f16", 1, 3, 97, 67, DType::kF16},
    {"few_f8_e4m3", 1, 5, 97, 67, DType::kF8E4M3},
    {"few_f8_e5m2", 1, 7, 97, 67, DType::kF8E5M2},
    {"few_everything", 2, 4, 131, 101, DType::kBF16, Activation::kGeluTanh, true, true, true, 2, true},
    // each activation
    {"gelu_erf", 1, 20, 30, 40, DType::kF32, Activation::kGeluErf, true},
    {"quick_gelu", 1, 20, 30, 40, DType::kF32, Activation::kQuickGelu, true},
    {"relu", 1, 20, 30, 40, DType::kF32, Activation::kRelu, true},
};

class LinearTest : public OpCaseTest<LinearCase> {
 protected:
  struct Problem {
    Tensor x;
    Linear layer;
    ops::LinearEpilogue epilogue;
    Dims out_shape;
  };

  Problem make_problem(const LinearCase& c) {
    Problem problem;
    problem.out_shape = {c.batch, c.rows, c.out_features};
    problem.x = random_view({c.batch, c.rows, c.in_features}, c.pad);
    problem.layer.weight = random_view({c.out_features, c.in_features}, c.weight_dtype, c.pad, 0.5f);
    if (c.bias) problem.layer.bias = random({c.out_features}, c.weight_dtype);
    problem.epilogue.activation = c.activation;
    if (c.gate) problem.epilogue.gate = random_view({c.batch, c.out_features}, c.pad);
    if (c.residual) problem.epilogue.residual = random_view(problem.out_shape, c.pad);
    if (c.addend) problem.epilogue.addend = random_view(problem.out_shape, c.pad);
    return problem;
  }

  Reference reference(const Problem& problem) {
    return reference_linear({read(problem.x), read(problem.layer.weight), read(problem.layer.bias),
                             read(problem.epilogue.gate), read(problem.epilogue.residual), problem.epilogue.activation,
                             read(problem.epilogue.addend)});
  }

  static double factor(const LinearCase& c) { return 4.0 + std::sqrt(static_cast<double>(c.in_features)); }
};

TEST_P(LinearTest, MatchesReference) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Problem problem = make_problem(test_case());
  const GuardedView out = make_guarded_view(context(), problem.out_shape, 2, context().activation_dtype());
  ops::linear_into(context(), problem.x, problem.layer, out.view, problem.epilogue);
  expect_close(read(out.view), reference(problem), factor(test_case()));
  expect_untouched(context(), out);
}

TEST_P(LinearTest, SameBitsTwice) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Problem problem = make_problem(test_case());
  const Array first = read(ops::linear(context(), problem.x, problem.layer, problem.epilogue));
  expect_equal(read(ops::linear(context(), problem.x, problem.layer, problem.epilogue)), first);
  if (device_name() != "cpu") return;
  // On the CPU the thread count changes nothing either.
  open("cpu", 1);
  const Problem same = make_problem(test_case());
  expect_equal(read(ops::linear(context(), same.x, same.layer, same.epilogue)), first);
}

CHIPMUNK_INSTANTIATE(LinearTest, ::testing::ValuesIn(kCases));

class LinearFormsTest : public OpCaseTest<OnlyCase> {};

TEST_P(LinearFormsTest, OutMayBeResidual) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  for (const int64_t rows : {int64_t{2}, int64_t{150}}) {
    const Tensor x = random({1, rows, 40}), gate = random({1, 600}), in_place = random({1, rows, 600});
    const Linear layer{random({600, 40}, DType::kBF16), random({600})};
    const Reference expected = reference_linear(
        {read(x), read(layer.weight), read(layer.bias), read(gate), read(in_place), Activation::kNone});
    ops::linear_into(context(), x, layer, in_place, {Activation::kNone, gate, in_place});
    expect_close(read(in_place), expected, 12.0);
  }
}

TEST_P(LinearFormsTest, WeightMayBeASliceOfRowsOrColumns) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Tensor weight = random({90, 80}, DType::kBF16);
  for (const Tensor& part :
       {weight.slice(0, 17, 60), weight.slice(1, 32, 80), weight.slice(1, 40, 71).slice(0, 3, 5)}) {
    for (const int64_t rows : {int64_t{3}, int64_t{21}}) {
      const Tensor x = random({rows, part.dim(1)});
      const Array x_rows = read(x.unsqueeze(0));
      Reference expected = reference_linear({x_rows, read(part), {}, {}, {}, Activation::kNone});
      expected.value.shape = {rows, part.dim(0)};
      expect_close(read(ops::linear(context(), x, {part, {}})), expected, 12.0);
    }
  }
}

TEST_P(LinearFormsTest, OutMayBeASliceOfColumns) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Tensor x = random({30, 24});
  const Linear first{random({40, 24}), {}}, second{random({50, 24}), {}};
  const Tensor joined = context().empty({30, 90});
  ops::linear_into(context(), x, first, joined.slice(1, 0, 40));
  ops::linear_into(context(), x, second, joined.slice(1, 40, 90));
  expect_equal(read(joined.slice(1, 0, 40)), read(ops::linear(context(), x, first)));
  expect_equal(read(joined.slice(1, 40, 90)), read(ops::linear(context(), x, second)));
}

TEST_P(LinearFormsTest, EmptyInputs) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Linear layer{random({5, 4}), {}};
  EXPECT_EQ(ops::linear(context(), random({0, 4}), layer).numel(), 0);
  // A sum over nothing leaves the bias.
  const Linear no_inputs{random({5, 0}), random({5})};
  const Array out = read(ops::linear(context(), random({20, 0}), no_inputs));
  const Array bias = read(no_inputs.bias);
  for (int64_t i = 0; i < 100; ++i) EXPECT_EQ(out[i], bias[i % 5]);
}

TEST_P(LinearFormsTest, NanReachesItsRowAndNoOther) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  for (const Activation activation : {Activation::kNone, Activation::kRelu, Activation::kGeluTanh, Activation::kSilu,
                                      Activation::kQuickGelu, Activation::kGeluErf}) {
    std::vector<float> values(20 * 8, 1.0f);
    values[5 * 8 + 3] = std::numeric_limits<float>::quiet_NaN();
    const Array out =
        read(ops::linear(context(), from_floats({20, 8}, values), {random({24, 8}), {}}, {activation, {}, {}}));
    for (int64_t i = 0; i < 20 * 24; ++i) EXPECT_EQ(std::isnan(out[i]), i / 24 == 5) << i;
  }
}

CHIPMUNK_INSTANTIATE(LinearFormsTest, ::testing::Values(OnlyCase{}));

struct HeadsCase : NamedCase {
  int64_t batch, rows, in_features, heads, head_dim, others;  // others: columns behind q's and k's heads
  bool norm = true, rope = true;
  int64_t pad = 0;
};

class LinearHeadsTest : public OpCaseTest<HeadsCase> {
 protected:
  ops::LinearCall make_call(const HeadsCase& c, int64_t rows, const Tensor& out) {
    ops::LinearCall call;
    call.x = random_view({c.batch, rows, c.in_features}, c.pad);
    const int64_t columns = 2 * c.heads * c.head_dim + c.others;
    call.layer = {random_view({columns, c.in_features}, DType::kBF16, c.pad, 0.5f), random({columns}, DType::kBF16)};
    call.out = out;
    ops::LinearHeads& heads = call.epilogue.heads;
    heads.count = c.heads;
    heads.head_dim = c.head_dim;
    if (c.norm) {
      heads.norm_rope.q_weight = random({c.head_dim}, DType::kBF16);
      heads.norm_rope.k_weight = random({c.head_dim}, DType::kBF16);
    }
    if (c.rope) {
      heads.norm_rope.cos = random({rows, c.head_dim / 2}, DType::kF32);
      heads.norm_rope.sin = random({rows, c.head_dim / 2}, DType::kF32);
    }
    return call;
  }

  /// The columns [first, first + heads * head_dim) of a linear's values, normed and rotated. The linear's errors are
  /// spread over a head by its norm, so a head's largest magnitude stands for all of it.
  Reference head_reference(const HeadsCase& c, const Reference& linear, int64_t first, const Tensor& weight,
                           const ops::QkNormRope& norm_rope) {
    const int64_t rows = linear.value.dim(1), columns = linear.value.dim(2);
    Array heads(Dims{c.batch, rows, c.heads, c.head_dim});
    const int64_t width = c.heads * c.head_dim;
    for (int64_t i = 0; i < c.batch * rows * width; ++i) {
      heads[i] = linear.value[i / width * columns + first + i % width];
    }
    Reference result = reference_norm_rope(heads, read(weight), read(norm_rope.cos), read(norm_rope.sin),
                                           static_cast<double>(norm_rope.epsilon));
    for (int64_t begin = 0; begin < c.batch * rows * width; begin += c.head_dim) {
      double largest = 0.0;
      for (int64_t i = begin; i < begin + c.head_dim; ++i) largest = std::max(largest, result.magnitude[i]);
      for (int64_t i = begin; i < begin + c.head_dim; ++i) result.magnitude[i] = largest;
    }
    return result;
  }

  void expect_right(const HeadsCase& c, const ops::LinearCall& call) {
    const Reference linear =
        reference_linear({read(call.x), read(call.layer.weight), read(call.layer.bias), {}, {}, Activation::kNone});
    const ops::QkNormRope& norm_rope = call.epilogue.heads.norm_rope;
    const int64_t width = c.heads * c.head_dim, rows = call.out.dim(1);
    const double factor = 8.0 + 2.0 * std::sqrt(static_cast<double>(c.in_features));
    const auto heads = [&](int64_t first) {
      return read(call.out.slice(2, first, first + width).reshape({c.batch, rows, c.heads, c.head_dim}));
    };
    expect_close(heads(0), head_reference(c, linear, 0, norm_rope.q_weight, norm_rope), factor);
    expect_close(heads(width), head_reference(c, linear, width, norm_rope.k_weight, norm_rope), factor);
    if (c.others == 0) return;
    Reference rest{Array(Dims{c.batch, rows, c.others}), Array(Dims{c.batch, rows, c.others})};
    const int64_t columns = 2 * width + c.others;
    for (int64_t i = 0; i < c.batch * rows * c.others; ++i) {
      const int64_t at = i / c.others * columns + 2 * width + i % c.others;
      rest.value[i] = linear.value[at];
      rest.magnitude[i] = linear.magnitude[at];
    }
    expect_close(read(call.out.slice(2, 2 * width, columns)), rest, factor);
  }

  Dims out_shape(const HeadsCase& c, int64_t rows) { return {c.batch, rows, 2 * c.heads * c.head_dim + c.others}; }
};

TEST_P(LinearHeadsTest, MatchesReference) {
  // 2 of a GPU's multiprocessors: even small problems fill them, and get the kernel that does all at once.
  for (const int multiprocessors : {0, 2}) {
    CHIPMUNK_OPEN_OR_SKIP(device_name());
    if (device_name() != "cpu") open(device_name(), 2, multiprocessors);
    const HeadsCase& c = test_case();
    const GuardedView out = make_guarded_view(context(), out_shape(c, c.rows), 8, context().activation_dtype());
    const ops::LinearCall call = make_call(c, c.rows, out.view);
    ops::linear_into(context(), call);
    expect_right(c, call);
    expect_untouched(context(), out);
  }
}

TEST_P(LinearHeadsTest, TwoAtOnceAreAsOneAfterTheOther) {
  for (const int multiprocessors : {0, 2}) {
    CHIPMUNK_OPEN_OR_SKIP(device_name());
    if (device_name() != "cpu") open(device_name(), 2, multiprocessors);
    const HeadsCase& c = test_case();
    const int64_t few = std::max<int64_t>(c.rows / 5, 1);
    const ops::LinearCall first = make_call(c, c.rows, context().empty(out_shape(c, c.rows)));
    const ops::LinearCall second = make_call(c, few, context().empty(out_shape(c, few)));
    ops::linear_pair_into(context(), first, second);
    expect_right(c, first);
    expect_right(c, second);
  }
}

CHIPMUNK_INSTANTIATE(LinearHeadsTest,
                     ::testing::Values(HeadsCase{"flux", 1, 300, 192, 2, 128, 256},
                                       HeadsCase{"flux_batched", 2, 270, 64, 4, 128, 512, true, true, 8},
                                       HeadsCase{"odd_heads", 1, 500, 128, 3, 128, 384},
                                       HeadsCase{"norm_only", 1, 256, 64, 2, 128, 0, true, false},
                                       HeadsCase{"rope_only", 1, 511, 64, 2, 128, 8, false, true},
                                       HeadsCase{"d64", 2, 40, 48, 2, 64, 64},
                                       HeadsCase{"d26_strided", 2, 13, 24, 3, 26, 5, true, true, 3},
                                       HeadsCase{"few_rows", 1, 3, 64, 2, 128, 128}));

struct PairCase : NamedCase {
  int64_t batch, rows, second_rows, in_features, out_features, second_out_features;
  bool gate, residual;
  Activation activation = Activation::kNone;
  bool addend = false;
};

class LinearPairTest : public OpCaseTest<PairCase> {};

TEST_P(LinearPairTest, MatchesReference) {
  for (const int multiprocessors : {0, 2}) {
    CHIPMUNK_OPEN_OR_SKIP(device_name());
    if (device_name() != "cpu") open(device_name(), 2, multiprocessors);
    const PairCase& c = test_case();
    const auto make_call = [&](int64_t rows, int64_t columns) {
      ops::LinearCall call;
      call.x = random({c.batch, rows, c.in_features});
      call.layer = {random({columns, c.in_features}, DType::kBF16, 0.5f), random({columns}, DType::kBF16)};
      call.out = random({c.batch, rows, columns});
      if (c.gate) call.epilogue.gate = random({c.batch, columns});
      if (c.residual) call.epilogue.residual = call.out;
      if (c.addend) call.epilogue.addend = random({c.batch, rows, columns});
      call.epilogue.activation = c.activation;
      return call;
    };
    const ops::LinearCall calls[] = {make_call(c.rows, c.out_features),
                                     make_call(c.second_rows, c.second_out_features)};
    Reference expected[2];
    for (int i = 0; i < 2; ++i) {
      expected[i] = reference_linear({read(calls[i].x), read(calls[i].layer.weight), read(calls[i].layer.bias),
                                      read(calls[i].epilogue.gate), read(calls[i].epilogue.residual), c.activation,
                                      read(calls[i].epilogue.addend)});
    }
    ops::linear_pair_into(context(), calls[0], calls[1]);
    for (int i = 0; i < 2; ++i) {
      expect_close(read(calls[i].out), expected[i], 4.0 + std::sqrt(static_cast<double>(c.in_features)));
    }
  }
}

CHIPMUNK_INSTANTIATE(
    LinearPairTest,
    // Most fill units well enough for the kernel of our own.
    ::testing::Values(PairCase{"gated_residual", 1, 500, 250, 192, 416, 416, true, true},
                      PairCase{"residual", 2, 255, 201, 64, 208, 208, false, true},
                      PairCase{"gate", 1, 256, 100, 128, 256, 256, true, false},
                      // Many units of one step each: results change hands as fast as they can.
                      PairCase{"many_units", 1, 2048, 512, 64, 1536, 1024, true, true},
                      PairCase{"addend", 2, 500, 250, 64, 416, 200, true, true, Activation::kNone, true},
                      PairCase{"addend_activated", 1, 40, 20, 64, 72, 80, true, true, Activation::kSilu, true},
                      PairCase{"nothing", 1, 100, 50, 64, 72, 80, false, false},
                      PairCase{"columns_differ", 1, 256, 512, 64, 624, 1000, true, true},
                      PairCase{"gelu", 1, 500, 250, 192, 504, 504, false, false, Activation::kGeluTanh},
                      PairCase{"gelu_batched", 2, 250, 200, 64, 256, 504, false, false, Activation::kGeluTanh},
                      PairCase{"odd", 3, 33, 7, 40, 50, 31, true, true}));

struct DenseTokensCase : NamedCase {
  int64_t rows, second_rows, in_features, out_features;  // second_rows: 0 for one linear
  bool bias = true;
  bool any_rows = true;  // whether the device takes them in out
};

class LinearDenseTokensTest : public OpCaseTest<DenseTokensCase> {
 protected:
  /// [1, rows, columns], tokens side by side.
  Tensor dense_tokens(int64_t rows, int64_t columns) {
    return random({1, columns, (rows + 7) / 8 * 8}).permute({0, 2, 1}).slice(1, 0, rows);
  }

  void expect_right(const ops::LinearCall& call) {
    const Reference expected = reference_linear(
        {read(call.x), read(call.layer.weight), read(call.layer.bias), {}, {}, call.epilogue.activation});
    expect_close(read(call.out), expected, 4.0 + std::sqrt(static_cast<double>(call.layer.in_features())));
  }

  /// Right where the device takes them, refused where not.
  void run(const std::vector<ops::LinearCall>& calls, bool is_taken) {
    ASSERT_EQ(ops::takes_dense_tokens(context(), calls), is_taken);
    const auto compute = [&] {
      if (calls.size() == 2) return ops::linear_pair_into(context(), calls[0], calls[1]);
      ops::linear_into(context(), calls[0]);
    };
    if (!is_taken) {
      EXPECT_THROW(compute(), Error);
      return;
    }
    compute();
    for (const ops::LinearCall& call : calls) expect_right(call);
  }

  std::vector<ops::LinearCall> make_calls(bool in_out) {
    const DenseTokensCase& c = test_case();
    std::vector<ops::LinearCall> calls;
    for (const int64_t rows : {c.rows, c.second_rows}) {
      if (rows == 0) continue;
      ops::LinearCall call;
      call.x = in_out ? random({1, rows, c.in_features}) : dense_tokens(rows, c.in_features);
      call.layer = {random({c.out_features, c.in_features}, DType::kBF16, 0.5f), {}};
      if (c.bias) call.layer.bias = random({c.out_features}, DType::kBF16);
      call.out = in_out ? dense_tokens(rows, c.out_features) : random({1, rows, c.out_features});
      if (in_out) call.epilogue.activation = Activation::kGeluTanh;
      calls.push_back(std::move(call));
    }
    return calls;
  }
};

TEST_P(LinearDenseTokensTest, InOut) {
  for (const int multiprocessors : {0, 2}) {
    CHIPMUNK_OPEN_OR_SKIP(device_name());
    if (device_name() != "cpu") open(device_name(), 2, multiprocessors);
    const std::vector<ops::LinearCall> calls = make_calls(true);
    // All multiprocessors are too many for so little.
    run(calls, context().backend().wants_dense_tokens() && multiprocessors == 2 && test_case().any_rows);
  }
}

TEST_P(LinearDenseTokensTest, InX) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  run(make_calls(false), device_name() != "cpu");
}

CHIPMUNK_INSTANTIATE(LinearDenseTokensTest,
                     ::testing::Values(DenseTokensCase{"one", 504, 0, 192, 512},
                                       DenseTokensCase{"two", 512, 240, 128, 504},
                                       DenseTokensCase{"no_bias", 256, 248, 64, 256, false},
                                       DenseTokensCase{"any_rows", 250, 0, 64, 256, true, false}));

}  // namespace
}  // namespace chipmunk::test
