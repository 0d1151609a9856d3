// From the logits of a tile to counts.
#pragma once

#include "kernels.hpp"
#include "vector_math.hpp"

namespace rledit::cpu::RLEDIT_ISA {
namespace {

inline void add(int64_t* counter, int64_t value, bool shared) {
  if (shared)
    __atomic_fetch_add(counter, value, __ATOMIC_RELAXED);
  else
    *counter += value;
}

// Calls visit(group) for every group of a sample.
template <typename Visit>
inline void for_groups(uint64_t membership, Visit visit) {
  for (; membership != 0; membership &= membership - 1) visit(__builtin_ctzll(membership));
}

struct Predictions {
  alignas(64) int32_t label[kTile];   // first class with the largest logit
  alignas(64) int32_t finite[kTile];  // -1 where all logits are finite, else 0
  alignas(64) float best[kTile];
};

// The samples whose label is predicted, as bits. `Keep`: the predictions, too.
template <bool Keep>
inline uint64_t predict(const float* logits, int64_t classes, const int32_t* labels, Predictions& out) {
  constexpr int kTogether = 4;  // vectors side by side, because each class waits for the one before
  uint64_t hits = 0;
  for (int i = 0; i < kTile; i += kTogether * kLanes) {
    vfloat best[kTogether];
    vfloat zero[kTogether];  // becomes NaN with the first logit that is not finite
    vint label[kTogether];
#pragma GCC unroll 4
    for (int v = 0; v < kTogether; ++v) {
      best[v] = load(logits + i + v * kLanes);
      zero[v] = best[v] * 0.0F;
      label[v] = vint{};
    }
    for (int64_t c = 1; c < classes; ++c) {
      const vint number = vint{} + static_cast<int32_t>(c);
#pragma GCC unroll 4
      for (int v = 0; v < kTogether; ++v) {
        const vfloat logit = load(logits + c * kTile + i + v * kLanes);
        const vint larger = logit > best[v];
        best[v] = select(larger, logit, best[v]);
        label[v] = select(larger, number, label[v]);
        zero[v] += logit * 0.0F;
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < kTogether; ++v) {
      const int at = i + v * kLanes;
      const vint finite = zero[v] == 0.0F;
      hits |= uint64_t{sample_bits((label[v] == load(labels + at)) & finite)} << at;
      if (!Keep) continue;
      store(out.label + at, label[v]);
      store(out.finite + at, finite);
      store(out.best + at, best[v]);
    }
  }
  return hits;
}

// Cross-entropy of each sample, log(sum exp(logit - best)) + (best - logit[label]). In double, because the
// difference of two finite floats may overflow and the loss of a sure prediction is far below their rounding.
inline void cross_entropy(const float* logits, int64_t classes, const TileSamples& samples,
                          const Predictions& predictions, double* loss) {
  alignas(64) float log_sum[kTile];
  for (int i = 0; i < kTile; i += kLanes) {
    const vfloat best = load(predictions.best + i);
    vfloat sum = broadcast(0.0F);
    for (int64_t c = 0; c < classes; ++c) sum += exponential(load(logits + c * kTile + i) - best);
    store(log_sum + i, logarithm(sum));
  }
  for (int i = 0; i < kTile; ++i) {
    const double behind = static_cast<double>(predictions.best[i]) - logits[samples.labels[i] * kTile + i];
    loss[i] = log_sum[i] + behind;
  }
}

// exp(z_j - z_label) summed over the other classes, which rises with the loss and stays precise near 0.
void write_odds(const float* logits, int64_t classes, const int32_t* labels, float* odds) {
  alignas(64) float own[kTile];
  for (int i = 0; i < kTile; ++i) own[i] = logits[labels[i] * kTile + i];
  for (int i = 0; i < kTile; i += kLanes) {
    const vfloat base = load(own + i);
    const vint label = load(labels + i);
    vfloat sum = broadcast(0.0F);
    vfloat nothing = broadcast(0.0F);  // becomes NaN with the first logit that is not finite
    for (int64_t c = 0; c < classes; ++c) {
      const vfloat logit = load(logits + c * kTile + i);
      const vint others = label != vint{} + static_cast<int32_t>(c);
      sum += select(others, exponential(logit - base), broadcast(0.0F));
      nothing += logit * 0.0F;
    }
    store(odds + i, select(nothing == 0.0F, sum, broadcast(__builtin_inff())));
  }
}

uint64_t recall(const float* scores, int64_t classes, const int32_t* labels) {
  Predictions unused;
  return predict<false>(scores, classes, labels, unused);
}

// Two classes: everything but the loss from a few machine words, one bit a sample.
inline void count_two(const float* logits, const TileSamples& samples, const TileTally& tally) {
  uint64_t finite = 0;
  uint64_t ones = 0;  // predictions
  for (int i = 0; i < kTile; i += kLanes) {
    const vfloat zero = load(logits + i);
    const vfloat one = load(logits + kTile + i);
    const vfloat nothing = zero * 0.0F + one * 0.0F;  // NaN where a logit is not finite
    finite |= uint64_t{sample_bits(nothing == 0.0F)} << i;
    ones |= uint64_t{sample_bits(one > zero)} << i;
    if (tally.margins != nullptr) store(tally.margins + i, (one - zero) + nothing);
  }
  ones &= finite;
  const uint64_t zeros = finite & ~ones;
  const uint64_t positives = samples.positives;
  const auto count_bits = [](uint64_t bits) { return __builtin_popcountll(bits); };
  for (int64_t g = 0; g < samples.groups; ++g) {
    const uint64_t plane = samples.planes[g];
    if (plane == 0) continue;  // where samples are sorted by group, most of them
    const uint64_t own[2] = {zeros & plane, ones & plane};
    if (tally.correct != nullptr)
      add(tally.correct + g, count_bits((own[1] & positives) | (own[0] & ~positives)), tally.shared);
    for (int c = 0; c < 2; ++c) {
      if (tally.predicted != nullptr) add(tally.predicted + g * 2 + c, count_bits(own[c]), tally.shared);
      if (tally.confusion == nullptr) continue;
      add(tally.confusion + g * 4 + c, count_bits(own[c] & ~positives), tally.shared);
      add(tally.confusion + g * 4 + 2 + c, count_bits(own[c] & positives), tally.shared);
    }
  }
}

void count(const float* logits, int64_t classes, const TileSamples& samples, const TileTally& tally) {
  const bool two = classes == 2;
  if (tally.odds != nullptr) write_odds(logits, classes, samples.labels, tally.odds);
  if (two) {
    count_two(logits, samples, tally);
    if (tally.loss == nullptr) return;
  }
  const bool scatters = !two && (tally.predicted != nullptr || tally.confusion != nullptr);
  Predictions predictions;
  const uint64_t hits = scatters || tally.loss != nullptr
                            ? predict<true>(logits, classes, samples.labels, predictions)
                            : predict<false>(logits, classes, samples.labels, predictions);
  if (!two && tally.correct != nullptr)
    for (int64_t g = 0; g < samples.groups; ++g)
      add(tally.correct + g, __builtin_popcountll(hits & samples.planes[g]), tally.shared);
  if (scatters) {
    for (int i = 0; i < kTile; ++i) {
      if (predictions.finite[i] == 0) continue;
      const int64_t predicted = predictions.label[i];
      const int64_t label = samples.labels[i];
      for_groups(samples.membership[i], [&](int64_t g) {
        if (tally.predicted != nullptr) add(tally.predicted + g * classes + predicted, 1, tally.shared);
        if (tally.confusion != nullptr)
          add(tally.confusion + (g * classes + label) * classes + predicted, 1, tally.shared);
      });
    }
  }
  if (tally.loss != nullptr) {
    double loss[kTile];
    cross_entropy(logits, classes, samples, predictions, loss);
    for (int i = 0; i < kTile; ++i) {
      const double value = predictions.finite[i] != 0 ? loss[i] : kInvalidLoss;
      for_groups(samples.membership[i], [&](int64_t g) { tally.loss[g] += value; });
    }
  }
}

}  // namespace
}  // namespace rledit::cpu::RLEDIT_ISA
