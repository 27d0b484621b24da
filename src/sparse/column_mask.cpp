#include "sparse/column_mask.h"

#include <algorithm>
#include <string>

#include "chipmunk/error.h"

namespace chipmunk {
namespace {

constexpr const char* kWhere = "column mask";
constexpr int64_t kBitsPerByte = 8;

/// The ids of one row, then the `missing` lowest ones that the mask does not have.
void write_ids(std::span<const uint8_t> mask, int64_t missing, int32_t* ids) {
  for (size_t j = 0; j < mask.size(); ++j) {
    if (mask[j] != 0) *ids++ = static_cast<int32_t>(j);
  }
  for (size_t j = 0; j < mask.size() && missing > 0; ++j) {
    if (mask[j] != 0) continue;
    *ids++ = static_cast<int32_t>(j);
    --missing;
  }
}

}  // namespace

ColumnMask::ColumnMask(int64_t num_rows, int64_t num_columns)
    : rows(num_rows), columns(num_columns), values(static_cast<size_t>(num_rows * num_columns)) {}

int64_t ColumnMask::count(int64_t i) const {
  const std::span<const uint8_t> kept = row(i);
  return static_cast<int64_t>(kept.size()) - std::count(kept.begin(), kept.end(), uint8_t{0});
}

std::vector<uint8_t> pack_bits(std::span<const uint8_t> mask) {
  std::vector<uint8_t> packed((mask.size() + kBitsPerByte - 1) / kBitsPerByte);
  for (size_t i = 0; i < mask.size(); ++i) {
    const int bit = mask[i] != 0 ? 1 << (i % kBitsPerByte) : 0;
    packed[i / kBitsPerByte] = static_cast<uint8_t>(packed[i / kBitsPerByte] | bit);
  }
  return packed;
}

std::vector<uint8_t> unpack_bits(std::span<const uint8_t> packed, int64_t count) {
  if (count < 0 || static_cast<size_t>((count + kBitsPerByte - 1) / kBitsPerByte) != packed.size()) {
    throw Error(ErrorCode::kShapeMismatch,
                "expected the bytes of " + std::to_string(count) + " bits, found " + std::to_string(packed.size()),
                kWhere);
  }
  std::vector<uint8_t> mask(static_cast<size_t>(count));
  for (size_t i = 0; i < mask.size(); ++i) {
    mask[i] = static_cast<uint8_t>(packed[i / kBitsPerByte] >> (i % kBitsPerByte) & 1);
  }
  return mask;
}

ColumnIndices to_indices(const ColumnMask& mask, int64_t multiple_of) {
  if (multiple_of < 1) {
    throw Error(ErrorCode::kInvalidArgument, "multiple_of: expected at least 1, found " + std::to_string(multiple_of),
                kWhere);
  }
  ColumnIndices result{mask.rows, mask.columns, std::vector<int32_t>(mask.values.size(), -1), {}};
  for (int64_t i = 0; i < mask.rows; ++i) {
    const int64_t kept = mask.count(i);
    const int64_t missing = std::min((multiple_of - kept % multiple_of) % multiple_of, mask.columns - kept);
    write_ids(mask.row(i), missing, result.indices.data() + i * mask.columns);
    result.counts.push_back(static_cast<int32_t>(kept + missing));
  }
  return result;
}

ColumnMask to_mask(const ColumnIndices& indices, int64_t columns) {
  if (indices.indices.size() != static_cast<size_t>(indices.rows * indices.capacity) ||
      indices.counts.size() != static_cast<size_t>(indices.rows)) {
    throw Error(ErrorCode::kShapeMismatch, "the sizes of indices and counts do not match their rows and capacity",
                kWhere);
  }
  ColumnMask mask(indices.rows, columns);
  for (int64_t i = 0; i < indices.rows; ++i) {
    const int32_t count = indices.counts[static_cast<size_t>(i)];
    if (count < 0 || count > indices.capacity) {
      throw Error(ErrorCode::kInvalidArgument,
                  "row " + std::to_string(i) + ": expected a count from 0 to " + std::to_string(indices.capacity) +
                      ", found " + std::to_string(count),
                  kWhere);
    }
    for (int64_t slot = 0; slot < count; ++slot) {
      const int32_t id = indices.indices[static_cast<size_t>(i * indices.capacity + slot)];
      if (id < 0 || id >= columns) {
        throw Error(ErrorCode::kInvalidArgument,
                    "row " + std::to_string(i) + ": expected ids below " + std::to_string(columns) + ", found " +
                        std::to_string(id),
                    kWhere);
      }
      mask.row(i)[static_cast<size_t>(id)] = 1;
    }
  }
  return mask;
}

}  // namespace chipmunk
