#pragma once

#include "chipmunk/pipeline.h"

namespace chipmunk {

/// Joins pictures to one, row after row, each scaled down and in a green or red frame.
class ContactSheet {
 public:
  /// All of `count` pictures must be added before image().
  explicit ContactSheet(int count);
  void add(const Frames& picture, bool correct);
  const Frames& image() const { return sheet_; }

 private:
  Frames sheet_;
  int columns_ = 1, added_ = 0;
};

}  // namespace chipmunk
