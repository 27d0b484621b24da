// The README's example of embedding, compiled and run; the test also checks that the README shows these very lines.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>

// README begin
#include "chipmunk/pipeline.h"

chipmunk::Frames paint(const std::filesystem::path& model, const std::string& prompt) {
  chipmunk::LoadOptions options;
  options.files.model = model;
  const auto pipeline = chipmunk::Pipeline::load(options);
  chipmunk::GenerateRequest request;
  request.prompt = prompt;
  request.steps = 4;
  chipmunk::ProgressSink progress;  // derive from it to hear about steps, and to cancel
  return pipeline->generate(request, progress).samples[0];
}
// README end

namespace {

std::string read(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

TEST(Readme, ExampleRuns) {
  const chipmunk::Frames picture = paint(CHIPMUNK_TEST_DATA "/golden/flux-schnell-tiny/model", "a photo of a cat");
  EXPECT_GT(picture.width, 0);
  EXPECT_EQ(picture.rgb.size(), static_cast<size_t>(picture.width) * static_cast<size_t>(picture.height) * 3);
}

TEST(Readme, ShowsTheExampleThatRuns) {
  const std::string source = read(CHIPMUNK_SOURCE_DIR "/tests/pipeline/readme_test.cpp");
  const std::string begin = "// README begin\n";
  const size_t from = source.find(begin) + begin.size();
  const std::string example = source.substr(from, source.find("// README end") - from);
  EXPECT_NE(read(CHIPMUNK_SOURCE_DIR "/README.md").find("```cpp\n" + example + "```"), std::string::npos);
}

}  // namespace
