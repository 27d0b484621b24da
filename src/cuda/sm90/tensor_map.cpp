#include "cuda/sm90/tensor_map.h"

#include <cuda_runtime_api.h>

#include <string>

#include "chipmunk/error.h"
#include "cuda/cuda_error.h"

namespace chipmunk::cuda::sm90 {
namespace {

constexpr cuuint32_t kBoxElements = 64;

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

/// The driver's function, asked for at run time: linking against the driver would tie the program to machines with one.
EncodeTiled find_encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
#if CUDART_VERSION >= 12050
  check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
        "cudaGetDriverEntryPoint");
#else
  check(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found),
        "cudaGetDriverEntryPoint");
#endif
  if (found != cudaDriverEntryPointSuccess || function == nullptr) {
    throw Error(ErrorCode::kBackendUnavailable, "the driver has no cuTensorMapEncodeTiled: a newer one is needed");
  }
  return reinterpret_cast<EncodeTiled>(function);
}

}  // namespace

CUtensorMap make_head_map(const void* data, const HeadStrides& strides, int64_t batch, int64_t tokens, int64_t heads,
                          int64_t head_dim, int box_tokens) {
  static const EncodeTiled encode = find_encoder();
  constexpr uint64_t kElement = 2;
  // The stride of a dimension of size 1 means nothing, but must be valid.
  const int64_t row = strides.token;
  const auto bytes = [&](int64_t size, int64_t stride) {
    return static_cast<cuuint64_t>(size == 1 ? row : stride) * kElement;
  };
  const cuuint64_t sizes[4] = {static_cast<cuuint64_t>(head_dim), static_cast<cuuint64_t>(tokens),
                               static_cast<cuuint64_t>(heads), static_cast<cuuint64_t>(batch)};
  const cuuint64_t byte_strides[3] = {static_cast<cuuint64_t>(row) * kElement, bytes(heads, strides.head),
                                      bytes(batch, strides.batch)};
  const cuuint32_t box[4] = {kBoxElements, static_cast<cuuint32_t>(box_tokens), 1, 1};
  const cuuint32_t element_strides[4] = {1, 1, 1, 1};
  CUtensorMap map{};
  const auto encode_map = [&] {
    return encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<void*>(data), sizes, byte_strides, box,
                  element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  };
  CUresult status = encode_map();
  if (status == CUDA_ERROR_INVALID_CONTEXT) {
    // A thread that has not called the runtime yet has no context, and the driver's functions make none. (Choosing the
    // device that is chosen makes one, and is allowed while a stream is captured.)
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    check(cudaSetDevice(device), "cudaSetDevice");
    status = encode_map();
  }
  if (status != CUDA_SUCCESS) {
    throw Error(ErrorCode::kUnsupported,
                "the driver refused a tensor of " + std::to_string(batch) + " x " + std::to_string(heads) +
                    " heads x " + std::to_string(tokens) + " tokens (error " +
                    std::to_string(static_cast<int>(status)) + ")",
                "attention");
  }
  return map;
}

}  // namespace chipmunk::cuda::sm90
