#pragma once

/// Marks functions that nvcc compiles for the device, too; nothing for other compilers.
#ifdef __CUDACC__
#define CHIPMUNK_HOST_DEVICE __host__ __device__
#else
#define CHIPMUNK_HOST_DEVICE
#endif
