#include "core/random_columns.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>

#include "chipmunk/error.h"
#include "core/philox.h"

namespace chipmunk {
namespace {

constexpr const char* kWhere = "random columns";
constexpr size_t kWordsPerCall = 4;

uint32_t checked_bits(int64_t value, int bits, const char* what) {
  if (value < 0 || value >= int64_t{1} << bits) {
    throw Error(
        ErrorCode::kInvalidArgument,
        std::string(what) + ": expected 0 to 2^" + std::to_string(bits) + " - 1, found " + std::to_string(value),
        kWhere);
  }
  return static_cast<uint32_t>(value);
}

}  // namespace

uint64_t random_threshold(double probability) {
  // Written so that NaN fails too.
  if (!(probability >= 0.0 && probability <= 1.0)) {
    throw Error(ErrorCode::kInvalidArgument, "expected a probability from 0 to 1, found " + std::to_string(probability),
                kWhere);
  }
  return static_cast<uint64_t>(std::floor(probability * 0x1.0p32));
}

void draw_random(const RandomRow& row, uint64_t threshold, std::span<uint8_t> mask) {
  const PhiloxKey key = {static_cast<uint32_t>(row.seed), static_cast<uint32_t>(row.seed >> 32)};
  PhiloxCounter counter = {0, checked_bits(row.group, 28, "group") | checked_bits(row.branch, 4, "branch") << 28,
                           checked_bits(row.head, 16, "head") | checked_bits(row.batch, 16, "batch") << 16,
                           checked_bits(row.step, 12, "step") | checked_bits(row.layer, 12, "layer") << 12 |
                               static_cast<uint32_t>(row.purpose) << 24};
  for (size_t j = 0; j < mask.size(); j += kWordsPerCall, ++counter[0]) {
    const PhiloxCounter words = philox4x32(counter, key);
    const size_t count = std::min(kWordsPerCall, mask.size() - j);
    for (size_t i = 0; i < count; ++i) mask[j + i] = static_cast<uint8_t>(words[i] < threshold);
  }
}

}  // namespace chipmunk
