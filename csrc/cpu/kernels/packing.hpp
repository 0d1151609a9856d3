// Tiles and panels of floats.
#pragma once

#include "editing.hpp"
#include "kernels.hpp"
#include "vector_math.hpp"

namespace rledit::cpu::RLEDIT_ISA {
namespace {

constexpr int kMaxRows = RLEDIT_ROWS;

typedef float vfloat4 __attribute__((vector_size(16)));

// out[c][r] = rows[r][c] for a 4x4 block.
inline void transpose4(const float* rows, int64_t stride, float* to, int64_t to_stride) {
  vfloat4 a, b, c, d;
  std::memcpy(&a, rows, 16);
  std::memcpy(&b, rows + stride, 16);
  std::memcpy(&c, rows + 2 * stride, 16);
  std::memcpy(&d, rows + 3 * stride, 16);
  const vfloat4 ab0 = {a[0], b[0], a[1], b[1]}, ab1 = {a[2], b[2], a[3], b[3]};
  const vfloat4 cd0 = {c[0], d[0], c[1], d[1]}, cd1 = {c[2], d[2], c[3], d[3]};
  const vfloat4 out[4] = {{ab0[0], ab0[1], cd0[0], cd0[1]},
                          {ab0[2], ab0[3], cd0[2], cd0[3]},
                          {ab1[0], ab1[1], cd1[0], cd1[1]},
                          {ab1[2], ab1[3], cd1[2], cd1[3]}};
  for (int i = 0; i < 4; ++i) std::memcpy(to + i * to_stride, &out[i], 16);
}

// `tile` may be `values`.
void to_tile(const float* values, int64_t depth, bool round_bf16, float* tile) {
  for (int64_t k = 0; k < depth * kTile; k += kLanes) {
    const vfloat value = load(values + k);
    store(tile + k, round_bf16 ? rounded_bf16(value) : value);
  }
}

// The first `count` inputs of rows [valid, stride] -> [count][kTile], the missing samples as zeros.
inline void pack_tile_part(const float* rows, int64_t stride, int valid, int64_t count, float* tile) {
  const int whole_rows = valid / 4 * 4;
  const int64_t whole_count = count / 4 * 4;
  // Four inputs at a time over all samples: the stores stay within four rows of the tile.
  for (int64_t k = 0; k < whole_count; k += 4)
    for (int i = 0; i < whole_rows; i += 4)
      transpose4(rows + i * stride + k, stride, tile + k * kTile + i, kTile);
  for (int64_t k = 0; k < count; ++k) {
    const int done = k < whole_count ? whole_rows : 0;
    for (int i = done; i < valid; ++i) tile[k * kTile + i] = rows[i * stride + k];
    for (int i = valid; i < kTile; ++i) tile[k * kTile + i] = 0.0F;
  }
}

void pack_tile(const float* rows, int valid, int64_t depth, bool round_bf16, float* tile) {
  pack_tile_part(rows, depth, valid, depth, tile);
  if (round_bf16) to_tile(tile, depth, true, tile);
}

// Edited weights of 16 whole inputs, [Rows][16]. All rows advance together, so that each value of `right` is
// loaded once for all of them.
template <int Rows>
inline void edit_block(const PanelSource& source, int64_t k, float* out) {
  constexpr int kVecs = kPanelDepth / kLanes;
  const int64_t depth = source.depth;
  vfloat delta[Rows][kVecs] = {};
  for (int64_t r = 0; r < source.rank; ++r) {
    vfloat right[kVecs];
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) right[v] = load(source.right + r * depth + k + v * kLanes);
#pragma GCC unroll 16
    for (int j = 0; j < Rows; ++j)
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) delta[j][v] += source.left[j * source.rank + r] * right[v];
  }
#pragma GCC unroll 16
  for (int j = 0; j < Rows; ++j)
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      vfloat value = load(source.weight + j * depth + k + v * kLanes);
      if (source.rank > 0) value = edited(value, delta[j][v], source.rule);
      store(out + j * kPanelDepth + v * kLanes, value * source.factor);
    }
}

// The same of the inputs from k on, fewer than 16 or none: one value at a time, because a vector would reach
// beyond the last row. Zeros behind the depth. Never inlined, for the same bits
// at each place, see activate().
__attribute__((noinline)) void edit_rest(const PanelSource& source, int64_t k, float* out) {
  const int64_t depth = source.depth;
  for (int j = 0; j < source.rows; ++j)
    for (int i = 0; i < kPanelDepth; ++i) {
      float value = 0.0F;
      if (k + i < depth) {
        value = source.weight[j * depth + k + i];
        if (source.rank > 0) {
          const float delta = delta_at(source.left + j * source.rank, source.right, source.rank, depth, k + i);
          value = edited(value, delta, source.rule);
        }
      }
      out[j * kPanelDepth + i] = value * source.factor;
    }
}

template <int Rows>
inline void edit_inputs(const PanelSource& source, int64_t k, float* out) {
  if (k + kPanelDepth <= source.depth)
    edit_block<Rows>(source, k, out);
  else
    edit_rest(source, k, out);
}

template <int Rows>
void pack_panel_rows(const PanelSource& source, float* panel) {
  for (int64_t k = 0; k < source.depth; k += kPanelDepth, panel += kPanelDepth * source.stored_rows) {
    edit_inputs<Rows>(source, k, panel);
    if (source.operands == Operands::rounded)
      for (int i = 0; i < kPanelDepth * Rows; i += kLanes) store(panel + i, rounded_bf16(load(panel + i)));
  }
}

template <int Rows>
void pack_panel_dispatch(const PanelSource& source, float* panel) {
  if (source.rows == Rows)
    pack_panel_rows<Rows>(source, panel);
  else if constexpr (Rows > 1)
    pack_panel_dispatch<Rows - 1>(source, panel);
}

void pack_panel(const PanelSource& source, float* panel) { pack_panel_dispatch<kMaxRows>(source, panel); }

}  // namespace
}  // namespace rledit::cpu::RLEDIT_ISA
