#include <cstdint>
#include <string>
#include <vector>

#include "sparse/config.h"
#include "sparse_test_util.h"

namespace chipmunk {
namespace {

struct BadConfig {
  const char* name;
  const char* text;
  std::vector<std::string> message;  // parts of it; the first one is the position
  ErrorCode code = ErrorCode::kInvalidConfig;
};

class BadConfigs : public testing::TestWithParam<BadConfig> {};

TEST_P(BadConfigs, AreRefusedWithAClearMessage) {
  const BadConfig& bad = GetParam();
  const std::string message =
      test::expect_error(bad.code, bad.message, [&] { SparsityConfig::parse(bad.text, "f.yml"); });
  EXPECT_TRUE(message.starts_with(bad.message.front())) << message;
}

const BadConfig kUnknownKeys[] = {
    {"UnknownKey",
     "mlp:\n  is_enabled: false\nattn:\n  top_key: 0.1\n",
     {"f.yml:4: ", "unknown key attn.top_key", "nearest known key is attn.top_keys"}},
    {"UnknownSection",
     "mlp: {is_enabled: false}\natn: {top_keys: 0.1}\n",
     {"f.yml:2: ", "unknown key atn", "nearest known key is attn"}},
    {"KeyOfAnotherSection",
     "attn:\n  skip_step_schedule: [3]\n",
     {"f.yml:2: ", "attn.skip_step_schedule", "step_caching.skip_step_schedule"}},
    {"KeyOutsideOfItsSection", "top_keys: 0.1\n", {"f.yml:1: ", "unknown key top_keys", "attn.top_keys"}},
    {"KeyOfTheTopLevelInASection", "mlp:\n  steps: 50\n", {"f.yml:2: ", "unknown key mlp.steps", "is steps"}},
    {"OffloadingKey",
     "offloading:\n  attn.out_cach: true\n",
     {"f.yml:2: ", "offloading.attn.out_cach", "offloading.attn.out_cache"}},
    {"WrongCase", "attn:\n  Top_Keys: 0.1\n", {"f.yml:2: ", "Top_Keys", "attn.top_keys"}},
    {"CombineMisspelt", "attn:\n  combin: merge\n", {"f.yml:2: ", "attn.combin", "attn.combine"}},
};

const BadConfig kWrongTypes[] = {
    {"TextForNumber",
     "attn:\n  top_keys: lots\n",
     {"f.yml:2: ", "attn.top_keys", "expected a number from 0 to 1", "found lots"}},
    {"QuotedNumber", "attn:\n  top_keys: \"0.1\"\n", {"f.yml:2: ", "attn.top_keys", "found the string \"0.1\""}},
    {"NullForNumber", "attn:\n  top_keys:\n  random_keys: 0\n", {"f.yml:2: ", "attn.top_keys", "found null"}},
    {"ListForNumber", "mlp:\n  top_keys: [0.3]\n", {"f.yml:2: ", "mlp.top_keys", "found a list"}},
    {"NumberForBoolean",
     "attn:\n  is_enabled: 1\n",
     {"f.yml:2: ", "attn.is_enabled", "expected true or false", "found 1"}},
    {"QuotedBoolean", "mlp:\n  is_fp8: 'true'\n", {"f.yml:2: ", "mlp.is_fp8", "true or false"}},
    {"FractionForInteger",
     "mlp:\n  full_step_every: 2.5\n",
     {"f.yml:2: ", "mlp.full_step_every", "expected an integer from 1", "found 2.5"}},
    {"MapForList",
     "attn:\n  full_step_schedule: {0: 1}\n",
     {"f.yml:2: ", "attn.full_step_schedule", "expected a list or !!set of steps", "found a mapping"}},
    {"NumberForList",
     "step_caching:\n  skip_step_schedule: 7\n",
     {"f.yml:2: ", "step_caching.skip_step_schedule", "a list or !!set", "found 7"}},
    {"NullForList",
     "step_caching:\n  skip_step_schedule: ~\n",
     {"f.yml:2: ", "step_caching.skip_step_schedule", "found null"}},
    {"TextInList",
     "attn:\n  full_step_schedule:\n    - 0\n    - one\n",
     {"f.yml:4: ", "attn.full_step_schedule", "an integer", "found one"}},
    {"SectionIsAList", "attn: [1, 2]\n", {"f.yml:1: ", "attn", "expected keys below the section", "found a list"}},
    {"SectionIsEmpty", "mlp: {is_enabled: false}\npatchify:\n", {"f.yml:2: ", "patchify", "found null"}},
    {"RootIsAList", "- attn\n- mlp\n", {"f.yml:1: ", "expected sections", "found a list"}},
    {"Empty", "", {"f.yml:1: ", "expected sections", "found null"}},
    {"UnknownCombine",
     "attn:\n  combine: sum\n",
     {"f.yml:2: ", "attn.combine", "expected difference or merge", "found sum"}},
    {"UnknownMode",
     "step_caching:\n  mode: auto\n",
     {"f.yml:2: ", "step_caching.mode", "expected list or adaptive", "found auto"}},
    {"BookkeepingIsCheckedToo", "should_profile: maybe\n", {"f.yml:1: ", "should_profile", "true or false"}},
};

const BadConfig kOutOfRange[] = {
    {"FractionAboveOne",
     "attn:\n  top_keys: 16.5\n",
     {"f.yml:2: ", "attn.top_keys", "a number from 0 to 1", "found 16.5"}},
    {"NegativeFraction",
     "mlp:\n  top_keys: 0.3\n  random_keys: -0.05\n",
     {"f.yml:3: ", "mlp.random_keys", "found -0.05"}},
    {"NotANumber", "attn:\n  top_keys: nan\n", {"f.yml:2: ", "attn.top_keys", "found nan"}},
    {"Infinite", "attn:\n  local_1d_window: inf\n", {"f.yml:2: ", "attn.local_1d_window", "from 0 to 1"}},
    {"ZeroInterval", "attn:\n  full_step_every: 0\n", {"f.yml:2: ", "attn.full_step_every", "found 0"}},
    {"ZeroMaskCache", "mlp:\n  block_mask_cache: 0\n", {"f.yml:2: ", "mlp.block_mask_cache", "integer from 1"}},
    {"NegativeLayers", "attn:\n  first_n_dense_layers: -1\n", {"f.yml:2: ", "attn.first_n_dense_layers", "found -1"}},
    {"NegativeVoxels", "attn:\n  local_voxels: -5\n", {"f.yml:2: ", "attn.local_voxels", "found -5"}},
    {"HugeInteger", "attn:\n  local_voxels: 99999999999\n", {"f.yml:2: ", "attn.local_voxels", "99999999999"}},
    {"ZeroPatch", "patchify:\n  chunk_size_1: 0\n", {"f.yml:2: ", "patchify.chunk_size_1", "found 0"}},
    {"TooManyInvocations",
     "num_model_invocations_per_inference_step: 9\n",
     {"f.yml:1: ", "num_model_invocations_per_inference_step", "integer from 1 to 8", "found 9"}},
    {"MlpListWithoutStepZero",
     "mlp: {top_keys: 0.3, full_step_schedule: [2, 4]}\n",
     {"f.yml:1: ", "mlp.full_step_schedule", "step 0"}},
    {"NegativeStep", "attn:\n  full_step_schedule: [0, -1]\n", {"f.yml:2: ", "attn.full_step_schedule", "found -1"}},
    {"SkipsStepZero",
     "step_caching:\n  skip_step_schedule: !!set\n    ? 0\n    ? 7\n",
     {"f.yml:3: ", "step_caching.skip_step_schedule", "an integer from 1", "found 0"}},
    {"ThresholdTooLarge", "step_caching:\n  threshold: 11\n", {"f.yml:2: ", "step_caching.threshold", "0 to 10"}},
};

const BadConfig kContradictions[] = {
    {"MlpWithoutTopKeys",
     "attn:\n  top_keys: 0.1\nmlp:\n  is_enabled: true\n",
     {"f.yml:3: ", "mlp.top_keys", "expected a number from 0 to 1", "found nothing"}},
    {"NoMlpAtAll", "attn:\n  top_keys: 0.1\n", {"f.yml:1: ", "mlp.top_keys", "is_enabled: false"}},
    {"NullTopKeys", "mlp:\n  top_keys: ~\n", {"f.yml:2: ", "mlp.top_keys", "found nothing"}},
    {"PatchesThatDoNotDivide",
     "mlp: {is_enabled: false}\npatchify:\n  chunk_size_1: 8\n  chunk_size_2: 3\n",
     {"f.yml:4: ", "patchify.chunk_size_2", "a divisor of chunk_size_1 = 8", "found 3"}},
    {"ListWithoutStepZero",
     "mlp: {is_enabled: false}\nattn:\n  full_step_schedule: [1, 10]\n",
     {"f.yml:3: ", "attn.full_step_schedule", "step 0"}},
    {"EmptyList",
     "mlp: {is_enabled: false}\nattn:\n  full_step_schedule: []\n",
     {"f.yml:3: ", "attn.full_step_schedule", "step 0"}},
    {"FirstSparseStepWithoutColumns",
     "mlp: {is_enabled: false}\nattn:\n  full_step_schedule: [0, 10]\n",
     {"f.yml:3: ", "attn.full_step_schedule", "second full step by step 1", "no columns"}},
    {"SkipsDoNotHelpLaterSteps",
     "mlp: {is_enabled: false}\nattn:\n  full_step_schedule: [0, 10]\nstep_caching: {skip_step_schedule: [1, 2]}\n",
     {"f.yml:3: ", "attn.full_step_schedule", "by step 3"}},
    {"AStepTwice",
     "step_caching:\n  skip_step_schedule:\n    - 7\n    - 11\n    - 7\n",
     {"f.yml:5: ", "step_caching.skip_step_schedule", "each step once", "found 7"}},
};

const BadConfig kBrokenFiles[] = {
    {"BrokenYaml", "attn:\n  top_keys: [0.1\n", {"f.yml:", "not valid YAML"}, ErrorCode::kInvalidFile},
    {"BadIndentation",
     "attn:\n  top_keys: 0.1\n random_keys: 0.1\n",
     {"f.yml:3: ", "not valid YAML"},
     ErrorCode::kInvalidFile},
    {"KeyTwice",
     "attn:\n  top_keys: 0.1\n  top_keys: 0.2\n",
     {"f.yml:3: ", "top_keys", "twice", "line 2"},
     ErrorCode::kInvalidFile},
    {"SectionTwice",
     "attn: {top_keys: 0.1}\nmlp: {}\nattn: {}\n",
     {"f.yml:3: ", "attn", "twice", "line 1"},
     ErrorCode::kInvalidFile},
    {"TwoDocuments", "attn: {}\n---\nattn: {}\n", {"f.yml: ", "one YAML document", "found 2"}, ErrorCode::kInvalidFile},
    {"ListAsKey", "? [1, 2]\n: 3\n", {"f.yml:1: ", "a name as key", "found a list"}, ErrorCode::kInvalidFile},
    {"SetWithValues",
     "attn:\n  full_step_schedule: !!set {0: 1}\n",
     {"f.yml:2: ", "!!set", "no values"},
     ErrorCode::kInvalidFile},
    {"AliasOfItself", "attn: &a\n  top_keys: *a\n", {"f.yml:", "too deep"}, ErrorCode::kInvalidFile},
};

const auto kName = [](const testing::TestParamInfo<BadConfig>& bad) { return std::string(bad.param.name); };
INSTANTIATE_TEST_SUITE_P(UnknownKeys, BadConfigs, testing::ValuesIn(kUnknownKeys), kName);
INSTANTIATE_TEST_SUITE_P(WrongTypes, BadConfigs, testing::ValuesIn(kWrongTypes), kName);
INSTANTIATE_TEST_SUITE_P(OutOfRange, BadConfigs, testing::ValuesIn(kOutOfRange), kName);
INSTANTIATE_TEST_SUITE_P(Contradictions, BadConfigs, testing::ValuesIn(kContradictions), kName);
INSTANTIATE_TEST_SUITE_P(BrokenFiles, BadConfigs, testing::ValuesIn(kBrokenFiles), kName);

TEST(BadConfigSizes, EndlessDocumentsAreRefused) {
  test::expect_error(ErrorCode::kInvalidFile, {"f.yml"},
                     [] { SparsityConfig::parse(std::string(2u << 20, ' '), "f.yml"); });
  test::expect_error(ErrorCode::kInvalidFile, {"f.yml"},
                     [] { SparsityConfig::parse(std::string(100000, '['), "f.yml"); });
  // Ten aliases a level multiply to millions of values.
  std::string bomb = "a: &a0 [0,0,0,0,0,0,0,0,0,0]\n";
  for (int i = 1; i < 8; ++i) {
    const std::string alias = "*a" + std::to_string(i - 1);
    bomb += "b" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int j = 0; j < 10; ++j) bomb += (j == 0 ? "" : ", ") + alias;
    bomb += "]\n";
  }
  test::expect_error(ErrorCode::kInvalidFile, {"too deep or too large"}, [&] { SparsityConfig::parse(bomb, "f.yml"); });
}

TEST(BadConfigBytes, AreRefusedOrRead) {
  uint32_t state = 1;
  const auto random_below = [&](size_t bound) {
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % bound;
  };
  const std::string alphabet = "\t\n -:?!&*[]{},#|>'\"%@`~0a\\\xff";
  for (const char* file : {"configs/flux.yml", "configs/hunyuan.yml"}) {
    const std::string original = test::read_file(test::golden_method(file));
    for (int i = 0; i < 400; ++i) {
      std::string text = original.substr(0, i % 4 == 0 ? random_below(original.size()) : original.size());
      for (size_t j = random_below(4) + 1; j > 0 && !text.empty(); --j) {
        text[random_below(text.size())] = alphabet[random_below(alphabet.size())];
      }
      try {
        SparsityConfig::parse(text, "f.yml").validate();
      } catch (const Error&) {
        // Anything else ends the test.
      }
    }
  }
}

}  // namespace
}  // namespace chipmunk
