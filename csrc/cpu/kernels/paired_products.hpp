// Products of bfloat16 pairs on vectors: AVX512_BF16's dot product, two multiply-adds a lane.
#pragma once

#include <immintrin.h>

#include "paired_packing.hpp"
#include "products.hpp"

namespace rledit::cpu::RLEDIT_ISA {
namespace {

inline __m512bh pairs_of(__m512i bits) { return (__m512bh)bits; }

template <int Rows, int Vecs>
inline void multiply_paired_block(const Product& product, int column) {
  __m512 sum[Rows][Vecs];
#pragma GCC unroll 16
  for (int j = 0; j < Rows; ++j)
#pragma GCC unroll 4
    for (int v = 0; v < Vecs; ++v)
      sum[j][v] = product.initial != nullptr
                      ? _mm512_loadu_ps(product.initial + j * kTile + column + v * kLanes)
                      : _mm512_set1_ps(product.bias != nullptr ? product.bias[j] : 0.0F);
  const char* tile = static_cast<const char*>(product.tile) + 4 * column;
  const char* panel = static_cast<const char*>(product.panel);
  for (int64_t k = 0; k < product.depth; k += kPairedDepth) {
    const int64_t pairs_left = (product.depth - k + 1) / 2;
    const int limit = pairs_left < kPairedDepth / 2 ? static_cast<int>(pairs_left) : kPairedDepth / 2;
    for (int i = 0; i < limit; ++i, tile += 4 * kTile) {
      __m512bh x[Vecs];
#pragma GCC unroll 4
      for (int v = 0; v < Vecs; ++v) x[v] = pairs_of(_mm512_loadu_si512(tile + 64 * v));
#pragma GCC unroll 16
      for (int j = 0; j < Rows; ++j) {
        int32_t pair;
        std::memcpy(&pair, panel + 2 * kPairedDepth * j + 4 * i, sizeof(pair));
        const __m512bh w = pairs_of(_mm512_set1_epi32(pair));
#pragma GCC unroll 4
        for (int v = 0; v < Vecs; ++v) sum[j][v] = _mm512_dpbf16_ps(sum[j][v], x[v], w);
      }
    }
    panel += int64_t{2} * kPairedDepth * Rows;
  }
  const bool relus = product.nonlinearity == Nonlinearity::relu;
#pragma GCC unroll 16
  for (int j = 0; j < Rows; ++j)
#pragma GCC unroll 4
    for (int v = 0; v < Vecs; ++v) {
      const vfloat value = (vfloat)sum[j][v];
      store(product.out + j * kTile + column + v * kLanes, relus ? relu(value) : value);
    }
}

template <int Rows>
void multiply_paired_dispatch(const Product& product) {
  if (product.rows == Rows) {
    constexpr int kVecs = 2 * Rows <= kMaxRows ? 4 : 2;
    for (int column = 0; column < kTile; column += kVecs * kLanes)
      multiply_paired_block<Rows, kVecs>(product, column);
  } else if constexpr (Rows > 1) {
    multiply_paired_dispatch<Rows - 1>(product);
  }
}

void multiply_paired(const Product& product) {
  multiply_paired_dispatch<kMaxRows>(product);
  activate(product.out, product.rows, product.nonlinearity);
}

}  // namespace
}  // namespace rledit::cpu::RLEDIT_ISA
