#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "chipmunk/error.h"
#include "core/tensor.h"

namespace chipmunk::test {

/// The error's message; fails the test if `run` throws nothing, something else or another code, or if one of the parts
/// is not in the message.
std::string expect_error(ErrorCode code, const std::vector<std::string>& parts, const std::function<void()>& run);

/// Below the fixtures of the method.
std::filesystem::path golden_method(const std::string& relative);
std::string read_file(const std::filesystem::path& path);

/// The elements of a dense host tensor.
template <typename T>
std::span<const T> values_of(const Tensor& tensor) {
  return {tensor.data_as<T>(), static_cast<size_t>(tensor.numel())};
}

/// steps + 1 values from 1 to 0.
std::vector<float> falling_sigmas(int steps);

}  // namespace chipmunk::test
