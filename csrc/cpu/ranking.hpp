// Histograms of a binary classifier's margins, the concordant pairs of positives and negatives, and pairs of
// samples by their losses.
#pragma once

#include <vector>

#include "counting.hpp"

namespace rledit::cpu {

// The pairs of positives and negatives that concordance is about, or of all samples with all. Samples of the
// same groups are one column, so that a sample counts once, in however many groups it is; where there are too
// many kinds of samples the groups themselves are the columns. A column has kMostCounted negatives at most;
// then another one goes on.
class Pairs {
 public:
  enum class Of { labels, all };  // positives and negatives by label; or every sample is both
  Pairs(const PackedSamples& samples, Of of);

  int64_t columns() const { return static_cast<int64_t>(groups_.size()); }
  int64_t padded_columns() const { return (columns() + kColumns - 1) / kColumns * kColumns; }
  uint64_t groups(int64_t column) const { return groups_[column]; }

  struct Negative {
    int32_t sample;  // its slot
    int32_t column;
  };
  const std::vector<Negative>& negatives() const { return negatives_; }
  const std::vector<int32_t>& positives(int64_t column) const { return positives_[column]; }  // samples

 private:
  std::vector<uint64_t> groups_;
  std::vector<Negative> negatives_;
  std::vector<std::vector<int32_t>> positives_;
};

// Counts pairs of which the positive is in a higher bin, twice, or in the same, once.
class PairCounter {
 public:
  PairCounter(const Kernels& kernels, const Pairs& pairs, int64_t bins, int64_t groups);

  // places: the bin of each slot's sample, -1: not counted. Adds to out [groups, groups].
  void count(const int32_t* places, int64_t* out);

 private:
  const Kernels& kernels_;
  const Pairs& pairs_;
  int64_t bins_;
  int64_t groups_;
  std::vector<uint16_t> table_;  // [bins, columns]
  std::vector<int32_t> sums_;    // [columns]
  std::vector<int64_t> counts_;  // [columns, columns]
};

// What is ranked is kept until a candidate has it of all samples: its table stays in cache then, where going
// from candidate to candidate with every few samples would fetch one from memory each time.
class Ranking {
 public:
  // Where the samples of some pairs are ranked, those pairs are asked for: Pairs::Of::labels for concordant
  // pairs, Pairs::Of::all for losses.
  Ranking(const Kernels& kernels, const PackedSamples& samples, const Pairs* by_label, const Pairs* all,
          const Tally& tally, int threads);

  bool margins_wanted() const { return tally_.histogram != nullptr || tally_.concordant != nullptr; }
  bool odds_wanted() const { return tally_.lower_loss != nullptr; }

  // Counts one candidate from what is wanted of its margins and its odds, [tiles, kTile] on all samples.
  void count(int64_t candidate, const float* margins, const float* odds, int worker);

 private:
  struct Scratch {
    std::vector<int32_t> places;             // [tiles, kTile]
    std::vector<PairCounter> by_label, all;  // one or none
  };

  void count_histogram(int64_t candidate, const Scratch& scratch) const;

  const Kernels& kernels_;
  const PackedSamples& samples_;
  const Tally& tally_;
  std::vector<Scratch> scratch_;
};

}  // namespace rledit::cpu
