#pragma once

#include <string>
#include <vector>

#include "comparison.h"

namespace chipmunk::cli {

/// A picture that the report shows.
struct ReportPicture {
  std::string caption;
  std::string png;  ///< its bytes
  int width = 0, height = 0;
};

/// What the report shows of a variant besides its numbers; in the order of Comparison::variants.
struct ReportGallery {
  std::vector<ReportPicture> pictures;
};

/// The comparison as one HTML page: tables, plots and pictures, with nothing from outside.
std::string to_html(const Comparison& comparison, const std::vector<ReportGallery>& galleries);

}  // namespace chipmunk::cli
