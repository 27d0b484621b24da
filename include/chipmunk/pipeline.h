#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "chipmunk/device.h"

/// Text in, pictures out: what a program that embeds the engine includes.
namespace chipmunk {

/// Where a model's parts lie. Either `model` names a folder as Hugging Face serves it (model_index.json and one folder
/// a component), or the parts are given one by one; a part that is given wins over the folder's.
struct ModelFiles {
  std::filesystem::path model;
  std::filesystem::path diffusion_model;  ///< transformer: original single file, diffusers file or folder
  std::filesystem::path vae;              ///< original ae.safetensors, diffusers file or folder
  std::filesystem::path clip_l;           ///< CLIP text model: a file or folder
  std::filesystem::path t5xxl;            ///< T5 v1.1 encoder: a file or folder
  std::filesystem::path clip_tokenizer;   ///< folder with vocab.json and merges.txt (or tokenizer.json)
  std::filesystem::path t5_tokenizer;     ///< folder with spiece.model or tokenizer.json
  /// JSON with overrides for what single files cannot tell, by component: {"transformer": {...}, "vae": {...},
  /// "text_encoder": {...}, "text_encoder_2": {...}, "scheduler": {...}}, keys as in diffusers' config.json files.
  std::filesystem::path model_config;
};

/// Which weights leave the device's memory while they are not needed; the pictures are the same to the last bit. On the
/// CPU, which computes from the mapped files, it changes nothing.
enum class Offload {
  kNone,
  kText,    ///< the text encoders' are on the device only while prompts are encoded
  kBlocks,  ///< that, and of the transformer's blocks two at a time: the others wait in page-locked host memory
};

struct LoadOptions {
  ModelFiles files;
  Device device;
  int threads = 0;          ///< CPU threads, 0 for all cores
  size_t memory_limit = 0;  ///< cap on the allocator in bytes, 0 for none
  Offload offload = Offload::kNone;
  /// The linears of the transformer's blocks, but for modulations, compute in f8_e4m3: their weights get a scale a row
  /// when they are loaded, what they read one a token as they run. Less memory, and faster on Hopper GPUs, at the price
  /// of some accuracy (docs/fp8.md). Throws kUnsupported on GPUs below compute capability 8.9.
  bool fp8 = false;
};

enum class VaeTiling { kAuto, kOn, kOff };  ///< kAuto: above 1024 x 1024 pixels
enum class PreviewMode {
  kNone,
  kProjection,  ///< a linear map from latent to colour: fast, coarse (1/8 of the size)
  kVae,         ///< the full decoder
};

struct GenerateRequest {
  std::string prompt;           ///< UTF-8
  std::string negative_prompt;  ///< used where true_cfg_scale > 1
  int width = 0, height = 0;    ///< pixels, multiples of 16; 0 for the model's native size
  int steps = 28;
  float guidance_scale = 3.5f;    ///< distilled guidance, for models with a guidance embedding
  float true_cfg_scale = 1.0f;    ///< classifier-free guidance with a second forward a step; 1 is off
  int64_t seed = 0;               ///< image i of a batch uses seed + i
  int batch_count = 1;            ///< images of this prompt, in one forward
  int max_sequence_length = 512;  ///< T5 tokens; cut to the tokenizer's model_max_length
  VaeTiling vae_tiling = VaeTiling::kAuto;
  PreviewMode preview = PreviewMode::kNone;
  int preview_interval = 1;  ///< steps between previews
  /// How sparse the transformer computes: a preset's name ("flux", "demo", ...) or a YAML file; empty for dense.
  std::string sparsity;
  bool record = false;  ///< fill GenerateResult::steps; costs memory and some time
};

/// One generated sample: 8-bit RGB, row-major, frame after frame.
struct Frames {
  int width = 0, height = 0;
  int count = 1;     ///< 1 for an image
  double fps = 0.0;  ///< 0 for an image
  std::vector<uint8_t> rgb;
};

/// How far weights are on their way to the device.
struct LoadReport {
  size_t done_bytes = 0, total_bytes = 0;
  double elapsed_ms = 0.0;
  bool complete = false;  ///< the last report: everything has arrived
};

struct StepReport {
  int index = 0;  ///< 0-based
  int total = 0;
  double sigma = 0.0;
  double elapsed_ms = 0.0;
};

/// What generate() tells while it runs, on the calling thread. The default does nothing.
class ProgressSink {
 public:
  virtual ~ProgressSink() = default;
  /// Weights go to the device, when a model is loaded or, offloaded, needed again. Never called on the CPU.
  virtual void on_loading(const LoadReport& report);
  /// A new stage begins: "text encoding", "denoising", "decoding".
  virtual void on_stage(std::string_view stage);
  /// A denoising step is done.
  virtual void on_step(const StepReport& report);
  /// Whether on_latents is wanted: it costs a copy from the device each step.
  virtual bool wants_latents() const { return false; }
  /// The latents after a step, f32 [batch, tokens, channels] in raster order.
  virtual void on_latents(int step_index, const float* values, size_t count);
  /// What the picture would be if it stopped now; the first of the batch.
  virtual void on_preview(const Frames& frames, int step_index);
  /// Something a person should know, e.g. that a prompt was truncated.
  virtual void on_notice(std::string_view message);
  /// Asked before each step and each stage, and as weights go to the device: true makes load() or generate() throw
  /// kCancelled.
  virtual bool cancelled();
};

/// Fractions of the key columns at which LayerRecord::attention_mass is given.
inline constexpr double kMassFractions[] = {0.01, 0.02, 0.05, 0.1, 0.165, 0.25, 0.5};

/// What one layer of the transformer did in one step; means over the batch, guidance branches, heads and query groups.
struct LayerRecord {
  double attention_kept = 1.0;  ///< fraction of the key columns that were read; 0 on skipped steps
  double mlp_kept = 1.0;        ///< fraction of the hidden features that were computed; 0 on skipped steps
  /// Share of a query group's attention that its heaviest columns hold, at each of kMassFractions. Where column sums
  /// are computed (refresh steps); else empty.
  std::vector<double> attention_mass;
  /// |O_t - O_(t-1)| / |O_t| of the attention's output, of whatever was computed; negative where there is no step
  /// before.
  double attention_change = -1.0;
};

/// What one denoising step did.
struct StepRecord {
  int index = 0;
  double sigma = 0.0;
  std::string attention;   ///< "dense", "refresh", "recache", "sparse" or "skip": of the layers that are not kept dense
  std::string mlp;         ///< "full", "select", "reuse" or "skip"
  double movement = -1.0;  ///< what adaptive step caching expected the output to move, relative; negative without
  double multiply_adds =
      0;  ///< of attention and MLP, with column sums, means, selection and caches; see work_estimate.h
  double dense_multiply_adds = 0;  ///< of the same step without sparsity
  std::vector<LayerRecord> layers;
};

struct GenerateResult {
  std::vector<Frames> samples;  ///< batch_count of them
  int width = 0, height = 0;    ///< the size used
  double text_ms = 0.0, denoise_ms = 0.0, decode_ms = 0.0;
  size_t peak_memory_bytes = 0;   ///< the allocator's, weights in mapped files not counted
  std::vector<StepRecord> steps;  ///< with GenerateRequest::record
};

/// A loaded model. generate() may be called any number of times; calls share nothing but the weights.
class Pipeline {
 public:
  virtual ~Pipeline() = default;

  /// Reads configs and tokenizers and binds every weight. Throws kNotFound, kInvalidFile, kInvalidConfig,
  /// kInvalidWeights (missing, misshapen and unused weights are listed), kBackendUnavailable, kOutOfMemory, kCancelled.
  static std::unique_ptr<Pipeline> load(const LoadOptions& options, ProgressSink& progress);
  static std::unique_ptr<Pipeline> load(const LoadOptions& options);

  /// Throws kInvalidArgument for a request outside of the documented ranges, kInvalidText, kCancelled, kOutOfMemory.
  /// After an error everything that the call took is given back, and the next call starts afresh.
  virtual GenerateResult generate(const GenerateRequest& request, ProgressSink& progress) = 0;

  /// Checks a request without running it; throws as generate() would.
  virtual void validate(const GenerateRequest& request) const = 0;

  virtual Device device() const = 0;
  /// e.g. "FluxPipeline".
  virtual std::string_view architecture() const = 0;
  /// The size used where the request names none.
  virtual int native_width() const = 0;
  virtual int native_height() const = 0;
  /// Distilled guidance is an input of the model (FLUX.1-dev), else guidance_scale has no effect (FLUX.1-schnell).
  virtual bool has_guidance_embedding() const = 0;
};

}  // namespace chipmunk
