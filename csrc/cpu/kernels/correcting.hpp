// Two layers in one pass: a correction of low rank, and the few outputs of the next layer.
//
// A product of low rank has little to do between a load and a store, so its speed is that of the cache. Here
// what it gives is taken up at once by the next layer, whose sums stay in registers, and is never stored.
#pragma once

#include "kernels.hpp"
#include "products.hpp"
#include "vector_math.hpp"
#if RLEDIT_BF16
#include "paired_packing.hpp"
#endif

namespace rledit::cpu::RLEDIT_ISA {
namespace {

// The next rows of first(initial + left @ reduced), one at a time.
template <int Vecs>
class CorrectedRows {
 public:
  CorrectedRows(const Correction& correction, int column)
      : correction_(correction),
        column_(column),
        initial_(correction.initial + column),
        left_(correction.left) {}

  void next(vfloat (&row)[Vecs]) {
#pragma GCC unroll 4
    for (int v = 0; v < Vecs; ++v) row[v] = load(initial_ + v * kLanes);
    const float* reduced = correction_.reduced + column_;
    int64_t r = 0;
    for (; r + kRanks <= correction_.rank; r += kRanks)
#pragma GCC unroll 4
      for (int i = 0; i < kRanks; ++i) add(row, left_[r + i], reduced + (r + i) * kTile);
    for (; r < correction_.rank; ++r) add(row, left_[r], reduced + r * kTile);
    if (correction_.first == Nonlinearity::relu)
#pragma GCC unroll 4
      for (int v = 0; v < Vecs; ++v) row[v] = relu(row[v]);
    initial_ += kTile;
    left_ += correction_.rank;
  }

 private:
  const Correction& correction_;
  int column_;
  const float* initial_;
  const float* left_;

  static constexpr int kRanks = 4;  // at once, because counting them one by one would cost as much as they do

  static void add(vfloat (&row)[Vecs], float left, const float* reduced) {
    const vfloat w = broadcast(left);
#pragma GCC unroll 4
    for (int v = 0; v < Vecs; ++v) row[v] += w * load(reduced + v * kLanes);
  }
};

template <int Rows, int Vecs>
inline void start_sums(const Correction& correction, vfloat (&sum)[Rows][Vecs]) {
#pragma GCC unroll 16
  for (int j = 0; j < Rows; ++j)
#pragma GCC unroll 4
    for (int v = 0; v < Vecs; ++v)
      sum[j][v] = broadcast(correction.bias != nullptr ? correction.bias[j] : 0.0F);
}

template <int Rows, int Vecs>
inline void store_sums(const Correction& correction, int column, const vfloat (&sum)[Rows][Vecs]) {
#pragma GCC unroll 16
  for (int j = 0; j < Rows; ++j)
#pragma GCC unroll 4
    for (int v = 0; v < Vecs; ++v) store(correction.out + j * kTile + column + v * kLanes, sum[j][v]);
}

template <int Rows, int Vecs, bool Rounded>
inline void correct_block(const Correction& correction, int column) {
  vfloat sum[Rows][Vecs];
  start_sums<Rows, Vecs>(correction, sum);
  CorrectedRows<Vecs> rows(correction, column);
  const float* panel = static_cast<const float*>(correction.panel);
  for (int64_t k = 0; k < correction.depth; k += kPanelDepth, panel += Rows * kPanelDepth) {
    const int64_t rest = correction.depth - k;
    const int limit = rest < kPanelDepth ? static_cast<int>(rest) : kPanelDepth;
    for (int i = 0; i < limit; ++i) {
      vfloat x[Vecs];
      rows.next(x);
#pragma GCC unroll 4
      for (int v = 0; v < Vecs; ++v)
        if (Rounded) x[v] = rounded_bf16(x[v]);
#pragma GCC unroll 16
      for (int j = 0; j < Rows; ++j) {
        const vfloat w = broadcast(panel[j * kPanelDepth + i]);
#pragma GCC unroll 4
        for (int v = 0; v < Vecs; ++v) sum[j][v] += w * x[v];
      }
    }
  }
  store_sums<Rows, Vecs>(correction, column, sum);
}

#if RLEDIT_BF16 == 1
template <int Rows, int Vecs>
inline void correct_paired_block(const Correction& correction, int column) {
  vfloat sum[Rows][Vecs];
  start_sums<Rows, Vecs>(correction, sum);
  CorrectedRows<Vecs> rows(correction, column);
  const char* panel = static_cast<const char*>(correction.panel);
  for (int64_t k = 0; k < correction.depth; k += kPairedDepth, panel += int64_t{2} * kPairedDepth * Rows) {
    const int64_t rest = correction.depth - k;
    const int limit = rest < kPairedDepth ? static_cast<int>(rest) : kPairedDepth;
    for (int i = 0; i < limit; i += 2) {
      vfloat even[Vecs];
      vfloat odd[Vecs] = {};
      rows.next(even);
      if (i + 1 < limit) rows.next(odd);
      vuint x[Vecs];
#pragma GCC unroll 4
      for (int v = 0; v < Vecs; ++v) x[v] = nearest_pair(even[v], odd[v]);
#pragma GCC unroll 16
      for (int j = 0; j < Rows; ++j) {
        int32_t pair;
        std::memcpy(&pair, panel + 2 * kPairedDepth * j + 2 * i, sizeof(pair));
        const __m512bh w = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 4
        for (int v = 0; v < Vecs; ++v)
          sum[j][v] = (vfloat)_mm512_dpbf16_ps((__m512)sum[j][v], (__m512bh)x[v], w);
      }
    }
  }
  store_sums<Rows, Vecs>(correction, column, sum);
}
#endif

template <int Rows>
void correct_dispatch(const Correction& correction) {
  if (correction.rows == Rows) {
    constexpr int kVecs = 2 * Rows <= kMaxRows ? 4 : 2;
    for (int column = 0; column < kTile; column += kVecs * kLanes) {
#if RLEDIT_BF16 == 1
      if (correction.operands == Operands::bf16) {
        correct_paired_block<Rows, kVecs>(correction, column);
        continue;
      }
#endif
      if (correction.operands == Operands::rounded)
        correct_block<Rows, kVecs, true>(correction, column);
      else
        correct_block<Rows, kVecs, false>(correction, column);
    }
  } else if constexpr (Rows > 1) {
    correct_dispatch<Rows - 1>(correction);
  }
}

bool corrects(Operands operands) {
  return operands == Operands::float32 || operands == Operands::rounded ||
         (RLEDIT_BF16 == 1 && operands == Operands::bf16);
}

void correct(const Correction& correction) {
  correct_dispatch<kMaxRows>(correction);
  if (correction.nonlinearity == Nonlinearity::identity) return;
  for (int64_t i = 0; i < int64_t{correction.rows} * kTile; i += kLanes)
    store(correction.out + i, activated(load(correction.out + i), correction.nonlinearity));
}

}  // namespace
}  // namespace rledit::cpu::RLEDIT_ISA
