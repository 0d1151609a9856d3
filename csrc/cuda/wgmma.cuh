// Hopper's products of matrices that lie in shared memory (PTX ISA 8.0, wgmma.mma_async): four warps start one
// together, go on with other work, and wait for it later.
#pragma once

#include "device.cuh"

namespace rledit::cuda {

// Whether what is being compiled may hold them: they are only in the code for sm_90a.
#if defined(RLEDIT_CUDA_ON_HOST) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr bool kWithWgmma = true;
#else
constexpr bool kWithWgmma = false;
#endif

constexpr int kTileRows = 64;
constexpr int kTileColumns = 32;

// A float32 operand of 64 rows, multiplied as TF32, as the instruction reads it without a swizzle: in "core
// matrices" of 8 rows by 16 bytes, each 128 bytes in one piece, those of the next rows behind it.
struct OperandTile {
  static constexpr int kDeep = 4;          // columns of a core matrix
  static constexpr int kStep = 2 * kDeep;  // columns of one instruction
  static constexpr int kDown = 128;        // bytes to the next 8 rows
  // Bytes to the next columns. 16 more than there are rows for: threads that write one row have other banks.
  static constexpr int kAcross = kTileRows / 8 * kDown + 16;

  alignas(16) unsigned char bytes[kTileColumns / kDeep * kAcross];

  __device__ float& at(int row, int column) {
    const int byte = column / kDeep * kAcross + row / 8 * kDown + row % 8 * 16;
    return reinterpret_cast<float*>(bytes + byte)[column % kDeep];
  }

  // The matrix descriptor (PTX ISA, "Matrix Descriptor Format") of kStep columns.
  __device__ uint64_t columns_from(int column) const {
    const uint64_t start = shared_address(bytes + column / kDeep * kAcross);
    return (start & 0x3ffff) >> 4 | static_cast<uint64_t>(kAcross >> 4) << 16 |
           static_cast<uint64_t>(kDown >> 4) << 32;
  }
};

// Which of the 64 x 64 sums a thread of the four warps has in its i-th of 32.
__device__ inline int sum_row(int i) { return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + i / 2 % 2 * 8; }
__device__ inline int sum_column(int i) { return i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2; }

#ifdef RLEDIT_CUDA_ON_HOST

inline void publish_operands() { ::shim::publish(); }
inline void begin_products() { ::shim::begin_products(); }
inline void start_product(float (&sums)[32], uint64_t a, uint64_t b) { ::shim::start_product(sums, a, b); }
inline void commit_products() { ::shim::commit_products(); }
template <int Pending>
void wait_for_products(float (&)[32]) {
  ::shim::wait_for_products(Pending);
}

#else

// What this thread has written to shared memory may be read by products that are started after a barrier.
__device__ inline void publish_operands() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }

// Before the first product after the sums have been touched.
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }

#define RLEDIT_SUMS(x)                                                                                        \
  "+f"(x[0]), "+f"(x[1]), "+f"(x[2]), "+f"(x[3]), "+f"(x[4]), "+f"(x[5]), "+f"(x[6]), "+f"(x[7]), "+f"(x[8]), \
      "+f"(x[9]), "+f"(x[10]), "+f"(x[11]), "+f"(x[12]), "+f"(x[13]), "+f"(x[14]), "+f"(x[15]), "+f"(x[16]),  \
      "+f"(x[17]), "+f"(x[18]), "+f"(x[19]), "+f"(x[20]), "+f"(x[21]), "+f"(x[22]), "+f"(x[23]), "+f"(x[24]), \
      "+f"(x[25]), "+f"(x[26]), "+f"(x[27]), "+f"(x[28]), "+f"(x[29]), "+f"(x[30]), "+f"(x[31])
#define RLEDIT_SUM_NAMES                                                                                  \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
  "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"

// sums += a b^T, of 64 rows each and the columns of one instruction.
__device__ inline void start_product(float (&sums)[32], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k8.f32.tf32.tf32 " RLEDIT_SUM_NAMES ", %32, %33, p, 1, 1;\n}\n"
      : RLEDIT_SUMS(sums)
      : "l"(a), "l"(b), "r"(1));
}

__device__ inline void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }

// Until all but the last `Pending` groups of this warp's products are done. Only then may sums be touched.
template <int Pending>
__device__ inline void wait_for_products(float (&sums)[32]) {
  if constexpr (Pending == 0)
    asm volatile("wgmma.wait_group.sync.aligned 0;\n" : RLEDIT_SUMS(sums)::"memory");
  else
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(Pending) : "memory");
}

#undef RLEDIT_SUMS
#undef RLEDIT_SUM_NAMES

#endif

// Whether the current GPU has these instructions, and this build the code for them (sm_90a).
inline bool has_wgmma() {
#if defined(RLEDIT_CUDA_WGMMA) || defined(RLEDIT_CUDA_ON_HOST)
  int device = 0, major = 0, minor = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess &&
         major == 9 && minor == 0;
#else
  return false;
#endif
}

}  // namespace rledit::cuda
