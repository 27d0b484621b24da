#include "io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "chipmunk/error.h"
#include "io/atomic_file.h"
#include "io/safetensors_header.h"

namespace chipmunk {
namespace {

// "Header length is a 64-bit little-endian integer" and lengths are used as they lie in memory.
static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

/// Throws unless the tensors follow each other without overlap or hole from 0 to data_bytes.
void check_layout(const std::map<std::string, SafetensorsEntry>& entries, size_t data_bytes, const std::string& where) {
  std::vector<std::pair<const std::string*, const SafetensorsEntry*>> ordered;
  ordered.reserve(entries.size());
  for (const auto& [name, entry] : entries) ordered.emplace_back(&name, &entry);
  std::sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->offset, a.second->bytes) < std::pair(b.second->offset, b.second->bytes);
  });
  size_t position = 0;
  const std::string* previous = nullptr;
  for (const auto& [name, entry] : ordered) {
    const std::string begins =
        "tensor \"" + *name + "\" begins at byte " + std::to_string(entry->offset) + " of the data";
    if (entry->offset < position) {
      throw Error(ErrorCode::kInvalidFile, begins + ", inside of tensor \"" + *previous + "\" (overlap)", where);
    }
    if (entry->offset > position) {
      throw Error(ErrorCode::kInvalidFile,
                  begins + ", expected " + std::to_string(position) + ": no tensor holds the bytes between (hole)",
                  where);
    }
    if (entry->bytes > data_bytes - position) {
      throw Error(ErrorCode::kInvalidFile,
                  "tensor \"" + *name + "\" ends at byte " + std::to_string(entry->offset + entry->bytes) +
                      " of the data, but the file has " + std::to_string(data_bytes) + " (is it truncated?)",
                  where);
    }
    position += entry->bytes;
    previous = name;
  }
  if (position != data_bytes) {
    throw Error(ErrorCode::kInvalidFile,
                "the tensors end at byte " + std::to_string(position) + " of the data, but the file has " +
                    std::to_string(data_bytes) + ": " + std::to_string(data_bytes - position) +
                    " bytes belong to no tensor",
                where);
  }
}

/// Writes the elements of a strided view in row-major order: dense inner parts in one go.
void write_elements(AtomicFile& file, const Tensor& tensor) {
  if (tensor.numel() == 0) return;
  if (tensor.is_contiguous()) {
    file.write(tensor.data(), tensor.bytes());
    return;
  }
  for (int64_t i = 0; i < tensor.dim(0); ++i) write_elements(file, tensor.select(0, i));
}

/// Offsets in the order that the format's own writer chooses: wide types first, so that every tensor is aligned, and
/// by name among equals.
SafetensorsHeader plan_layout(const std::map<std::string, Tensor>& tensors,
                              const std::map<std::string, std::string>& metadata,
                              std::vector<const Tensor*>* write_order) {
  std::vector<std::pair<const std::string*, const Tensor*>> ordered;
  ordered.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) ordered.emplace_back(&name, &tensor);
  std::stable_sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    return size_of(a.second->dtype()) > size_of(b.second->dtype());
  });
  SafetensorsHeader header;
  header.metadata = metadata;
  size_t offset = 0;
  for (const auto& [name, tensor] : ordered) {
    header.entries[*name] = {safetensors_name(tensor->dtype()), tensor->dtype(), tensor->shape(), offset,
                             tensor->bytes()};
    offset += tensor->bytes();
    write_order->push_back(tensor);
  }
  return header;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(std::make_shared<MappedFile>(path)) {
  const std::string where = path.string();
  const size_t size = file_->size();
  if (size < kLengthBytes) {
    throw Error(ErrorCode::kInvalidFile,
                "the file has " + std::to_string(size) + " bytes, fewer than the 8 of the header length", where);
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file_->data(), kLengthBytes);
  if (header_bytes > kMaxHeaderBytes) {
    throw Error(ErrorCode::kInvalidFile,
                "the header length is " + std::to_string(header_bytes) + ", more than the limit of " +
                    std::to_string(kMaxHeaderBytes) + " (not a safetensors file?)",
                where);
  }
  if (header_bytes > size - kLengthBytes) {
    throw Error(ErrorCode::kInvalidFile,
                "the header length is " + std::to_string(header_bytes) + ", but only " +
                    std::to_string(size - kLengthBytes) + " bytes follow (is the file truncated?)",
                where);
  }
  const std::string_view text(reinterpret_cast<const char*>(file_->data()) + kLengthBytes, header_bytes);
  SafetensorsHeader header = parse_safetensors_header(text, where);
  const size_t data_begin = kLengthBytes + header_bytes;
  check_layout(header.entries, size - data_begin, where);

  for (auto& [name, entry] : header.entries) entry.offset += data_begin;
  entries_ = std::move(header.entries);
  metadata_ = std::move(header.metadata);
  storage_ = as_storage(file_);
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> result;
  result.reserve(entries_.size());
  for (const auto& [name, entry] : entries_) result.push_back(name);
  return result;
}

const SafetensorsEntry& SafetensorsFile::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) throw Error(ErrorCode::kNotFound, "no tensor \"" + name + "\"", path().string());
  return found->second;
}

Tensor SafetensorsFile::tensor(const std::string& name) const {
  const SafetensorsEntry& found = entry(name);
  if (!found.dtype) {
    throw Error(ErrorCode::kUnsupported, "tensor \"" + name + "\": dtype " + found.dtype_name + " is not supported",
                path().string());
  }
  // The mapping begins at a page, so the offset alone decides.
  if (found.offset % size_of(*found.dtype) == 0) return Tensor(storage_, found.offset, *found.dtype, found.shape);
  const Tensor copy(allocate_host(found.bytes), 0, *found.dtype, found.shape);
  std::memcpy(copy.data(), file_->data() + found.offset, found.bytes);
  return copy;
}

void write_safetensors(const std::filesystem::path& path, const std::map<std::string, Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  for (const auto& [name, tensor] : tensors) {
    if (name == "__metadata__") {
      throw Error(ErrorCode::kInvalidArgument, "\"__metadata__\" is no name for a tensor", path.string());
    }
    if (tensor.empty() || tensor.device() != Device{}) {
      throw Error(ErrorCode::kInvalidArgument,
                  "tensor \"" + name + "\": expected one in host memory, found " + tensor.describe(), path.string());
    }
  }
  std::vector<const Tensor*> write_order;
  const std::string header = format_safetensors_header(plan_layout(tensors, metadata, &write_order));
  const uint64_t header_bytes = header.size();
  AtomicFile file(path);
  file.write(&header_bytes, kLengthBytes);
  file.write(header);
  for (const Tensor* tensor : write_order) write_elements(file, *tensor);
  file.commit();
}

}  // namespace chipmunk
