#include "conformance/method_host_case.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <span>
#include <utility>
#include <vector>

#include "core/column_selection.h"
#include "core/context.h"
#include "sparse/column_mask.h"
#include "sparse/static_columns.h"
#include "sparse/token_order.h"

namespace chipmunk::conformance {
namespace {

template <typename T>
Tensor host_tensor(const Dims& shape, DType dtype, const std::vector<T>& values) {
  Tensor tensor = make_host_tensor(shape, dtype);
  std::copy(values.begin(), values.end(), tensor.data_as<T>());
  return tensor;
}

template <typename T>
std::span<const T> values_of(const Tensor& tensor) {
  return {tensor.data_as<T>(), static_cast<size_t>(tensor.numel())};
}

VideoShape video_shape(const std::vector<int64_t>& sides) { return {sides.at(0), sides.at(1), sides.at(2)}; }

void compute_bit_packing(const CaseFolder& folder, Results& results) {
  for (int i = 0; folder.has_input("bitpack." + std::to_string(i) + ".mask"); ++i) {
    const std::string name = "bitpack." + std::to_string(i);
    const Tensor mask = folder.input(name + ".mask");
    const std::vector<uint8_t> packed = pack_bits(values_of<uint8_t>(mask));
    results[name + ".packed"] = host_tensor({static_cast<int64_t>(packed.size())}, DType::kU8, packed);
  }
}

void store_order(const std::string& name, const TokenOrder& order, Results& results) {
  results[name + ".order"] = host_tensor({order.size()}, DType::kI32, order.order);
  results[name + ".inverse"] = host_tensor({order.size()}, DType::kI32, order.inverse);
}

/// params.patch: "patch.<height>x<width>.<outer>.<inner>".
void compute_patches(const CaseFolder& folder, Results& results) {
  for (const std::string& name : folder.params().strings("patch")) {
    int height = 0, width = 0, outer = 0, inner = 0;
    if (std::sscanf(name.c_str(), "patch.%dx%d.%d.%d", &height, &width, &outer, &inner) != 4) continue;
    store_order(name, TokenOrder::image_patches(height, width, outer, inner), results);
  }
}

/// params.voxel: "voxel.<frames>x<height>x<width>.<frames>x<height>x<width>", the video and the voxel.
void compute_voxels(const CaseFolder& folder, Results& results) {
  for (const std::string& name : folder.params().strings("voxel")) {
    int video[3] = {}, voxel[3] = {};
    if (std::sscanf(name.c_str(), "voxel.%dx%dx%d.%dx%dx%d", &video[0], &video[1], &video[2], &voxel[0], &voxel[1],
                    &voxel[2]) != 6) {
      continue;
    }
    store_order(name, TokenOrder::video_voxels({video[0], video[1], video[2]}, {voxel[0], voxel[1], voxel[2]}),
                results);
  }
}

void compute_local_masks(const CaseFolder& folder, Results& results) {
  const JsonConfig masks = folder.params().object("local_mask");
  for (const std::string& key : masks.keys()) {
    const JsonConfig params = masks.object(key);
    StaticColumnRule rule;
    rule.video = video_shape(params.integers("video"));
    rule.text_tokens = params.integer("text");
    rule.voxel = video_shape(params.integers("voxel"));
    rule.local_voxels = video_shape(params.integers("local"));
    rule.tail_groups_keep_all = params.boolean("full_tail_from_attn");
    rule.all_groups_keep_tail = params.boolean("full_tail_to_attn");
    const ColumnMask mask = static_columns(rule);
    const std::vector<uint8_t> packed = pack_bits(mask.values);
    const std::string name = "local_mask." + key;
    results[name + ".packed"] = host_tensor({static_cast<int64_t>(packed.size())}, DType::kU8, packed);
    results[name + ".shape"] =
        host_tensor<int32_t>({2}, DType::kI32, {static_cast<int32_t>(mask.rows), static_cast<int32_t>(mask.columns)});
  }
}

/// The last dimension becomes the columns, all others the rows.
ColumnMask empty_mask(const Tensor& like) {
  const int64_t columns = like.dim(-1);
  return ColumnMask(like.numel() / columns, columns);
}

template <typename T>
std::span<const T> row_of(const Tensor& tensor, int64_t row, int64_t columns) {
  if (tensor.empty()) return {};
  return values_of<T>(tensor).subspan(static_cast<size_t>(row * columns), static_cast<size_t>(columns));
}

void store_indices(const std::string& prefix, const Dims& shape, const ColumnIndices& indices, Results& results) {
  Dims counts_shape;
  for (int i = 0; i + 1 < shape.rank(); ++i) counts_shape.push_back(shape[i]);
  results[prefix + "indices"] = host_tensor(shape, DType::kI32, indices.indices);
  results[prefix + "counts"] = host_tensor(counts_shape, DType::kI32, indices.counts);
}

/// Top-k of the expected column sums, and the ids of top-k and random columns for each padding.
void compute_top_k(const CaseFolder& folder, Results& results) {
  const Tensor sums = folder.expected().at("colsum_prev.values").value;
  ColumnMask mask = empty_mask(sums);
  const int64_t count =
      top_k_count(folder.params().number("top_keys"), mask.columns, folder.params().integer("multiple_of"));
  for (int64_t i = 0; i < mask.rows; ++i) add_top_k(row_of<float>(sums, i, mask.columns), count, mask.row(i));
  results["topk.mask"] = host_tensor(sums.shape(), DType::kU8, mask.values);
  const Tensor random = folder.input("random_mask");
  for (size_t i = 0; i < mask.values.size(); ++i) mask.values[i] |= values_of<uint8_t>(random)[i];
  for (const auto& [name, expectation] : folder.expected()) {
    int multiple = 0;
    if (std::sscanf(name.c_str(), "indices.multiple%d.indices", &multiple) != 1 || !name.ends_with(".indices")) {
      continue;
    }
    store_indices("indices.multiple" + std::to_string(multiple) + ".", sums.shape(), to_indices(mask, multiple),
                  results);
  }
}

/// The edge rows have no input: their ids, made a mask and ids again, must come back whatever the padding.
void compute_edge_rows(const CaseFolder& folder, Results& results) {
  constexpr int64_t kPadding = 32;
  const std::string prefix = "sparse.edge.";
  const Tensor ids = folder.expected().at(prefix + "indices").value;
  const Tensor counts = folder.expected().at(prefix + "counts").value;
  const std::span<const int32_t> id_values = values_of<int32_t>(ids), count_values = values_of<int32_t>(counts);
  const ColumnIndices indices{
      counts.numel(), ids.dim(-1), {id_values.begin(), id_values.end()}, {count_values.begin(), count_values.end()}};
  store_indices(prefix, ids.shape(), to_indices(to_mask(indices, ids.dim(-1)), kPadding), results);
}

/// The columns of every step that has expected column sums.
void compute_delta_columns(const CaseFolder& folder, Results& results) {
  const JsonConfig& params = folder.params();
  const double top_keys = params.number("top_keys");
  const Tensor static_mask = folder.has_input("static_mask") ? folder.input("static_mask") : Tensor();
  for (const auto& [name, expectation] : folder.expected()) {
    if (!name.ends_with(".colsum")) continue;
    const Tensor& sums = expectation.value;
    const std::string prefix = name.substr(0, name.rfind('.') + 1);
    const std::string random_name = "random_mask" + prefix.substr(4, prefix.size() - 5);
    const Tensor random = folder.has_input(random_name) ? folder.input(random_name) : Tensor();
    ColumnMask mask = empty_mask(sums);
    const double video = static_cast<double>(params.integer_or("video_len", mask.columns));
    const ColumnRule rule{top_k_count(top_keys, mask.columns, params.integer("multiple_of")),
                          static_cast<int64_t>(top_keys * video)};
    const std::vector<uint8_t> nothing(static_cast<size_t>(mask.columns));
    for (int64_t i = 0; i < mask.rows; ++i) {
      // The static mask has no batch dimension.
      const int64_t static_row = static_mask.empty() ? 0 : i % (static_mask.numel() / mask.columns);
      select_columns(row_of<float>(sums, i, mask.columns), row_of<uint8_t>(random, i, mask.columns),
                     static_mask.empty() ? nothing : row_of<uint8_t>(static_mask, static_row, mask.columns), rule,
                     mask.row(i));
    }
    results[prefix + "mask"] = host_tensor(sums.shape(), DType::kU8, mask.values);
    store_indices(prefix, sums.shape(), to_indices(mask, params.integer("multiple_of")), results);
  }
}

/// The hidden features of every step that has expected drifts.
void compute_features(const CaseFolder& folder, Results& results) {
  const JsonConfig& params = folder.params();
  for (const auto& [name, expectation] : folder.expected()) {
    if (!name.ends_with(".diff")) continue;
    const Tensor& drift = expectation.value;
    const std::string prefix = name.substr(0, name.rfind('.') + 1);
    const std::string random_name = "random_mask" + prefix.substr(4, prefix.size() - 5);
    const Tensor random = folder.has_input(random_name) ? folder.input(random_name) : Tensor();
    ColumnMask mask = empty_mask(drift);
    for (int64_t i = 0; i < mask.rows; ++i) {
      select_features(row_of<float>(drift, i, mask.columns), row_of<uint8_t>(random, i, mask.columns),
                      top_feature_count(params.number("top_keys"), mask.columns), params.integer("multiple_of"),
                      mask.row(i));
    }
    store_indices(prefix, drift.shape(), to_indices(mask), results);
  }
}

bool expects(const CaseFolder& folder, const std::string& part) {
  return std::any_of(folder.expected().begin(), folder.expected().end(),
                     [&](const auto& entry) { return entry.first.find(part) != std::string::npos; });
}

}  // namespace

Results compute_method_host_case(const CaseFolder& folder, std::map<std::string, std::string>& failures) {
  using Compute = void (*)(const CaseFolder&, Results&);
  // What must be expected somewhere for a computation to make sense.
  constexpr std::pair<const char*, Compute> kGroups[] = {
      {"bitpack.", compute_bit_packing},    {"patch.", compute_patches},  {"voxel.", compute_voxels},
      {"local_mask.", compute_local_masks}, {"topk.mask", compute_top_k}, {"sparse.edge.indices", compute_edge_rows},
      {".colsum", compute_delta_columns},   {".diff", compute_features}};
  Results results;
  for (const auto& [part, compute] : kGroups) {
    if (!expects(folder, part)) continue;
    try {
      compute(folder, results);
    } catch (const std::exception& error) {
      failures[part] = error.what();
    }
  }
  return results;
}

}  // namespace chipmunk::conformance
