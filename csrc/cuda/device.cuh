// What nvcc and the host build of the tests do differently: launches, dynamic shared memory, asynchronous
// copies. All else in this folder is the CUDA that both compile.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <mma.h>

#include <cstdint>

namespace rledit::cuda {

// Enough for every GPU. Tests have fewer, so that a block has several candidates and tiles.
#ifndef RLEDIT_CUDA_BLOCKS
#define RLEDIT_CUDA_BLOCKS 1024
#endif
constexpr int kMostBlocks = RLEDIT_CUDA_BLOCKS;

constexpr int kThreads = 128;
constexpr int kSamples = 64;  // of a tile
constexpr int kWarps = kThreads / 32;
constexpr unsigned kAllLanes = 0xffffffffU;

// Tiles of samples are shared out among so many blocks for each candidate: more where there are few candidates.
__host__ __device__ inline int64_t parts_of(int64_t samples, int64_t candidates, int64_t most_blocks) {
  const int64_t tiles = (samples + kSamples - 1) / kSamples;
  const int64_t wanted = (most_blocks + candidates - 1) / candidates;
  return tiles < wanted ? tiles : wanted;
}

inline int64_t blocks_of(int64_t samples, int64_t candidates, int64_t most_blocks) {
  const int64_t items = candidates * parts_of(samples, candidates, most_blocks);
  return items < most_blocks ? items : most_blocks;
}

#ifndef RLEDIT_CUDA_ON_HOST

#define RLEDIT_LAUNCH(kernel, blocks, shared, stream, ...) \
  kernel<<<blocks, ::rledit::cuda::kThreads, shared, stream>>>(__VA_ARGS__)

__device__ inline unsigned char* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char rledit_shared[];
  return rledit_shared;
}

__device__ inline uint64_t shared_address(const void* pointer) {
  return static_cast<uint64_t>(__cvta_generic_to_shared(pointer));
}

// Bytes are 4 or 16; zeros are written where `valid` is false, and `from` is not read. What was copied may be
// read after wait_for_copies and a barrier.
template <int Bytes>
__device__ inline void copy_async(void* to, const void* from, bool valid) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  const int size = valid ? Bytes : 0;
  if constexpr (Bytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(from), "r"(size)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(address), "l"(from), "r"(size)
                 : "memory");
}

__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }

// Until all but the last `Pending` committed groups have arrived.
template <int Pending>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(Pending) : "memory");
}

#else

#define RLEDIT_LAUNCH(kernel, blocks, shared, stream, ...) \
  (static_cast<void>(stream),                              \
   ::shim::launch(blocks, ::rledit::cuda::kThreads, shared, [=] { kernel(__VA_ARGS__); }))

inline unsigned char* dynamic_shared() { return ::shim::dynamic_shared(); }
inline uint64_t shared_address(const void* pointer) {
  return static_cast<uint64_t>(static_cast<const unsigned char*>(pointer) - ::shim::dynamic_shared());
}
template <int Bytes>
void copy_async(void* to, const void* from, bool valid) {
  ::shim::copy_async(to, from, Bytes, valid);
}
inline void commit_copies() { ::shim::commit_copies(); }
template <int Pending>
void wait_for_copies() {
  ::shim::wait_for_copies(Pending);
}

#endif

}  // namespace rledit::cuda
