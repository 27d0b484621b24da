#include "support/sparsity_file.h"

#include <unistd.h>

#include <fstream>
#include <system_error>

namespace chipmunk::test {

SparsityFile::SparsityFile(int full_step_every, const std::string& more) {
  static int files = 0;
  path_ = std::filesystem::temp_directory_path() /
          ("chipmunk_sparsity_" + std::to_string(::getpid()) + "_" + std::to_string(files++) + ".yml");
  const std::string full = "full_step_every: " + std::to_string(full_step_every) + ", first_n_dense_layers: 1}\n";
  std::ofstream(path_) << "attn: {is_enabled: true, top_keys: 0.3, " << full
                       << "mlp: {is_enabled: true, top_keys: 0.5, " << full << more;
}

SparsityFile::~SparsityFile() {
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

}  // namespace chipmunk::test
