// Damaged files: either an Error, or tensors whose every byte can be read. Meant to run under the sanitizers as well.
#include <map>
#include <random>

#include "io/safetensors.h"
#include "io_test_util.h"

namespace chipmunk {
namespace {

using test::counting_tensor;
using test::TempFolder;

constexpr int kRounds = 2000;

std::string valid_file(const TempFolder& folder) {
  const std::map<std::string, Tensor> tensors = {{"first.weight", counting_tensor({3, 4}, DType::kF32)},
                                                 {"first.bias", counting_tensor({3}, DType::kBF16)},
                                                 {"second.weight", counting_tensor({2, 2, 2}, DType::kF16)},
                                                 {"ids", counting_tensor({5}, DType::kI64)}};
  write_safetensors(folder / "valid.safetensors", tensors, {{"format", "pt"}});
  return test::read_all(folder / "valid.safetensors");
}

/// Reads every byte that the file claims to have; the sanitizers see what lies outside.
int64_t touch(const SafetensorsFile& file) {
  int64_t sum = 0;
  for (const std::string& name : file.names()) {
    if (!file.entry(name).dtype) continue;
    const Tensor tensor = file.tensor(name);
    EXPECT_EQ(tensor.bytes(), file.entry(name).bytes);
    EXPECT_LE(file.entry(name).offset + file.entry(name).bytes, std::filesystem::file_size(file.path()));
    const auto* bytes = static_cast<const uint8_t*>(tensor.data());
    for (size_t i = 0; i < tensor.bytes(); ++i) sum += bytes[i];
  }
  return sum;
}

/// The number of damaged files that still opened.
int open_damaged(const TempFolder& folder, const std::function<std::string(std::mt19937&)>& damaged) {
  std::mt19937 random(20240607);
  int opened = 0;
  for (int round = 0; round < kRounds; ++round) {
    const auto path = folder.add("damaged.safetensors", damaged(random));
    try {
      touch(SafetensorsFile(path));
      ++opened;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("damaged.safetensors"), std::string::npos) << error.what();
    }
  }
  return opened;
}

TEST(SafetensorsFuzz, FlippedBytes) {
  const TempFolder folder;
  const std::string valid = valid_file(folder);
  const int opened = open_damaged(folder, [&](std::mt19937& random) {
    std::string bytes = valid;
    const int flips = 1 + static_cast<int>(random() % 4);
    for (int i = 0; i < flips; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    return bytes;
  });
  // Damage to names and data cannot be noticed; the structure must be.
  EXPECT_GT(opened, 0);
  EXPECT_LT(opened, kRounds);
}

TEST(SafetensorsFuzz, ChangedDigitsOfTheHeader) {
  const TempFolder folder;
  const std::string valid = valid_file(folder);
  const size_t header_end = valid.rfind('}');
  open_damaged(folder, [&](std::mt19937& random) {
    std::string bytes = valid;
    for (int changes = 0; changes < 3;) {
      const size_t at = 8 + random() % (header_end - 8);
      if (bytes[at] < '0' || bytes[at] > '9') continue;
      bytes[at] = static_cast<char>('0' + random() % 10);
      ++changes;
    }
    return bytes;
  });
}

TEST(SafetensorsFuzz, RemovedAndRepeatedPieces) {
  const TempFolder folder;
  const std::string valid = valid_file(folder);
  open_damaged(folder, [&](std::mt19937& random) {
    std::string bytes = valid;
    const size_t begin = random() % bytes.size();
    const size_t length = 1 + random() % 40;
    if (random() % 2 == 0) {
      bytes.erase(begin, length);
    } else {
      bytes.insert(begin, valid.substr(random() % valid.size(), length));
    }
    return bytes;
  });
}

}  // namespace
}  // namespace chipmunk
