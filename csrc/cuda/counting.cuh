// What a classifier says of a tile of samples, and the counts of a block.
#pragma once

#include "device.cuh"
#include "ops.hpp"

namespace rledit::cuda {

// One sample's logits, class by class: nothing of their number is kept.
class Judgment {
 public:
  __device__ void see(float logit, int position, int label) {
    if (!(fabsf(logit) <= 3.402823466e38F)) finite_ = false;  // NaN is not below anything
    if (logit > most_ || position == 0) {
      total_ = position == 0 ? 1.0F : total_ * expf(most_ - logit) + 1.0F;
      most_ = logit;
      prediction_ = position;
    } else {
      total_ += expf(logit - most_);
    }
    if (position == label) own_ = logit;
    if (position == 0) first_ = logit;
    if (position == 1) second_ = logit;
  }

  __device__ bool finite() const { return finite_; }
  __device__ int prediction() const { return prediction_; }  // the first class with the largest logit
  __device__ float entropy() const { return logf(total_) + (most_ - own_); }
  __device__ float margin() const { return second_ - first_; }

 private:
  float most_ = 0.0F;
  float total_ = 0.0F;
  float own_ = 0.0F;
  float first_ = 0.0F;
  float second_ = 0.0F;
  int prediction_ = 0;
  bool finite_ = true;
};

constexpr int kTables = 3;             // predicted, histogram, confusion
constexpr int kSharedCells = 1 << 11;  // of such tables, as far as they fit

// Counts of one candidate by one block, in shared memory, added to the candidate's at the end.
struct BlockTally {
  unsigned correct[64];
  double loss[kWarps][64];
  unsigned cells[kSharedCells];
};

class Counter {
 public:
  // All threads call everything but count().
  __device__ Counter(BlockTally& own, const DeviceTally& tally, int groups, int classes)
      : own_(own), tally_(tally), groups_(groups), classes_(classes) {
    const int64_t sizes[kTables] = {tally.predicted != nullptr ? int64_t{groups} * classes : 0,
                                    tally.histogram != nullptr ? int64_t{groups} * 2 * tally.bins : 0,
                                    tally.confusion != nullptr ? int64_t{groups} * classes * classes : 0};
    int64_t used = 0;
#pragma unroll
    for (int i = 0; i < kTables; ++i) {
      sizes_[i] = sizes[i];
      const bool fits = sizes[i] > 0 && used + sizes[i] <= kSharedCells;
      start_[i] = fits ? static_cast<int>(used) : -1;
      if (fits) used += sizes[i];
    }
    cells_ = static_cast<int>(used);
  }

  __device__ void clear() const {
    for (int i = threadIdx.x; i < cells_; i += kThreads) own_.cells[i] = 0;
    for (int i = threadIdx.x; i < groups_; i += kThreads) {
      own_.correct[i] = 0;
      for (int w = 0; w < kWarps; ++w) own_.loss[w][i] = 0.0;
    }
    __syncthreads();
  }

  // One sample for each thread of some whole warps; `valid`: there is such a sample.
  __device__ void count(const Judgment& judged, bool valid, int label, uint64_t members,
                        int64_t candidate) const {
    const bool finite = valid && judged.finite();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll 1
    for (int g = 0; g < groups_; ++g) {
      const bool member = valid && (members >> g & 1) != 0;
      const unsigned hits = __ballot_sync(kAllLanes, member && finite && judged.prediction() == label);
      if (lane == 0 && hits != 0) atomicAdd(&own_.correct[g], static_cast<unsigned>(__popc(hits)));
      if (tally_.loss == nullptr) continue;
      const unsigned broken = __ballot_sync(kAllLanes, member && !finite);
      float entropy = member && finite ? judged.entropy() : 0.0F;
      for (int step = 16; step > 0; step /= 2) entropy += __shfl_xor_sync(kAllLanes, entropy, step);
      if (lane == 0) own_.loss[warp][g] += static_cast<double>(entropy) + kInvalidLoss * __popc(broken);
    }
    if (!finite) return;
    if (tally_.predicted != nullptr)
      add_all(0, tally_.predicted, members, classes_, judged.prediction(), candidate);
    if (tally_.histogram != nullptr) {
      const float position = (judged.margin() + tally_.margin_limit) *
                             (static_cast<float>(tally_.bins) / (2.0F * tally_.margin_limit));
      const int bin = static_cast<int>(fminf(fmaxf(position, 0.0F), static_cast<float>(tally_.bins - 1)));
      add_all(1, tally_.histogram, members, 2 * tally_.bins, label * tally_.bins + bin, candidate);
    }
    if (tally_.confusion != nullptr)
      add_all(2, tally_.confusion, members, classes_ * classes_, label * classes_ + judged.prediction(),
              candidate);
  }

  // Add what the block has counted to the candidate's.
  __device__ void flush(int64_t candidate) const {
    __syncthreads();
    for (int g = threadIdx.x; g < groups_; g += kThreads) {
      if (tally_.correct != nullptr && own_.correct[g] != 0)
        atomicAdd(&tally_.correct[candidate * groups_ + g], static_cast<unsigned long long>(own_.correct[g]));
      if (tally_.loss == nullptr) continue;
      double sum = 0.0;
      for (int w = 0; w < kWarps; ++w) sum += own_.loss[w][g];
      atomicAdd(&tally_.loss[candidate * groups_ + g], sum);
    }
    unsigned long long* tables[kTables] = {tally_.predicted, tally_.histogram, tally_.confusion};
#pragma unroll
    for (int t = 0; t < kTables; ++t) {
      if (start_[t] < 0) continue;
      for (int i = threadIdx.x; i < sizes_[t]; i += kThreads)
        if (own_.cells[start_[t] + i] != 0)
          atomicAdd(&tables[t][candidate * sizes_[t] + i],
                    static_cast<unsigned long long>(own_.cells[start_[t] + i]));
    }
    __syncthreads();
  }

 private:
  // One more in the cell of each group that the sample is in.
  __device__ void add_all(int table, unsigned long long* to, uint64_t members, int of_group, int cell,
                          int64_t candidate) const {
#pragma unroll 1
    for (int g = 0; g < groups_; ++g) {
      if ((members >> g & 1) == 0) continue;
      const int64_t at = int64_t{g} * of_group + cell;
      if (start_[table] >= 0)
        atomicAdd(&own_.cells[start_[table] + at], 1U);
      else
        atomicAdd(&to[candidate * sizes_[table] + at], 1ULL);
    }
  }

  BlockTally& own_;
  const DeviceTally& tally_;
  int groups_;
  int classes_;
  int64_t sizes_[kTables];  // of one candidate's table
  int start_[kTables];      // in cells, or -1: counted in global memory
  int cells_;
};

}  // namespace rledit::cuda
