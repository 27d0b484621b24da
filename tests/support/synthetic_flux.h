#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace chipmunk::test {

/// Sizes of a transformer with random weights.
struct SyntheticFlux {
  int64_t heads = 16, head_dim = 128;
  int64_t double_blocks = 4, single_blocks = 8;
};

/// Makes a model folder at `destination` from a small one: everything of `fixture` but the transformer, which is
/// written anew with these sizes in bf16, and with the fixture's own text widths. Returns the transformer's bytes.
size_t write_synthetic_flux(const std::filesystem::path& fixture, const std::filesystem::path& destination,
                            const SyntheticFlux& sizes);

/// Bytes of all *.safetensors below a folder.
size_t stored_weight_bytes(const std::filesystem::path& folder);

}  // namespace chipmunk::test
