// Histograms of a binary classifier's margins, and the concordant pairs of positives and negatives.
#pragma once

#include <vector>

#include "counting.hpp"
#include "memory.hpp"

namespace rledit::cpu {

// Margins are kept until a candidate has those of many samples: one candidate's histograms stay in cache then,
// where going from candidate to candidate with every few samples would fetch them from memory each time.
class Ranking {
 public:
  // parts: what add() brings of a candidate is not all there is of it.
  Ranking(const Kernels& kernels, const PackedSamples& samples, const Tally& tally, int64_t candidates,
          bool parts, int threads);

  bool wanted() const { return tally_.histogram != nullptr || tally_.concordant != nullptr; }

  // Counts one candidate's margins [tiles][kTile] on the tiles from `first_tile` on.
  void add(int64_t candidate, const float* margins, int64_t first_tile, int64_t tiles, int worker);

  // After the last add().
  void finish(int threads);

  // How many candidates to take at once, so that what is kept of candidates that come in parts stays small.
  static int64_t at_once(const PackedSamples& samples, const Tally& tally);

 private:
  struct Scratch {
    std::vector<int32_t> places;
    std::vector<int32_t> rows;       // [kinds, 2, bins]
    std::vector<int32_t> histogram;  // [groups, 2, bins]
    std::vector<double> concordance;
  };

  int64_t size() const { return samples_.groups() * 2 * tally_.bins; }  // of one candidate's histogram
  void count(const float* margins, int64_t first_tile, int64_t tiles, Scratch& scratch) const;
  void count_concordant(int64_t candidate, const int32_t* histogram, Scratch& scratch) const;

  const Kernels& kernels_;
  const PackedSamples& samples_;
  const Tally& tally_;
  int64_t candidates_;
  bool parts_;
  bool by_kind_;
  std::vector<Scratch> scratch_;
  std::vector<int32_t> collected_;  // [candidates, groups, 2, bins], of candidates that come in parts
};

}  // namespace rledit::cpu
