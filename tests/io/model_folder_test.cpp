#include "io/model_folder.h"

#include <algorithm>
#include <map>

#include "io/safetensors.h"
#include "io_test_util.h"

namespace chipmunk {
namespace {

using test::counting_tensor;
using test::expect_error;
using test::golden;
using test::TempFolder;

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

/// A copy that can be damaged.
void copy_golden(const std::string& name, const TempFolder& folder) {
  fs::copy(golden(name), folder.path(), fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  for (const auto& entry : fs::recursive_directory_iterator(folder.path())) {
    fs::permissions(entry.path(), fs::perms::owner_write, fs::perm_options::add);
  }
}

const ComponentDescription& part(const ModelDescription& model, const std::string& name) {
  const ComponentDescription* component = model.find(name);
  if (component == nullptr) throw Error(ErrorCode::kNotFound, "no component " + name);
  return *component;
}

TEST(DescribeModel, GoldenPipeline) {
  const ModelDescription model = describe_model(golden("flux-tiny/model"));
  EXPECT_EQ(model.layout, ModelLayout::kPipelineFolder);
  EXPECT_EQ(model.architecture, "FluxPipeline");
  ASSERT_EQ(model.components.size(), 7u);
  for (const ComponentDescription& component : model.components) {
    EXPECT_EQ(component.missing, Names{}) << component.name;
    EXPECT_EQ(component.broken, Names{}) << component.name;
  }
  EXPECT_TRUE(model.complete());
  const ComponentDescription& transformer = part(model, "transformer");
  EXPECT_EQ(transformer.kind, ComponentKind::kModel);
  EXPECT_EQ(transformer.library, "diffusers");
  EXPECT_EQ(transformer.architecture, "FluxTransformer2DModel");
  EXPECT_EQ(transformer.weight_files.size(), 2u);
  EXPECT_EQ(transformer.tensors.size(), 126u);
  EXPECT_EQ(transformer.parameters(), 552384);
  EXPECT_EQ(transformer.stored_bytes(), 1104768u);
  ASSERT_EQ(transformer.dtypes.size(), 1u);
  EXPECT_EQ(transformer.dtypes[0].dtype, "BF16");
  EXPECT_EQ(transformer.dtypes[0].tensors, 126);
  EXPECT_EQ(part(model, "tokenizer").kind, ComponentKind::kTokenizer);
  EXPECT_EQ(part(model, "tokenizer").files.size(), 4u);
  EXPECT_EQ(part(model, "scheduler").kind, ComponentKind::kScheduler);
  EXPECT_EQ(model.stored_bytes(), 1104768u + 383852u + 169856u + 216352u);
  EXPECT_EQ(model.find("image_encoder"), nullptr);
}

TEST(DescribeModel, SentencePieceAloneIsATokenizer) {
  EXPECT_TRUE(describe_model(golden("flux-schnell-tiny/model")).complete());
}

TEST(DescribeModel, OneComponent) {
  const ModelDescription model = describe_model(golden("flux-tiny/model/text_encoder"));
  EXPECT_EQ(model.layout, ModelLayout::kComponentFolder);
  EXPECT_EQ(model.architecture, "CLIPTextModel");
  EXPECT_TRUE(model.complete());
}

TEST(DescribeModel, SingleFilesAreRecognisedByTheirTensors) {
  const TempFolder folder;
  const Tensor tensor = counting_tensor({2, 2}, DType::kF32);
  const std::map<std::string, std::string> expected = {
      {"double_blocks.0.img_attn.qkv.weight", "FLUX transformer (original layout)"},
      {"decoder.up.0.block.0.conv1.weight", "AutoencoderKL (original layout)"},
      {"text_model.encoder.layers.0.self_attn.q_proj.weight", "CLIPTextModel"},
      {"encoder.block.0.layer.0.SelfAttention.q.weight", "T5EncoderModel"},
      {"something", ""}};
  for (const auto& [name, architecture] : expected) {
    write_safetensors(folder / "f.safetensors", {{name, tensor}});
    const ModelDescription model = describe_model(folder / "f.safetensors");
    EXPECT_EQ(model.layout, ModelLayout::kSingleFile);
    EXPECT_EQ(model.architecture, architecture);
    EXPECT_EQ(model.parameters(), 4);
    EXPECT_TRUE(model.complete());
  }
  write_safetensors(folder / "f.safetensors", {{"x", tensor}}, {{"modelspec.architecture", "flux-1-dev"}});
  EXPECT_EQ(describe_model(folder / "f.safetensors").architecture, "flux-1-dev");
}

TEST(DescribeModel, SaysWhatIsMissing) {
  const TempFolder folder;
  copy_golden("flux-tiny/model", folder);
  fs::remove_all(folder / "vae");
  fs::remove(folder / "text_encoder/config.json");
  fs::remove(folder / "text_encoder_2/model.safetensors");
  fs::remove(folder / "tokenizer/merges.txt");
  fs::remove(folder / "tokenizer_2/tokenizer.json");
  fs::remove(folder / "tokenizer_2/spiece.model");
  fs::remove(folder / "tokenizer_2/tokenizer_config.json");
  fs::remove(folder / "scheduler/scheduler_config.json");
  fs::remove(folder / "transformer/diffusion_pytorch_model-00002-of-00002.safetensors");
  const ModelDescription model = describe_model(folder.path());
  EXPECT_FALSE(model.complete());
  EXPECT_EQ(part(model, "vae").missing, Names{"the folder vae"});
  EXPECT_EQ(part(model, "text_encoder").missing, Names{"config.json"});
  EXPECT_EQ(part(model, "text_encoder").architecture, "CLIPTextModel");
  EXPECT_EQ(part(model, "text_encoder_2").missing, Names{"weights (*.safetensors)"});
  EXPECT_EQ(part(model, "tokenizer").missing, Names{"merges.txt"});
  EXPECT_EQ(part(model, "tokenizer_2").missing, (Names{"tokenizer_config.json", "spiece.model or tokenizer.json"}));
  EXPECT_EQ(part(model, "scheduler").missing, Names{"scheduler_config.json"});
  EXPECT_EQ(part(model, "transformer").missing, Names{"diffusion_pytorch_model-00002-of-00002.safetensors"});
  EXPECT_EQ(part(model, "transformer").tensors.size(), 77u) << "the other shard is described";
}

TEST(DescribeModel, SaysWhatIsBroken) {
  const TempFolder folder;
  copy_golden("flux-tiny/model", folder);
  const fs::path vae = folder / "vae/diffusion_pytorch_model.safetensors";
  fs::resize_file(vae, fs::file_size(vae) - 1);
  folder.add("text_encoder/config.json", "{");
  folder.add("transformer/diffusion_pytorch_model.safetensors.index.json", R"({"weight_map":{"a":"../b"}})");
  const ModelDescription model = describe_model(folder.path());
  EXPECT_FALSE(model.complete());
  for (const char* name : {"vae", "text_encoder", "transformer"}) {
    ASSERT_EQ(part(model, name).broken.size(), 1u) << name;
    EXPECT_EQ(part(model, name).missing, Names{}) << name;
  }
  EXPECT_NE(part(model, "vae").broken[0].find("truncated"), std::string::npos);
  EXPECT_NE(part(model, "text_encoder").broken[0].find("config.json"), std::string::npos);
  EXPECT_NE(part(model, "transformer").broken[0].find("../b"), std::string::npos);
}

TEST(DescribeModel, IndexEntriesThatAreNoComponents) {
  const TempFolder folder;
  folder.add("model_index.json", R"({"_class_name": "P", "flag": true, "image_encoder": [null, null], "list": ["a"],
                                     "..": ["diffusers", "X"], "a/b": ["diffusers", "X"]})");
  const ModelDescription model = describe_model(folder.path());
  ASSERT_EQ(model.components.size(), 2u);
  for (const ComponentDescription& component : model.components) {
    EXPECT_EQ(component.broken, Names{"the name is not that of a folder"});
  }
}

TEST(DescribeModel, PathsWithoutAModel) {
  const TempFolder folder;
  expect_error(ErrorCode::kNotFound, {"gone"}, [&] { describe_model(folder / "gone"); });
  expect_error(ErrorCode::kNotFound, {"no model here"}, [&] { describe_model(folder.path()); });
  expect_error(ErrorCode::kInvalidFile, {"notes.txt"},
               [&] { describe_model(folder.add("notes.txt", "hello, world")); });
  folder.add("model_index.json", "{}");
  expect_error(ErrorCode::kInvalidConfig, {"_class_name"}, [&] { describe_model(folder.path()); });
}

}  // namespace
}  // namespace chipmunk
