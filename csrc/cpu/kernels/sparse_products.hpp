// Products with a tile whose samples have few values that are not zero.
#pragma once

#include "kernels.hpp"
#include "vector_math.hpp"

namespace rledit::cpu::RLEDIT_ISA {
namespace {

// Vecs vectors of columns, for all samples of the tile. Inputs come in rising order and each sum has one
// accumulator, as in the dense product: leaving zeros out changes no bit of it.
template <int Vecs>
void multiply_sparse_columns(const SparseProduct& product, int64_t column) {
  float sums[kTile][Vecs * kLanes];
  const float* table = product.table + column;
  for (int s = 0; s < kTile; ++s) {
    vfloat sum[Vecs] = {};
    for (int64_t k = product.starts[s]; k < product.starts[s + 1]; ++k) {
      const float* row = table + product.inputs[k] * product.columns;
      const vfloat value = broadcast(product.values[k]);
#pragma GCC unroll 4
      for (int v = 0; v < Vecs; ++v) sum[v] += value * load(row + v * kLanes);
    }
#pragma GCC unroll 4
    for (int v = 0; v < Vecs; ++v) store(sums[s] + v * kLanes, sum[v]);
  }
  for (int c = 0; c < Vecs * kLanes; ++c)
    for (int s = 0; s < kTile; ++s) product.out[(column + c) * kTile + s] = sums[s][c];
}

void multiply_sparse(const SparseProduct& product) {
  constexpr int kMost = 4;
  int64_t column = 0;
  for (; column + kMost * kLanes <= product.columns; column += kMost * kLanes)
    multiply_sparse_columns<kMost>(product, column);
  for (; column < product.columns; column += kLanes) multiply_sparse_columns<1>(product, column);
}

}  // namespace
}  // namespace rledit::cpu::RLEDIT_ISA
