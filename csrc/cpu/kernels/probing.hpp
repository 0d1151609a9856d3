// What the hardware reaches at best: multiply-adds on registers, and reads.
#pragma once

#include "kernels.hpp"
#include "layouts.hpp"
#include "vector_math.hpp"
#if RLEDIT_BF16 == 1
#include "paired_products.hpp"
#endif

namespace rledit::cpu::RLEDIT_ISA {
namespace {

constexpr int kChains = 12;  // sums that grow side by side, enough to hide the latency of each addition
constexpr int64_t kRounds = 100'000;

inline int64_t float_peak() {
  vfloat sums[kChains];
  for (int j = 0; j < kChains; ++j) sums[j] = broadcast(1.0F + static_cast<float>(j));
  vfloat factor = broadcast(0.999F);
  __asm__ volatile("" : "+m"(factor));  // not known to the compiler
  for (int64_t i = 0; i < kRounds; ++i)
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) sums[j] = sums[j] * factor + factor;
  for (int j = 0; j < kChains; ++j) __asm__ volatile("" ::"m"(sums[j]));  // and somebody wants them
  return kRounds * kChains * kLanes * 2;
}

int64_t peak(Operands operands) {
#if RLEDIT_BF16 == 1
  if (is_paired(operands)) {
    __m512 sums[kChains];
    for (int j = 0; j < kChains; ++j) sums[j] = _mm512_set1_ps(1.0F + static_cast<float>(j));
    __m512i ones = _mm512_set1_epi32(0x3f803f80);
    __asm__ volatile("" : "+m"(ones));
    for (int64_t i = 0; i < kRounds; ++i)
#pragma GCC unroll 12
      for (int j = 0; j < kChains; ++j) sums[j] = _mm512_dpbf16_ps(sums[j], pairs_of(ones), pairs_of(ones));
    for (int j = 0; j < kChains; ++j) __asm__ volatile("" ::"m"(sums[j]));
    return kRounds * kChains * 16 * 4;
  }
#elif RLEDIT_BF16 > 1
  if (is_paired(operands)) {
    const int64_t rounds = kRounds / 16;
    RLEDIT_TILE_ZERO(0);
    RLEDIT_TILE_ZERO(1);
    RLEDIT_TILE_ZERO(2);
    RLEDIT_TILE_ZERO(3);
    RLEDIT_TILE_ZERO(4);
    RLEDIT_TILE_ZERO(5);
    for (int64_t i = 0; i < rounds; ++i) {
      RLEDIT_TILE_MULTIPLY(0, 4, 5);
      RLEDIT_TILE_MULTIPLY(1, 4, 5);
      RLEDIT_TILE_MULTIPLY(2, 4, 5);
      RLEDIT_TILE_MULTIPLY(3, 4, 5);
    }
    const int products = operands == Operands::split ? 3 : 1;  // instead of one float32 product
    return rounds * 4 * (16 * 16 * 32) * 2 / products;
  }
#endif
  (void)operands;
  return float_peak();
}

float read(const float* from, int64_t count) {
  vfloat sums[8] = {};
  int64_t i = 0;
  for (; i + 8 * kLanes <= count; i += 8 * kLanes)
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) sums[j] += load(from + i + j * kLanes);
  float total = 0.0F;
  for (int j = 0; j < 8; ++j)
    for (int lane = 0; lane < kLanes; ++lane) total += sums[j][lane];
  return total;
}

}  // namespace
}  // namespace rledit::cpu::RLEDIT_ISA
