#pragma once

#include <cstdint>

namespace chipmunk::cuda::sm90 {

/// Bytes of a row of the 128-byte swizzle, and of the pattern of eight rows that repeats.
constexpr int kSwizzleRow = 128;
constexpr int kSwizzlePattern = 1024;
/// bf16 elements in a swizzled row.
constexpr int kRowElements = 64;

/// A bf16 matrix [kRows, kColumns] in shared memory as the copy engine's 128-byte swizzle lays it out: blocks of 64
/// columns one after the other, each kRows rows of 128 bytes, in which 16-byte chunk i of row r lies at i ^ (r % 8).
/// Starts at a multiple of kSwizzlePattern.
template <int kRows, int kColumns>
struct SharedMatrix {
  static_assert(kRows % 8 == 0 && kColumns % kRowElements == 0);
  static constexpr int kBlocks = kColumns / kRowElements;
  static constexpr int kBlockBytes = kRows * kSwizzleRow;
  static constexpr int kBytes = kBlocks * kBlockBytes;

  uint32_t address;

  /// Where chunk `chunk` (of 8 elements) of a row lies.
  __device__ uint32_t chunk(int row, int chunk) const {
    return address + chunk / 8 * kBlockBytes + row * kSwizzleRow + ((chunk ^ row) & 7) * 16;
  }

  /// As an operand whose depth runs along the rows: from first_row on, depth elements [16 * step, 16 * step + 16).
  __device__ uint64_t depth_along_rows(int first_row, int step) const {
    const uint32_t start = address + first_row * kSwizzleRow + step / 4 * kBlockBytes +
                           step % 4 * (16 * static_cast<int>(sizeof(uint16_t)));
    return descriptor(start, 1, kSwizzlePattern);
  }
  /// As an operand whose depth runs down the columns: rows [16 * step, 16 * step + 16), all columns.
  __device__ uint64_t depth_down_columns(int step) const {
    return descriptor(address + step * 16 * kSwizzleRow, kBlockBytes, kSwizzlePattern);
  }

 private:
  /// leading: bytes from one block of columns to the next; pattern: from one pattern of eight rows to the next.
  __device__ static uint64_t descriptor(uint32_t start, uint32_t leading, uint32_t pattern) {
    constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
    return kSwizzle128 | static_cast<uint64_t>((start & 0x3ffff) >> 4) |
           static_cast<uint64_t>((leading & 0x3ffff) >> 4) << 16 |
           static_cast<uint64_t>((pattern & 0x3ffff) >> 4) << 32;
  }
};

}  // namespace chipmunk::cuda::sm90
