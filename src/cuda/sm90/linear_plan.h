#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/host_device.h"

/// How the Hopper kernel for linears divides its work; host code, but for where a piece lies (docs/kernels/linear.md).
namespace chipmunk::cuda::sm90::linear {

/// Two blocks of a cluster compute a unit of kUnitRows rows, each half of them, and share its columns' weights.
constexpr int kClusterBlocks = 2;
constexpr int kBlockRows = 128;
constexpr int kUnitRows = kClusterBlocks * kBlockRows;
/// Columns of a unit that there are kernels for.
constexpr std::array<int, 2> kWidths = {256, 208};
/// Linears that one launch computes.
constexpr int kMaxProblems = 2;

struct Sizes {
  int64_t batch, rows, columns, depth;
};

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int64_t count_units(const Sizes& sizes, int width) {
  return sizes.batch * divide_up(sizes.rows, kUnitRows) * divide_up(sizes.columns, width);
}

/// What follows the product besides the bias. kActivated: GELU(tanh). kAcross: the same of a product whose rows are
/// features, and columns tokens.
enum class Kind { kGated, kHeads, kActivated, kAcross };

/// Whether units may be computed as two halves.
constexpr bool has_halves(int width, Kind kind) { return width == 256 && kind != Kind::kGated; }
template <int kWidth, Kind kKind>
constexpr bool kHasHalves = has_halves(kWidth, kKind);

struct Plan {
  int width;             // columns of a unit
  int clusters;          // each takes unit after unit
  int64_t units, whole;  // how many, and how many of them are computed whole; those after them in halves
  double time;           // of the busiest cluster, in columns that it goes through
};

/// Of units that all clusters share. Those left over after whole rounds are halved where that gives nobody two.
inline Plan plan_width(int64_t units, int width, bool halves, int max_clusters) {
  // Halves of a unit read as many rows for fewer products.
  constexpr double kHalfTime = 0.56;
  const int64_t rounds = units / max_clusters, rest = units % max_clusters;
  const bool halved = halves && rest > 0 && 2 * rest <= max_clusters;
  const double last = rest == 0 ? 0.0 : halved ? kHalfTime : 1.0;
  const int64_t pieces = halved ? units + rest : units;
  return {width, static_cast<int>(std::min<int64_t>(pieces, max_clusters)), units, halved ? units - rest : units,
          (static_cast<double>(rounds) + last) * width};
}

/// Of linears with the same depth. Among the widths, the one whose rounds take the least time: a unit's time is
/// proportional to its width. The lesser one is for few rounds, which gated linears have.
inline Plan plan(const Sizes* problems, int count, int multiprocessors, Kind kind) {
  Plan best{};
  for (const int width : kWidths) {
    if (kind != Kind::kGated && width != kWidths[0]) continue;
    int64_t units = 0;
    for (int i = 0; i < count; ++i) units += count_units(problems[i], width);
    const Plan found = plan_width(units, width, has_halves(width, kind), std::max(multiprocessors / kClusterBlocks, 1));
    if (best.width == 0 || found.time < best.time) best = found;
  }
  return best;
}

/// A problem's units: of each sample's rows, and of the columns.
struct UnitGrid {
  int batch, row_units, column_units;
};

/// Rows of units that follow each other in one range of columns: what they read of x stays in L2 meanwhile.
constexpr int kSectionRows = 9;

struct Place {
  int problem, batch, row_unit, column_unit;
  int half;  // of the unit's columns; -1: all of them
};

/// Where a piece of work lies; whole units come first, then halves. grids(i): of problem i; ends: how many units there
/// are up to each problem's last.
template <class Grids>
CHIPMUNK_HOST_DEVICE inline Place place_of(int piece, int whole, const int* ends, const Grids& grids) {
  Place place{};
  place.half = piece < whole ? -1 : (piece - whole) % 2;
  int unit = piece < whole ? piece : whole + (piece - whole) / 2;
  place.problem = unit < ends[0] ? 0 : 1;
  if (place.problem == 1) unit -= ends[0];
  const UnitGrid& grid = grids(place.problem);
  const int rows = grid.batch * grid.row_units, section = kSectionRows * grid.column_units;
  const int first_row = unit / section * kSectionRows, in_section = unit % section;
  const int section_rows = rows - first_row < kSectionRows ? rows - first_row : kSectionRows;
  place.column_unit = in_section / section_rows;
  const int row = first_row + in_section % section_rows;
  place.batch = row / grid.row_units;
  place.row_unit = row % grid.row_units;
  return place;
}

/// Which part of the multiprocessors' time goes into columns and rows that exist.
inline double efficiency(const Plan& plan, const Sizes* problems, int count, int multiprocessors) {
  double products = 0.0;
  for (int i = 0; i < count; ++i) {
    products += static_cast<double>(problems[i].batch * problems[i].rows) * static_cast<double>(problems[i].columns);
  }
  return products / (plan.time * kBlockRows * multiprocessors);
}

}  // namespace chipmunk::cuda::sm90::linear
