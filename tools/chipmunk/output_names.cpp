#include "output_names.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <string>
#include <system_error>

#include "chipmunk/error.h"
#include "io/atomic_file.h"

namespace chipmunk::cli {
namespace {

namespace fs = std::filesystem;

// Enough for file managers to sort most runs well.
constexpr size_t kDefaultDigits = 3;
constexpr size_t kMaxDigits = 9;

bool is_device(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  return fs::is_character_file(status) || fs::is_fifo(status);
}

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

/// A %d or %0Nd in a file name.
struct NumberField {
  size_t begin, end, digits;
};

std::optional<NumberField> find_number_field(const std::string& name) {
  for (size_t begin = name.find('%'); begin != name.npos; begin = name.find('%', begin + 1)) {
    size_t end = begin + 1;
    while (end < name.size() && std::isdigit(static_cast<unsigned char>(name[end])) != 0) ++end;
    if (end == name.size() || name[end] != 'd' || end - begin > 3) continue;
    const std::string digits = name.substr(begin + 1, end - begin - 1);
    return NumberField{begin, end + 1, digits.empty() ? 0 : std::min<size_t>(std::stoul(digits), kMaxDigits)};
  }
  return std::nullopt;
}

}  // namespace

OutputNames::OutputNames(const fs::path& output) {
  if (output.empty()) throw Error(ErrorCode::kInvalidArgument, "--output: expected a file or folder name, found none");
  if (!output.has_filename() || is_folder(output)) {
    folder_ = output;
    prefix_ = "image_";
    suffix_ = ".png";
    digits_ = kDefaultDigits;
    always_numbered_ = true;
    return;
  }
  check_png_name(output, "--output");
  folder_ = output.parent_path();
  const std::string name = output.filename().string();
  if (const auto field = find_number_field(name)) {
    prefix_ = name.substr(0, field->begin);
    suffix_ = name.substr(field->end);
    digits_ = field->digits;
    always_numbered_ = true;
    return;
  }
  prefix_ = output.stem().string();
  suffix_ = output.extension().string();
  digits_ = kDefaultDigits;
}

fs::path OutputNames::name(size_t index, size_t count) const {
  if (count == 1 && !always_numbered_) return folder_ / (prefix_ + suffix_);
  std::string number = std::to_string(index);
  // All numbers of a run have the same width, so that names sort in the order of the pictures.
  const size_t digits = digits_ == 0 ? 0 : std::max(digits_, std::to_string(count - 1).size());
  if (number.size() < digits) number.insert(0, digits - number.size(), '0');
  return folder_ / (always_numbered_ ? prefix_ + number + suffix_ : prefix_ + "_" + number + suffix_);
}

void check_png_name(const fs::path& path, const char* option) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  if (extension == ".png" || is_device(path)) return;
  throw Error(ErrorCode::kInvalidArgument,
              std::string(option) + ": expected a name that ends in .png, found \"" + path.string() + "\"");
}

void check_writable(const fs::path& path) {
  const AtomicFile probe(path);  // without a commit, the file is gone again
}

}  // namespace chipmunk::cli
