#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "io/mapped_file.h"

namespace chipmunk {

/// One tensor of a safetensors file, as its header describes it.
struct SafetensorsEntry {
  std::string dtype_name;      ///< as the file spells it, e.g. "BF16"
  std::optional<DType> dtype;  ///< absent for types of the format that Chipmunk has no tensors of (F64, I16, ...)
  Dims shape;
  size_t offset = 0;  ///< of the first byte, from the start of the file
  size_t bytes = 0;
};

/// A safetensors file, mapped: opening reads the header alone.
class SafetensorsFile {
 public:
  /// Checks the file as the format's own reader does: the header is at most 100 MB and a JSON object without
  /// duplicate keys; every tensor's shape x type equals its bytes; the tensors cover the data section exactly, without
  /// overlaps, holes or trailing bytes. Throws kInvalidFile with the file and tensor, kUnsupported for more
  /// dimensions than Dims holds, and what MappedFile throws.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_->path(); }
  const std::map<std::string, SafetensorsEntry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  std::vector<std::string> names() const;
  bool contains(const std::string& name) const { return entries_.count(name) != 0; }
  /// Throws kNotFound.
  const SafetensorsEntry& entry(const std::string& name) const;

  /// The tensor as a view of the mapped file, which stays mapped as long as a tensor needs it. The format does not
  /// promise alignment: a tensor that does not start at a multiple of its element size is copied, since kernels may
  /// not read it where it lies. Throws kNotFound, and kUnsupported for an entry without dtype.
  Tensor tensor(const std::string& name) const;

 private:
  std::shared_ptr<const MappedFile> file_;
  std::shared_ptr<Storage> storage_;
  std::map<std::string, SafetensorsEntry> entries_;
  std::map<std::string, std::string> metadata_;
};

/// Writes host tensors (views of any strides) as one safetensors file, tensor by tensor, without a copy of the whole;
/// the file appears under its name only when it is complete. The bytes depend on the arguments alone.
/// Throws kInvalidArgument for tensors that are empty or not in host memory and for the reserved name "__metadata__",
/// kInvalidText for names that are not UTF-8, kIo if writing fails.
void write_safetensors(const std::filesystem::path& path, const std::map<std::string, Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace chipmunk
