// score_tail: edit, run and count the last layers of a network. A block has one candidate and some tiles of 64
// samples; it multiplies layer by layer, keeps what its tile gives between layers in its own scratch, which
// stays in the L2 cache, and looks at the logits 64 classes at a time without keeping them.
#include "counting.cuh"
#include "hopper_products.cuh"
#include "ops.hpp"

namespace rledit::cuda {
namespace {

constexpr int64_t kBlocks = kMostBlocks;  // scratch does not grow beyond

template <class Tiles>
struct Shared {
  Tiles tiles;
  BlockTally tally;
};

__host__ __device__ inline int64_t padded(int64_t width) { return (width + 3) / 4 * 4; }

__host__ __device__ inline int64_t widest_between(const DeviceTail& tail) {
  int64_t widest = 0;
  for (int l = 0; l + 1 < tail.layers; ++l)
    if (tail.layer[l].outputs > widest) widest = tail.layer[l].outputs;
  return padded(widest);
}

__device__ inline EditedWeights weights_of(const DeviceTail& tail, int l, int64_t n) {
  const DeviceLayer& layer = tail.layer[l];
  EditedWeights own{};
  own.weight = layer.weight + n * layer.weight_stride;
  own.left = layer.left + n * layer.outputs * layer.rank;
  own.right = layer.right + n * layer.rank * layer.inputs;
  own.outputs = layer.outputs;
  own.inputs = layer.inputs;
  own.rank = layer.rank;
  own.rule = tail.rule;
  return own;
}

// Tiles: ProductTiles or HopperTiles.
template <class Tiles>
__device__ void run_block(const DeviceTail& tail, const DeviceTally& tally) {
  auto& shared = *reinterpret_cast<Shared<Tiles>*>(dynamic_shared());
  Tiles& tiles = shared.tiles;
  const int last = tail.layers - 1, classes = tail.layer[last].outputs;
  const Counter counter(shared.tally, tally, tail.groups, classes);
  const int64_t parts = parts_of(tail.samples, tail.candidates, kBlocks);
  const int64_t width = widest_between(tail);
  float* scratch = tail.scratch + blockIdx.x * 2 * kSamples * width;
  for (int64_t item = blockIdx.x; item < tail.candidates * parts; item += gridDim.x) {
    const int64_t n = item / parts;
    counter.clear();
    for (int64_t first = item % parts * kSamples; first < tail.samples; first += parts * kSamples) {
      const int64_t sample = first + threadIdx.x;
      const bool judges = threadIdx.x < kSamples, valid = judges && sample < tail.samples;
      const int label = valid ? static_cast<int>(tail.labels[sample]) : 0;
      Judgment judged;
      Rows rows{tail.activations + first * tail.layer[0].inputs, tail.samples - first, tail.layer[0].inputs,
                tail.layer[0].inputs};
      for (int l = 0; l <= last; ++l) {
        const DeviceLayer& layer = tail.layer[l];
        const EditedWeights weights = weights_of(tail, l, n);
        float* out = scratch + l % 2 * kSamples * width;
        for (int output = 0; output < layer.outputs; output += kOutputs) {
          multiply(rows, weights, output, tiles);
          const int columns = layer.outputs - output < kOutputs ? layer.outputs - output : kOutputs;
#pragma unroll 1
          for (int i = threadIdx.x; i < kSamples * kOutputs; i += kThreads) {
            const int row = i / kOutputs, column = i % kOutputs;
            if (column >= columns) continue;
            const float bias = layer.bias != nullptr ? layer.bias[output + column] : 0.0F;
            const float value = activated(tiles.sums[row][column] + bias, layer.nonlinearity);
            if (l < last)
              out[row * width + output + column] = value;
            else
              tiles.sums[row][column] = value;
          }
          __syncthreads();  // what follows reads what other threads have written, or overwrites what they read
          if (l < last) continue;
          if (judges)
            for (int c = 0; c < columns; ++c) judged.see(tiles.sums[threadIdx.x][c], output + c, label);
          __syncthreads();  // before the logits are overwritten
        }
        rows = Rows{out, kSamples, width, layer.outputs};
      }
      if (judges) counter.count(judged, valid, label, valid ? tail.members[sample] : 0, n);
    }
    counter.flush(n);
  }
}

template <class Tiles>
__global__ void __launch_bounds__(kThreads, Tiles::kBlocks)
    score_tail_kernel(const DeviceTail tail, const DeviceTally tally) {
  static_assert(sizeof(Shared<typename Tiles::Compiled>) <= sizeof(Shared<Tiles>));
  run_block<typename Tiles::Compiled>(tail, tally);
}

template <class Tiles>
cudaError_t launch(const DeviceTail& tail, const DeviceTally& tally, cudaStream_t stream) {
  const int blocks = static_cast<int>(blocks_of(tail.samples, tail.candidates, kBlocks));
  const cudaError_t allowed =
      cudaFuncSetAttribute(score_tail_kernel<Tiles>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(sizeof(Shared<Tiles>)));
  if (allowed != cudaSuccess) return allowed;
  RLEDIT_LAUNCH(score_tail_kernel<Tiles>, blocks, sizeof(Shared<Tiles>), stream, tail, tally);
  return cudaGetLastError();
}

}  // namespace

int64_t scratch_floats(const DeviceTail& tail) {
  if (tail.samples == 0 || tail.candidates == 0) return 0;
  return blocks_of(tail.samples, tail.candidates, kBlocks) * 2 * kSamples * widest_between(tail);
}

cudaError_t score_tail(const DeviceTail& tail, const DeviceTally& tally, cudaStream_t stream) {
  if (tail.samples == 0 || tail.candidates == 0 || tail.groups == 0) return cudaSuccess;
  if (tail.precision == Precision::bfloat16)
    return launch<ProductTiles<Precision::bfloat16>>(tail, tally, stream);
  return has_wgmma() ? launch<HopperTiles>(tail, tally, stream)
                     : launch<ProductTiles<Precision::float32>>(tail, tally, stream);
}

}  // namespace rledit::cuda
