#include "io/weight_map.h"

#include <sys/mman.h>

#include <map>
#include <optional>
#include <set>
#include <utility>

#include "chipmunk/error.h"

namespace chipmunk {
namespace {

// Enough to see the pattern of what is wrong, few enough to read.
constexpr size_t kMaxListed = 20;

/// Memory that no page stands behind until it is touched, so that a model whose every weight is missing can still be
/// bound. Nothing if the system refuses.
std::shared_ptr<Storage> reserve(size_t bytes) {
  const size_t mapped = bytes == 0 ? 1 : bytes;
  void* data = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return nullptr;
  return std::make_shared<Storage>(data, bytes, Device{}, [data, mapped] { ::munmap(data, mapped); });
}

/// A tensor of the shape a model asked for, where the file has none.
Tensor placeholder(const Dims& shape, const std::string& name, const std::string& where) {
  int64_t bytes = static_cast<int64_t>(size_of(DType::kF32));
  bool representable = true;
  for (int64_t size : shape) {
    representable = representable && size >= 0 && !__builtin_mul_overflow(bytes, size == 0 ? 1 : size, &bytes);
  }
  if (!representable) {
    throw Error(ErrorCode::kInvalidConfig,
                "weight \"" + name + "\": the config asks for an impossible shape " + to_string(shape), where);
  }
  if (std::shared_ptr<Storage> storage = reserve(static_cast<size_t>(bytes))) {
    return Tensor(std::move(storage), 0, DType::kF32, shape);
  }
  // No address space for it: one element in every place is as good.
  Dims strides = shape;
  for (int i = 0; i < strides.rank(); ++i) strides[i] = 0;
  return Tensor(allocate_host(sizeof(float)), 0, DType::kF32, shape, strides);
}

void append_list(std::string* text, const char* title, const std::vector<std::string>& items) {
  if (items.empty()) return;
  *text += "\n  " + std::string(title) + " (" + std::to_string(items.size()) + "):";
  for (size_t i = 0; i < items.size() && i < kMaxListed; ++i) *text += "\n    " + items[i];
  if (items.size() > kMaxListed) *text += "\n    and " + std::to_string(items.size() - kMaxListed) + " more";
}

}  // namespace

struct WeightMap::State {
  /// A weight is an entry of a file or a tensor given to define().
  struct Weight {
    const SafetensorsFile* file = nullptr;
    Tensor defined;
  };

  const Weight* find(const std::string& name) const {
    const auto found = weights.find(name);
    return found == weights.end() ? nullptr : &found->second;
  }
  const Weight& get(const std::string& name) const {
    const Weight* weight = find(name);
    if (weight == nullptr) throw Error(ErrorCode::kInvalidWeights, "no weight \"" + name + "\"", where);
    return *weight;
  }

  std::string where;
  std::vector<std::shared_ptr<const SafetensorsFile>> files;
  std::map<std::string, Weight> weights;
  std::set<std::string> used;
  // Problems by name: a weight that is asked for twice is reported once.
  std::map<std::string, std::string> missing;
  std::map<std::string, std::string> misshapen;
  std::map<std::string, std::string> mistyped;
};

WeightMap::WeightMap(std::string where) : state_(std::make_unique<State>()) { state_->where = std::move(where); }

WeightMap::WeightMap(std::string where, std::vector<std::shared_ptr<const SafetensorsFile>> files)
    : WeightMap(std::move(where)) {
  state_->files = std::move(files);
  for (const auto& file : state_->files) {
    for (const auto& [name, entry] : file->entries()) {
      const auto [position, inserted] = state_->weights.emplace(name, State::Weight{file.get(), {}});
      if (inserted) continue;
      throw Error(ErrorCode::kInvalidWeights,
                  "weight \"" + name + "\" is in two files: " + position->second.file->path().filename().string() +
                      " and " + file->path().filename().string(),
                  state_->where);
    }
  }
}

WeightMap::~WeightMap() = default;
WeightMap::WeightMap(WeightMap&&) noexcept = default;
WeightMap& WeightMap::operator=(WeightMap&&) noexcept = default;

const std::string& WeightMap::where() const { return state_->where; }

std::vector<std::string> WeightMap::names() const {
  std::vector<std::string> result;
  result.reserve(state_->weights.size());
  for (const auto& [name, weight] : state_->weights) result.push_back(name);
  return result;
}

bool WeightMap::contains(const std::string& name) const { return state_->find(name) != nullptr; }

SafetensorsEntry WeightMap::entry(const std::string& name) const {
  const State::Weight& weight = state_->get(name);
  if (weight.file != nullptr) return weight.file->entry(name);
  const Tensor& tensor = weight.defined;
  return {std::string(to_string(tensor.dtype())), tensor.dtype(), tensor.shape(), 0, tensor.bytes()};
}

Dims WeightMap::shape_of(const std::string& name) const { return entry(name).shape; }

Tensor WeightMap::peek(const std::string& name) const {
  const State::Weight& weight = state_->get(name);
  return weight.file != nullptr ? weight.file->tensor(name) : weight.defined;
}

Tensor WeightMap::take(const std::string& name, const Dims& shape) {
  State& state = *state_;
  if (!contains(name)) {
    state.missing[name] = name + ": expected " + to_string(shape);
    return placeholder(shape, name, state.where);
  }
  state.used.insert(name);
  const SafetensorsEntry found = entry(name);
  if (found.shape != shape) {
    state.misshapen[name] = name + ": expected " + to_string(shape) + ", found " + to_string(found.shape);
  } else if (!found.dtype || !is_floating(*found.dtype)) {
    state.mistyped[name] = name + ": expected a floating type, found " + found.dtype_name;
  } else {
    return peek(name);
  }
  return placeholder(shape, name, state.where);
}

Tensor WeightMap::take_optional(const std::string& name, const Dims& shape) {
  return contains(name) ? take(name, shape) : Tensor();
}

void WeightMap::ignore(const std::string& name) { state_->used.insert(name); }

void WeightMap::define(const std::string& name, Tensor tensor) {
  if (tensor.empty()) throw Error(ErrorCode::kInvalidArgument, "weight \"" + name + "\": no tensor", state_->where);
  const auto [position, inserted] = state_->weights.emplace(name, State::Weight{nullptr, std::move(tensor)});
  if (!inserted) {
    throw Error(ErrorCode::kInvalidArgument, "weight \"" + name + "\" is there already", state_->where);
  }
}

void WeightMap::consume(const std::string& name) {
  state_->get(name);
  state_->used.insert(name);
}

WeightScope WeightMap::scope(const std::string& prefix) { return WeightScope(*this, {}).scope(prefix); }

void WeightMap::finish() const {
  const auto texts = [](const std::map<std::string, std::string>& problems) {
    std::vector<std::string> result;
    result.reserve(problems.size());
    for (const auto& [name, text] : problems) result.push_back(text);
    return result;
  };
  std::vector<std::string> unused;
  for (const auto& [name, weight] : state_->weights) {
    if (state_->used.count(name) == 0) unused.push_back(name + ": " + to_string(shape_of(name)));
  }
  if (state_->missing.empty() && state_->misshapen.empty() && state_->mistyped.empty() && unused.empty()) return;
  std::string message = "the weights do not fit the model";
  append_list(&message, "missing", texts(state_->missing));
  append_list(&message, "wrong shape", texts(state_->misshapen));
  append_list(&message, "wrong type", texts(state_->mistyped));
  append_list(&message, "unused", unused);
  throw Error(ErrorCode::kInvalidWeights, message, state_->where);
}

size_t WeightMap::stored_bytes() const {
  size_t total = 0;
  for (const auto& file : state_->files) {
    for (const auto& [name, entry] : file->entries()) total += entry.bytes;
  }
  return total;
}

int64_t WeightMap::parameter_count() const {
  int64_t total = 0;
  for (const auto& file : state_->files) {
    for (const auto& [name, entry] : file->entries()) total += numel(entry.shape);
  }
  return total;
}

std::vector<std::filesystem::path> WeightMap::files() const {
  std::vector<std::filesystem::path> result;
  result.reserve(state_->files.size());
  for (const auto& file : state_->files) result.push_back(file->path());
  return result;
}

WeightScope WeightScope::scope(const std::string& prefix) const {
  const bool dotted = prefix.empty() || prefix.back() == '.';
  return WeightScope(*map_, prefix_ + prefix + (dotted ? "" : "."));
}

bool WeightScope::contains(const std::string& name) const { return map_->contains(prefix_ + name); }
Dims WeightScope::shape_of(const std::string& name) const { return map_->shape_of(prefix_ + name); }
Tensor WeightScope::take(const std::string& name, const Dims& shape) const { return map_->take(prefix_ + name, shape); }
Tensor WeightScope::take_optional(const std::string& name, const Dims& shape) const {
  return map_->take_optional(prefix_ + name, shape);
}
void WeightScope::ignore(const std::string& name) const { map_->ignore(prefix_ + name); }

}  // namespace chipmunk
