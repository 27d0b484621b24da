#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/tensor.h"
#include "io/safetensors.h"

namespace chipmunk {

class WeightMap;

/// The weights of a WeightMap whose names start with a prefix: a light handle, valid while the map stays where it is.
/// Names given to it are relative to the prefix.
class WeightScope {
 public:
  WeightScope(WeightMap& map, std::string prefix) : map_(&map), prefix_(std::move(prefix)) {}

  /// scope("blocks").scope("0") has the prefix "blocks.0.": a dot is put between the parts unless there is one.
  /// An empty prefix is this scope itself.
  WeightScope scope(const std::string& prefix) const;
  const std::string& prefix() const { return prefix_; }

  /// See WeightMap for the meaning of these.
  bool contains(const std::string& name) const;
  Dims shape_of(const std::string& name) const;
  Tensor take(const std::string& name, const Dims& shape) const;
  Tensor take_optional(const std::string& name, const Dims& shape) const;
  void ignore(const std::string& name) const;

 private:
  WeightMap* map_;
  std::string prefix_;
};

/// The weights of one model by name, from one or more safetensors files, all in mapped host memory.
///
/// A model takes each of its weights with the shape that its config asks for and calls finish() at the end, which
/// reports everything that was wrong at once: missing, misshapen, wrongly typed and unused weights.
class WeightMap {
 public:
  /// A map without weights, to be filled with define(). `where` names it in errors.
  explicit WeightMap(std::string where = "weights");
  /// The union of files. Throws kInvalidWeights if a name is in two of them.
  WeightMap(std::string where, std::vector<std::shared_ptr<const SafetensorsFile>> files);
  ~WeightMap();
  WeightMap(WeightMap&&) noexcept;
  WeightMap& operator=(WeightMap&&) noexcept;

  /// path: a safetensors file, or a folder that find_weight_files() accepts.
  static WeightMap open(const std::filesystem::path& path);

  /// The path it was opened from, for error messages.
  const std::string& where() const;
  /// All names in order.
  std::vector<std::string> names() const;
  bool contains(const std::string& name) const;
  /// Throw kInvalidWeights if there is no such weight.
  Dims shape_of(const std::string& name) const;
  SafetensorsEntry entry(const std::string& name) const;
  /// The weight as stored, any dtype and shape, without marking it as used: for building views to define().
  Tensor peek(const std::string& name) const;

  /// The weight, marked as used; it may be taken again (tied weights). If it is missing, has another shape or is not
  /// of a floating type, that is recorded for finish(), and the result is a tensor of the expected shape whose values
  /// mean nothing, so that binding can go on and find the other problems. Throws kInvalidConfig for an expected shape
  /// that no memory could hold.
  Tensor take(const std::string& name, const Dims& shape);
  /// As take(), but an empty tensor, and no problem, if there is no such weight.
  Tensor take_optional(const std::string& name, const Dims& shape);

  /// The weight, if it is there, is not reported as unused: for buffers that some exporters add.
  void ignore(const std::string& name);
  /// Adds a weight, usually a view of another one under another name. Throws kInvalidArgument if the name exists.
  void define(const std::string& name, Tensor tensor);
  /// Marks a weight as used because others were defined from it. Throws kInvalidWeights if there is none.
  void consume(const std::string& name);

  WeightScope scope(const std::string& prefix);

  /// Throws kInvalidWeights with a list of all problems; afterwards the map is as good as closed.
  void finish() const;

  /// What the files hold, defined weights not counted.
  size_t stored_bytes() const;
  int64_t parameter_count() const;
  std::vector<std::filesystem::path> files() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The safetensors files that make up the weights in a folder, in this order of preference:
/// `<stem>.safetensors.index.json` (every shard that it names), `<stem>.safetensors`, with the stems
/// diffusion_pytorch_model and model; the same with the variant `.fp16`; the only *.safetensors file of the folder.
struct WeightFiles {
  std::filesystem::path index;                ///< empty if the weights are not sharded
  std::vector<std::filesystem::path> shards;  ///< existing or not, sorted, each once
};

/// Throws kNotFound if the folder has no weights or several candidates; kInvalidFile for a bad index, or one whose
/// files lie outside of the folder.
WeightFiles find_weight_files(const std::filesystem::path& folder);

}  // namespace chipmunk
