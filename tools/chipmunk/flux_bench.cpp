#include "flux_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <set>
#include <utility>

#include "chipmunk/error.h"
#include "core/float_formats.h"
#include "flux_generation_bench.h"
#include "flux_workload.h"
#include "gpu_trace.h"
#include "linear_survey.h"
#include "ops/elementwise.h"
#include "random_models.h"
#include "sparse/transformer_state.h"
#include "stopwatch.h"
#include "timed_context.h"

namespace chipmunk::cli {
namespace {

using Progress = std::function<void(const std::string&)>;

/// As the pipeline decodes: above this many pixels in tiles.
constexpr int64_t kTilingPixels = int64_t{1024} * 1024;
/// What CLIP was trained on.
constexpr int64_t kClipTokens = 77;

/// A part of a generation that runs again and again.
struct Stage {
  std::string name;
  std::function<std::vector<Tensor>(const Context&)> body;
  std::set<int64_t> mlp_features;  // sizes that only linears of an MLP have
  bool repeats = true;             // every run does the same
};

/// The two runs are also those that load kernels and choose algorithms.
void check_stage(const Context& context, const Stage& stage) {
  const auto run = [&] {
    std::vector<Tensor> outputs;
    for (const Tensor& tensor : stage.body(context)) outputs.push_back(context.to_host(tensor));
    return outputs;
  };
  const std::vector<Tensor> first = run(), second = run();
  for (size_t i = 0; i < first.size(); ++i) {
    bool finite = true, zero = true;
    for (int64_t k = 0; k < first[i].numel(); ++k) {
      const float value = load_as_float(first[i].data(), first[i].dtype(), k);
      finite &= std::isfinite(value);
      zero &= value == 0.0f;
    }
    const std::string where = stage.name + ", output " + first[i].describe();
    if (!finite) throw Error(ErrorCode::kInternal, "expected finite values, found NaN or infinity", where);
    if (zero) throw Error(ErrorCode::kInternal, "expected other values than zeros", where);
    if (stage.repeats && std::memcmp(first[i].data(), second[i].data(), first[i].bytes()) != 0) {
      throw Error(ErrorCode::kInternal, "expected two runs to give the same bits", where);
    }
  }
}

/// Whole forwards, queued without waiting in between.
void time_stage(const Context& context, const Stage& stage, int rounds, StageResult* result) {
  DeviceRuntime& runtime = context.runtime();
  runtime.reset_peak();
  // Untimed: the host gets ahead of the device.
  stage.body(context);
  std::vector<std::unique_ptr<Event>> marks;
  for (int i = 0; i < rounds; ++i) {
    marks.push_back(runtime.record(StreamKind::kCompute));
    stage.body(context);
  }
  marks.push_back(runtime.record(StreamKind::kCompute));
  runtime.synchronize();
  std::vector<double> ms;
  for (size_t i = 0; i + 1 < marks.size(); ++i) ms.push_back(runtime.elapsed_ms(*marks[i], *marks[i + 1]));
  result->median_ms = median(ms);
  result->min_ms = *std::min_element(ms.begin(), ms.end());
  result->max_ms = *std::max_element(ms.begin(), ms.end());
  result->peak_bytes = runtime.memory().peak_bytes;
}

/// How much of the time of whole forwards the GPU works.
std::optional<double> busy_share(const Context& context, const Stage& stage, int rounds, const Progress& progress) {
  std::string reason;
  const auto forwards = [&] {
    for (int i = 0; i < rounds; ++i) stage.body(context);
    context.runtime().synchronize();
  };
  const std::optional<GpuActivity> activity = trace_gpu(forwards, &reason);
  if (!activity) {
    progress(stage.name + ": no share of time that the GPU is busy: " + reason);
    return std::nullopt;
  }
  return activity->busy_ms / activity->span_ms;
}

/// Each kind of linear again and again, beside the fastest that cuBLASLt can do.
void survey_linears(const Context& context, uint64_t seed, std::vector<LinearResult>* linears) {
  RandomTensors random(context, seed);
  for (LinearResult& linear : *linears) linear.alone = time_linear(random, linear.shape);
}

/// A CPU's ceilings are reached by smaller problems, which take it less long.
int64_t clock_size_of(const Context& context) { return context.device().kind == DeviceKind::kCuda ? 8192 : 1024; }
int64_t copy_bytes_of(const Context& context) {
  return int64_t{1} << (context.device().kind == DeviceKind::kCuda ? 30 : 26);
}

class CeilingTimer {
 public:
  CeilingTimer(const Context& context, uint64_t seed) : context_(context), size_(clock_size_of(context)) {
    RandomTensors random(context, seed);
    x_ = random.normal({size_, size_}, context.activation_dtype(), 1.0f);
    layer_.weight = random.normal({size_, size_}, DType::kBF16, 1.0f / std::sqrt(static_cast<float>(size_)));
    out_ = context.empty({size_, size_});
    source_ = context.empty({copy_bytes_of(context)}, DType::kU8);
    destination_ = context.empty(source_.shape(), DType::kU8);
    measure();
    linear_ms_.clear();
    copy_ms_.clear();
  }

  void measure() {
    linear_ms_.push_back(time([&] { ops::linear_into(context_, x_, layer_, out_); }));
    copy_ms_.push_back(time([&] {
      context_.runtime().copy(destination_.data(), context_.device(), source_.data(), context_.device(),
                              source_.bytes(), StreamKind::kCompute);
    }));
  }

  Ceilings ceilings() const {
    const double flops = 2.0 * std::pow(static_cast<double>(size_), 3);
    return {flops / median(linear_ms_) * 1e3, 2.0 * static_cast<double>(source_.bytes()) / median(copy_ms_) * 1e3};
  }

 private:
  double time(const std::function<void()>& body) const {
    constexpr int kRepeats = 4;
    DeviceRuntime& runtime = context_.runtime();
    const auto begin = runtime.record(StreamKind::kCompute);
    for (int i = 0; i < kRepeats; ++i) body();
    const auto end = runtime.record(StreamKind::kCompute);
    runtime.synchronize();
    return runtime.elapsed_ms(*begin, *end) / kRepeats;
  }

  const Context& context_;
  int64_t size_;
  Tensor x_, out_, source_, destination_;
  Linear layer_;
  std::vector<double> linear_ms_, copy_ms_;
};

std::string kind_of(const Stage& stage, const OpNote& note) {
  switch (note.kind) {
    case OpKind::kAttention: return "attention";
    case OpKind::kConvolution: return "convolution";
    case OpKind::kColumnAttention: return "column attention";
    case OpKind::kColumnMlp: return "column MLP";
    case OpKind::kSelection: return "selection";
    case OpKind::kMemory: return "elementwise, norm, copy";
    case OpKind::kLinear: break;
  }
  const bool mlp =
      stage.mlp_features.contains(note.linear.out_features) || stage.mlp_features.contains(note.linear.in_features);
  return mlp ? "MLP linears" : "other linears";
}

/// Each op of the stage with the median of its times. The ceilings are measured in turn with it.
std::vector<TimedOp> time_ops(const Context& context, const Stage& stage, int rounds, CeilingTimer* ceilings) {
  TimedContext timed(context);
  std::vector<TimedOp> ops;
  std::vector<std::vector<double>> ms;
  for (int round = 0; round < rounds; ++round) {
    // Untimed: the host gets ahead of the device, or ops would wait for their launch; caches are as within a run.
    stage.body(context);
    stage.body(timed.context());
    ops = timed.take();
    ceilings->measure();
    ms.resize(ops.size());
    for (size_t i = 0; i < ops.size(); ++i) ms[i].push_back(ops[i].ms);
  }
  for (size_t i = 0; i < ops.size(); ++i) ops[i].ms = median(ms[i]);
  return ops;
}

template <class Result>
std::vector<Result> longest_first(std::vector<Result> results) {
  std::sort(results.begin(), results.end(), [](const Result& a, const Result& b) { return a.work.ms > b.work.ms; });
  return results;
}

/// The entry that `same` finds, or a new one.
template <class Result, class Same>
Result& entry(std::vector<Result>& results, const Same& same, Result fresh) {
  const auto found = std::find_if(results.begin(), results.end(), same);
  return found != results.end() ? *found : results.emplace_back(std::move(fresh));
}

void break_down(const Stage& stage, const std::vector<TimedOp>& ops, StageResult* result) {
  result->rest_ms = result->median_ms;
  for (const auto& [note, ms] : ops) {
    const double fastest_ms = 1e3 * std::max(note.flops / result->ceilings.matmul_flops_per_s,
                                             note.bytes / result->ceilings.copy_bytes_per_s);
    const auto add = [&, note = note, ms = ms](WorkResult& work) {
      work = {work.ops + 1, work.ms + ms, work.flops + note.flops, work.bytes + note.bytes,
              work.fastest_ms + fastest_ms};
    };
    result->rest_ms -= ms;
    const std::string kind = kind_of(stage, note);
    add(entry(result->kinds, [&](const KindResult& other) { return other.kind == kind; }, {kind, {}}).work);
    if (note.kind != OpKind::kLinear) continue;
    const auto same = [&, note = note](const LinearResult& other) { return other.shape == note.linear; };
    add(entry(result->linears, same, {note.linear, {}, {}}).work);
  }
  result->kinds = longest_first(std::move(result->kinds));
  result->linears = longest_first(std::move(result->linears));
}

StageResult measure(const Context& context, const FluxBenchOptions& options, const Stage& stage,
                    const Progress& progress) {
  StageResult result;
  result.name = stage.name;
  progress(stage.name + ": two runs are compared");
  check_stage(context, stage);
  progress(fmt::format("{}: {} rounds", stage.name, options.rounds));
  time_stage(context, stage, options.rounds, &result);
  progress(stage.name + ": op by op");
  CeilingTimer ceilings(context, options.seed);
  const std::vector<TimedOp> ops = time_ops(context, stage, options.rounds, &ceilings);
  result.ceilings = ceilings.ceilings();
  break_down(stage, ops, &result);
  if (context.device().kind == DeviceKind::kCuda) {
    progress(stage.name + ": linears beside cuBLASLt's fastest algorithms");
    survey_linears(context, options.seed, &result.linears);
    // Last: what CUPTI leaves behind may slow down launches.
    progress(stage.name + ": how much of the time the GPU works");
    result.busy_share = busy_share(context, stage, options.rounds, progress);
  }
  return result;
}

std::vector<std::vector<int32_t>> token_ids(int64_t count, int64_t vocab_size) {
  std::vector<int32_t> ids;
  // A prime step, so that ids differ.
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>(i * 7919 % vocab_size));
  return {ids};
}

Stage text_stage(const FluxBenchOptions& options, RandomTensors& random) {
  const auto clip = std::make_shared<ClipTextModel>(random_clip(random, options.clip));
  const auto t5 = std::make_shared<T5Encoder>(random_t5(random, options.t5));
  const auto clip_ids = token_ids(std::min(kClipTokens, options.clip.max_position_embeddings), options.clip.vocab_size);
  const auto t5_ids = token_ids(options.text_tokens, options.t5.vocab_size);
  return {"text",
          [=](const Context& context) {
            return std::vector<Tensor>{clip->forward(context, clip_ids).pooled, t5->forward(context, t5_ids)};
          },
          {options.clip.intermediate_size, options.t5.d_ff}};
}

/// Sizes that only linears of the MLP have; the output layer of single blocks reads attention's features too.
std::set<int64_t> mlp_features(const FluxConfig& config) {
  return {config.mlp_dim(), config.inner_dim() + config.mlp_dim()};
}

Stage step_stage(const std::string& name, const std::shared_ptr<const FluxWorkload>& workload) {
  return {name,
          [workload](const Context& context) {
            return std::vector<Tensor>{workload->model.forward(context, workload->inputs(0), workload->rope, {})};
          },
          mlp_features(workload->model.config)};
}

/// A step of the sparse method that chooses features anew. Inputs alternate, or nothing would be left to compute.
Stage sparse_step_stage(const Context& context, const std::shared_ptr<const FluxWorkload>& workload,
                        const SparsityConfig& sparsity, uint64_t seed) {
  struct State {
    SparseTransformerState sparse;
    TransposedMlpWeights transposed;
    int runs = 0;
  };
  constexpr int kSteps = 10;
  std::vector<float> sigmas;
  for (int i = 0; i <= kSteps; ++i) sigmas.push_back(1.0f - static_cast<float>(i) / kSteps);
  SparsityConfig config = sparsity;
  config.step_caching.is_enabled = false;
  const DenoisingSchedule schedule = DenoisingSchedule::sparse(sigmas, config, workload->model.num_layers());
  const auto state = std::make_shared<State>(
      State{SparseTransformerState(schedule, {config, workload->model.num_layers(), 1, seed, false}), {}, 0});
  workload->model.add_transposed_mlp_weights(context, config.mlp, &state->transposed);
  const auto forward = [workload, state](const Context& c, int step) {
    state->sparse.begin_step(step);
    ForwardOptions options;
    options.sparse = &state->sparse;
    options.transposed_mlps = &state->transposed;
    return std::vector<Tensor>{
        workload->model.forward(c, workload->inputs(state->runs++ % 2), workload->rope, options)};
  };
  int sparse_step = 0;
  const auto is_sparse = [&](const Step& step) {
    return (step.attention == AttentionStep::kSparse || !config.attn.is_enabled) &&
           (step.mlp == MlpStep::kSparseSelect || !config.mlp.is_enabled);
  };
  while (sparse_step < kSteps && !is_sparse(schedule.steps()[static_cast<size_t>(sparse_step)])) {
    forward(context, sparse_step++);
  }
  if (sparse_step == kSteps) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("expected a sparse step among the first {}", kSteps),
                "--sparsity");
  }
  Stage stage{"sparse step", [=](const Context& c) { return forward(c, sparse_step); },
              mlp_features(workload->model.config)};
  stage.repeats = false;
  return stage;
}

Stage decode_stage(const FluxBenchOptions& options, RandomTensors& random) {
  const auto vae = std::make_shared<AutoencoderKl>(random_vae_decoder(random, options.vae));
  const int64_t factor = options.vae.spatial_factor();
  const Tensor latent = random.normal({1, options.height / factor, options.width / factor, options.vae.latent_channels},
                                      random.context().activation_dtype(), 1.0f);
  const bool tiled = options.width * options.height > kTilingPixels;
  return {"decode",
          [=](const Context& context) {
            return std::vector<Tensor>{tiled ? vae->decode_tiled(context, latent, VaeTileSettings::native(vae->config))
                                             : vae->decode(context, latent)};
          },
          {}};
}

}  // namespace

FluxBenchOptions flux_bench_preset(const std::string& name) {
  FluxBenchOptions options;
  options.transformer.guidance_embeds = true;
  options.vae.use_quant_conv = false;
  options.vae.use_post_quant_conv = false;
  if (name == "flux-dev") return options;
  if (name != "tiny") {
    throw Error(ErrorCode::kInvalidArgument, "--preset: expected flux-dev, tiny; found \"" + name + "\"");
  }
  FluxConfig& flux = options.transformer;
  flux.num_layers = flux.num_single_layers = 1;
  flux.num_attention_heads = 2;
  flux.attention_head_dim = 64;
  flux.axes_dims_rope = {16, 24, 24};
  flux.joint_attention_dim = 96;
  flux.pooled_projection_dim = 64;
  options.t5 = {.vocab_size = 1000, .d_model = 96, .d_kv = 32, .d_ff = 160, .num_layers = 2, .num_heads = 2};
  options.clip = {.vocab_size = 1000,
                  .hidden_size = 64,
                  .intermediate_size = 256,
                  .num_hidden_layers = 2,
                  .num_attention_heads = 2};
  options.vae.block_out_channels = {32, 32, 64, 64};
  options.vae.layers_per_block = 1;
  options.width = 96;
  options.height = 64;
  options.text_tokens = 32;
  return options;
}

FluxBenchResult bench_flux(const Context& context, const FluxBenchOptions& options, const Progress& progress) {
  FluxBenchResult result;
  result.device = to_string(context.device());
  result.options = options;
  result.clock_size = clock_size_of(context);
  progress("random weights");
  std::vector<Stage> stages;
  const size_t before = context.runtime().memory().current_bytes;
  std::shared_ptr<const FluxWorkload> workload;
  std::vector<NamedWorkload> workloads;
  {
    RandomTensors random(context, options.seed);
    const int64_t factor = options.vae.spatial_factor();
    workload = std::make_shared<FluxWorkload>(make_flux_workload(random, options.transformer, options.height / factor,
                                                                 options.width / factor, options.text_tokens));
    workloads.emplace_back("", workload);
    result.transformer_bytes = weight_bytes(workload->model);
    stages.push_back(step_stage("step", workload));
    if (options.with_fp8) {
      auto fp8 = std::make_shared<FluxWorkload>(*workload);
      fp8->model = with_fp8_linears(context, workload->model);
      result.fp8_transformer_bytes = weight_bytes(fp8->model);
      stages.push_back(step_stage("fp8 step", fp8));
      workloads.emplace_back(", fp8", fp8);
    }
    if (options.with_text) stages.push_back(text_stage(options, random));
    if (options.with_vae) stages.push_back(decode_stage(options, random));
  }
  result.weight_bytes = context.runtime().memory().current_bytes - before;
  for (const Stage& stage : stages) result.stages.push_back(measure(context, options, stage, progress));
  if (!options.sparsities.empty()) {
    const Stage stage = sparse_step_stage(context, workload, options.sparsities[0].second, options.seed);
    result.stages.push_back(measure(context, options, stage, progress));
  }
  if (options.denoising_steps > 0) result.generations = bench_generations(context, options, workloads, progress);
  return result;
}

}  // namespace chipmunk::cli
