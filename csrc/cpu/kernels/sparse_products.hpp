// Products with a tile whose samples have few values that are not zero.
#pragma once

#include "kernels.hpp"
#include "packing.hpp"
#include "products.hpp"
#include "vector_math.hpp"

namespace rledit::cpu::RLEDIT_ISA {
namespace {

constexpr int kCacheLine = 16;  // floats

// Columns `column` to `column` + Rows of a table. Blocks of edited weights go through memory that stays in
// cache.
template <int Rows>
void pack_columns(const PanelSource& source, int64_t columns, float* table) {
  alignas(64) float block[Rows * kPanelDepth];
  for (int64_t k = 0; k < source.depth; k += kPanelDepth, table += kPanelDepth * columns) {
    edit_inputs<Rows>(source, k, block);
    const int64_t rest = source.depth - k;
    const int inputs = rest < kPanelDepth ? static_cast<int>(rest) : kPanelDepth;
    int i = 0;
    if constexpr (Rows == 4)
      for (; i + 4 <= inputs; i += 4) transpose4(block + i, kPanelDepth, table + i * columns, columns);
    for (; i < inputs; ++i)
      for (int j = 0; j < Rows; ++j) table[i * columns + j] = block[j * kPanelDepth + i];
  }
}

void pack_table(const PanelSource& whole, int64_t columns, float* table) {
  PanelSource source = whole;
  for (int row = 0; row < whole.rows; row += 4, table += 4) {
    source.rows = whole.rows - row < 4 ? whole.rows - row : 4;
    switch (source.rows) {
      case 1: pack_columns<1>(source, columns, table); break;
      case 2: pack_columns<2>(source, columns, table); break;
      case 3: pack_columns<3>(source, columns, table); break;
      default: pack_columns<4>(source, columns, table);
    }
    source.weight += 4 * source.depth;
    if (source.rank > 0) source.left += 4 * source.rank;
  }
}

// What the dense product would add for values of the table that are not finite: NaN to every sample that has
// zero there.
inline void add_zeros_of_infinite(const SparseProduct& product, float* sums) {
  for (int64_t k = 0; k < product.infinite_count; ++k) {
    const float* values = product.tile + int64_t{product.infinite[k]} * kTile;
    const float* row = product.table + int64_t{product.infinite[k]} * product.columns;
    for (int s = 0; s < kTile; ++s)
      for (int c = 0; values[s] == 0.0F && c < product.columns; ++c)
        sums[s * product.columns + c] += row[c] * 0.0F;
  }
}

// Inputs come in rising order and each sum has one accumulator, as in the dense product: leaving zeros out
// changes no bit of it.
template <int Vecs>
void multiply_sparse_columns(const SparseProduct& product) {
  constexpr int kWidth = Vecs * kLanes;
  alignas(64) float start[kWidth] = {};
  alignas(64) float sums[kTile * kWidth];
  for (int c = 0; c < product.rows && product.bias != nullptr; ++c) start[c] = product.bias[c];
  for (int s = 0; s < kTile; ++s) {
    vfloat sum[Vecs];
#pragma GCC unroll 8
    for (int v = 0; v < Vecs; ++v) sum[v] = load(start + v * kLanes);
    for (int64_t k = product.starts[s]; k < product.starts[s + 1]; ++k) {
      const float* row = product.table + int64_t{product.inputs[k]} * kWidth;
      const float* ahead = product.table + int64_t{product.inputs[k + kSparseAhead]} * kWidth;
      for (int c = 0; c < kWidth; c += kCacheLine) __builtin_prefetch(ahead + c);
      const vfloat value = broadcast(product.values[k]);
#pragma GCC unroll 8
      for (int v = 0; v < Vecs; ++v) sum[v] += value * load(row + v * kLanes);
    }
#pragma GCC unroll 8
    for (int v = 0; v < Vecs; ++v) store(sums + s * kWidth + v * kLanes, sum[v]);
  }
  if (product.infinite_count > 0) add_zeros_of_infinite(product, sums);
  if (product.nonlinearity == Nonlinearity::relu)
    for (int i = 0; i < kTile * kWidth; i += kLanes) store(sums + i, relu(load(sums + i)));
  int c = 0;
  for (; c + 4 <= product.rows; c += 4)
    for (int s = 0; s < kTile; s += 4)
      transpose4(sums + s * kWidth + c, kWidth, product.out + c * kTile + s, kTile);
  for (; c < product.rows; ++c)
    for (int s = 0; s < kTile; ++s) product.out[c * kTile + s] = sums[s * kWidth + c];
}

void multiply_sparse(const SparseProduct& product) {
  static_assert(kMostSparseColumns == 2 * kSparseColumns, "tables are one or two times so wide");
  if (product.columns == kSparseColumns)
    multiply_sparse_columns<kSparseColumns / kLanes>(product);
  else
    multiply_sparse_columns<kMostSparseColumns / kLanes>(product);
  activate(product.out, product.rows, product.nonlinearity);
}

}  // namespace
}  // namespace rledit::cpu::RLEDIT_ISA
