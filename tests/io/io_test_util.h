#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "chipmunk/error.h"
#include "core/tensor.h"

namespace chipmunk::test {

/// An empty folder that disappears with its content at the end of the test.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  /// Writes a file below the folder, with the folders on the way to it.
  std::filesystem::path add(const std::string& name, std::string_view content) const;
  /// Names of everything directly inside, sorted, hidden files too.
  std::vector<std::string> list() const;

 private:
  std::filesystem::path path_;
};

std::string read_all(const std::filesystem::path& path);

/// Bytes of a safetensors file with this header text and data section.
std::string safetensors_bytes(std::string_view header, std::string_view data);
/// The same with a header length of one's own.
std::string safetensors_bytes(uint64_t header_length, std::string_view header, std::string_view data);

/// A dense host tensor with elements first, first + 1, ...
Tensor counting_tensor(const Dims& shape, DType dtype, int first = 0);

/// The error's message; fails the test if `run` throws nothing, something else or another code, or if one of the parts
/// is not in the message.
std::string expect_error(ErrorCode code, const std::vector<std::string>& parts, const std::function<void()>& run);

std::filesystem::path golden(const std::string& relative);

}  // namespace chipmunk::test
