// Histograms of a binary classifier's margins, and the concordant pairs of positives and negatives.
#pragma once

#include <vector>

#include "counting.hpp"

namespace rledit::cpu {

// The pairs of positives and negatives that concordance is about. Samples of the same groups are one column, so
// that a sample counts once, in however many groups it is; where there are too many kinds of samples the groups
// themselves are the columns. A column has kMostCounted negatives at most; then another one goes on.
class Pairs {
 public:
  explicit Pairs(const PackedSamples& samples);

  int64_t columns() const { return static_cast<int64_t>(groups_.size()); }
  int64_t padded_columns() const { return (columns() + kColumns - 1) / kColumns * kColumns; }
  uint64_t groups(int64_t column) const { return groups_[column]; }

  struct Negative {
    int32_t sample;
    int32_t column;
  };
  const std::vector<Negative>& negatives() const { return negatives_; }
  const std::vector<int32_t>& positives(int64_t column) const { return positives_[column]; }  // samples

 private:
  std::vector<uint64_t> groups_;
  std::vector<Negative> negatives_;
  std::vector<std::vector<int32_t>> positives_;
};

// Margins are kept until a candidate has those of all samples: its table stays in cache then, where going from
// candidate to candidate with every few samples would fetch one from memory each time.
class Ranking {
 public:
  // pairs: of these samples, if concordant pairs are wanted.
  Ranking(const Kernels& kernels, const PackedSamples& samples, const Pairs* pairs, const Tally& tally,
          int threads);

  bool wanted() const { return tally_.histogram != nullptr || tally_.concordant != nullptr; }

  // Counts one candidate from its margins [tiles, kTile] on all samples.
  void count(int64_t candidate, const float* margins, int worker);

 private:
  struct Scratch {
    std::vector<int32_t> places;  // [tiles, kTile]
    std::vector<uint16_t> table;  // [bins, columns]
    std::vector<int32_t> sums;    // [columns]
    std::vector<int64_t> pairs;   // [columns, columns]
  };

  void count_histogram(int64_t candidate, const Scratch& scratch) const;
  void count_concordant(int64_t candidate, Scratch& scratch) const;

  const Kernels& kernels_;
  const PackedSamples& samples_;
  const Pairs* pairs_;
  const Tally& tally_;
  std::vector<Scratch> scratch_;
};

}  // namespace rledit::cpu
