#include "sparse/mlp_state.h"

#include <cmath>
#include <memory>
#include <vector>

#include "chipmunk/error.h"
#include "ops/elementwise.h"
#include "support/op_test.h"

namespace chipmunk::test {
namespace {

constexpr int64_t kChannels = 64, kFeatures = 320, kBlockRows = 128;

class SparseMlpStateTest : public OpCaseTest<OnlyCase> {
 protected:
  MlpWeights make_weights() {
    const auto matrix = [&](int64_t rows, int64_t columns) {
      return random({rows, columns}, DType::kBF16, 1.0f / std::sqrt(static_cast<float>(columns)));
    };
    MlpWeights weights{{matrix(kFeatures, kChannels), random({kFeatures}, DType::kBF16, 0.3f)},
                       {matrix(4 * kChannels, kFeatures), random({4 * kChannels}, DType::kBF16, 0.3f)},
                       {}};
    weights.second_transposed =
        ops::to_dense(context(), weights.second.weight.permute({1, 0}), weights.second.weight.dtype());
    return weights;
  }
  /// Without random features, whose choice the number of a block takes part in.
  static std::shared_ptr<SparseMlpPlan> make_plan() {
    SparseMlpPlan plan;
    plan.top_keys = 0.3;
    plan.block_rows = plan.mean_rows = kBlockRows;
    return std::make_shared<SparseMlpPlan>(plan);
  }
};

TEST_P(SparseMlpStateTest, PartsAreAsAStateEach) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  // Whole blocks, a part that is shorter than one, and blocks that begin anywhere.
  for (const auto& [text, image] : {std::pair<int64_t, int64_t>{256, 400}, {40, 256}, {131, 129}}) {
    const MlpParts parts = {{text, make_weights()}, {image, make_weights()}};
    const int64_t batch = 2, tokens = text + image, text_blocks = (text + kBlockRows - 1) / kBlockRows;
    SparseMlpState both(make_plan(), 0, 0), first(make_plan(), 0, 0), second(make_plan(), 0, 0);
    int step = 0;
    for (const MlpStep kind :
         {MlpStep::kFull, MlpStep::kSparseSelect, MlpStep::kSparseReuse, MlpStep::kSparseSelect, MlpStep::kFull}) {
      const Tensor x = random({batch, tokens, kChannels});
      both.forward(context(), kind, step, x, parts);
      first.forward(context(), kind, step, x.slice(1, 0, text), parts[0].weights);
      second.forward(context(), kind, step, x.slice(1, text, tokens), parts[1].weights);
      ++step;
      const auto expect_parts = [&](const Tensor& joint, int64_t split, const Tensor& a, const Tensor& b) {
        expect_equal(read(joint.slice(1, 0, split)), read(a));
        expect_equal(read(joint.slice(1, split, joint.dim(1))), read(b));
      };
      expect_parts(both.output(), text, first.output(), second.output());
      expect_parts(both.activations(), text, first.activations(), second.activations());
      expect_parts(both.means(), text_blocks, first.means(), second.means());
      if (kind == MlpStep::kFull) continue;
      const Tensor counts = context().to_host(both.features().counts);
      for (int64_t i = 0; i < counts.numel(); ++i) EXPECT_EQ(counts.data_as<int32_t>()[i], kFeatures * 3 / 10);
    }
  }
}

TEST_P(SparseMlpStateTest, AFullStepIsBothLayers) {
  // Of few multiprocessors, a GPU writes activations as sparse steps want them.
  for (const int multiprocessors : {0, 2}) {
    CHIPMUNK_OPEN_OR_SKIP(device_name());
    if (device_name() == "cpu" && multiprocessors > 0) break;
    if (multiprocessors > 0) open(device_name(), 2, multiprocessors);
    const int64_t text = 256, tokens = 504;
    const MlpParts parts = {{text, make_weights()}, {tokens - text, make_weights()}};
    const Tensor x = random({1, tokens, kChannels});
    SparseMlpState state(make_plan(), 0, 0);
    state.forward(context(), MlpStep::kFull, 0, x, parts);
    std::vector<ops::LinearCall> first_layers;
    for (size_t i = 0; i < parts.size(); ++i) {
      const int64_t begin = i == 0 ? 0 : text, end = i == 0 ? text : tokens;
      const auto part = [&](const Tensor& of) { return of.slice(1, begin, end); };
      const MlpWeights& weights = parts[i].weights;
      const auto expect_layer = [&](const Tensor& in, const Linear& layer, Activation activation, const Tensor& out) {
        expect_close(read(part(out)),
                     reference_linear({read(part(in)), read(layer.weight), read(layer.bias), {}, {}, activation}),
                     4.0 + std::sqrt(static_cast<double>(layer.in_features())));
      };
      expect_layer(x, weights.first, weights.activation, state.activations());
      expect_layer(state.activations(), weights.second, Activation::kNone, state.output());
      first_layers.push_back({part(x), weights.first, part(state.activations()), {weights.activation, {}, {}}});
    }
    if (multiprocessors > 0) {
      EXPECT_TRUE(ops::takes_dense_tokens(context(), first_layers));
    }
  }
}

TEST_P(SparseMlpStateTest, RefusesPartsThatAreNotTheSequence) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Tensor x = random({1, 200, kChannels});
  SparseMlpState state(make_plan(), 0, 0);
  const MlpWeights weights = make_weights();
  for (const MlpParts& parts :
       {MlpParts{}, MlpParts{{100, weights}, {99, weights}}, MlpParts{{0, weights}, {200, weights}},
        MlpParts{{50, weights}, {50, weights}, {100, weights}}}) {
    try {
      state.forward(context(), MlpStep::kFull, 0, x, parts);
      ADD_FAILURE() << "expected an error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kShapeMismatch);
      EXPECT_NE(std::string(error.what()).find("sparse MLP"), std::string::npos) << error.what();
    }
  }
}

CHIPMUNK_INSTANTIATE(SparseMlpStateTest, ::testing::Values(OnlyCase{}));

}  // namespace
}  // namespace chipmunk::test
