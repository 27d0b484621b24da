#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace chipmunk::text {

/// A compiled Perl regular expression over Unicode text.
class RegexSplitter {
 public:
  /// Throws kInvalidConfig if the expression does not compile.
  explicit RegexSplitter(const std::string& pattern);
  ~RegexSplitter();
  RegexSplitter(RegexSplitter&&) noexcept;
  RegexSplitter& operator=(RegexSplitter&&) noexcept;

  /// All non-empty matches in order, as views into `text` (valid UTF-8); what lies between them is dropped.
  std::vector<std::string_view> matches(std::string_view text) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

}  // namespace chipmunk::text
