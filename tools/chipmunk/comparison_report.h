#pragma once

#include <string>

#include "comparison.h"

/// A comparison as text: JSON (compare.json) and the table for people.
namespace chipmunk::cli {

/// One object, indented, with a final newline. Every number is finite; null stands for what is infinite or unknown.
std::string to_json(const Comparison& comparison);

std::string format_table(const Comparison& comparison);

}  // namespace chipmunk::cli
