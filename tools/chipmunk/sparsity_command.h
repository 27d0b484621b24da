#pragma once

#include <string>
#include <vector>

#include "sparse/config.h"

/// `chipmunk sparsity`: settings of the sparse method, without a model. Both throw what load_sparsity throws, and name
/// keys without an effect in notices on stderr.
namespace chipmunk::cli {

/// The settings that the value of a --sparsity option stands for, a preset's name or a YAML file. Whatever is wrong
/// with it, the file's content included, is bad use: throws kInvalidArgument with the message of
/// SparsityConfig::load_or_preset. Keys without an effect are named in `notices`.
SparsityConfig load_sparsity(const std::string& name_or_path, std::vector<std::string>* notices);

/// Prints every setting that the file or preset results in, as a YAML file. Empty: the names of the presets.
int run_sparsity_show(const std::string& name_or_path);

/// Says that the file or preset is valid; what is wrong with one that is not comes as an error with file and line.
int run_sparsity_check(const std::string& name_or_path);

}  // namespace chipmunk::cli
