// From the margins of a binary classifier to histograms, and to how well its positives are ranked.
#pragma once

#include "kernels.hpp"
#include "vector_math.hpp"

namespace rledit::cpu::RLEDIT_ISA {
namespace {

typedef double vdouble __attribute__((vector_size(8 * RLEDIT_LANES / 2)));
constexpr int kDoubles = RLEDIT_LANES / 2;

inline int32_t bin_of(float margin, const Binning& binning) {
  const float position = (margin + binning.limit) * (static_cast<float>(binning.bins) / (2.0F * binning.limit));
  if (!(position > 0.0F)) return 0;
  const int32_t last = static_cast<int32_t>(binning.bins) - 1;
  return position < static_cast<float>(binning.bins) ? static_cast<int32_t>(position) : last;
}

void place(const float* margins, const int32_t* rows, int64_t count, const Binning& binning, int32_t* places) {
  const vfloat limit = broadcast(binning.limit);
  const vfloat factor = broadcast(static_cast<float>(binning.bins) / (2.0F * binning.limit));
  const vfloat bins = broadcast(static_cast<float>(binning.bins));
  const vfloat last = broadcast(static_cast<float>(binning.bins - 1));
  const vint none = vint{} - 1;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const vfloat margin = load(margins + i);
    const vfloat position = (margin + limit) * factor;
    vfloat bin = select(position > 0.0F, position, broadcast(0.0F));
    bin = select(bin < bins, bin, last);
    const vint row = rows != nullptr ? load(rows + i) : vint{};
    const vint at = row * static_cast<int32_t>(binning.bins) + __builtin_convertvector(bin, vint);
    store(places + i, select((margin == margin) & (row >= 0), at, none));
  }
  for (; i < count; ++i) {
    const int32_t row = rows != nullptr ? rows[i] : 0;
    const bool counts = margins[i] == margins[i] && row >= 0;
    places[i] = counts ? row * static_cast<int32_t>(binning.bins) + bin_of(margins[i], binning) : -1;
  }
}

void accumulate(const int32_t* from, int64_t count, int32_t* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(to + i, load(to + i) + load(from + i));
  for (; i < count; ++i) to[i] += from[i];
}

inline vdouble load_doubles(const double* from) {
  vdouble value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}

// Sums of products of Rows x Columns pairs of rows: integers far below 2^53, so no order of additions matters.
template <int Rows, int Columns>
inline void dot_rows(const double* left, const double* right, int64_t stride, int64_t* out,
                     int64_t out_stride) {
  vdouble sum[Rows][Columns] = {};
  for (int64_t k = 0; k < stride; k += kDoubles) {
    vdouble b[Columns];
#pragma GCC unroll 4
    for (int j = 0; j < Columns; ++j) b[j] = load_doubles(right + j * stride + k);
#pragma GCC unroll 4
    for (int i = 0; i < Rows; ++i) {
      const vdouble a = load_doubles(left + i * stride + k);
#pragma GCC unroll 4
      for (int j = 0; j < Columns; ++j) sum[i][j] += a * b[j];
    }
  }
  for (int i = 0; i < Rows; ++i)
    for (int j = 0; j < Columns; ++j) {
      double total = 0.0;
      for (int lane = 0; lane < kDoubles; ++lane) total += sum[i][j][lane];
      out[i * out_stride + j] = static_cast<int64_t>(total);
    }
}

void concordance(const int32_t* histogram, int64_t groups, int64_t bins, double* scratch, int64_t* out) {
  const int64_t stride = padded_bins(bins);
  double* positives = scratch;                 // [groups][stride]
  double* passed = scratch + groups * stride;  // twice the negatives in lower bins, plus those in the same
  for (int64_t g = 0; g < groups; ++g) {
    const int32_t* negative = histogram + g * 2 * bins;
    const int32_t* positive = negative + bins;
    int64_t below = 0;
    for (int64_t b = 0; b < bins; ++b) {
      positives[g * stride + b] = positive[b];
      passed[g * stride + b] = static_cast<double>(2 * below + negative[b]);
      below += negative[b];
    }
    for (int64_t b = bins; b < stride; ++b) positives[g * stride + b] = passed[g * stride + b] = 0.0;
  }
  int64_t a = 0;
  for (; a + 4 <= groups; a += 4) {
    int64_t b = 0;
    for (; b + 4 <= groups; b += 4)
      dot_rows<4, 4>(positives + a * stride, passed + b * stride, stride, out + a * groups + b, groups);
    for (; b < groups; ++b)
      dot_rows<4, 1>(positives + a * stride, passed + b * stride, stride, out + a * groups + b, groups);
  }
  for (; a < groups; ++a)
    for (int64_t b = 0; b < groups; ++b)
      dot_rows<1, 1>(positives + a * stride, passed + b * stride, stride, out + a * groups + b, groups);
}

}  // namespace
}  // namespace rledit::cpu::RLEDIT_ISA
