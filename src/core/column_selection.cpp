#include "core/column_selection.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "chipmunk/error.h"

namespace chipmunk {
namespace {

constexpr const char* kWhere = "column selection";

// Written so that NaN fails too.
void check_fraction(double top_keys) {
  if (!(top_keys >= 0.0 && top_keys <= 1.0)) {
    throw Error(ErrorCode::kInvalidArgument, "top_keys: expected 0 to 1, found " + std::to_string(top_keys), kWhere);
  }
}

void check_multiple(int64_t multiple_of) {
  if (multiple_of < 1) {
    throw Error(ErrorCode::kInvalidArgument, "multiple_of: expected at least 1, found " + std::to_string(multiple_of),
                kWhere);
  }
}

void check_length(size_t found, size_t expected, const char* what) {
  if (found != expected) {
    throw Error(
        ErrorCode::kShapeMismatch,
        std::string(what) + ": expected " + std::to_string(expected) + " values, found " + std::to_string(found),
        kWhere);
  }
}

/// round() to the nearest integer, halves to even, whatever the rounding mode of the process is.
double round_half_even(double value) {
  const double below = std::floor(value), rest = value - below;
  if (rest < 0.5) return below;
  if (rest > 0.5) return below + 1.0;
  return std::fmod(below, 2.0) == 0.0 ? below : below + 1.0;
}

int64_t count_kept(std::span<const uint8_t> mask) {
  return static_cast<int64_t>(mask.size()) - std::count(mask.begin(), mask.end(), uint8_t{0});
}

void add(std::span<const uint8_t> other, std::span<uint8_t> mask) {
  for (size_t i = 0; i < other.size(); ++i) mask[i] = static_cast<uint8_t>(mask[i] != 0 || other[i] != 0);
}

/// Adds the k largest scores among `candidates`, whose order is lost.
void add_largest(std::span<const float> scores, std::vector<int32_t>& candidates, int64_t k, std::span<uint8_t> mask) {
  const auto key = [&](int32_t i) {
    const float score = scores[static_cast<size_t>(i)];
    return std::isnan(score) ? -std::numeric_limits<float>::infinity() : score;
  };
  const auto before = [&](int32_t a, int32_t b) { return key(a) != key(b) ? key(a) > key(b) : a < b; };
  const auto end = candidates.begin() + std::clamp(k, int64_t{0}, static_cast<int64_t>(candidates.size()));
  // The comparison is a total order, so the chosen set does not depend on the algorithm.
  if (end != candidates.end()) std::nth_element(candidates.begin(), end, candidates.end(), before);
  std::for_each(candidates.begin(), end, [&](int32_t i) { mask[static_cast<size_t>(i)] = 1; });
}

}  // namespace

int64_t top_k_count(double top_keys, int64_t num_columns, int64_t multiple_of) {
  check_fraction(top_keys);
  check_multiple(multiple_of);
  const double multiples = top_keys * static_cast<double>(num_columns) / static_cast<double>(multiple_of);
  const double count = static_cast<double>(multiple_of) * round_half_even(multiples);
  return count < static_cast<double>(num_columns) ? static_cast<int64_t>(count) : num_columns;
}

int64_t top_feature_count(double top_keys, int64_t num_features) {
  check_fraction(top_keys);
  return num_features - static_cast<int64_t>(std::floor(static_cast<double>(num_features) * (1.0 - top_keys)));
}

void add_top_k(std::span<const float> scores, int64_t k, std::span<uint8_t> mask) {
  check_length(mask.size(), scores.size(), "mask");
  std::vector<int32_t> candidates(scores.size());
  for (size_t i = 0; i < candidates.size(); ++i) candidates[i] = static_cast<int32_t>(i);
  add_largest(scores, candidates, k, mask);
}

bool has_room(const ColumnRule& rule, int64_t static_count, int64_t num_columns) {
  return static_count + rule.room_keys < num_columns;
}

void select_columns(std::span<const float> column_sums, std::span<const uint8_t> random,
                    std::span<const uint8_t> static_columns, const ColumnRule& rule, std::span<uint8_t> mask) {
  const int64_t num_columns = static_cast<int64_t>(column_sums.size());
  check_length(mask.size(), column_sums.size(), "mask");
  check_length(static_columns.size(), column_sums.size(), "static columns");
  if (!random.empty()) check_length(random.size(), column_sums.size(), "random columns");

  std::fill(mask.begin(), mask.end(), uint8_t{0});
  add(static_columns, mask);
  if (rule.top_k <= 0) return;
  if (rule.top_k < num_columns && !has_room(rule, count_kept(mask), num_columns)) return;
  add(random, mask);
  add_top_k(column_sums, rule.top_k, mask);
}

void select_features(std::span<const float> drift, std::span<const uint8_t> random, int64_t top_k, int64_t multiple_of,
                     std::span<uint8_t> mask) {
  check_multiple(multiple_of);
  check_length(mask.size(), drift.size(), "mask");
  if (!random.empty()) check_length(random.size(), drift.size(), "random features");

  std::fill(mask.begin(), mask.end(), uint8_t{0});
  add_top_k(drift, top_k, mask);
  add(random, mask);
  const int64_t missing = (multiple_of - count_kept(mask) % multiple_of) % multiple_of;
  if (missing == 0) return;
  std::vector<int32_t> candidates;
  for (size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] == 0) candidates.push_back(static_cast<int32_t>(i));
  }
  add_largest(drift, candidates, missing, mask);
}

}  // namespace chipmunk
