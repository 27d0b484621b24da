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

  /// As an operand whose depth runs along the rows: from first_row on, depth elements [0, 16); plus
  /// depth_along_rows_step(i) for
  /// [16 * i, 16 * i + 16).
  __device__ uint64_t depth_along_rows(int first_row) const { return descriptor(address + first_row * kSwizzleRow, 1); }
  __device__ static constexpr uint64_t depth_along_rows_step(int i) {
    return encoded(i / 4 * kBlockBytes + i % 4 * (16 * static_cast<int>(sizeof(uint16_t))));
  }
  /// As an operand whose depth runs down the columns: rows [0, 16), all columns; plus depth_down_columns_step(i) for
  /// rows [16 * i, 16 * i + 16).
  __device__ uint64_t depth_down_columns() const { return descriptor(address, kBlockBytes); }
  __device__ static constexpr uint64_t depth_down_columns_step(int i) { return encoded(i * 16 * kSwizzleRow); }

 private:
  /// Addresses and distances are in units of 16 bytes.
  __device__ static constexpr uint64_t encoded(uint32_t bytes) { return bytes >> 4; }
  /// leading: bytes from one block of columns to the next. All lanes of a warp have the same; saying so lets the
  /// compiler keep it in a uniform register.
  __device__ static uint64_t descriptor(uint32_t start, uint32_t leading) {
    constexpr uint32_t kSwizzle128 = 1u << 30;
    // In a cluster, the upper bits of an address say whose shared memory it is.
    constexpr uint32_t kOwn = (1u << 18) - 1;
    const uint32_t low = __shfl_sync(0xffffffffu, (start & kOwn) >> 4 | (leading >> 4) << 16, 0);
    return static_cast<uint64_t>(kSwizzle128 | static_cast<uint32_t>(encoded(kSwizzlePattern))) << 32 | low;
  }
};

}  // namespace chipmunk::cuda::sm90
