// Sums over samples that a probe of the features is solved from.
#pragma once

#include "kernels.hpp"
#include "vector_math.hpp"

namespace rledit::cpu::RLEDIT_ISA {
namespace {

inline float sum_of_lanes(vfloat value) {
  alignas(64) float lanes[kLanes];
  store(lanes, value);
#pragma GCC unroll 4
  for (int width = kLanes / 2; width > 0; width /= 2)
#pragma GCC unroll 16
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

inline vfloat magnitude(vfloat x) { return (vfloat)((vint)x & 0x7fffffff); }

template <bool Write>
inline Extent center_tile(const Centering& centering) {
  vint within = vint{} - 1;
  vfloat largest = broadcast(0.0F);
  alignas(64) int32_t valid[kTile];
  for (int i = 0; i < kTile; ++i) valid[i] = i < centering.valid ? -1 : 0;
  for (int64_t k = 0; k < centering.depth; ++k) {
    const float pivot = Write ? centering.pivot[k] : 0.0F;
#pragma GCC unroll 4
    for (int i = 0; i < kTile; i += kLanes) {
      const vint mask = load(valid + i);
      const vfloat value = load(centering.values + k * kTile + i);
      within &= (magnitude(value) <= centering.limit) | ~mask;
      if (!Write) continue;
      const vfloat moved = (vfloat)((vint)(value - pivot) & mask);
      const vfloat size = magnitude(moved);
      largest = select(size > largest, size, largest);
      store(centering.out + k * kTile + i, moved);
    }
  }
  Extent extent{true, 0.0F};
  for (int lane = 0; lane < kLanes; ++lane) {
    extent.within = extent.within && within[lane] != 0;
    if (largest[lane] > extent.largest) extent.largest = largest[lane];
  }
  return extent;
}

Extent center(const Centering& centering) {
  return centering.out != nullptr ? center_tile<true>(centering) : center_tile<false>(centering);
}

// Accumulators that leave registers for what they are multiplied from.
constexpr int kMomentRows = RLEDIT_ROWS > 6 ? 4 : 3;
constexpr int kMomentColumns = RLEDIT_ROWS > 6 ? 6 : 4;
static_assert(kMomentRows - 1 <= kMomentsPadding && kMomentColumns - 1 <= kMomentsPadding,
              "a block would reach beyond the tile");

// A block of products, kept in registers over all samples of the tiles.
inline void add_block(const float* tiles, int64_t count, int64_t depth, int64_t row, int64_t column,
                      double* moments) {
  vfloat sum[kMomentRows][kMomentColumns] = {};
  const int64_t stride = (depth + kMomentsPadding) * kTile;
  for (int64_t t = 0; t < count; ++t) {
    const float* rows = tiles + t * stride + row * kTile;
    const float* columns = tiles + t * stride + column * kTile;
    for (int v = 0; v < kTile; v += kLanes) {
      vfloat x[kMomentRows];
#pragma GCC unroll 4
      for (int i = 0; i < kMomentRows; ++i) x[i] = load(rows + i * kTile + v);
#pragma GCC unroll 6
      for (int j = 0; j < kMomentColumns; ++j) {
        const vfloat y = load(columns + j * kTile + v);
#pragma GCC unroll 4
        for (int i = 0; i < kMomentRows; ++i) sum[i][j] += x[i] * y;
      }
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kMomentRows; ++i)
#pragma GCC unroll 6
    for (int j = 0; j < kMomentColumns; ++j)
      if (row + i < depth && column + j < depth && column + j >= row + i)
        moments[(row + i) * depth + column + j] += static_cast<double>(sum_of_lanes(sum[i][j]));
}

void add_moments(const float* tiles, int64_t count, int64_t depth, double* moments) {
  for (int64_t row = 0; row < depth; row += kMomentRows)
    for (int64_t column = row; column < depth; column += kMomentColumns)
      add_block(tiles, count, depth, row, column, moments);
}

void add_runs(const float* tile, int64_t depth, const LabelRun* runs, int64_t count, int64_t labels,
              double* sums) {
  for (int64_t r = 0; r < count; ++r) {
    const LabelRun& run = runs[r];
    alignas(64) int32_t inside[kTile];
    for (int i = 0; i < kTile; ++i) inside[i] = i >= run.first && i < run.last ? -1 : 0;
    const int first = run.first / kLanes * kLanes;
    for (int64_t k = 0; k < depth; ++k) {
      vfloat sum = broadcast(0.0F);
      for (int i = first; i < run.last; i += kLanes)
        sum += (vfloat)((vint)load(tile + k * kTile + i) & load(inside + i));
      sums[k * labels + run.label] += static_cast<double>(sum_of_lanes(sum));
    }
  }
}

}  // namespace
}  // namespace rledit::cpu::RLEDIT_ISA
