#include "cuda/sm90/linear_plan.h"

#include <gtest/gtest.h>

#include <set>
#include <tuple>

namespace chipmunk::cuda::sm90::linear {
namespace {

constexpr int kMultiprocessors = 132;

TEST(LinearPlan, TakesTheWidthWhoseRoundsTakeTheLeastTime) {
  // 204 units of 256 columns are 4 rounds of 66 clusters, 255 of 208 as well.
  const Sizes out_layer{1, 4352, 3072, 3072};
  EXPECT_EQ(plan(&out_layer, 1, kMultiprocessors, Kind::kGated).width, 208);
  const Sizes streams[] = {{1, 3840, 3072, 3072}, {1, 512, 3072, 3072}};
  EXPECT_EQ(plan(streams, 2, kMultiprocessors, Kind::kGated).width, 208);
  const Sizes one_round{1, 256, 66 * 256, 64};
  EXPECT_EQ(plan(&one_round, 1, kMultiprocessors, Kind::kGated).width, 256);
}

TEST(LinearPlan, KeepsHeadsWhole) {
  const Sizes sizes{1, 4352, 3072, 3072};
  EXPECT_EQ(plan(&sizes, 1, kMultiprocessors, Kind::kHeads).width, 256);
}

TEST(LinearPlan, HalvesWhatIsLeftOverWhereNobodyGetsTwo) {
  // 612 units: 9 rounds and 18.
  const Sizes qkv{1, 4352, 9216, 3072};
  const Plan halved = plan(&qkv, 1, kMultiprocessors, Kind::kHeads);
  EXPECT_EQ(halved.units, 612);
  EXPECT_EQ(halved.whole, 594);
  EXPECT_EQ(halved.clusters, 66);
  // 34 left over would be 68 halves.
  const Sizes more{1, 256, (66 + 34) * 256, 64};
  const Plan whole = plan(&more, 1, kMultiprocessors, Kind::kHeads);
  EXPECT_EQ(whole.whole, whole.units);
  // Fewer units than clusters: all are halved.
  const Sizes few{1, 256, 5 * 256, 64};
  const Plan all = plan(&few, 1, kMultiprocessors, Kind::kHeads);
  EXPECT_EQ(all.whole, 0);
  EXPECT_EQ(all.clusters, 10);
}

TEST(LinearPlan, EfficiencyIsThePartOfTheTimeThatCounts) {
  const Sizes full{1, 256, 66 * 256, 64};
  EXPECT_DOUBLE_EQ(efficiency(plan(&full, 1, kMultiprocessors, Kind::kGated), &full, 1, kMultiprocessors), 1.0);
  const Sizes text{1, 512, 3072, 12288};
  EXPECT_LT(efficiency(plan(&text, 1, kMultiprocessors, Kind::kGated), &text, 1, kMultiprocessors), 0.5);
}

TEST(LinearPlan, EveryPieceLiesSomewhereElseAndTogetherTheyAreEverything) {
  const Sizes cases[][kMaxProblems] = {{{1, 4352, 9216, 3072}, {}},
                                       {{1, 3840, 9216, 3072}, {1, 512, 9216, 3072}},
                                       {{3, 300, 1000, 64}, {2, 5, 700, 64}},
                                       {{1, 1, 8, 64}, {1, 1, 8, 64}}};
  for (const auto& sizes : cases) {
    const int count = sizes[1].batch > 0 ? 2 : 1;
    for (const int multiprocessors : {2, 78, 114, 132}) {
      for (const Kind kind : {Kind::kGated, Kind::kHeads, Kind::kAcross}) {
        const Plan planned = plan(sizes, count, multiprocessors, kind);
        UnitGrid grids[kMaxProblems] = {};
        int ends[kMaxProblems], units = 0;
        for (int i = 0; i < kMaxProblems; ++i) {
          if (i < count) {
            grids[i] = {static_cast<int>(sizes[i].batch), static_cast<int>(divide_up(sizes[i].rows, kUnitRows)),
                        static_cast<int>(divide_up(sizes[i].columns, planned.width))};
            units += grids[i].batch * grids[i].row_units * grids[i].column_units;
          }
          ends[i] = units;
        }
        ASSERT_EQ(units, planned.units);
        std::set<std::tuple<int, int, int, int, int>> found;
        const auto pieces = static_cast<int>(planned.whole + 2 * (planned.units - planned.whole));
        int64_t halves = 0;
        for (int piece = 0; piece < pieces; ++piece) {
          const Place place = place_of(piece, static_cast<int>(planned.whole), ends,
                                       [&](int problem) -> const UnitGrid& { return grids[problem]; });
          ASSERT_LT(place.problem, count);
          const UnitGrid& grid = grids[place.problem];
          ASSERT_TRUE(place.batch >= 0 && place.batch < grid.batch);
          ASSERT_TRUE(place.row_unit >= 0 && place.row_unit < grid.row_units);
          ASSERT_TRUE(place.column_unit >= 0 && place.column_unit < grid.column_units);
          ASSERT_TRUE(found.insert({place.problem, place.batch, place.row_unit, place.column_unit, place.half}).second);
          halves += place.half < 0 ? 2 : 1;
        }
        // All different, and as many as there are: each is there once.
        ASSERT_EQ(halves, 2 * planned.units);
      }
    }
  }
}

}  // namespace
}  // namespace chipmunk::cuda::sm90::linear
