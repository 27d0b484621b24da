#include <cmath>
#include <memory>
#include <vector>

#include "ops/column_attention.h"
#include "ops/elementwise.h"
#include "ops/linear.h"
#include "sparse/mlp_state.h"
#include "support/op_test.h"

namespace chipmunk::test {
namespace {

constexpr int64_t kTokens = 500, kHeads = 2, kHeadDim = 128, kChannels = kHeads * kHeadDim;
constexpr int kSteps = 6;

struct OverlapCase : NamedCase {
  int64_t features;
};

/// A GPU chooses them by one kernel or another.
const OverlapCase kCases[] = {{"keys_in_shared_memory", 640}, {"keys_in_registers", 1280}};

/// The ops of a single block, of which each may begin before the one ahead of it has ended.
class OverlapTest : public OpCaseTest<OverlapCase> {
 protected:
  struct Layers {
    Linear qkv, out;
    MlpWeights mlp;
    ops::LinearHeads heads;
    Tensor gate;
    ops::ColumnSet columns;
    std::vector<Tensor> x;  // of each step
    Tensor joint;
  };

  Layers make_layers() {
    const auto matrix = [&](int64_t rows, int64_t columns) {
      return random({rows, columns}, DType::kBF16, 1.0f / std::sqrt(static_cast<float>(columns)));
    };
    const int64_t features = test_case().features;
    Layers layers;
    layers.qkv = {matrix(3 * kChannels, kChannels), random({3 * kChannels}, DType::kBF16)};
    layers.out = {matrix(kChannels, kChannels), {}};
    layers.mlp = {{matrix(features, kChannels), random({features}, DType::kBF16)},
                  {matrix(kChannels, features), random({kChannels}, DType::kBF16)},
                  {}};
    layers.mlp.second_transposed =
        ops::to_dense(context(), layers.mlp.second.weight.permute({1, 0}), layers.mlp.second.weight.dtype());
    const auto weight = [&] { return random({kHeadDim}, DType::kBF16); };
    const auto angles = [&] { return random({kTokens, kHeadDim / 2}, DType::kF32); };
    layers.heads = {kHeads, kHeadDim, {weight(), weight(), angles(), angles()}};
    layers.gate = random({1, kChannels});
    const int64_t groups = (kTokens + 191) / 192, kept = 150;
    std::vector<int32_t> keys, counts(static_cast<size_t>(kHeads * groups), kept);
    for (int64_t row = 0; row < kHeads * groups; ++row) {
      for (int64_t i = 0; i < kept; ++i) keys.push_back(static_cast<int32_t>(3 * i + row));
    }
    layers.columns = {from_ints(keys).reshape({1, kHeads, groups, kept}),
                      from_ints(counts).reshape({1, kHeads, groups}), 192};
    for (int step = 0; step <= kSteps; ++step) layers.x.push_back(random({1, kTokens, kChannels}));
    layers.joint = random({1, kTokens, kChannels});
    return layers;
  }

  /// joint after each step.
  std::vector<Array> run(const Context& c, const Layers& layers, bool overlap) {
    const MlpParts parts = {{kTokens, layers.mlp}};
    auto plan = std::make_shared<SparseMlpPlan>();
    plan->top_keys = 0.3;
    plan->random_keys = 0.05;
    SparseMlpState state(plan, 0, 0);
    state.forward(c, MlpStep::kFull, 0, layers.x[0], parts);
    const Tensor joint = c.empty(layers.joint.shape());
    ops::copy_into(c, layers.joint, joint);
    std::vector<Array> results;
    for (int step = 1; step <= kSteps; ++step) {
      const Tensor& x = layers.x[static_cast<size_t>(step)];
      const MlpStep kind = step % 2 == 1 ? MlpStep::kSparseSelect : MlpStep::kSparseReuse;
      const Tensor qkv = c.empty({1, kTokens, 3 * kChannels}), attention = c.empty({1, kTokens, kChannels});
      const bool has_queued = state.prepare(c, kind, step, x, parts);
      EXPECT_EQ(has_queued, kind == MlpStep::kSparseSelect);
      ops::LinearCall first{x, layers.qkv, qkv};
      first.epilogue.heads = layers.heads;
      first.overlaps_last = overlap && has_queued;
      ops::linear_into(c, first);
      state.compute(c, kind, x, parts, overlap);
      const auto heads = [&](const Tensor& joined, int64_t part) {
        return joined.slice(2, part * kChannels, (part + 1) * kChannels).reshape({1, kTokens, kHeads, kHeadDim});
      };
      ops::ColumnAttentionOptions options;
      options.overlaps_last = overlap;
      ops::column_attention_into(c, heads(qkv, 0), heads(qkv, 1), heads(qkv, 2), layers.columns, heads(attention, 0),
                                 options);
      ops::LinearCall last{attention, layers.out, joint, {Activation::kNone, layers.gate, joint}};
      last.epilogue.addend = state.output();
      ops::linear_into(c, last);
      c.runtime().synchronize();
      results.push_back(read(joint));
    }
    return results;
  }
};

TEST_P(OverlapTest, ChangesNoBit) {
  // Of 5, an item of attention is left over, and computed in parts; of 2, none is; of all, there are parts alone.
  for (const int multiprocessors : {0, 2, 5}) {
    CHIPMUNK_OPEN_OR_SKIP(device_name());
    const Layers layers = make_layers();
    context().runtime().synchronize();
    // A context that does not fill memory in between. Kernels of few blocks run beside each other as a whole.
    const Context c = device_name() == "cpu" ? make_cpu_context({.threads = 2})
                                             : make_cuda_context({.multiprocessors = multiprocessors});
    const std::vector<Array> expected = run(c, layers, false);
    for (int repeat = 0; repeat < 4; ++repeat) {
      const std::vector<Array> found = run(c, layers, true);
      for (size_t step = 0; step < found.size(); ++step) {
        SCOPED_TRACE("step " + std::to_string(step));
        expect_equal(found[step], expected[step]);
      }
    }
  }
}

CHIPMUNK_INSTANTIATE(OverlapTest, ::testing::ValuesIn(kCases));

}  // namespace
}  // namespace chipmunk::test
