// Which files hold a model's weights, and opening them.
#include <algorithm>
#include <map>
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

/// An index comes from the network: it must not make the engine open anything beside the folder's own files.
void check_shard_name(const std::string& shard, const std::string& weight, const fs::path& index) {
  const std::string separators("/\\\0", 3);
  if (!shard.empty() && shard != "." && shard != ".." && shard.find_first_of(separators) == shard.npos) return;
  throw Error(ErrorCode::kInvalidFile,
              "weight \"" + weight + "\": expected the name of a file beside the index, found \"" + shard + "\"",
              index.string());
}

/// The weight names of an index with the shard that each is in.
std::vector<std::pair<std::string, std::string>> read_index(const fs::path& path) {
  const JsonConfig weight_map = JsonConfig::load(path).object("weight_map");
  std::vector<std::pair<std::string, std::string>> result;
  for (const std::string& name : weight_map.keys()) {
    std::string shard = weight_map.string(name);
    check_shard_name(shard, name, path);
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
  fs::path inside = folder / (stem + variant + ".safetensors.index.json");
  if (is_file(inside)) return inside;
  fs::path outside = folder / (stem + ".safetensors.index" + variant + ".json");
  return is_file(outside) ? outside : fs::path();
}

std::shared_ptr<const SafetensorsFile> open_shard(const fs::path& shard, const fs::path& index) {
  if (!index.empty() && !is_file(shard)) {
    throw Error(ErrorCode::kNotFound,
                "the shard \"" + shard.filename().string() + "\" that the index lists is not there", index.string());
  }
  return std::make_shared<const SafetensorsFile>(shard);
}

/// Throws unless every name of the index is in the shard that the index gives.
void check_index(const fs::path& index, const std::vector<std::shared_ptr<const SafetensorsFile>>& files) {
  std::map<std::string, const SafetensorsFile*> by_name;
  for (const auto& file : files) by_name[file->path().filename().string()] = file.get();
  const auto fail = [&index](const std::string& weight, const std::string& shard) {
    throw Error(ErrorCode::kInvalidFile,
                "weight \"" + weight + "\" is not in the shard \"" + shard + "\" that the index names", index.string());
  };
  for (const auto& [name, shard] : read_index(index)) {
    if (!by_name.at(shard)->contains(name)) fail(name, shard);
  }
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
  files.reserve(found.shards.size());
  for (const fs::path& shard : found.shards) files.push_back(open_shard(shard, found.index));
  if (!found.index.empty()) check_index(found.index, files);
  return WeightMap(path.string(), std::move(files));
}

}  // namespace chipmunk
