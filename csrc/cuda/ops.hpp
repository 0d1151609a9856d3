// The three ops on an NVIDIA GPU: device pointers in, counts added in place. Nothing here allocates or waits;
// all work goes to the caller's stream, and a call may be captured in a CUDA graph.
#pragma once

#include <cuda_runtime.h>

#include "rledit/views.hpp"

namespace rledit::cuda {

constexpr int kMostLayers = 16;

// One layer of a tail and what N candidates do to it.
struct DeviceLayer {
  const float* weight;    // [outputs, inputs], or [N, outputs, inputs]
  int64_t weight_stride;  // from one candidate's to the next one's: 0 or outputs * inputs
  const float* bias;      // [outputs] or nullptr
  const float* left;      // [N, outputs, rank]
  const float* right;     // [N, rank, inputs]
  int outputs;
  int inputs;
  int rank;  // 0: not edited by factors
  Nonlinearity nonlinearity;
};

struct DeviceTail {
  const float* activations;  // [samples, layer[0].inputs]
  const int64_t* labels;     // [samples], each in 0..classes-1: the caller has checked
  const uint64_t* members;   // [samples], bit g: the sample is in group g
  int64_t samples;
  int groups;
  int64_t candidates;
  EditRule rule;
  Precision precision;
  int layers;
  DeviceLayer layer[kMostLayers];
  float* scratch;  // scratch_floats(), for the outputs of all layers but the last
};

// Where the counts are added; a null pointer means that nobody asked. See rledit::Tally.
struct DeviceTally {
  unsigned long long* correct;    // [N, groups]
  unsigned long long* predicted;  // [N, groups, classes]
  unsigned long long* confusion;  // [N, groups, classes, classes]
  unsigned long long* histogram;  // [N, groups, 2, bins]
  double* loss;                   // [N, groups]
  int bins;
  float margin_limit;
};

// How many floats of scratch a call of this size needs, whatever the number of samples.
int64_t scratch_floats(const DeviceTail& tail);

cudaError_t score_tail(const DeviceTail& tail, const DeviceTally& tally, cudaStream_t stream);

// logits: [candidates, samples, classes].
cudaError_t tally_logits(const float* logits, const int64_t* labels, const uint64_t* members,
                         int64_t candidates, int64_t samples, int classes, int groups, const DeviceTally& tally,
                         cudaStream_t stream);

// weight: [candidates, outputs, inputs], changed in place.
cudaError_t apply_lowrank(float* weight, const float* left, const float* right, int64_t candidates, int outputs,
                          int inputs, int rank, EditRule rule, cudaStream_t stream);

}  // namespace rledit::cuda
