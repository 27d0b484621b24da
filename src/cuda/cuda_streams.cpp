#include "cuda/cuda_streams.h"

#include "cuda/cuda_error.h"

namespace chipmunk::cuda {

void select_device(int index) {
  int current = -1;
  check(cudaGetDevice(&current), "cudaGetDevice");
  if (current != index) check(cudaSetDevice(index), "cudaSetDevice");
}

Streams::Streams(int device_index) : index(device_index) {
  check(cudaSetDevice(index), "cudaSetDevice");
  check(cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking), "cudaStreamCreate");
  check(cudaStreamCreateWithFlags(&copy, cudaStreamNonBlocking), "cudaStreamCreate");
}

Streams::~Streams() {
  // Errors have no one left to reach.
  if (copy != nullptr) cudaStreamDestroy(copy);
  if (compute != nullptr) cudaStreamDestroy(compute);
}

}  // namespace chipmunk::cuda
