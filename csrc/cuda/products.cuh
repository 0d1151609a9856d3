// The product of a tile of samples with a tile of edited weights, on tensor cores.
//
// float32 as three TF32 products, hi*hi + hi*lo + lo*hi, of which only lo*lo and what two TF32 leave of a
// float32 are lost: 2^-21 of a product, where one TF32 product would lose 2^-11. bfloat16 is one product.
#pragma once

#include "arithmetic.cuh"
#include "device.cuh"

namespace rledit::cuda {

constexpr int kOutputs = 64;
constexpr int kDepth = 32;              // inputs at a time
constexpr int kPitch = kDepth + 4;      // of float rows in shared memory: no two rows of a fragment in one bank
constexpr int kHalfPitch = kDepth + 8;  // of bfloat16 rows
constexpr int kOutPitch = kOutputs + 4;      // of the sums
constexpr int kRowStep = kThreads / kDepth;  // a thread has a column and every fourth row of a tile

// Rows of samples, [rows][pitch] in global memory.
struct Rows {
  const float* from;
  int64_t rows;
  int64_t pitch;
  int depth;  // columns that count
};

// Some columns of a tile's rows on their way into shared memory; zeros beyond.
__device__ inline void fetch(const Rows& rows, int column, float (&to)[kSamples][kPitch]) {
  const bool aligned = reinterpret_cast<uintptr_t>(rows.from) % 16 == 0;  // a view may begin anywhere
  if (aligned && rows.pitch % 4 == 0 && rows.depth % 4 == 0) {
#pragma unroll 1
    for (int i = threadIdx.x; i < kSamples * kDepth / 4; i += kThreads) {
      const int row = i / (kDepth / 4), k = i % (kDepth / 4) * 4;
      const bool valid = row < rows.rows && column + k < rows.depth;
      copy_async<16>(&to[row][k], valid ? rows.from + row * rows.pitch + column + k : rows.from, valid);
    }
  } else {
#pragma unroll 1
    for (int i = threadIdx.x; i < kSamples * kDepth; i += kThreads) {
      const int row = i / kDepth, k = i % kDepth;
      const bool valid = row < rows.rows && column + k < rows.depth;
      copy_async<4>(&to[row][k], valid ? rows.from + row * rows.pitch + column + k : rows.from, valid);
    }
  }
  commit_copies();
}

// Weights of one candidate in one layer.
struct EditedWeights {
  const float* weight;  // [outputs, inputs]
  const float* left;    // [outputs, rank]
  const float* right;   // [rank, inputs]
  int outputs;
  int inputs;
  int rank;
  EditRule rule;
};

// Of this thread: what it has of a tile. The remainders tell the compiler how large they can be.
__device__ inline int own_column() { return threadIdx.x % kDepth; }
__device__ inline int own_row() { return threadIdx.x / kDepth % kRowStep; }

// Left factors of kOutputs outputs, for forming weights again and again: as far as they fit, [rank][outputs],
// the outputs of one thread next to each other.
struct LeftFactors {
  static constexpr int kRank = 16;
  alignas(16) float entries[kRank][kOutputs];

  __device__ static int place(int row) { return row % kRowStep * (kOutputs / kRowStep) + row / kRowStep; }
};

// All threads; a barrier must follow before weights are formed.
__device__ inline void keep(const EditedWeights& layer, int output, LeftFactors& left) {
  if (layer.rank > LeftFactors::kRank) return;
#pragma unroll 1
  for (int i = threadIdx.x; i < kOutputs * layer.rank; i += kThreads) {
    const int row = i % kOutputs, r = i / kOutputs, o = output + row;
    left.entries[r][LeftFactors::place(row)] = o < layer.outputs ? layer.left[o * layer.rank + r] : 0.0F;
  }
}

// W' of kOutputs outputs and kDepth inputs; zeros beyond. A thread has one input and every fourth output, some
// at a time: an entry of `right` is read once for all of these, and more would take too many registers.
template <class Store>
__device__ inline void form(const EditedWeights& layer, const LeftFactors& left, int output, int input,
                            Store store) {
  constexpr int kAtOnce = 8;
  const int k = own_column(), own = own_row();
  const bool inside = input + k < layer.inputs;
  const int column = inside ? input + k : 0;  // what is beyond is read from within, and not used
  const int rows = layer.outputs - output - own;
  const int64_t step = static_cast<int64_t>(kRowStep) * layer.inputs;
  const float* weight = layer.weight + static_cast<int64_t>(output + own) * layer.inputs + column;
#pragma unroll 1
  for (int first = 0; first < kOutputs / kRowStep; first += kAtOnce) {
    float delta[kAtOnce] = {};
    const float* right = layer.right + column;
    if (layer.rank <= LeftFactors::kRank) {
#pragma unroll 1
      for (int r = 0; r < layer.rank; ++r, right += layer.inputs) {
        const float entry = *right;
        const float4* rows =
            reinterpret_cast<const float4*>(&left.entries[r][own * (kOutputs / kRowStep) + first]);
#pragma unroll
        for (int j = 0; j < kAtOnce; j += 4) {
          const float4 some = rows[j / 4];
          delta[j] += some.x * entry;
          delta[j + 1] += some.y * entry;
          delta[j + 2] += some.z * entry;
          delta[j + 3] += some.w * entry;
        }
      }
    } else {
#pragma unroll 1
      for (int r = 0; r < layer.rank; ++r, right += layer.inputs) {
        const float entry = *right;
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) {
          const int o = output + own + (first + j) * kRowStep;
          if (o < layer.outputs) delta[j] += layer.left[o * layer.rank + r] * entry;
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j, weight += step) {
      const bool valid = inside && (first + j) * kRowStep < rows;
      const float before = valid ? *weight : 0.0F;
      store(own + (first + j) * kRowStep, k, edited(before, delta[j], layer.rule));
    }
  }
}

// Shared memory of a product. The sums take the place of the samples, which have been multiplied by then.
template <Precision precision>
struct ProductTiles {
  static constexpr int kBlocks = 3;  // on a multiprocessor: a fourth would spill registers
  using Compiled = ProductTiles;

  union {
    float samples[2][kSamples][kPitch];  // one is multiplied while the other arrives
    float sums[kSamples][kOutPitch];
  };
  float weights[kOutputs][kPitch];
  LeftFactors left;
};

template <>
struct ProductTiles<Precision::bfloat16> {
  static constexpr int kBlocks = 3;
  using Compiled = ProductTiles;

  union {
    float samples[2][kSamples][kPitch];
    float sums[kSamples][kOutPitch];
  };
  __nv_bfloat16 half_samples[kSamples][kHalfPitch];
  __nv_bfloat16 half_weights[kOutputs][kHalfPitch];
  LeftFactors left;
};

namespace wmma = nvcuda::wmma;

// The sums of a warp: 16 samples, kOutputs outputs.
template <Precision precision>
struct Sums;

template <>
struct Sums<Precision::float32> {
  static constexpr int kColumns = kOutputs / 16;
  using A = wmma::fragment<wmma::matrix_a, 16, 16, 8, wmma::precision::tf32, wmma::row_major>;
  using B = wmma::fragment<wmma::matrix_b, 16, 16, 8, wmma::precision::tf32, wmma::col_major>;
  wmma::fragment<wmma::accumulator, 16, 16, 8, float> sums[kColumns];

  __device__ void clear() {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) wmma::fill_fragment(sums[j], 0.0F);
  }

  // x = hi + lo + what is lost.
  template <class Fragment>
  __device__ static void split(Fragment& hi, Fragment& lo) {
#pragma unroll
    for (int i = 0; i < hi.num_elements; ++i) {
      const float x = hi.x[i];
      hi.x[i] = wmma::__float_to_tf32(x);
      lo.x[i] = wmma::__float_to_tf32(x - hi.x[i]);
    }
  }

  __device__ void add(const ProductTiles<Precision::float32>& tiles, int buffer) {
    const int row = threadIdx.x / 32 * 16;
#pragma unroll 1
    for (int k = 0; k < kDepth; k += 8) {
      A hi, lo;
      wmma::load_matrix_sync(hi, &tiles.samples[buffer][row][k], kPitch);
      split(hi, lo);
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        B weight_hi, weight_lo;
        wmma::load_matrix_sync(weight_hi, &tiles.weights[16 * j][k], kPitch);
        split(weight_hi, weight_lo);
        wmma::mma_sync(sums[j], lo, weight_hi, sums[j]);
        wmma::mma_sync(sums[j], hi, weight_lo, sums[j]);
        wmma::mma_sync(sums[j], hi, weight_hi, sums[j]);
      }
    }
  }
};

template <>
struct Sums<Precision::bfloat16> {
  static constexpr int kColumns = kOutputs / 16;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums[kColumns];

  __device__ void clear() {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) wmma::fill_fragment(sums[j], 0.0F);
  }

  __device__ void add(const ProductTiles<Precision::bfloat16>& tiles, int) {
    const int row = threadIdx.x / 32 * 16;
    for (int k = 0; k < kDepth; k += 16) {
      wmma::fragment<wmma::matrix_a, 16, 16, 16, __nv_bfloat16, wmma::row_major> samples;
      wmma::load_matrix_sync(samples, &tiles.half_samples[row][k], kHalfPitch);
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        wmma::fragment<wmma::matrix_b, 16, 16, 16, __nv_bfloat16, wmma::col_major> weights;
        wmma::load_matrix_sync(weights, &tiles.half_weights[16 * j][k], kHalfPitch);
        wmma::mma_sync(sums[j], samples, weights, sums[j]);
      }
    }
  }
};

// tiles.sums = rows @ W'^T for kOutputs outputs from `output` on. All threads of the block call it; the sums
// may be read when it returns, and must have been read by all before it is called again.
template <Precision precision>
__device__ void multiply(const Rows& rows, const EditedWeights& layer, int output,
                         ProductTiles<precision>& tiles) {
  Sums<precision> sums;
  sums.clear();
  fetch(rows, 0, tiles.samples[0]);
  keep(layer, output, tiles.left);
  __syncthreads();
  int buffer = 0;
  for (int k = 0; k < rows.depth; k += kDepth, buffer ^= 1) {
    const bool more = k + kDepth < rows.depth;
    if (more) fetch(rows, k + kDepth, tiles.samples[buffer ^ 1]);
    if constexpr (precision == Precision::float32)
      form(layer, tiles.left, output, k,
           [&](int row, int column, float value) { tiles.weights[row][column] = value; });
    else
      form(layer, tiles.left, output, k, [&](int row, int column, float value) {
        tiles.half_weights[row][column] = __float2bfloat16_rn(value);
      });
    if (more)
      wait_for_copies<1>();
    else
      wait_for_copies<0>();
    __syncthreads();  // weights and samples are there
    if constexpr (precision == Precision::bfloat16) {
      const int column = own_column();
#pragma unroll
      for (int i = 0; i < kSamples; i += kRowStep)
        tiles.half_samples[own_row() + i][column] =
            __float2bfloat16_rn(tiles.samples[buffer][own_row() + i][column]);
      __syncthreads();
    }
    sums.add(tiles, buffer);
    __syncthreads();  // before weights and samples are overwritten
  }
  const int row = threadIdx.x / 32 * 16;
#pragma unroll
  for (int j = 0; j < Sums<precision>::kColumns; ++j)
    wmma::store_matrix_sync(&tiles.sums[row][16 * j], sums.sums[j], kOutPitch, wmma::mem_row_major);
  __syncthreads();
}

}  // namespace rledit::cuda
