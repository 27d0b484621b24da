#include "models/device_weights.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <thread>

namespace chipmunk {
namespace {

/// Every weight starts where the widest loads and copy engines want it.
constexpr size_t kAlignment = 256;
/// Staging buffers: while one is sent, the next is filled from the mapped file.
constexpr size_t kStagingBytes = size_t{64} << 20;
constexpr size_t kStagingBuffers = 3;
/// A file that is not in memory yet is read faster by several threads' page faults.
constexpr size_t kReaders = 4;
constexpr size_t kMinBytesPerReader = size_t{1} << 20;

class Collector {
 public:
  explicit Collector(std::string name) { group_.name = std::move(name); }

  Collector& add(Tensor& tensor) {
    if (!tensor.empty()) group_.tensors.push_back(&tensor);
    return *this;
  }
  Collector& add(Linear& layer) { return add(layer.weight).add(layer.bias); }
  Collector& add(ConcatLinear& layer) {
    for (Linear& part : layer.parts) add(part);
    return *this;
  }
  Collector& add(ops::NormAffine& norm) { return add(norm.weight).add(norm.bias); }
  Collector& add(FluxVectorEmbedder& embedder) { return add(embedder.linear_1).add(embedder.linear_2); }
  Collector& add(FluxDoubleStream& stream) {
    return add(stream.modulation)
        .add(stream.qkv)
        .add(stream.q_norm)
        .add(stream.k_norm)
        .add(stream.attention_out)
        .add(stream.feed_forward.in)
        .add(stream.feed_forward.out);
  }
  Collector& add(VaeCoder& coder) {
    const auto add_resnet = [this](VaeResnetBlock& block) { add(block.norm_1).add(block.norm_2); };
    add_resnet(coder.mid.resnet_1);
    add_resnet(coder.mid.resnet_2);
    if (coder.mid.attention) add(coder.mid.attention->norm).add(coder.mid.attention->qkv).add(coder.mid.attention->out);
    for (VaeStage& stage : coder.stages) {
      for (VaeResnetBlock& block : stage.resnets) add_resnet(block);
    }
    return add(coder.norm_out);
  }

  WeightGroup take() { return std::move(group_); }

 private:
  WeightGroup group_;
};

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

void copy_in_parallel(char* destination, const char* source, size_t bytes) {
  const size_t readers = std::clamp<size_t>(bytes / kMinBytesPerReader, 1, kReaders);
  const size_t part = (bytes + readers - 1) / readers;
  std::vector<std::thread> threads;
  for (size_t i = 1; i < readers; ++i) {
    const size_t begin = i * part, end = std::min(begin + part, bytes);
    if (begin < end) threads.emplace_back([=] { std::memcpy(destination + begin, source + begin, end - begin); });
  }
  std::memcpy(destination, source, std::min(part, bytes));
  for (std::thread& thread : threads) thread.join();
}

/// Sends bytes to device memory in order, through staging buffers that are used in turn.
class Uploader {
 public:
  Uploader(const Context& context, size_t total, UploadProgress progress)
      : runtime_(context.runtime()), device_(context.device()), total_(total), progress_(std::move(progress)) {}

  void send(char* destination, const char* source, size_t bytes) {
    while (bytes > 0) {
      Staging& staging = next_free();
      const size_t part = std::min(bytes, kStagingBytes);
      copy_in_parallel(static_cast<char*>(staging.memory->data()), source, part);
      runtime_.copy(destination, device_, staging.memory->data(), Device{}, part, StreamKind::kCopy);
      staging.sent = runtime_.record(StreamKind::kCopy);
      destination += part;
      source += part;
      bytes -= part;
      done_ += part;
      if (progress_) progress_(done_, total_);
    }
  }

 private:
  struct Staging {
    std::shared_ptr<Storage> memory;
    std::unique_ptr<Event> sent;
  };

  Staging& next_free() {
    Staging& staging = staging_[next_++ % kStagingBuffers];
    if (staging.sent != nullptr) runtime_.synchronize(*staging.sent);
    if (staging.memory == nullptr) staging.memory = runtime_.allocate_pinned(std::min(kStagingBytes, total_));
    return staging;
  }

  DeviceRuntime& runtime_;
  Device device_;
  size_t total_, done_ = 0, next_ = 0;
  UploadProgress progress_;
  std::array<Staging, kStagingBuffers> staging_;
};

/// The tensors of a group that are still on the host.
std::vector<Tensor*> host_tensors(const WeightGroup& group) {
  std::vector<Tensor*> result;
  for (Tensor* tensor : group.tensors) {
    if (tensor->device().kind == DeviceKind::kCpu) result.push_back(tensor);
  }
  return result;
}

}  // namespace

std::vector<WeightGroup> weight_groups(FluxTransformer& model) {
  std::vector<WeightGroup> groups;
  groups.push_back(Collector("embedders")
                       .add(model.x_embedder)
                       .add(model.context_embedder)
                       .add(model.timestep_embedder)
                       .add(model.guidance_embedder)
                       .add(model.text_embedder)
                       .take());
  for (size_t i = 0; i < model.double_blocks.size(); ++i) {
    FluxDoubleBlock& block = model.double_blocks[i];
    groups.push_back(Collector("double block " + std::to_string(i)).add(block.image).add(block.text).take());
  }
  for (size_t i = 0; i < model.single_blocks.size(); ++i) {
    FluxSingleBlock& block = model.single_blocks[i];
    groups.push_back(Collector("single block " + std::to_string(i))
                         .add(block.modulation)
                         .add(block.qkv)
                         .add(block.q_norm)
                         .add(block.k_norm)
                         .add(block.mlp_in)
                         .add(block.out)
                         .take());
  }
  groups.push_back(Collector("output").add(model.norm_out).add(model.proj_out).take());
  return groups;
}

std::vector<WeightGroup> weight_groups(ClipTextModel& model) {
  Collector all("CLIP");
  all.add(model.token_embedding).add(model.position_embedding);
  for (ClipTextLayer& layer : model.layers) {
    all.add(layer.norm_1).add(layer.norm_2).add(layer.qkv).add(layer.attention_out).add(layer.fc1).add(layer.fc2);
  }
  all.add(model.final_norm);
  return {all.take()};
}

std::vector<WeightGroup> weight_groups(T5Encoder& model) {
  std::vector<WeightGroup> groups;
  groups.push_back(Collector("T5 embeddings")
                       .add(model.token_embedding)
                       .add(model.relative_bias_table)
                       .add(model.final_norm)
                       .take());
  for (size_t i = 0; i < model.layers.size(); ++i) {
    T5Layer& layer = model.layers[i];
    groups.push_back(Collector("T5 block " + std::to_string(i))
                         .add(layer.attention_norm)
                         .add(layer.feed_forward_norm)
                         .add(layer.qkv)
                         .add(layer.attention_out)
                         .add(layer.gate)
                         .add(layer.up)
                         .add(layer.down)
                         .take());
  }
  return groups;
}

std::vector<WeightGroup> weight_groups(AutoencoderKl& model) {
  return {Collector("VAE").add(model.encoder).add(model.decoder).take()};
}

void upload_weights(const Context& context, const std::vector<WeightGroup>& groups, const UploadProgress& progress) {
  if (context.device().kind == DeviceKind::kCpu) return;
  size_t total = 0;
  for (const WeightGroup& group : groups) {
    for (const Tensor* tensor : host_tensors(group)) total += aligned(tensor->bytes());
  }
  DeviceRuntime& runtime = context.runtime();
  Uploader uploader(context, total, progress);
  for (const WeightGroup& group : groups) {
    const std::vector<Tensor*> tensors = host_tensors(group);
    size_t bytes = 0;
    for (const Tensor* tensor : tensors) bytes += aligned(tensor->bytes());
    if (bytes == 0) continue;
    const Tensor arena = context.empty({static_cast<int64_t>(bytes)}, DType::kU8);
    // Memory is handed out in the order of the compute stream.
    runtime.wait(StreamKind::kCopy, *runtime.record(StreamKind::kCompute));
    size_t offset = 0;
    for (Tensor* tensor : tensors) {
      const Tensor dense = tensor->is_contiguous() ? *tensor : context.to_host(*tensor);
      uploader.send(static_cast<char*>(arena.data()) + offset, static_cast<const char*>(dense.data()), dense.bytes());
      *tensor = Tensor(arena.storage(), offset, dense.dtype(), dense.shape());
      offset += aligned(dense.bytes());
    }
  }
  runtime.wait(StreamKind::kCompute, *runtime.record(StreamKind::kCopy));
}

}  // namespace chipmunk
