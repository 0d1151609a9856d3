// The part of CUDA that the kernels use, on the CPU. See shim.hpp.
#pragma once

#include <cmath>
#include <cstring>

#include "shim.hpp"

#define RLEDIT_CUDA_ON_HOST

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

#define threadIdx (::shim::here().thread)
#define blockIdx (::shim::here().block)
#define blockDim (::shim::here().block_size)
#define gridDim (::shim::here().grid_size)

struct alignas(16) float4 {
  float x, y, z, w;
};

enum cudaError_t { cudaSuccess = 0 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
using cudaStream_t = void*;

enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor };

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const bool major = attribute == cudaDevAttrComputeCapabilityMajor;
  *value = major ? ::shim::capability() / 10 : ::shim::capability() % 10;
  return cudaSuccess;
}

constexpr int kMostSharedBytes = 163 * 1024;  // of a block on sm_80

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int value) {
  return value <= kMostSharedBytes ? cudaSuccess : static_cast<cudaError_t>(1);
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid argument";
}

inline void __syncthreads() { ::shim::wait_for_block(); }
inline void __syncwarp(unsigned = 0xffffffffU) { ::shim::wait_for_warp(); }

// All lanes of a warp call these; a mask of fewer is not supported.
inline unsigned __ballot_sync(unsigned, int predicate) {
  const unsigned lane = threadIdx.x % shim::kWarp;
  shim::exchange()[lane] = predicate != 0 ? 1 : 0;
  shim::wait_for_warp();
  unsigned votes = 0;
  for (int i = 0; i < shim::kWarp; ++i) votes |= static_cast<unsigned>(shim::exchange()[i]) << i;
  shim::wait_for_warp();  // before the next exchange
  return votes;
}

template <class Value>
Value __shfl_xor_sync(unsigned, Value value, int mask) {
  static_assert(sizeof(Value) <= sizeof(uint64_t));
  const unsigned lane = threadIdx.x % shim::kWarp;
  std::memcpy(&shim::exchange()[lane], &value, sizeof(value));
  shim::wait_for_warp();
  std::memcpy(&value, &shim::exchange()[lane ^ static_cast<unsigned>(mask)], sizeof(value));
  shim::wait_for_warp();
  return value;
}

template <class Value>
Value atomicAdd(Value* to, Value value) {
  const Value before = *to;
  *to += value;
  return before;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
