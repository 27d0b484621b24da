#pragma once

#include "chipmunk/pipeline.h"

namespace chipmunk::cli {

/// Two pictures of the same size and, to the right of them, how far apart they are: |a - b| times `gain`, at most 255.
Frames side_by_side(const Frames& a, const Frames& b, int gain);

/// The picture no wider than max_width: means of whole blocks of pixels; what is left at the edges is cut off.
Frames shrink(const Frames& picture, int max_width);

}  // namespace chipmunk::cli
