#pragma once

#include <string>

/// `chipmunk sparsity`: settings of the sparse method, without a model. Both throw what SparsityConfig::load_or_preset
/// throws, and name keys without an effect in notices on stderr.
namespace chipmunk::cli {

/// Prints every setting that the file or preset results in, as a YAML file. Empty: the names of the presets.
int run_sparsity_show(const std::string& name_or_path);

/// Says that the file or preset is valid; what is wrong with one that is not comes as an error with file and line.
int run_sparsity_check(const std::string& name_or_path);

}  // namespace chipmunk::cli
