// products.cuh for Hopper, float32: the same three TF32 products, started as wgmma and not waited for. While
// one slice of inputs is multiplied, the threads form the next slice's weights; with wmma they wait instead,
// and each of the four warps splits all weights for itself. For bfloat16, one product that need not be split,
// it would take no fewer instructions.
#pragma once

#include <type_traits>

#include "products.cuh"
#include "wgmma.cuh"

namespace rledit::cuda {

static_assert(kSamples == kTileRows && kOutputs == kTileRows && kDepth == kTileColumns && kThreads == 128);

struct Operands {
  OperandTile samples_hi, samples_lo, weights_hi, weights_lo;

  __device__ static void split(float value, float& hi, float& lo) {
    hi = wmma::__float_to_tf32(value);
    lo = wmma::__float_to_tf32(value - hi);
  }
  __device__ void set_sample(int row, int column, float value) {
    split(value, samples_hi.at(row, column), samples_lo.at(row, column));
  }
  __device__ void set_weight(int row, int column, float value) {
    split(value, weights_hi.at(row, column), weights_lo.at(row, column));
  }
  __device__ void start(float (&sums)[32]) const {
#pragma unroll
    for (int k = 0; k < kDepth; k += OperandTile::kStep) {
      const uint64_t samples = samples_hi.columns_from(k), weights = weights_hi.columns_from(k);
      start_product(sums, samples_lo.columns_from(k), weights);
      start_product(sums, samples, weights_lo.columns_from(k));
      start_product(sums, samples, weights);
    }
  }
};

struct HopperTiles {
  static constexpr int kBlocks = 2;  // on a multiprocessor
  // In code for other GPUs, which PTX may still bring to Hopper.
  using Compiled = std::conditional_t<kWithWgmma, HopperTiles, ProductTiles<Precision::float32>>;

  union {
    float samples[2][kSamples][kPitch];  // one is read while the other arrives
    float sums[kSamples][kOutPitch];
  };
  Operands operands[2];  // one is multiplied while the other is made
  LeftFactors left;
};

// As the multiply() of ProductTiles.
__device__ inline void multiply(const Rows& rows, const EditedWeights& layer, int output, HopperTiles& tiles) {
  float sums[32] = {};
  fetch(rows, 0, tiles.samples[0]);
  keep(layer, output, tiles.left);
  int buffer = 0;
  for (int k = 0; k < rows.depth; k += kDepth, buffer ^= 1) {
    const bool more = k + kDepth < rows.depth;
    if (more) fetch(rows, k + kDepth, tiles.samples[buffer ^ 1]);
    if (more)
      wait_for_copies<1>();
    else
      wait_for_copies<0>();
    wait_for_products<1>(sums);  // those of the slice before the last one, which had these operands
    __syncthreads();             // of all warps; and the samples are there
    Operands& operands = tiles.operands[buffer];
    form(layer, tiles.left, output, k,
         [&](int row, int column, float value) { operands.set_weight(row, column, value); });
#pragma unroll
    for (int i = 0; i < kSamples; i += kRowStep)
      operands.set_sample(own_row() + i, own_column(), tiles.samples[buffer][own_row() + i][own_column()]);
    publish_operands();
    __syncthreads();  // all operands are there, and the samples have been read
    begin_products();
    operands.start(sums);
    commit_products();
  }
  wait_for_products<0>(sums);
#pragma unroll
  for (int i = 0; i < 32; ++i) tiles.sums[sum_row(i)][sum_column(i)] = sums[i];
  __syncthreads();
}

}  // namespace rledit::cuda
