#include "bad_input.h"

// Models with one thing wrong.
namespace chipmunk::testing {
namespace {

namespace fs = std::filesystem;

constexpr int kError = 1, kBadUse = 2;
constexpr const char* kShard = "transformer/diffusion_pytorch_model-00001-of-00002.safetensors";
constexpr const char* kSecondShard = "transformer/diffusion_pytorch_model-00002-of-00002.safetensors";
constexpr const char* kShardIndex = "transformer/diffusion_pytorch_model.safetensors.index.json";
constexpr const char* kVaeWeights = "vae/diffusion_pytorch_model.safetensors";
constexpr const char* kClipWeights = "text_encoder/model.safetensors";
constexpr const char* kVaeTensor = "decoder.conv_in.weight";

using Prepare = std::function<void(Workbench&)>;

/// A model that `generate` must refuse.
BadInput broken(const std::string& name, const std::vector<std::string>& message, Prepare prepare) {
  return {name, generate_with({}), kError, message, std::move(prepare)};
}

Prepare removing(const std::string& path) {
  return [path](Workbench& bench) { fs::remove_all(bench.damage(path)); };
}

Prepare replacing(const std::string& path, const std::string& content) {
  return [path, content](Workbench& bench) { write_text(bench.damage(path), content); };
}

Prepare editing(const std::string& path, std::function<void(Json&)> edit) {
  return [path, edit = std::move(edit)](Workbench& bench) { edit_json(bench.damage(path), edit); };
}

Prepare setting(const std::string& path, const std::string& key, const Json& value) {
  return editing(path, [key, value](Json& json) { json[key] = value; });
}

Prepare erasing(const std::string& path, const std::string& key) {
  return editing(path, [key](Json& json) { json.erase(key); });
}

Prepare truncating(const std::string& path, double fraction) {
  return [path, fraction](Workbench& bench) {
    const fs::path file = bench.damage(path);
    fs::resize_file(file, static_cast<uintmax_t>(static_cast<double>(fs::file_size(file)) * fraction));
  };
}

Prepare editing_header(const std::string& path, std::function<void(Json&)> edit) {
  return [path, edit = std::move(edit)](Workbench& bench) { edit_header(bench.damage(path), edit); };
}

/// Moves a tensor's place in the file by some bytes; the others stay where they are.
Prepare moving(const std::string& path, const std::string& tensor, int64_t bytes) {
  return editing_header(path, [tensor, bytes](Json& header) {
    for (Json& offset : header[tensor]["data_offsets"]) offset = offset.get<int64_t>() + bytes;
  });
}

}  // namespace

std::vector<BadInput> bad_model_folders() {
  return {
      {"ModelAbsent", generate_with({{"--model", "{tmp}/none"}}), kError, {"{tmp}/none", "no such file or folder"}},
      {"ModelIsAFile",
       generate_with({{"--model", "{tmp}/file"}}),
       kError,
       {"{tmp}/file", "model_index.json"},
       [](Workbench& bench) { write_text(bench.folder() / "file", "x"); }},
      broken("ModelWithoutIndex", {"{model}", "model_index.json"}, removing("model_index.json")),
      broken("IndexIsNotJson", {"{model}/model_index.json", "not valid JSON"}, replacing("model_index.json", "{\"a\"")),
      broken("IndexIsAList", {"{model}/model_index.json", "expected a JSON object"},
             replacing("model_index.json", "[]")),
      broken("IndexWithoutClass", {"{model}/model_index.json", "_class_name"},
             erasing("model_index.json", "_class_name")),
      broken("WrongPipelineClass", {"model_index.json", "FluxPipeline", "StableDiffusionPipeline"},
             setting("model_index.json", "_class_name", "StableDiffusionPipeline")),
      broken("TransformerFolderMissing", {"{model}/transformer"}, removing("transformer")),
      broken("VaeFolderMissing", {"{model}/vae"}, removing("vae")),
      broken("TextEncoderFolderMissing", {"{model}/text_encoder_2"}, removing("text_encoder_2")),
      broken("SchedulerMissing", {"{model}/scheduler"}, removing("scheduler")),
      broken("WeightsMissing", {"{model}/vae"}, removing(kVaeWeights)),
      {"SingleFilesIncomplete",
       {"generate", "--vae", "{model}/vae", "-p", "a cat", "-o", "{out}/a.png", "--quiet"},
       kBadUse,
       {"--diffusion-model"}},
      {"SingleFileAbsent",
       generate_with({{"--vae", "{tmp}/ae.safetensors"}}),
       kError,
       {"{tmp}/ae.safetensors", "no such file"}},
      {"SingleFileUnlikeFlux",
       generate_with({{"--diffusion-model", "{data}/golden/flux-original/model/flux1-tiny.safetensors"}}),
       kError,
       {"flux1-tiny.safetensors", "axes_dims_rope"}},
      {"ModelConfigAbsent",
       generate_with({{"--model-config", "{tmp}/none.json"}}),
       kError,
       {"{tmp}/none.json", "no such file"}},
      {"ModelConfigIsNotJson",
       generate_with({{"--model-config", "{tmp}/config.json"}}),
       kError,
       {"{tmp}/config.json", "not valid JSON"},
       [](Workbench& bench) { write_text(bench.folder() / "config.json", "transformer: {}"); }},
  };
}

std::vector<BadInput> bad_configs() {
  const std::string transformer = "transformer/config.json", vae = "vae/config.json", t5 = "text_encoder_2/config.json";
  return {
      broken("ConfigMissing", {"{model}/transformer", "config.json"}, removing(transformer)),
      broken("ConfigIsNotJson", {"{model}/vae/config.json", "not valid JSON"}, replacing(vae, "scaling_factor = 1")),
      broken("ConfigIsEmpty", {"{model}/vae/config.json", "not valid JSON"}, replacing(vae, "")),
      broken("ConfigWithKeyTwice", {"{model}/vae/config.json", "given twice"},
             replacing(vae, R"({"in_channels": 3, "in_channels": 3})")),
      broken("ConfigWithoutKey", {"{model}/transformer/config.json", "num_attention_heads", "missing"},
             erasing(transformer, "num_attention_heads")),
      broken("ConfigKeyOfWrongType", {"num_layers", "integer", "two"}, setting(transformer, "num_layers", "two")),
      broken("ConfigNegativeCount", {"num_layers", "-1"}, setting(transformer, "num_layers", -1)),
      broken("ConfigContradictsItself", {"{model}/transformer/config.json", "axes_dims_rope"},
             setting(transformer, "axes_dims_rope", {8, 12, 14})),
      broken("ConfigContradictsWeights", {"{model}/transformer", "expected", "found"},
             setting(transformer, "num_attention_heads", 4)),
      broken("ConfigWithMoreLayersThanWeights", {"{model}/transformer", "transformer_blocks.2", "missing"},
             setting(transformer, "num_layers", 3)),
      broken("ConfigWithFewerLayersThanWeights", {"{model}/transformer", "transformer_blocks.1", "unused"},
             setting(transformer, "num_layers", 1)),
      broken("ConfigOfHugeModel", {"{model}/transformer"}, setting(transformer, "num_attention_heads", 1 << 30)),
      broken("TextEncoderConfigWithoutKey", {"{model}/text_encoder_2/config.json", "d_model"}, erasing(t5, "d_model")),
      broken("TextEncoderContradictsWeights", {"{model}/text_encoder_2", "expected", "found"}, setting(t5, "d_ff", 97)),
      broken("VaeWithWrongGroups", {"norm_num_groups"}, setting(vae, "norm_num_groups", 3)),
      broken("UnknownScheduler", {"scheduler_config.json", "FlowMatchEulerDiscreteScheduler", "DDIMScheduler"},
             setting("scheduler/scheduler_config.json", "_class_name", "DDIMScheduler")),
      broken("SchedulerWithShiftZero", {"scheduler_config.json", "shift"},
             setting("scheduler/scheduler_config.json", "shift", 0.0)),
      broken("ConfigOfDeepJson", {"{model}/vae/config.json", "nested"},
             replacing(vae, std::string(100000, '[') + std::string(100000, ']'))),
  };
}

std::vector<BadInput> bad_weights() {
  const std::string vae = std::string("{model}/") + kVaeWeights;
  const std::string shard = std::string("{model}/") + kShard;
  return {
      broken("WeightsTruncated", {shard}, truncating(kShard, 0.5)),
      broken("WeightsTruncatedInHeader", {shard, "header"}, truncating(kShard, 0.001)),
      broken("WeightsEmpty", {vae, "empty"}, replacing(kVaeWeights, "")),
      broken("WeightsAreNoSafetensors", {vae}, replacing(kVaeWeights, std::string(4096, 'x'))),
      broken("WeightsAreAFolder", {"{model}/vae"},
             [](Workbench& bench) {
               fs::remove(bench.damage(kVaeWeights));
               fs::create_directory(bench.damage(kVaeWeights));
             }),
      broken("HeaderOversized", {vae, "header"},
             [](Workbench& bench) { replace_header(bench.damage(kVaeWeights), "{}", 200'000'000); }),
      broken("HeaderIsNotJson", {vae, "JSON"},
             [](Workbench& bench) { replace_header(bench.damage(kVaeWeights), "{not json}"); }),
      broken("TensorTwiceInHeader", {vae, "x"},
             [](Workbench& bench) {
               const std::string entry = R"("x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]})";
               replace_header(bench.damage(kVaeWeights), "{" + entry + ", " + entry + "}");
             }),
      broken("TensorsOverlap", {vae, kVaeTensor, "overlap"}, moving(kVaeWeights, kVaeTensor, -4)),
      broken("HoleBetweenTensors", {vae}, editing_header(kVaeWeights, [](Json& header) { header.erase(kVaeTensor); })),
      broken("OffsetsOutsideOfFile", {vae}, moving(kVaeWeights, kVaeTensor, 1 << 30)),
      broken("ShapeContradictsBytes", {vae, kVaeTensor},
             editing_header(kVaeWeights, [](Json& header) { header[kVaeTensor]["shape"][0] = 17; })),
      broken("ShapeOverflows", {vae, kVaeTensor},
             editing_header(kVaeWeights,
                            [](Json& header) { header[kVaeTensor]["shape"] = {int64_t{1} << 62, int64_t{1} << 62}; })),
      broken("DtypeUnknown", {vae, kVaeTensor, "F33"},
             editing_header(kVaeWeights, [](Json& header) { header[kVaeTensor]["dtype"] = "F33"; })),
      broken("DtypeOfIntegers", {"{model}/vae", kVaeTensor, "I32"},
             editing_header(kVaeWeights, [](Json& header) { header[kVaeTensor]["dtype"] = "I32"; })),
      broken("WeightMisshapen", {"{model}/vae", "decoder.conv_out.bias", "[3]", "[3, 1]"},
             editing_header(kVaeWeights, [](Json& header) { header["decoder.conv_out.bias"]["shape"] = {3, 1}; })),
      broken("WeightMissingAndUnused",
             {"{model}/text_encoder", "missing", "position_embedding.weight", "unused", "spare"},
             editing_header(kClipWeights,
                            [](Json& header) {
                              const std::string name = "text_model.embeddings.position_embedding.weight";
                              header["spare"] = header[name];
                              header.erase(name);
                            })),
      broken("ShardMissing", {kShardIndex, "00001-of-00002", "not there"}, removing(kShard)),
      broken("IndexNamesUnknownShard", {"{model}/transformer"},
             editing(kShardIndex, [](Json& index) { index["weight_map"].begin().value() = "other.safetensors"; })),
      broken("IndexLeavesTheFolder", {"{model}/transformer", "../vae"},
             editing(kShardIndex,
                     [](Json& index) {
                       index["weight_map"].begin().value() = "../vae/diffusion_pytorch_model.safetensors";
                     })),
      broken("ShardsShareAWeight", {"{model}/transformer"},
             [](Workbench& bench) {
               fs::copy_file(bench.damage(kShard), bench.damage(kSecondShard), fs::copy_options::overwrite_existing);
             }),
  };
}

std::vector<BadInput> bad_tokenizers() {
  return {
      broken("TokenizerFolderMissing", {"{model}/tokenizer"}, removing("tokenizer")),
      broken("TokenizerFolderEmpty", {"{model}/tokenizer_2"},
             [](Workbench& bench) {
               fs::remove_all(bench.damage("tokenizer_2"));
               fs::create_directory(bench.damage("tokenizer_2"));
             }),
      broken("VocabularyMissing", {"{model}/tokenizer", "vocab.json"}, removing("tokenizer/vocab.json")),
      broken("VocabularyIsNotJson", {"{model}/tokenizer/vocab.json", "JSON"}, replacing("tokenizer/vocab.json", "{")),
      broken("MergesMissing", {"{model}/tokenizer", "merges.txt"}, removing("tokenizer/merges.txt")),
      broken("T5TokenizerTruncated", {"{model}/tokenizer_2/tokenizer.json", "JSON"},
             truncating("tokenizer_2/tokenizer.json", 0.5)),
      broken("SentencePieceModelIsNoModel", {"{model}/tokenizer_2/spiece.model"},
             [](Workbench& bench) {
               fs::remove(bench.damage("tokenizer_2/tokenizer.json"));
               write_text(bench.damage("tokenizer_2/spiece.model"), "not a model");
             }),
      broken("TokenizerOfAnotherModel", {"CLIP's tokenizer has 1001 ids", "embeddings for 714"},
             setting("tokenizer/vocab.json", "a word of another model</w>", 1000)),
  };
}

}  // namespace chipmunk::testing
