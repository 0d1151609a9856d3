// Tiles and panels of bfloat16 pairs, and of float32 values split into two bfloat16 each.
#pragma once

#include "kernels.hpp"
#include "layouts.hpp"
#include "packing.hpp"
#include "vector_math.hpp"

namespace rledit::cpu::RLEDIT_ISA {
namespace {

typedef uint32_t vuint __attribute__((vector_size(4 * RLEDIT_LANES)));
typedef uint16_t vhalf __attribute__((vector_size(2 * RLEDIT_LANES)));

// Nearest bfloat16 as a float, ties to even. A value beyond bfloat16's largest becomes that and not
// infinity where `finite`: the rest of a split value then carries the difference.
inline vfloat nearest(vfloat x, bool finite) {
  const vfloat value = rounded_bf16(x);
  const vint overflown = (value - value != 0.0F) & (x - x == 0.0F);
  return finite ? select(overflown, (vfloat)((vuint)x & 0xffff0000U), value) : value;
}

// Pairs of successive inputs: `even` in the lower halves. Both are bfloat16 values already. NaN bits that
// stand in the lower half alone would be cut off, hence the quiet bit.
inline vuint paired(vfloat even, vfloat odd) {
  const vuint low = (vuint)even | ((vuint)(even != even) & 0x00400000U);
  const vuint high = (vuint)odd | ((vuint)(odd != odd) & 0x00400000U);
  return (low >> 16) | (high & 0xffff0000U);
}

inline void store_bits(void* to, vuint value) { std::memcpy(to, &value, sizeof(value)); }

// Two floats as the pair of their nearest bfloat16 values. The CPU's own conversion takes subnormal values
// for zeros, as its products do.
inline vuint nearest_pair(vfloat even, vfloat odd) {
#ifdef __AVX512BF16__
  alignas(64) static constexpr uint16_t kInterleaved[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                            21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                            11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even);
  return (vuint)_mm512_permutexvar_epi16(_mm512_load_si512(kInterleaved), halves);
#else
  return paired(nearest(even, false), nearest(odd, false));
#endif
}

// One pair of rows of a tile, kTile samples, at `out`; the rests of split values at `rest`.
inline void store_pair(const float* even, const float* odd, bool split, char* out, char* rest) {
  for (int i = 0; i < kTile; i += kLanes) {
    const vfloat a = load(even + i);
    const vfloat b = odd != nullptr ? load(odd + i) : broadcast(0.0F);
    if (!split) {
      store_bits(out + 4 * i, nearest_pair(a, b));
      continue;
    }
    const vfloat a_near = nearest(a, true);
    const vfloat b_near = nearest(b, true);
    store_bits(out + 4 * i, paired(a_near, b_near));
    store_bits(rest + 4 * i, paired(nearest(a - a_near, true), nearest(b - b_near, true)));
  }
}

void to_paired_tile(const float* values, int64_t depth, Operands operands, void* tile) {
  char* out = static_cast<char*>(tile);
  const bool split = operands == Operands::split;
  char* rest = out + paired_bytes(kTile, depth);
  const int64_t padded = padded_depth(operands, depth);
  constexpr int64_t kPairBytes = 4 * kTile;
  int64_t k = 0;
  for (; k < depth; k += 2)
    store_pair(values + k * kTile, k + 1 < depth ? values + (k + 1) * kTile : nullptr, split,
               out + k / 2 * kPairBytes, rest + k / 2 * kPairBytes);
  for (; k < padded; k += 2) {
    std::memset(out + k / 2 * kPairBytes, 0, kPairBytes);
    if (split) std::memset(rest + k / 2 * kPairBytes, 0, kPairBytes);
  }
}

void pack_paired_tile(const float* rows, int valid, int64_t depth, Operands operands, void* tile) {
  // Some inputs at a time through a tile of floats that stays in cache.
  constexpr int64_t kStep = kPairedDepth;
  alignas(64) float some[kStep * kTile];
  const bool split = operands == Operands::split;
  char* out = static_cast<char*>(tile);
  const int64_t half = paired_bytes(kTile, depth);
  const int64_t step_bytes = paired_bytes(kTile, kStep);
  alignas(64) char pairs[2 * kStep * kTile * 2];
  for (int64_t k = 0; k < depth; k += kStep) {
    const int64_t count = depth - k < kStep ? depth - k : kStep;
    pack_tile_part(rows + k, depth, valid, count, some);
    to_paired_tile(some, count, operands, pairs);
    std::memcpy(out + k / kStep * step_bytes, pairs, step_bytes);
    if (split) std::memcpy(out + half + k / kStep * step_bytes, pairs + step_bytes, step_bytes);
  }
}

inline void store_halves(uint16_t* to, vfloat value) {
  const vuint bits = (vuint)value | ((vuint)(value != value) & 0x00400000U);
  const vhalf halves = __builtin_convertvector(bits >> 16, vhalf);
  std::memcpy(to, &halves, sizeof(halves));
}

// 16 floats to 16 bfloat16, and their rests.
inline void split_values(const float* values, bool split, uint16_t* out, uint16_t* rest) {
  for (int i = 0; i < kPanelDepth; i += kLanes) {
    const vfloat value = load(values + i);
#ifdef __AVX512BF16__
    if (!split) {
      const __m256bh halves = _mm512_cvtneps_pbh((__m512)value);
      std::memcpy(out + i, &halves, sizeof(halves));
      continue;
    }
#endif
    const vfloat near = nearest(value, split);
    store_halves(out + i, near);
    if (split) store_halves(rest + i, nearest(value - near, true));
  }
}

template <int Rows>
void pack_paired_rows(const PanelSource& source, uint16_t* panel) {
  const bool split = source.operands == Operands::split;
  uint16_t* rest = panel + paired_bytes(source.stored_rows, source.depth) / 2;
  const int64_t padded = padded_depth(source.operands, source.depth);
  for (int64_t k = 0; k < padded; k += kPanelDepth) {
    alignas(64) float values[Rows * kPanelDepth];
    edit_inputs<Rows>(source, k, values);
    const int64_t at = k / kPairedDepth * source.stored_rows * kPairedDepth + k % kPairedDepth;
    for (int j = 0; j < Rows; ++j)
      split_values(values + j * kPanelDepth, split, panel + at + j * kPairedDepth,
                   rest + at + j * kPairedDepth);
  }
}

template <int Rows>
void pack_paired_dispatch(const PanelSource& source, uint16_t* panel) {
  if (source.rows == Rows)
    pack_paired_rows<Rows>(source, panel);
  else if constexpr (Rows > 1)
    pack_paired_dispatch<Rows - 1>(source, panel);
}

void pack_paired_panel(const PanelSource& source, void* panel) {
  pack_paired_dispatch<kMaxRows>(source, static_cast<uint16_t*>(panel));
}

}  // namespace
}  // namespace rledit::cpu::RLEDIT_ISA
