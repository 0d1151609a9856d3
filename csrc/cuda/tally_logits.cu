// tally_logits: count finished logits. A block has one candidate and some tiles of 64 samples, whose logits
// pass through shared memory 64 classes at a time, so that they are read from global memory side by side.
#include "counting.cuh"
#include "ops.hpp"

namespace rledit::cuda {
namespace {

constexpr int64_t kBlocks = 4 * kMostBlocks;
constexpr int kColumns = 64;

struct Shared {
  float logits[kSamples][kColumns + 1];  // a thread reads a row: no two of a warp in one bank
  BlockTally tally;
};

__global__ void __launch_bounds__(kThreads)
    tally_logits_kernel(const float* logits, const int64_t* labels, const uint64_t* members, int64_t candidates,
                        int64_t samples, int classes, int groups, const DeviceTally tally) {
  Shared& shared = *reinterpret_cast<Shared*>(dynamic_shared());
  const Counter counter(shared.tally, tally, groups, classes);
  const int64_t parts = parts_of(samples, candidates, kBlocks);
  for (int64_t item = blockIdx.x; item < candidates * parts; item += gridDim.x) {
    const int64_t n = item / parts;
    counter.clear();
    for (int64_t first = item % parts * kSamples; first < samples; first += parts * kSamples) {
      const int64_t sample = first + threadIdx.x;
      const bool judges = threadIdx.x < kSamples, valid = judges && sample < samples;
      const int label = valid ? static_cast<int>(labels[sample]) : 0;
      Judgment judged;
      for (int start = 0; start < classes; start += kColumns) {
        const int columns = classes - start < kColumns ? classes - start : kColumns;
        for (int i = threadIdx.x; i < kSamples * columns; i += kThreads) {
          const int row = i / columns, column = i % columns;
          if (first + row < samples)
            shared.logits[row][column] = logits[(n * samples + first + row) * classes + start + column];
        }
        __syncthreads();
        if (valid)
          for (int c = 0; c < columns; ++c) judged.see(shared.logits[threadIdx.x][c], start + c, label);
        __syncthreads();  // before they are overwritten
      }
      if (judges) counter.count(judged, valid, label, valid ? members[sample] : 0, n);
    }
    counter.flush(n);
  }
}

}  // namespace

cudaError_t tally_logits(const float* logits, const int64_t* labels, const uint64_t* members,
                         int64_t candidates, int64_t samples, int classes, int groups, const DeviceTally& tally,
                         cudaStream_t stream) {
  if (samples == 0 || candidates == 0 || groups == 0) return cudaSuccess;
  const int blocks = static_cast<int>(blocks_of(samples, candidates, kBlocks));
  RLEDIT_LAUNCH(tally_logits_kernel, blocks, sizeof(Shared), stream, logits, labels, members, candidates,
                samples, classes, groups, tally);
  return cudaGetLastError();
}

}  // namespace rledit::cuda
