// From the margins of a binary classifier to how well its positives are ranked.
#pragma once

#include "kernels.hpp"
#include "vector_math.hpp"

namespace rledit::cpu::RLEDIT_ISA {
namespace {

void place(const float* margins, int64_t count, const Binning& binning, int32_t* places) {
  const vfloat limit = broadcast(binning.limit);
  const vfloat factor = broadcast(static_cast<float>(binning.bins) / (2.0F * binning.limit));
  const vfloat bins = broadcast(static_cast<float>(binning.bins));
  const vfloat last = broadcast(static_cast<float>(binning.bins - 1));
  const vint none = vint{} - 1;
  for (int64_t i = 0; i < count; i += kLanes) {
    const vfloat margin = load(margins + i);
    const vfloat position = (margin + limit) * factor;
    vfloat bin = select(position > 0.0F, position, broadcast(0.0F));
    bin = select(bin < bins, bin, last);
    store(places + i, select(margin == margin, __builtin_convertvector(bin, vint), none));
  }
}

// The exponent and the upper 6 bits of the mantissa, 64 bins an octave from 2^-40 on.
void place_odds(const float* odds, int64_t count, int32_t* places) {
  constexpr int32_t kLowest = (127 - 40) * 64;
  const vint last = vint{} + static_cast<int32_t>(kLossBins - 1);
  for (int64_t i = 0; i < count; i += kLanes) {
    vint bin = ((vint)load(odds + i) >> 17) - kLowest;
    bin = select(bin > 0, bin, vint{});
    bin = select(bin < last, bin, last);
    store(places + i, last - bin);
  }
}

typedef uint16_t vcounts __attribute__((vector_size(4 * RLEDIT_LANES)));
typedef uint16_t vhalf_counts __attribute__((vector_size(2 * RLEDIT_LANES)));

void pass(uint16_t* table, int64_t bins, int64_t columns) {
  for (int64_t column = 0; column < columns; column += 2 * kLanes) {
    vcounts below = {};
    for (int64_t b = 0; b < bins; ++b) {
      uint16_t* at = table + b * columns + column;
      vcounts own;
      std::memcpy(&own, at, sizeof(own));
      const vcounts passed = below + below + own;
      std::memcpy(at, &passed, sizeof(passed));
      below += own;
    }
  }
}

template <int Vecs>
inline void sum_rows_part(const uint16_t* table, int64_t columns, const int32_t* places, const int32_t* samples,
                          int64_t count, int32_t* out) {
  vint sum[Vecs] = {};
  for (int64_t i = 0; i < count; ++i) {
    const int32_t bin = places[samples[i]];
    if (bin < 0) continue;
#pragma GCC unroll 4
    for (int v = 0; v < Vecs; ++v) {
      vhalf_counts row;
      std::memcpy(&row, table + bin * columns + v * kLanes, sizeof(row));
      sum[v] += __builtin_convertvector(row, vint);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < Vecs; ++v) store(out + v * kLanes, sum[v]);
}

void sum_rows(const uint16_t* table, int64_t columns, const int32_t* places, const int32_t* samples,
              int64_t count, int32_t* out) {
  int64_t column = 0;
  for (; column + 4 * kLanes <= columns; column += 4 * kLanes)
    sum_rows_part<4>(table + column, columns, places, samples, count, out + column);
  for (; column < columns; column += 2 * kLanes)
    sum_rows_part<2>(table + column, columns, places, samples, count, out + column);
}

}  // namespace
}  // namespace rledit::cpu::RLEDIT_ISA
