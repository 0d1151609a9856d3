// Products of float panels and tiles.
#pragma once

#include "kernels.hpp"
#include "packing.hpp"
#include "vector_math.hpp"

namespace rledit::cpu::RLEDIT_ISA {
namespace {

constexpr int kVectors = kTile / kLanes;  // vectors across one row of a tile

// The register tile: Rows outputs times Vecs vectors of samples, accumulated over the whole depth.
template <int Rows, int Vecs, bool Relu>
inline void multiply_block(const Product& product, int column) {
  vfloat sum[Rows][Vecs];
#pragma GCC unroll 16
  for (int j = 0; j < Rows; ++j)
#pragma GCC unroll 4
    for (int v = 0; v < Vecs; ++v)
      sum[j][v] = product.initial != nullptr ? load(product.initial + j * kTile + column + v * kLanes)
                                             : broadcast(product.bias != nullptr ? product.bias[j] : 0.0F);
  const float* tile = static_cast<const float*>(product.tile) + column;
  const float* panel = static_cast<const float*>(product.panel);
  for (int64_t k = 0; k < product.depth; k += kPanelDepth) {
    const int64_t rest = product.depth - k;
    const int limit = rest < kPanelDepth ? static_cast<int>(rest) : kPanelDepth;
    for (int i = 0; i < limit; ++i, tile += kTile) {
      vfloat x[Vecs];
#pragma GCC unroll 4
      for (int v = 0; v < Vecs; ++v) x[v] = load(tile + v * kLanes);
#pragma GCC unroll 16
      for (int j = 0; j < Rows; ++j) {
        const vfloat w = broadcast(panel[j * kPanelDepth + i]);
#pragma GCC unroll 4
        for (int v = 0; v < Vecs; ++v) sum[j][v] += w * x[v];
      }
    }
    panel += Rows * kPanelDepth;
  }
#pragma GCC unroll 16
  for (int j = 0; j < Rows; ++j)
#pragma GCC unroll 4
    for (int v = 0; v < Vecs; ++v)
      store(product.out + j * kTile + column + v * kLanes, Relu ? relu(sum[j][v]) : sum[j][v]);
}

template <int Rows>
void multiply_rows(const Product& product) {
  // Few rows leave registers free for more samples, which hides the latency of the additions.
  constexpr int kVecs = 2 * Rows <= kMaxRows ? 4 : 2;
  static_assert(kVectors % kVecs == 0, "a tile must be a whole number of register tiles");
  for (int column = 0; column < kTile; column += kVecs * kLanes)
    if (product.nonlinearity == Nonlinearity::relu)
      multiply_block<Rows, kVecs, true>(product, column);
    else
      multiply_block<Rows, kVecs, false>(product, column);
}

template <int Rows>
void multiply_dispatch(const Product& product) {
  if (product.rows == Rows)
    multiply_rows<Rows>(product);
  else if constexpr (Rows > 1)
    multiply_dispatch<Rows - 1>(product);
}

// The functions that no register tile applies by itself. Never inlined: which products and sums a compiler
// makes one operation of may be another at each place, and dense and sparse products must give the same bits.
__attribute__((noinline)) void activate(float* out, int64_t rows, Nonlinearity nonlinearity) {
  if (nonlinearity == Nonlinearity::relu || nonlinearity == Nonlinearity::identity) return;
  for (int64_t i = 0; i < rows * kTile; i += kLanes) store(out + i, activated(load(out + i), nonlinearity));
}

void multiply(const Product& product) {
  multiply_dispatch<kMaxRows>(product);
  activate(product.out, product.rows, product.nonlinearity);
}

}  // namespace
}  // namespace rledit::cpu::RLEDIT_ISA
