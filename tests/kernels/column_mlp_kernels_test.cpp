#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

#include "core/float_formats.h"
#include "kernels/generated_mlp.h"
#include "kernels/generated_values.h"
#include "support/op_test.h"

namespace chipmunk::test {
namespace {

/// Problems a test body draws.
constexpr uint64_t kProblemsPerTest = 25;
constexpr double kSmall = 1e5, kLarge = 1.5e6;
/// Kernels write tokens that lie side by side in words of so many.
constexpr int64_t kTokensAtOnce = 8;

/// A tensor's block on the host, at some time.
class Snapshot {
 public:
  Snapshot(const Context& context, const UpdatedTensor& tensor)
      : dtype_(tensor.block.dtype()),
        shape_(tensor.block.shape()),
        strides_(tensor.view.strides()),
        first_((static_cast<char*>(tensor.view.data()) - static_cast<char*>(tensor.block.data())) / element_bytes()) {
    // A copy: on the CPU the block itself comes back.
    const Tensor host = context.to_host(tensor.block);
    const auto* data = static_cast<const unsigned char*>(host.data());
    bytes_.assign(data, data + host.bytes());
  }

  /// The view's element [b, i, j].
  float at(int64_t b, int64_t i, int64_t j) const {
    const int64_t element = first_ + b * strides_[0] + i * strides_[1] + j * strides_[2];
    const unsigned char* data = bytes_.data() + element * element_bytes();
    if (dtype_ == DType::kBF16) {
      uint16_t bits = 0;
      std::memcpy(&bits, data, sizeof(bits));
      return bf16_to_float(bits);
    }
    float value = 0.0f;
    std::memcpy(&value, data, sizeof(value));
    return value;
  }
  /// Whether elements [begin, end) of row [i, j] of the block have the same bits in both.
  bool same(const Snapshot& other, int64_t i, int64_t j, int64_t begin, int64_t end) const {
    const int64_t offset = ((i * shape_[1] + j) * shape_[2] + begin) * element_bytes();
    return begin >= end || std::memcmp(bytes_.data() + offset, other.bytes_.data() + offset,
                                       static_cast<size_t>((end - begin) * element_bytes())) == 0;
  }
  bool same(const Snapshot& other) const { return bytes_ == other.bytes_; }
  /// Of the block.
  int64_t rows() const { return shape_[1]; }
  int64_t row_length() const { return shape_[2]; }

 private:
  int64_t element_bytes() const { return static_cast<int64_t>(size_of(dtype_)); }

  DType dtype_;
  Dims shape_, strides_;
  int64_t first_;
  std::vector<unsigned char> bytes_;
};

struct State {
  Snapshot activations, out;
};

/// One generated problem and everything that is asked of it.
class Sequence {
 public:
  Sequence(const Context& context, const GeneratedMlp& problem)
      : context_(context),
        p_(problem),
        first_(make_rows(context, {1, p_.features, p_.channels}, p_.row_padding, p_.weight_dtype, p_.seed * 16,
                         p_.weight_scale / std::sqrt(static_cast<float>(p_.channels)))),
        second_(make_rows(context, {1, p_.features, p_.out_channels}, p_.row_padding, p_.weight_dtype, p_.seed * 16 + 1,
                          1.0f / std::sqrt(static_cast<float>(p_.features)))),
        bias_(make_rows(context, {1, 1, p_.features}, 0, p_.weight_dtype, p_.seed * 16 + 2, 0.5f)) {
    reset();
  }

  void run() {
    for (int step = 0; step < p_.steps; ++step) {
      draw_step(step);
      const State before = read();
      compute();
      const State after = read();
      expect_only_chosen_changed(step, before, after);
      expect_values(step, before, after);
    }
    // Differences are taken between rounded activations, so nothing is left of them.
    const State once = read();
    compute();
    const State twice = read();
    for (int64_t b = 0; b < p_.batch; ++b) {
      for (int64_t t = 0; t < p_.tokens; ++t) {
        for (int64_t c = 0; c < p_.out_channels; ++c) {
          ASSERT_EQ(once.out.at(b, t, c), twice.out.at(b, t, c)) << "the last step again, " << p_.describe();
        }
      }
    }
  }

  /// The state after one step from the beginning.
  State first_step() {
    reset();
    draw_step(0);
    compute();
    return read();
  }

 private:
  void reset() {
    activations_ = make_activations(context_, p_);
    out_ = make_out(context_, p_);
  }
  void draw_step(int step) {
    const auto seed = p_.seed * 1000 + static_cast<uint64_t>(step);
    x_ = make_rows(context_, {p_.batch, p_.tokens, p_.channels}, p_.row_padding, context_.activation_dtype(),
                   seed * 16 + 3, 1.0f);
    // The same lists twice in a row, now and then.
    if (!features_ || seed % 3 != 0) features_ = make_features(context_, p_, seed);
  }
  void compute() const {
    const Linear first{first_.tensor.select(0, 0), p_.bias ? bias_.tensor.reshape({p_.features}) : Tensor()};
    ops::column_mlp_into(context_, x_.tensor, first, p_.activation, second_.tensor.select(0, 0), features_->set,
                         activations_.view, out_.view);
  }
  State read() const { return {Snapshot(context_, activations_), Snapshot(context_, out_)}; }
  std::string what(const char* part, int step) const {
    return std::string(part) + " of step " + std::to_string(step) + ", " + p_.describe();
  }
  bool chosen(int64_t batch, int64_t token, int64_t feature) const {
    const std::vector<int32_t>& ids = features_->of(batch, token, p_);
    return std::binary_search(ids.begin(), ids.end(), static_cast<int32_t>(feature));
  }

  /// Bit by bit: what lies around both tensors, features that a block does not list, outputs of blocks with no list.
  void expect_only_chosen_changed(int step, const State& before, const State& after) const {
    for (int64_t i = 0; i < p_.batch + 2; ++i) {
      const int64_t b = i - 1;
      const bool guard = b < 0 || b == p_.batch;
      for (int64_t j = 0; j < before.activations.rows(); ++j) {
        const bool intact = guard ? before.activations.same(after.activations, i, j, 0, before.activations.row_length())
                            : p_.dense_tokens ? feature_is_intact(before, after, b, j)
                                              : token_is_intact(before, after, b, j);
        ASSERT_TRUE(intact) << what("activations", step) << ": sample " << b << ", row " << j;
      }
      for (int64_t t = 0; t < p_.tokens; ++t) {
        if (!guard && !features_->of(b, t, p_).empty()) continue;
        ASSERT_TRUE(before.out.same(after.out, i, t, 0, p_.out_channels))
            << what("output", step) << ": sample " << b << ", token " << t;
      }
    }
  }
  int64_t row_length() const { return static_cast<int64_t>(activations_.block.dim(2)); }
  bool feature_is_intact(const State& before, const State& after, int64_t b, int64_t feature) const {
    // The words in which the last tokens lie end behind them.
    const int64_t end = (p_.tokens + kTokensAtOnce - 1) / kTokensAtOnce * kTokensAtOnce;
    bool intact = before.activations.same(after.activations, b + 1, feature, end, before.activations.row_length());
    for (int64_t t = 0; t < p_.tokens; t += p_.block_rows) {
      if (chosen(b, t, feature)) continue;
      const int64_t block_end = t + p_.block_rows < p_.tokens ? t + p_.block_rows : end;
      intact &= before.activations.same(after.activations, b + 1, feature, t, block_end);
    }
    return intact;
  }
  bool token_is_intact(const State& before, const State& after, int64_t b, int64_t token) const {
    int64_t next = 0;
    bool intact = true;
    for (int32_t feature : features_->of(b, token, p_)) {
      intact &= before.activations.same(after.activations, b + 1, token, next, feature);
      next = feature + 1;
    }
    return intact && before.activations.same(after.activations, b + 1, token, next, before.activations.row_length());
  }

  /// Some tokens of every block: some of its renewed activations, and some channels of what it adds to the output.
  void expect_values(int step, const State& before, const State& after) const {
    std::mt19937_64 engine(p_.seed * 100 + static_cast<uint64_t>(step));
    const auto below = [&](int64_t n) { return static_cast<int64_t>(engine() % static_cast<uint64_t>(n)); };
    ErrorBound activations, out;
    for (int64_t b = 0; b < p_.batch; ++b) {
      for (int64_t start = 0; start < p_.tokens; start += p_.block_rows) {
        const std::vector<int32_t>& ids = features_->of(b, start, p_);
        if (ids.empty()) continue;
        const int64_t end = std::min(start + p_.block_rows, p_.tokens), last = static_cast<int64_t>(ids.size()) - 1;
        for (int64_t token : {start, end - 1, start + below(end - start)}) {
          for (int64_t place : {int64_t{0}, last, below(last + 1), below(last + 1), below(last + 1), below(last + 1)}) {
            const int32_t feature = ids[static_cast<size_t>(place)];
            const auto [exact, unavoidable] = activation(b, token, feature);
            activations.add(after.activations.at(b, token, feature), exact, exact, unavoidable);
          }
          // From what is there now: that it is right was asked above.
          const std::vector<float> differences = renewed(b, token, ids, before, after);
          const int64_t columns = p_.out_channels;
          for (int64_t channel : {int64_t{0}, columns - 1, below(columns), below(columns), below(columns)}) {
            double exact = before.out.at(b, token, channel), plain = exact;
            for (size_t i = 0; i < ids.size(); ++i) {
              const float weight = second_.row(ids[i])[channel];
              exact += static_cast<double>(differences[i]) * weight;
              plain += static_cast<double>(round_to_bf16(differences[i])) * weight;
            }
            out.add(after.out.at(b, token, channel), exact, plain);
          }
        }
      }
    }
    activations.expect_met(what("activations", step));
    out.expect_met(what("output", step));
  }
  /// Exactly, and how far off f32 sums may make it.
  std::pair<double, double> activation(int64_t batch, int64_t token, int64_t feature) const {
    const float *x = x_.row(token, batch), *weight = first_.row(feature);
    double sum = p_.bias ? bias_.values[static_cast<size_t>(feature)] : 0.0, magnitude = std::abs(sum);
    for (int64_t c = 0; c < p_.channels; ++c) {
      const double product = static_cast<double>(x[c]) * weight[c];
      sum += product;
      magnitude += std::abs(product);
    }
    return {reference_activation(p_.activation, sum), 0x1p-20 * magnitude};
  }
  /// By how much a token's activations rose.
  static std::vector<float> renewed(int64_t batch, int64_t token, const std::vector<int32_t>& ids, const State& before,
                                    const State& after) {
    std::vector<float> differences;
    differences.reserve(ids.size());
    for (int32_t feature : ids) {
      differences.push_back(after.activations.at(batch, token, feature) - before.activations.at(batch, token, feature));
    }
    return differences;
  }

  const Context& context_;
  const GeneratedMlp p_;
  const RowTensor first_, second_, bias_;
  RowTensor x_;
  std::optional<GeneratedFeatures> features_;
  UpdatedTensor activations_, out_;
};

class ColumnMlpKernelsTest : public OpTest, public ::testing::WithParamInterface<std::tuple<std::string, uint64_t>> {};

TEST_P(ColumnMlpKernelsTest, GeneratedProblems) {
  const auto& [device, number] = GetParam();
  CHIPMUNK_OPEN_OR_SKIP(device);
  for (uint64_t i = 0; i < kProblemsPerTest; ++i) {
    Sequence(context(), GeneratedMlp::draw(number * kProblemsPerTest + i, device == "cpu" ? kSmall : kLarge)).run();
    if (HasFailure()) return;
  }
}

class SameBitsTest : public OpTest, public ::testing::WithParamInterface<std::string> {};

TEST_P(SameBitsTest, TwentyTimes) {
  CHIPMUNK_OPEN_OR_SKIP(GetParam());
  // 11 x 3 tiles of outputs: a Hopper GPU's multiprocessors share some of them.
  GeneratedMlp problem = GeneratedMlp::draw(0, kSmall);
  problem.batch = 1;
  problem.tokens = 1300;
  problem.channels = 128;
  problem.features = 700;
  problem.out_channels = 768;
  Sequence sequence(context(), problem);
  const State once = sequence.first_step();
  for (int run = 1; run < 20; ++run) {
    const State again = sequence.first_step();
    ASSERT_TRUE(once.activations.same(again.activations) && once.out.same(again.out)) << "run " << run;
  }
}

/// As a GPU with fewer multiprocessors would launch them.
class FewerMultiprocessorsMlpTest : public OpTest, public ::testing::WithParamInterface<int> {};

TEST_P(FewerMultiprocessorsMlpTest, GeneratedProblems) {
  CHIPMUNK_OPEN_OR_SKIP("cuda");
  open("cuda", 2, GetParam());
  for (uint64_t number = 1000; number < 1020; ++number) {
    Sequence(context(), GeneratedMlp::draw(number, kLarge)).run();
    if (HasFailure()) return;
  }
}

/// More token blocks than the kernels' scratch memory holds at a time.
class ManyBlocksMlpTest : public OpTest, public ::testing::WithParamInterface<std::string> {};

TEST_P(ManyBlocksMlpTest, MatchReference) {
  CHIPMUNK_OPEN_OR_SKIP("cuda");
  const bool hopper = GetParam() == "hopper";
  GeneratedMlp problem = GeneratedMlp::draw(0, kSmall);
  // Hopper's: 512 MB hold 512 blocks of 4096 features and 128 tokens, however few there are. The other's: 256 MB hold
  // as many as there are tokens and features.
  problem.batch = hopper ? 530 : 70;
  problem.tokens = hopper ? 1 : 129;
  problem.features = hopper ? 4096 : 8000;
  problem.channels = 64;
  problem.out_channels = hopper ? 256 : 8;
  problem.steps = 1;
  Sequence(context(), problem).run();
}

std::string test_name(const ::testing::TestParamInfo<ColumnMlpKernelsTest::ParamType>& info) {
  return std::get<0>(info.param) + "_" + std::to_string(std::get<1>(info.param));
}
std::string own_name(const ::testing::TestParamInfo<std::string>& info) { return info.param; }
// The CPU shows that the test itself is right.
INSTANTIATE_TEST_SUITE_P(Cpu, ColumnMlpKernelsTest,
                         ::testing::Combine(::testing::Values("cpu"), ::testing::Range<uint64_t>(0, 2)), test_name);
INSTANTIATE_TEST_SUITE_P(Cpu, SameBitsTest, ::testing::Values("cpu"), own_name);
INSTANTIATE_TEST_SUITE_P(Gpu, ColumnMlpKernelsTest,
                         ::testing::Combine(::testing::Values("cuda"), ::testing::Range<uint64_t>(0, 21)), test_name);
INSTANTIATE_TEST_SUITE_P(Gpu, SameBitsTest, ::testing::Values("cuda"), own_name);
INSTANTIATE_TEST_SUITE_P(Gpu, FewerMultiprocessorsMlpTest, ::testing::Values(1, 78, 114, 132));
INSTANTIATE_TEST_SUITE_P(Gpu, ManyBlocksMlpTest, ::testing::Values("hopper", "portable"), own_name);

}  // namespace
}  // namespace chipmunk::test
