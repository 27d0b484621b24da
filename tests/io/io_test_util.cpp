#include "io_test_util.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>

#include "core/context.h"
#include "core/float_formats.h"

namespace chipmunk::test {

namespace fs = std::filesystem;

TempFolder::TempFolder() {
  std::string name = (fs::temp_directory_path() / "chipmunk-io-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw Error(ErrorCode::kIo, "cannot make a folder for the test", name);
  path_ = name;
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

fs::path TempFolder::add(const std::string& name, std::string_view content) const {
  const fs::path path = path_ / name;
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary).write(content.data(), static_cast<std::streamsize>(content.size()));
  return path;
}

std::vector<std::string> TempFolder::list() const {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(path_)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::string read_all(const fs::path& path) {
  std::ostringstream content;
  content << std::ifstream(path, std::ios::binary).rdbuf();
  return content.str();
}

std::string safetensors_bytes(uint64_t header_length, std::string_view header, std::string_view data) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &header_length, 8);
  return bytes.append(header).append(data);
}

std::string safetensors_bytes(std::string_view header, std::string_view data) {
  return safetensors_bytes(header.size(), header, data);
}

Tensor counting_tensor(const Dims& shape, DType dtype, int first) {
  const Tensor tensor = make_host_tensor(shape, dtype);
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    const int64_t value = first + i;
    const float number = static_cast<float>(value);
    switch (dtype) {
      case DType::kF32: tensor.data_as<float>()[i] = number; break;
      case DType::kBF16: tensor.data_as<uint16_t>()[i] = float_to_bf16(number); break;
      case DType::kF16: tensor.data_as<uint16_t>()[i] = float_to_f16(number); break;
      case DType::kI32: tensor.data_as<int32_t>()[i] = static_cast<int32_t>(value); break;
      case DType::kI64: tensor.data_as<int64_t>()[i] = value; break;
      default: tensor.data_as<uint8_t>()[i] = static_cast<uint8_t>(value); break;
    }
  }
  return tensor;
}

std::string expect_error(ErrorCode code, const std::vector<std::string>& parts, const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(to_string(error.code()), to_string(code)) << message;
    for (const std::string& part : parts) {
      EXPECT_NE(message.find(part), message.npos) << "expected \"" << part << "\" in: " << message;
    }
    return message;
  }
  ADD_FAILURE() << "expected the error " << to_string(code) << ", nothing was thrown";
  return {};
}

fs::path golden(const std::string& relative) { return fs::path(CHIPMUNK_TEST_DATA) / "golden" / relative; }

}  // namespace chipmunk::test
