#include "sparse/static_columns.h"

#include <algorithm>
#include <limits>
#include <string>

#include "chipmunk/error.h"

namespace chipmunk {
namespace {

constexpr const char* kWhere = "static columns";

[[noreturn]] void fail(const std::string& message) { throw Error(ErrorCode::kInvalidArgument, message, kWhere); }

void keep_range(std::span<uint8_t> row, int64_t begin, int64_t end) {
  std::fill(row.begin() + begin, row.begin() + end, uint8_t{1});
}

/// A run of voxels along one axis.
struct Run {
  int64_t begin = 0, end = 0;
};

/// The window of voxel i among `count` voxels of one axis.
Run window_of(int64_t i, int64_t count, int64_t local) {
  const int64_t half = local / 2;
  const int64_t length = half < count ? std::min(2 * half + 1, count) : count;
  const int64_t begin = std::clamp(i - half, int64_t{0}, count - length);
  return {begin, begin + length};
}

/// Volume of the window in tokens, or the largest number where that does not fit.
int64_t window_volume(const VideoShape& voxel, const VideoShape& local) {
  int64_t volume = voxel.volume();
  for (int64_t side : {local.frames, local.height, local.width}) {
    if (__builtin_mul_overflow(volume, side, &volume)) return std::numeric_limits<int64_t>::max();
  }
  return volume;
}

void keep_window(const VideoShape& voxels, Run frames, Run rows, Run columns, int64_t volume, std::span<uint8_t> mask) {
  for (int64_t t = frames.begin; t < frames.end; ++t) {
    for (int64_t y = rows.begin; y < rows.end; ++y) {
      const int64_t line = (t * voxels.height + y) * voxels.width;
      keep_range(mask, (line + columns.begin) * volume, (line + columns.end) * volume);
    }
  }
}

void add_local_voxels(const StaticColumnRule& rule, const VideoShape& voxels, ColumnMask& mask) {
  const VideoShape& local = rule.local_voxels;
  const int64_t volume = rule.voxel.volume();
  int64_t group = 0;
  for (int64_t t = 0; t < voxels.frames; ++t) {
    for (int64_t y = 0; y < voxels.height; ++y) {
      for (int64_t x = 0; x < voxels.width; ++x, ++group) {
        keep_window(voxels, window_of(t, voxels.frames, local.frames), window_of(y, voxels.height, local.height),
                    window_of(x, voxels.width, local.width), volume, mask.row(group));
      }
    }
  }
  const int64_t last = std::min(window_volume(rule.voxel, local), mask.columns);
  for (; group < mask.rows; ++group) keep_range(mask.row(group), mask.columns - last, mask.columns);
}

void check(const StaticColumnRule& rule) {
  const VideoShape& local = rule.local_voxels;
  for (const VideoShape& shape : {rule.video, rule.voxel}) {
    if (shape.frames < 1 || shape.height < 1 || shape.width < 1) fail("expected sides of at least 1");
  }
  if (local.frames < 0 || local.height < 0 || local.width < 0) fail("expected no negative local window");
  if (rule.text_tokens < 0) fail("expected no negative number of text tokens");
}

}  // namespace

void keep_columns(ColumnMask& mask, int64_t begin, int64_t end) {
  if (begin < 0 || begin > end || end > mask.columns) {
    fail("expected a range of columns within [0, " + std::to_string(mask.columns) + "), found [" +
         std::to_string(begin) + ", " + std::to_string(end) + ")");
  }
  for (int64_t g = 0; g < mask.rows; ++g) keep_range(mask.row(g), begin, end);
}

void keep_all_in_groups_of(ColumnMask& mask, int64_t group_size, int64_t begin, int64_t end) {
  if (group_size < 1 || begin < 0) fail("expected a group size of at least 1 and tokens of at least 0");
  if (begin >= end) return;
  const int64_t last = std::min((end - 1) / group_size, mask.rows - 1);
  for (int64_t g = begin / group_size; g <= last; ++g) keep_range(mask.row(g), 0, mask.columns);
}

void add_1d_window(ColumnMask& mask, int64_t group_size, double fraction) {
  if (group_size < 1) fail("expected a group size of at least 1");
  // Written so that NaN fails too.
  if (!(fraction >= 0.0 && fraction <= 1.0)) {
    fail("expected a window from 0 to 1 of the columns, found " + std::to_string(fraction));
  }
  const int64_t length = static_cast<int64_t>(fraction * static_cast<double>(mask.columns));
  for (int64_t g = 0; g < mask.rows; ++g) {
    const int64_t first = std::min(g * group_size, mask.columns);
    const int64_t middle = (first + std::min(first + group_size, mask.columns)) / 2;
    const int64_t begin = std::clamp(middle - length / 2, int64_t{0}, mask.columns - length);
    keep_range(mask.row(g), begin, begin + length);
  }
}

ColumnMask static_columns(const StaticColumnRule& rule) {
  check(rule);
  const int64_t group_size = rule.voxel.volume(), video = rule.video.volume(), tokens = video + rule.text_tokens;
  const VideoShape voxels{rule.video.frames / rule.voxel.frames, rule.video.height / rule.voxel.height,
                          rule.video.width / rule.voxel.width};
  const int64_t in_voxels = voxels.volume() * group_size;
  ColumnMask mask((tokens + group_size - 1) / group_size, tokens);
  if (rule.local_voxels.frames > 0 && rule.local_voxels.height > 0 && rule.local_voxels.width > 0) {
    add_local_voxels(rule, voxels, mask);
  }
  add_1d_window(mask, group_size, rule.local_1d_window);
  if (rule.all_groups_keep_tail) keep_columns(mask, in_voxels, video);
  if (rule.tail_groups_keep_all) keep_all_in_groups_of(mask, group_size, in_voxels, video);
  keep_columns(mask, video, tokens);
  keep_all_in_groups_of(mask, group_size, video, tokens);
  return mask;
}

}  // namespace chipmunk
