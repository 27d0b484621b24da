#include "bad_input.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

namespace chipmunk::testing {

std::vector<std::string> generate_with(const std::vector<Change>& changes, const std::vector<std::string>& more) {
  std::vector<Change> options = {{"--model", "{model}"}, {"--prompt", "a cat"}, {"--width", "32"},
                                 {"--height", "32"},     {"--steps", "1"},      {"--seed", "1"},
                                 {"--threads", "1"},     {"--device", "cpu"},   {"--output", "{out}/picture.png"}};
  for (const Change& change : changes) {
    const auto same = std::find_if(options.begin(), options.end(),
                                   [&change](const Change& option) { return option.option == change.option; });
    if (same == options.end()) {
      options.push_back(change);
    } else {
      same->value = change.value;
    }
  }
  std::vector<std::string> arguments = {"generate", "--quiet"};
  for (const Change& option : options) arguments.insert(arguments.end(), {option.option, option.value});
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

namespace {

class BadInputs : public ::testing::TestWithParam<BadInput> {};

/// One line "chipmunk: error: ...", followed by nothing but the indented items of a list.
void expect_one_clear_error(const std::string& err) {
  std::istringstream lines(err);
  std::string line;
  ASSERT_TRUE(std::getline(lines, line)) << "nothing on stderr";
  EXPECT_TRUE(line.starts_with("chipmunk: error: ")) << err;
  while (std::getline(lines, line)) EXPECT_TRUE(line.starts_with("  ")) << "not an item of a list: " << line;
}

TEST_P(BadInputs, EndsWithOneClearErrorAndLeavesNothing) {
  const BadInput& bad = GetParam();
  Workbench bench;
  if (bad.prepare) bad.prepare(bench);
  const ProgramResult result = run_chipmunk(bench.expand(bad.arguments), bad.options);
  EXPECT_FALSE(result.timed_out);
  EXPECT_EQ(result.signal, 0);
  EXPECT_EQ(result.exit_code, bad.exit_code) << result.err;
  EXPECT_EQ(result.out, "");
  expect_one_clear_error(result.err);
  for (const std::string& part : bench.expand(bad.message)) {
    EXPECT_NE(result.err.find(part), std::string::npos) << "expected \"" << part << "\" in: " << result.err;
  }
  EXPECT_EQ(bench.output_names(), std::vector<std::string>());
}

std::string case_name(const ::testing::TestParamInfo<BadInput>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Usage, BadInputs, ::testing::ValuesIn(bad_usage()), case_name);
INSTANTIATE_TEST_SUITE_P(Values, BadInputs, ::testing::ValuesIn(bad_values()), case_name);
INSTANTIATE_TEST_SUITE_P(Places, BadInputs, ::testing::ValuesIn(bad_places()), case_name);
INSTANTIATE_TEST_SUITE_P(Text, BadInputs, ::testing::ValuesIn(bad_text()), case_name);
INSTANTIATE_TEST_SUITE_P(ModelFolders, BadInputs, ::testing::ValuesIn(bad_model_folders()), case_name);
INSTANTIATE_TEST_SUITE_P(Configs, BadInputs, ::testing::ValuesIn(bad_configs()), case_name);
INSTANTIATE_TEST_SUITE_P(Weights, BadInputs, ::testing::ValuesIn(bad_weights()), case_name);
INSTANTIATE_TEST_SUITE_P(Tokenizers, BadInputs, ::testing::ValuesIn(bad_tokenizers()), case_name);
INSTANTIATE_TEST_SUITE_P(Sparsity, BadInputs, ::testing::ValuesIn(bad_sparsity()), case_name);
INSTANTIATE_TEST_SUITE_P(Comparisons, BadInputs, ::testing::ValuesIn(bad_comparisons()), case_name);

// Root writes everywhere, so that this says nothing for root.
TEST(ReadOnlyFolder, IsReportedBeforeAnythingIsComputed) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write to read-only folders";
  Workbench bench;
  std::filesystem::permissions(bench.output(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  const ProgramResult result = run_chipmunk(bench.expand(generate_with({})));
  std::filesystem::permissions(bench.output(), std::filesystem::perms::owner_all);
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("Permission denied"), std::string::npos) << result.err;
  EXPECT_TRUE(bench.output_names().empty());
}

}  // namespace
}  // namespace chipmunk::testing
