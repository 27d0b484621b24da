#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace chipmunk {

/// Which columns each row (query group, or block of tokens) keeps: one byte a column, 1 for kept.
struct ColumnMask {
  int64_t rows = 0, columns = 0;
  std::vector<uint8_t> values;  ///< [rows, columns]

  ColumnMask() = default;
  /// Nothing kept.
  ColumnMask(int64_t num_rows, int64_t num_columns);

  std::span<uint8_t> row(int64_t i) { return std::span(values).subspan(offset(i), static_cast<size_t>(columns)); }
  std::span<const uint8_t> row(int64_t i) const {
    return std::span(values).subspan(offset(i), static_cast<size_t>(columns));
  }
  /// Columns kept in row i.
  int64_t count(int64_t i) const;

 private:
  size_t offset(int64_t i) const { return static_cast<size_t>(i * columns); }
};

/// The kept columns of every row by their ids, in rows of equal length.
struct ColumnIndices {
  int64_t rows = 0, capacity = 0;
  std::vector<int32_t> indices;  ///< [rows, capacity]; -1 past a row's count
  std::vector<int32_t> counts;   ///< [rows], each in [0, capacity]
};

/// Eight elements a byte, the first one in bit 0; the last byte's unused bits are 0. Any non-zero element counts as 1.
std::vector<uint8_t> pack_bits(std::span<const uint8_t> mask);
/// The first `count` elements of packed bits, each 0 or 1. Throws kShapeMismatch unless packed holds (count + 7) / 8
/// bytes.
std::vector<uint8_t> unpack_bits(std::span<const uint8_t> packed, int64_t count);

/// The kept columns of each row in ascending order. Where a row's count is no multiple of `multiple_of`, the lowest
/// columns that are not kept follow, in ascending order, until it is one or all columns are there; a row that keeps
/// nothing stays empty. capacity = columns. Throws kInvalidArgument for multiple_of < 1.
ColumnIndices to_indices(const ColumnMask& mask, int64_t multiple_of = 1);

/// The mask over `columns` columns that has exactly these ids. Throws kInvalidArgument for a count outside of
/// [0, capacity] or an id outside of [0, columns), kShapeMismatch for vectors of other sizes than rows and capacity
/// say.
ColumnMask to_mask(const ColumnIndices& indices, int64_t columns);

}  // namespace chipmunk
