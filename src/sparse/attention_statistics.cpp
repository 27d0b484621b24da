#include "sparse/attention_statistics.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>

#include "chipmunk/pipeline.h"

namespace chipmunk {

std::vector<double> attention_mass(const Tensor& column_sums) {
  const int64_t columns = column_sums.dim(-1), rows = column_sums.numel() / std::max<int64_t>(columns, 1);
  std::vector<double> shares(std::size(kMassFractions), 0.0);
  std::vector<float> sorted(static_cast<size_t>(columns));
  int64_t counted = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const float* sums = column_sums.data_as<float>() + row * columns;
    std::copy_n(sums, columns, sorted.begin());
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    double total = 0.0;
    for (float value : sorted) total += static_cast<double>(value);
    if (!(total > 0.0)) continue;
    ++counted;
    double sum = 0.0;
    size_t taken = 0;
    for (size_t i = 0; i < shares.size(); ++i) {
      const auto wanted = static_cast<size_t>(std::llround(kMassFractions[i] * static_cast<double>(columns)));
      for (; taken < std::min(wanted, sorted.size()); ++taken) sum += static_cast<double>(sorted[taken]);
      shares[i] += sum / total;
    }
  }
  for (double& share : shares) share /= static_cast<double>(std::max<int64_t>(counted, 1));
  return shares;
}

double relative_change(const Tensor& now, const Tensor& before) {
  double difference = 0.0, size = 0.0;
  for (int64_t i = 0; i < now.numel(); ++i) {
    const double value = static_cast<double>(now.data_as<float>()[i]);
    const double moved = value - static_cast<double>(before.data_as<float>()[i]);
    difference += moved * moved;
    size += value * value;
  }
  return size > 0.0 ? std::sqrt(difference / size) : 0.0;
}

}  // namespace chipmunk
