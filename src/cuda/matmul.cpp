#include "cuda/matmul.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "chipmunk/error.h"
#include "cuda/launch.h"

namespace chipmunk::cuda {
namespace {

/// What NVIDIA recommends for Hopper; algorithms that split the depth need it.
constexpr size_t kWorkspaceBytes = 32 << 20;
/// The largest alignment that cuBLASLt's algorithms ask for.
constexpr uint64_t kMaxAlignment = 256;

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  const ErrorCode code = status == CUBLAS_STATUS_ALLOC_FAILED ? ErrorCode::kOutOfMemory : ErrorCode::kInternal;
  throw Error(code, cublasLtGetStatusString(status), what);
}

/// The largest power of two up to kMaxAlignment that divides the address and the strides, in bytes.
uint32_t alignment(const void* data, size_t element_bytes, int64_t row_stride, int64_t batch_stride) {
  const uint64_t bits = reinterpret_cast<uintptr_t>(data) | static_cast<uint64_t>(row_stride) * element_bytes |
                        static_cast<uint64_t>(batch_stride) * element_bytes | kMaxAlignment;
  return static_cast<uint32_t>(bits & (~bits + 1));
}

/// Since 12.9 cuBLASLt takes a scale for each row of f8 operands.
constexpr bool kHasRowScales = CUBLAS_VERSION >= 120900;

cudaDataType_t native_type(DType dtype) {
  switch (dtype) {
    case DType::kF32: return CUDA_R_32F;
    case DType::kF8E4M3: return CUDA_R_8F_E4M3;
    default: return CUDA_R_16BF;
  }
}

cublasLtEpilogue_t native_epilogue(const MatmulProblem& problem) {
  const bool bias = problem.bias != nullptr;
  switch (problem.activation) {
    case Activation::kGeluTanh: return bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    case Activation::kRelu: return bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU;
    default: return bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  }
}

class Layout {
 public:
  /// A row-major [rows, columns] matrix, which cuBLASLt sees as its column-major transpose.
  Layout(DType dtype, int64_t rows, int64_t columns, int64_t row_stride, int64_t batch, int64_t batch_stride) {
    // The stride of a single row means nothing, but is checked.
    const int64_t stride = rows == 1 ? std::max(row_stride, columns) : row_stride;
    check(cublasLtMatrixLayoutCreate(&layout_, native_type(dtype), static_cast<uint64_t>(columns),
                                     static_cast<uint64_t>(rows), stride),
          "cublasLtMatrixLayoutCreate");
    const auto count = static_cast<int32_t>(batch);
    set(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, count);
    set(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, batch_stride);
  }
  ~Layout() { cublasLtMatrixLayoutDestroy(layout_); }
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;

  cublasLtMatrixLayout_t get() const { return layout_; }

 private:
  template <class T>
  void set(cublasLtMatrixLayoutAttribute_t name, const T& value) {
    check(cublasLtMatrixLayoutSetAttribute(layout_, name, &value, sizeof(value)), "cublasLtMatrixLayoutSetAttribute");
  }

  cublasLtMatrixLayout_t layout_ = nullptr;
};

class Description {
 public:
  explicit Description(const MatmulProblem& problem) {
    check(cublasLtMatmulDescCreate(&description_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    set(CUBLASLT_MATMUL_DESC_TRANSA, problem.b_is_depth_major ? CUBLAS_OP_N : CUBLAS_OP_T);
    set(CUBLASLT_MATMUL_DESC_TRANSB, problem.a_is_depth_major ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, native_epilogue(problem));
    if (problem.bias != nullptr) {
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_16BF);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, problem.bias);
    }
    if (problem.operand_dtype == DType::kF8E4M3) set_scales(problem);
  }
  ~Description() { cublasLtMatmulDescDestroy(description_); }
  Description(const Description&) = delete;
  Description& operator=(const Description&) = delete;

  cublasLtMatmulDesc_t get() const { return description_; }

 private:
  /// Its A is our b.
  void set_scales([[maybe_unused]] const MatmulProblem& problem) {
    // Sums that stay in the tensor cores' own format: up to a quarter faster, and their error, 3e-3 at a depth of
    // 15,360, disappears beside the operands' (docs/fp8.md).
    set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, int8_t{1});
#if CUBLAS_VERSION >= 120900
    const int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, mode);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, mode);
    set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, problem.b_scales);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, problem.a_scales);
#endif
  }

  template <class T>
  void set(cublasLtMatmulDescAttributes_t name, const T& value) {
    check(cublasLtMatmulDescSetAttribute(description_, name, static_cast<const void*>(&value), sizeof(value)),
          "cublasLtMatmulDescSetAttribute");
  }

  cublasLtMatmulDesc_t description_ = nullptr;
};

class Preference {
 public:
  Preference() { check(cublasLtMatmulPreferenceCreate(&preference_), "cublasLtMatmulPreferenceCreate"); }
  ~Preference() { cublasLtMatmulPreferenceDestroy(preference_); }
  Preference(const Preference&) = delete;
  Preference& operator=(const Preference&) = delete;

  template <class T>
  void set(cublasLtMatmulPreferenceAttributes_t name, const T& value) {
    check(cublasLtMatmulPreferenceSetAttribute(preference_, name, &value, sizeof(value)),
          "cublasLtMatmulPreferenceSetAttribute");
  }
  cublasLtMatmulPreference_t get() const { return preference_; }

 private:
  cublasLtMatmulPreference_t preference_ = nullptr;
};

/// A problem in cuBLASLt's terms. It computes in column-major order, so it is asked for the transposed product: its A
/// is our b, its B our a.
struct NativeProblem {
  explicit NativeProblem(const MatmulProblem& p)
      : description(p),
        a(p.operand_dtype, p.b_is_depth_major ? p.depth : p.columns, p.b_is_depth_major ? p.columns : p.depth,
          p.b_row_stride, p.batch, p.b_batch_stride),
        b(p.operand_dtype, p.a_is_depth_major ? p.depth : p.rows, p.a_is_depth_major ? p.rows : p.depth, p.a_row_stride,
          p.batch, p.a_batch_stride),
        c(p.out_dtype, p.rows, p.columns, p.addend != nullptr ? p.addend_row_stride : p.out_row_stride, p.batch,
          p.addend != nullptr ? p.addend_batch_stride : p.out_batch_stride),
        d(p.out_dtype, p.rows, p.columns, p.out_row_stride, p.batch, p.out_batch_stride) {}

  Description description;
  Layout a, b, c, d;
};

uint32_t a_alignment(const MatmulProblem& p) {
  return alignment(p.a, size_of(p.operand_dtype), p.a_row_stride, p.a_batch_stride);
}
uint32_t b_alignment(const MatmulProblem& p) {
  return alignment(p.b, size_of(p.operand_dtype), p.b_row_stride, p.b_batch_stride);
}
uint32_t out_alignment(const MatmulProblem& p) {
  return alignment(p.out, size_of(p.out_dtype), p.out_row_stride, p.out_batch_stride);
}
uint32_t addend_alignment(const MatmulProblem& p) {
  if (p.addend == nullptr) return out_alignment(p);
  return alignment(p.addend, size_of(p.out_dtype), p.addend_row_stride, p.addend_batch_stride);
}

/// At most `count` algorithms, best first by cuBLASLt's own estimate.
std::vector<cublasLtMatmulHeuristicResult_t> find_algorithms(cublasLtHandle_t handle, const MatmulProblem& problem,
                                                             const NativeProblem& native, int count) {
  Preference preference;
  preference.set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b_alignment(problem));
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a_alignment(problem));
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, addend_alignment(problem));
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out_alignment(problem));
  std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<size_t>(count));
  int found = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle, native.description.get(), native.a.get(), native.b.get(), native.c.get(),
                                     native.d.get(), preference.get(), count, results.data(), &found);
  if (status != CUBLAS_STATUS_SUCCESS || found == 0) {
    throw Error(ErrorCode::kUnsupported,
                "cuBLASLt has no algorithm for " + std::to_string(problem.batch) + " x [" +
                    std::to_string(problem.rows) + ", " + std::to_string(problem.depth) + "] x [" +
                    std::to_string(problem.depth) + ", " + std::to_string(problem.columns) + "] (" +
                    cublasLtGetStatusString(status) + ")",
                "matmul");
  }
  results.resize(static_cast<size_t>(found));
  return results;
}

cublasStatus_t launch(cublasLtHandle_t handle, cudaStream_t stream, const MatmulProblem& problem,
                      const NativeProblem& native, const cublasLtMatmulAlgo_t& algorithm, void* workspace,
                      size_t workspace_bytes) {
  const float alpha = problem.scale;
  const float beta = problem.addend != nullptr ? 1.0f : 0.0f;
  const void* addend = problem.addend != nullptr ? problem.addend : problem.out;
  return cublasLtMatmul(handle, native.description.get(), &alpha, problem.b, native.a.get(), problem.a, native.b.get(),
                        &beta, addend, native.c.get(), problem.out, native.d.get(), &algorithm, workspace,
                        workspace_bytes, stream);
}

}  // namespace

Matmul::~Matmul() {
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

cublasLtHandle_t Matmul::handle() {
  if (handle_ == nullptr) check(cublasLtCreate(&handle_), "cublasLtCreate");
  return handle_;
}

bool Matmul::takes_fp8(const DeviceProperties& device, const MatmulProblem& p) {
  constexpr int64_t kMultiple = 16;
  return kHasRowScales && device.major == kHopperMajor && p.batch == 1 && !p.a_is_depth_major && !p.b_is_depth_major &&
         p.depth % kMultiple == 0 && p.columns % kMultiple == 0 && a_alignment(p) >= kMultiple &&
         b_alignment(p) >= kMultiple && is_aligned(p.a_scales, 1, kMultiple) && is_aligned(p.b_scales, 1, kMultiple) &&
         out_alignment(p) >= kMultiple && addend_alignment(p) >= kMultiple;
}

bool Matmul::fuses(Activation activation) {
  return activation == Activation::kNone || activation == Activation::kGeluTanh || activation == Activation::kRelu;
}

Matmul::Key Matmul::key_of(const MatmulProblem& p) {
  return {p.batch,
          p.rows,
          p.columns,
          p.depth,
          p.a_batch_stride,
          p.a_row_stride,
          p.b_batch_stride,
          p.b_row_stride,
          p.a_is_depth_major ? 1 : 0,
          p.b_is_depth_major ? 1 : 0,
          static_cast<int64_t>(p.operand_dtype),
          static_cast<int64_t>(p.out_dtype),
          p.out_batch_stride,
          p.out_row_stride,
          p.addend != nullptr ? p.addend_batch_stride : -1,
          p.addend != nullptr ? p.addend_row_stride : -1,
          p.bias != nullptr ? 1 : 0,
          static_cast<int64_t>(p.activation),
          a_alignment(p),
          b_alignment(p),
          static_cast<int64_t>(out_alignment(p)) << 32 | addend_alignment(p)};
}

void Matmul::run(const Context& context, const MatmulProblem& problem) {
  const cudaStream_t stream = compute_stream(context);
  const NativeProblem native(problem);
  cublasLtMatmulHeuristicResult_t algorithm{};
  {
    const std::lock_guard lock(mutex_);
    const Key key = key_of(problem);
    const auto known = algorithms_.find(key);
    algorithm = known != algorithms_.end()
                    ? known->second
                    : algorithms_.emplace(key, find_algorithms(handle(), problem, native, 1)[0]).first->second;
  }
  Tensor workspace;
  if (algorithm.workspaceSize > 0) {
    workspace = context.empty({static_cast<int64_t>(algorithm.workspaceSize)}, DType::kU8);
  }
  check(launch(handle_, stream, problem, native, algorithm.algo, workspace.data(), algorithm.workspaceSize),
        "cublasLtMatmul");
}

std::function<void()> Matmul::fastest(const Context& context, const MatmulProblem& problem) {
  const std::lock_guard lock(mutex_);
  const auto native = std::make_shared<const NativeProblem>(problem);
  const Tensor workspace = context.empty({static_cast<int64_t>(kWorkspaceBytes)}, DType::kU8);
  const auto run = [=, this, &context](const cublasLtMatmulAlgo_t& algorithm) {
    return launch(handle_, compute_stream(context), problem, *native, algorithm, workspace.data(), kWorkspaceBytes);
  };
  struct Candidate {
    cublasLtMatmulAlgo_t algorithm;
    std::vector<double> ms;
    double median() const { return ms[ms.size() / 2]; }
  };
  DeviceRuntime& runtime = context.runtime();
  const auto time = [&](Candidate& candidate, int repeats) {
    const auto begin = runtime.record(StreamKind::kCompute);
    for (int i = 0; i < repeats; ++i) run(candidate.algorithm);
    const auto end = runtime.record(StreamKind::kCompute);
    runtime.synchronize(*end);
    candidate.ms.push_back(runtime.elapsed_ms(*begin, *end) / repeats);
  };
  // In turns: the clock falls as the chip warms up.
  const auto rank = [&](std::vector<Candidate>& candidates, int rounds, int repeats) {
    for (Candidate& candidate : candidates) candidate.ms.clear();
    for (int round = 0; round < rounds; ++round) {
      for (Candidate& candidate : candidates) time(candidate, repeats);
    }
    for (Candidate& candidate : candidates) std::sort(candidate.ms.begin(), candidate.ms.end());
    std::sort(candidates.begin(), candidates.end(),
              [](const Candidate& a, const Candidate& b) { return a.median() < b.median(); });
  };

  constexpr int kAlgorithms = 64, kFinalists = 4;
  std::vector<Candidate> candidates;
  for (const cublasLtMatmulHeuristicResult_t& found : find_algorithms(handle(), problem, *native, kAlgorithms)) {
    if (run(found.algo) == CUBLAS_STATUS_SUCCESS) candidates.push_back({found.algo, {}});
  }
  if (candidates.empty()) throw Error(ErrorCode::kUnsupported, "all of cuBLASLt's algorithms refuse", "matmul");
  rank(candidates, 3, 3);
  if (candidates.size() > kFinalists) candidates.erase(candidates.begin() + kFinalists, candidates.end());
  rank(candidates, 7, 5);
  return [=, algorithm = candidates[0].algorithm] { check(run(algorithm), "cublasLtMatmul"); };
}

}  // namespace chipmunk::cuda
