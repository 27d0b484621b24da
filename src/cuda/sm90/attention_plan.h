#pragma once

/// Decisions about a launch of attention kernels, on the host.
namespace chipmunk::cuda::sm90 {

/// How many of `items` equal pieces of work are better cut into `parts` each, the last ones. Multiprocessors take items
/// in rounds; those that would not fill the last round leave the others idle, and in parts they take a part of the
/// time, where there is room for all parts in so many rounds of their own.
inline int items_in_parts(int items, int multiprocessors, int parts, int part_rounds) {
  const int left_over = items % multiprocessors;
  return left_over * parts <= multiprocessors * part_rounds ? left_over : 0;
}

}  // namespace chipmunk::cuda::sm90
