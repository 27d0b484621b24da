#include "io/safetensors_header.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "chipmunk/error.h"

namespace chipmunk {
namespace {

constexpr std::string_view kMetadataKey = "__metadata__";

struct FormatType {
  std::string_view name;
  uint64_t bits;
  std::optional<DType> dtype;
};

// Every type of the format, so that files with types that no tensor here has can still be checked and inspected.
constexpr std::array<FormatType, 22> kFormatTypes = {{
    {"F32", 32, DType::kF32},         {"BF16", 16, DType::kBF16},     {"F16", 16, DType::kF16},
    {"F8_E4M3", 8, DType::kF8E4M3},   {"F8_E5M2", 8, DType::kF8E5M2}, {"I32", 32, DType::kI32},
    {"I64", 64, DType::kI64},         {"U8", 8, DType::kU8},          {"BOOL", 8, DType::kBool},
    {"F64", 64, std::nullopt},        {"I16", 16, std::nullopt},      {"I8", 8, std::nullopt},
    {"U16", 16, std::nullopt},        {"U32", 32, std::nullopt},      {"U64", 64, std::nullopt},
    {"C64", 64, std::nullopt},        {"F8_E8M0", 8, std::nullopt},   {"F8_E4M3FNUZ", 8, std::nullopt},
    {"F8_E5M2FNUZ", 8, std::nullopt}, {"F6_E2M3", 6, std::nullopt},   {"F6_E3M2", 6, std::nullopt},
    {"F4", 4, std::nullopt},
}};

const FormatType* find_type(std::string_view name) {
  for (const FormatType& type : kFormatTypes) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

/// What the header says about one tensor, field by field, before it is checked.
struct RawEntry {
  std::optional<std::string> dtype;
  std::optional<std::vector<uint64_t>> shape;
  std::optional<std::vector<uint64_t>> data_offsets;
};

std::string join(const std::vector<uint64_t>& values) {
  std::string text = "[";
  for (size_t i = 0; i < values.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(values[i]);
  return text + "]";
}

/// Bits of a tensor, or nothing if they exceed 63 bits. Zeros are left out of that limit's product, so that strides,
/// which are products of some of the sizes, cannot overflow either.
std::optional<uint64_t> total_bits(const std::vector<uint64_t>& shape, uint64_t bits_per_element) {
  int64_t total = static_cast<int64_t>(bits_per_element);
  bool has_zero = false;
  for (uint64_t size : shape) {
    has_zero = has_zero || size == 0;
    if (size != 0 && __builtin_mul_overflow(total, size, &total)) return std::nullopt;
  }
  return has_zero ? 0 : static_cast<uint64_t>(total);
}

[[noreturn]] void fail_entry(const std::string& name, const std::string& message, const std::string& where,
                             ErrorCode code = ErrorCode::kInvalidFile) {
  throw Error(code, "tensor \"" + name + "\": " + message, where);
}

SafetensorsEntry check_entry(const std::string& name, const RawEntry& raw, const std::string& where) {
  if (!raw.dtype) fail_entry(name, "the header gives no dtype", where);
  if (!raw.shape) fail_entry(name, "the header gives no shape", where);
  if (!raw.data_offsets) fail_entry(name, "the header gives no data_offsets", where);
  const std::string& dtype = *raw.dtype;
  const std::vector<uint64_t>& shape = *raw.shape;
  const std::vector<uint64_t>& offsets = *raw.data_offsets;
  const std::string range = "data_offsets " + join(offsets);
  const std::string what = "shape " + join(shape) + " of " + dtype;

  const FormatType* type = find_type(dtype);
  if (type == nullptr) fail_entry(name, "unknown dtype \"" + dtype + "\"", where);
  if (offsets.size() != 2) fail_entry(name, "expected two offsets, found " + range, where);
  if (offsets[0] > offsets[1]) fail_entry(name, range + " end before they begin", where);
  const uint64_t bytes = offsets[1] - offsets[0];
  const std::optional<uint64_t> bits = total_bits(shape, type->bits);
  if (!bits) fail_entry(name, what + " is too large", where);
  if (*bits % 8 != 0) fail_entry(name, what + " is no whole number of bytes", where);
  if (*bits / 8 != bytes) {
    fail_entry(name,
               what + " needs " + std::to_string(*bits / 8) + " bytes, " + range + " give " + std::to_string(bytes),
               where);
  }
  if (shape.size() > Dims::kMaxRank) {
    fail_entry(
        name,
        std::to_string(shape.size()) + " dimensions, at most " + std::to_string(Dims::kMaxRank) + " are supported",
        where, ErrorCode::kUnsupported);
  }
  SafetensorsEntry entry{dtype, type->dtype, {}, offsets[0], bytes};
  for (uint64_t size : shape) entry.shape.push_back(static_cast<int64_t>(size));
  return entry;
}

/// Receives the header piece by piece. A tree of values would silently keep one of two duplicate keys.
/// Levels: 1 the header's object, 2 a tensor or the metadata, 3 a tensor's lists; unknown fields are skipped.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(const std::string& where) : where_(where) {}

  SafetensorsHeader finish() {
    SafetensorsHeader header;
    header.metadata = std::move(metadata_);
    for (const auto& [name, raw] : tensors_) header.entries.emplace(name, check_entry(name, raw, where_));
    return header;
  }

  bool key(string_t& key) override {
    if (skip_depth_ > 0) return true;
    if (level_ == 1) {
      tensor_ = key;
      if (!names_.insert(key).second) fail("the key is in the header twice");
      if (!in_metadata()) tensors_[key];
    } else {
      field_ = key;
      if (!fields_.insert(key).second) fail("the key \"" + key + "\" is given twice");
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (enter_skipped()) return true;
    if (level_ == 1) {
      fields_.clear();
    } else if (level_ > 1) {
      unexpected("an object");
    }
    ++level_;
    return true;
  }

  bool end_object() override { return leave(); }

  bool start_array(std::size_t) override {
    if (enter_skipped()) return true;
    std::optional<std::vector<uint64_t>>* list = level_ == 2 ? current_list() : nullptr;
    if (list == nullptr) unexpected("a list");
    list->emplace();
    ++level_;
    return true;
  }

  bool end_array() override { return leave(); }

  bool number_unsigned(number_unsigned_t value) override {
    if (skipped()) return true;
    std::optional<std::vector<uint64_t>>* list = level_ == 3 ? current_list() : nullptr;
    if (list == nullptr || !*list) unexpected("the number " + std::to_string(value));
    (*list)->push_back(value);
    return true;
  }

  bool string(string_t& value) override {
    if (skipped()) return true;
    if (level_ != 2) unexpected("the string \"" + value + "\"");
    if (in_metadata()) {
      metadata_[field_] = value;
    } else if (field_ == "dtype") {
      tensors_[tensor_].dtype = value;
    } else {
      unexpected("the string \"" + value + "\"");
    }
    return true;
  }

  bool null() override { return skipped() || unexpected("null"); }
  bool boolean(bool value) override { return skipped() || unexpected(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override {
    return skipped() || unexpected("the negative number " + std::to_string(value));
  }
  bool number_float(number_float_t, const string_t& text) override {
    return skipped() || unexpected("the number " + text);
  }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override {
    const std::string text = error.what();  // "[json.exception.parse_error.101] parse error at line ..."
    const size_t begin = text.find("] ");
    throw Error(ErrorCode::kInvalidFile,
                "the header is not valid JSON: " + (begin == text.npos ? text : text.substr(begin + 2)), where_);
  }

 private:
  bool in_metadata() const { return tensor_ == kMetadataKey; }

  std::optional<std::vector<uint64_t>>* current_list() {
    if (in_metadata()) return nullptr;
    if (field_ == "shape") return &tensors_[tensor_].shape;
    if (field_ == "data_offsets") return &tensors_[tensor_].data_offsets;
    return nullptr;
  }

  /// Values of fields that the format does not define are not looked at.
  bool skipped() const {
    return skip_depth_ > 0 ||
           (level_ == 2 && !in_metadata() && field_ != "dtype" && field_ != "shape" && field_ != "data_offsets");
  }

  bool enter_skipped() {
    if (!skipped()) return false;
    ++skip_depth_;
    return true;
  }

  bool leave() {
    if (skip_depth_ > 0) {
      --skip_depth_;
    } else {
      --level_;
    }
    return true;
  }

  [[noreturn]] void fail(const std::string& message) const {
    const std::string subject = in_metadata() ? std::string(kMetadataKey) : "tensor \"" + tensor_ + "\"";
    throw Error(ErrorCode::kInvalidFile, subject + ": " + message, where_);
  }

  /// Returns bool so that it can stand for a handler's result; always throws.
  [[noreturn]] bool unexpected(const std::string& found) const {
    if (level_ == 0) throw Error(ErrorCode::kInvalidFile, "the header is not a JSON object", where_);
    if (level_ == 1) fail("expected an object, found " + found);
    if (in_metadata()) fail("expected strings, found " + found + " at \"" + field_ + "\"");
    const bool is_dtype = field_ == "dtype";
    fail(field_ + ": expected " + (is_dtype ? "a string" : "a list of non-negative integers") + ", found " + found);
  }

  const std::string& where_;
  std::map<std::string, RawEntry> tensors_;
  std::map<std::string, std::string> metadata_;
  std::set<std::string> names_;
  std::set<std::string> fields_;
  std::string tensor_;
  std::string field_;
  int level_ = 0;
  int skip_depth_ = 0;
};

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text, const std::string& where) {
  if (text.empty() || text.front() != '{') {
    throw Error(ErrorCode::kInvalidFile, "the header does not begin with '{'", where);
  }
  // The JSON library takes a NUL for the end of the text.
  if (text.find('\0') != std::string_view::npos) {
    throw Error(ErrorCode::kInvalidFile, "the header contains a NUL byte", where);
  }
  HeaderReader reader(where);
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  return reader.finish();
}

std::string safetensors_name(DType dtype) {
  for (const FormatType& type : kFormatTypes) {
    if (type.dtype == dtype) return std::string(type.name);
  }
  throw Error(ErrorCode::kInternal, "a dtype without a safetensors name");
}

std::string format_safetensors_header(const SafetensorsHeader& header) {
  // Written by hand around the strings, in the order of the data: a JSON tree would sort by name.
  std::vector<std::pair<const std::string*, const SafetensorsEntry*>> ordered;
  ordered.reserve(header.entries.size());
  for (const auto& [name, entry] : header.entries) ordered.emplace_back(&name, &entry);
  std::stable_sort(ordered.begin(), ordered.end(),
                   [](const auto& a, const auto& b) { return a.second->offset < b.second->offset; });
  std::string text = "{";
  const auto separate = [&text] {
    if (text.size() > 1) text += ",";
  };
  try {
    if (!header.metadata.empty()) text += "\"__metadata__\":" + nlohmann::json(header.metadata).dump();
    for (const auto& [name, entry] : ordered) {
      separate();
      text += nlohmann::json(*name).dump() + ":{\"dtype\":\"" + entry->dtype_name + "\",\"shape\":";
      text += nlohmann::json(std::vector<int64_t>(entry->shape.begin(), entry->shape.end())).dump();
      text += ",\"data_offsets\":[" + std::to_string(entry->offset) + "," +
              std::to_string(entry->offset + entry->bytes) + "]}";
    }
  } catch (const nlohmann::json::type_error&) {
    throw Error(ErrorCode::kInvalidText, "a tensor name or a metadata entry is not valid UTF-8");
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace chipmunk
