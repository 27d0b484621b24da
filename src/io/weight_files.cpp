// Which files hold a model's weights, and opening them.
#include <algorithm>
#include <set>
#include <system_error>
#include <utility>

#include "chipmunk/error.h"
#include "io/config.h"
#include "io/weight_map.h"

namespace chipmunk {
namespace {

namespace fs = std::filesystem;

constexpr const char* kStems[] = {"diffusion_pytorch_model", "model"};
constexpr const char* kVariants[] = {"", ".fp16"};

bool is_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

/// The weight names of an index with the shard that each is in. An index comes from the network: it must not make the
/// engine open anything beside the folder's own files.
std::vector<std::pair<std::string, std::string>> read_index(const fs::path& path) {
  const JsonConfig weight_map = JsonConfig::load(path).object("weight_map");
  std::vector<std::pair<std::string, std::string>> result;
  for (const std::string& name : weight_map.keys()) {
    std::string shard = weight_map.string(name);
    if (shard.empty() || shard == "." || shard == ".." || shard.find_first_of(std::string("/\\\0", 3)) != shard.npos) {
      throw Error(ErrorCode::kInvalidFile,
                  "weight \"" + name + "\": expected the name of a file beside the index, found \"" + shard + "\"",
                  path.string());
    }
    result.emplace_back(name, std::move(shard));
  }
  if (result.empty()) throw Error(ErrorCode::kInvalidFile, "the index lists no weights", path.string());
  return result;
}

std::vector<fs::path> shards_of(const fs::path& index) {
  std::set<fs::path> shards;
  for (const auto& [name, shard] : read_index(index)) shards.insert(index.parent_path() / shard);
  return {shards.begin(), shards.end()};
}

std::vector<fs::path> list_folder(const fs::path& folder, const std::string& ending) {
  std::error_code error;
  std::vector<fs::path> found;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const bool matches =
        name.size() > ending.size() && name.compare(name.size() - ending.size(), ending.size(), ending) == 0;
    if (matches && is_file(entry->path())) found.push_back(entry->path());
  }
  if (error) throw Error(ErrorCode::kIo, "cannot list the folder: " + error.message(), folder.string());
  std::sort(found.begin(), found.end());
  return found;
}

/// An index such as model.safetensors.index.fp16.json or model.fp16.safetensors.index.json: both are in use.
fs::path find_index(const fs::path& folder, const std::string& stem, const std::string& variant) {
  const fs::path inside = folder / (stem + variant + ".safetensors.index.json");
  if (is_file(inside)) return inside;
  const fs::path outside = folder / (stem + ".safetensors.index" + variant + ".json");
  return is_file(outside) ? outside : fs::path();
}

std::shared_ptr<const SafetensorsFile> open_shard(const fs::path& shard, const fs::path& index) {
  if (!index.empty() && !is_file(shard)) {
    throw Error(ErrorCode::kNotFound,
                "the shard \"" + shard.filename().string() + "\" that the index lists is not there", index.string());
  }
  return std::make_shared<const SafetensorsFile>(shard);
}

}  // namespace

WeightFiles find_weight_files(const fs::path& folder) {
  std::error_code error;
  const fs::file_status status = fs::status(folder, error);
  if (status.type() == fs::file_type::not_found) throw Error(ErrorCode::kNotFound, "no such folder", folder.string());
  if (!fs::is_directory(status)) throw Error(ErrorCode::kNotFound, "not a folder", folder.string());
  for (const char* variant : kVariants) {
    for (const char* stem : kStems) {
      if (const fs::path index = find_index(folder, stem, variant); !index.empty()) return {index, shards_of(index)};
      const fs::path single = folder / (std::string(stem) + variant + ".safetensors");
      if (is_file(single)) return {{}, {single}};
    }
  }
  const std::vector<fs::path> indices = list_folder(folder, ".safetensors.index.json");
  if (indices.size() == 1) return {indices[0], shards_of(indices[0])};
  const std::vector<fs::path> files = list_folder(folder, ".safetensors");
  if (files.size() == 1) return {{}, files};
  if (files.empty()) throw Error(ErrorCode::kNotFound, "no weights (*.safetensors) in the folder", folder.string());
  throw Error(ErrorCode::kNotFound,
              "expected one *.safetensors or an index in the folder, found " + std::to_string(files.size()) +
                  " files and " + std::to_string(indices.size()) + " indices",
              folder.string());
}

WeightMap WeightMap::open(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    return WeightMap(path.string(), {std::make_shared<const SafetensorsFile>(path)});
  }
  const WeightFiles found = find_weight_files(path);
  std::vector<std::shared_ptr<const SafetensorsFile>> files;
  for (const fs::path& shard : found.shards) files.push_back(open_shard(shard, found.index));
  if (!found.index.empty()) {
    for (const auto& [name, shard] : read_index(found.index)) {
      const auto file = std::find_if(files.begin(), files.end(), [&shard = shard](const auto& candidate) {
        return candidate->path().filename() == shard;
      });
      if (!(*file)->contains(name)) {
        throw Error(ErrorCode::kInvalidFile,
                    "weight \"" + name + "\" is not in the shard \"" + shard + "\" that the index names",
                    found.index.string());
      }
    }
  }
  return WeightMap(path.string(), std::move(files));
}

}  // namespace chipmunk
