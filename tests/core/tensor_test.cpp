#include "core/tensor.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <vector>

#include "chipmunk/error.h"
#include "core/context.h"

namespace chipmunk {
namespace {

/// i32 elements that count up from 0 in memory order.
Tensor counting(const Dims& shape) {
  const Tensor tensor = make_host_tensor(shape, DType::kI32);
  for (int64_t i = 0; i < tensor.numel(); ++i) tensor.data_as<int32_t>()[i] = static_cast<int32_t>(i);
  return tensor;
}

int32_t at(const Tensor& tensor, const std::vector<int64_t>& index) {
  int64_t offset = 0;
  for (int i = 0; i < tensor.rank(); ++i) offset += index[static_cast<size_t>(i)] * tensor.stride(i);
  return tensor.data_as<int32_t>()[offset];
}

/// All elements in row-major order of the view.
std::vector<int32_t> elements(const Tensor& tensor) {
  std::vector<int32_t> values;
  std::vector<int64_t> index(static_cast<size_t>(tensor.rank()), 0);
  for (int64_t n = 0; n < tensor.numel(); ++n) {
    values.push_back(at(tensor, index));
    for (int i = tensor.rank() - 1; i >= 0; --i) {
      if (++index[static_cast<size_t>(i)] < tensor.dim(i)) break;
      index[static_cast<size_t>(i)] = 0;
    }
  }
  return values;
}

TEST(Tensor, EmptyStandsForNotGiven) {
  const Tensor none;
  EXPECT_TRUE(none.empty());
  EXPECT_FALSE(none);
  EXPECT_EQ(none.data(), nullptr);
  EXPECT_EQ(none.describe(), "(no tensor)");
}

TEST(Tensor, SliceAndSelectShareStorage) {
  const Tensor tensor = counting({4, 5, 6});
  const Tensor slice = tensor.slice(1, 2, 4);
  EXPECT_EQ(slice.shape(), (Dims{4, 2, 6}));
  EXPECT_EQ(at(slice, {1, 1, 3}), 1 * 30 + 3 * 6 + 3);
  EXPECT_FALSE(slice.is_contiguous());
  EXPECT_EQ(slice.storage(), tensor.storage());
  const Tensor selected = slice.select(-1, 5);
  EXPECT_EQ(selected.shape(), (Dims{4, 2}));
  EXPECT_EQ(at(selected, {3, 0}), 3 * 30 + 2 * 6 + 5);
  *selected.data_as<int32_t>() = -7;
  EXPECT_EQ(at(tensor, {0, 2, 5}), -7);
}

TEST(Tensor, ReshapeKeepsRowMajorOrder) {
  const Tensor tensor = counting({4, 6});
  EXPECT_EQ(elements(tensor.reshape({2, 2, -1})), elements(tensor));
  // Rows of a slice of columns can be split, but not merged with the columns.
  const Tensor columns = tensor.slice(1, 0, 4);
  EXPECT_EQ(elements(columns.reshape({2, 2, 2, 2})), elements(columns));
  EXPECT_THROW(columns.reshape({16}), Error);
  EXPECT_THROW(tensor.reshape({5, -1}), Error);
  EXPECT_THROW(tensor.reshape({4, 5}), Error);
}

TEST(Tensor, PermuteExpandUnsqueeze) {
  const Tensor tensor = counting({2, 3, 4});
  const Tensor permuted = tensor.permute({2, 0, 1});
  EXPECT_EQ(permuted.shape(), (Dims{4, 2, 3}));
  EXPECT_EQ(at(permuted, {3, 1, 2}), at(tensor, {1, 2, 3}));
  EXPECT_THROW(tensor.permute({0, 1}), Error);
  EXPECT_THROW(tensor.permute({0, 0, 1}), Error);
  const Tensor repeated = tensor.select(0, 1).unsqueeze(0).expand(0, 5);
  EXPECT_EQ(repeated.shape(), (Dims{5, 3, 4}));
  EXPECT_EQ(at(repeated, {4, 2, 1}), at(tensor, {1, 2, 1}));
  EXPECT_THROW(tensor.expand(1, 5), Error);
  EXPECT_THROW(tensor.unsqueeze(5), Error);
}

TEST(Tensor, BadRangesAreShapeErrors) {
  const Tensor tensor = counting({2, 3});
  for (const auto& bad : std::vector<std::function<void()>>{
           [&] { tensor.slice(0, 1, 3); }, [&] { tensor.slice(0, -1, 1); }, [&] { tensor.slice(0, 2, 1); },
           [&] { tensor.slice(2, 0, 1); }, [&] { tensor.select(1, 3); }, [&] { (void)tensor.dim(-3); }}) {
    try {
      bad();
      ADD_FAILURE() << "expected an error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kShapeMismatch);
    }
  }
}

TEST(Tensor, ViewsOutsideOfTheStorageAreRejected) {
  const std::shared_ptr<Storage> storage = allocate_host(24);
  EXPECT_NO_THROW(Tensor(storage, 0, DType::kF32, {2, 3}));
  EXPECT_NO_THROW(Tensor(storage, 24, DType::kF32, {0, 3}));
  EXPECT_THROW(Tensor(storage, 4, DType::kF32, {2, 3}), Error);
  EXPECT_THROW(Tensor(storage, 0, DType::kF32, {2, 3}, {4, 1}), Error);
  EXPECT_THROW(Tensor(storage, 0, DType::kF32, {2, 3}, {1}), Error);
  EXPECT_THROW(Tensor(storage, 0, DType::kF32, {-1, 3}), Error);
}

TEST(Tensor, ElementAccessChecksTheSize) {
  EXPECT_THROW(counting({2}).data_as<double>(), Error);
  EXPECT_THROW(counting({2}).data_as<uint16_t>(), Error);
}

TEST(Tensor, RandomChainsOfViewsKeepTheirElements) {
  std::mt19937 random(1);
  const auto draw = [&random](int64_t below) { return static_cast<int64_t>(random() % static_cast<uint64_t>(below)); };
  for (int trial = 0; trial < 500; ++trial) {
    const Tensor whole = counting({draw(4) + 1, draw(5) + 1, draw(6) + 1, draw(3) + 1});
    Tensor view = whole;
    for (int i = 0; i < 3; ++i) {
      const int dimension = static_cast<int>(draw(4));
      const int64_t begin = draw(view.dim(dimension)), end = begin + 1 + draw(view.dim(dimension) - begin);
      view = view.slice(dimension, begin, end);
    }
    // A reshape that is possible gives the elements of the view in order; one that is not says so.
    const std::vector<int32_t> expected = elements(view);
    for (const Dims& shape :
         {Dims{view.dim(0), -1}, Dims{-1, view.dim(3)}, Dims{-1}, Dims{view.dim(0), view.dim(1), -1}}) {
      try {
        EXPECT_EQ(elements(view.reshape(shape)), expected);
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kShapeMismatch);
        EXPECT_FALSE(view.is_contiguous());
      }
    }
  }
}

TEST(Dims, HoldUpToEightValues) {
  Dims dims = {1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_EQ(numel(dims), 40320);
  EXPECT_EQ(to_string(Dims{2, 3}), "[2, 3]");
  EXPECT_EQ(contiguous_strides({2, 3, 4}), (Dims{12, 4, 1}));
  EXPECT_THROW(dims.push_back(9), Error);
  EXPECT_EQ(numel(Dims{}), 1);
}

}  // namespace
}  // namespace chipmunk
