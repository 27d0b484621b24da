#include "sparse_test_util.h"

#include <fstream>
#include <iterator>

namespace chipmunk::test {

std::string expect_error(ErrorCode code, const std::vector<std::string>& parts, const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(error.code(), code) << message;
    for (const std::string& part : parts) {
      EXPECT_NE(message.find(part), std::string::npos) << "\"" << part << "\" is not in: " << message;
    }
    return message;
  }
  ADD_FAILURE() << "expected an error with " << (parts.empty() ? "" : parts.front());
  return {};
}

std::filesystem::path golden_method(const std::string& relative) {
  return std::filesystem::path(CHIPMUNK_TEST_DATA) / "golden" / "method" / relative;
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::vector<float> falling_sigmas(int steps) {
  std::vector<float> sigmas;
  for (int i = 0; i <= steps; ++i) sigmas.push_back(1.0f - static_cast<float>(i) / static_cast<float>(steps));
  return sigmas;
}

}  // namespace chipmunk::test
