// What score_tail and tally_logits share: samples packed for counting, and where a tile's counts go.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.hpp"

namespace rledit::cpu {

// Fewer, and weights that lie beyond a core's caches arrive too slowly for what is done with them; more, and
// what a wide layer makes of a chunk takes too much memory.
constexpr int64_t kMaxTilesPerChunk = 8;

// Labels and groups in the tile layout, padded with samples that belong to no group. Labels are checked as
// they are copied, because whoever owns the array may still write to it.
//
// Where a probe learns from some of them, those come first, sorted by label, in whole tiles of their own; the
// others follow. A slot is a sample's place in all tiles.
class PackedSamples {
 public:
  // fit: [count] or nullptr. Throws std::invalid_argument for a label outside.
  PackedSamples(const Samples& samples, int64_t classes, const uint8_t* fit = nullptr);

  int64_t count() const { return count_; }
  int64_t groups() const { return groups_; }
  int64_t tiles() const { return tiles_; }
  int64_t slots() const { return tiles_ * kTile; }
  int64_t fit_count() const { return fit_count_; }
  int64_t fit_tiles() const { return (fit_count_ + kTile - 1) / kTile; }
  int64_t bytes() const;
  int valid(int64_t tile) const;  // samples of the tile that are not padding, which comes last
  bool reordered() const { return !order_.empty(); }
  int64_t sample(int64_t slot) const;  // -1 for padding
  // Of values [count, depth] the rows of a tile's samples, gathered in memory where they do not lie together.
  const float* rows(const float* values, int64_t depth, int64_t tile, std::vector<float>& memory) const;
  TileSamples tile(int64_t index) const;

 private:
  void reorder(const std::vector<int32_t>& labels, const uint8_t* fit);

  int64_t count_;
  int64_t groups_;
  int64_t fit_count_ = 0;
  std::vector<int32_t> order_;  // [slots], empty where samples lie as they came
  int64_t tiles_;
  std::vector<int32_t> labels_;       // [tiles, kTile]
  std::vector<uint64_t> membership_;  // [tiles, kTile]
  std::vector<uint64_t> planes_;      // [tiles, groups]
  std::vector<uint64_t> positives_;   // [tiles]
};

// Sums of floats depend on their order: the samples of a chunk are summed first, then the chunks in their
// order, whichever threads made them. Where several threads work on one candidate, the sums of the chunks
// wait here.
class LossPartials {
 public:
  LossPartials(const Tally& tally, int64_t candidates, int64_t groups, int64_t chunks, bool shared);
  // Where the sum of a chunk goes, [groups], zeroed; or nullptr where no loss is wanted.
  double* at(int64_t candidate, int64_t chunk, double* own);
  // After a chunk that no other thread works on.
  void add_chunk(const Tally& tally, int64_t candidate, const double* sums) const;
  void add_all(const Tally& tally, int64_t chunks);  // adds chunks 0..chunks-1 of all candidates and clears

 private:
  int64_t candidates_;
  int64_t groups_;
  int64_t chunks_;
  bool wanted_;
  std::vector<double> sums_;  // [candidates, chunks, groups], empty where threads share no candidate
};

// The counters of one candidate.
TileTally tile_tally(const Tally& tally, int64_t candidate, int64_t groups, int64_t classes, double* loss,
                     bool shared);

// How to spread candidates and chunks over threads: candidates in blocks, so that a chunk of activations
// stays in cache while a block of candidates passes over it; and where that makes few blocks for the threads,
// the chunks in parts, whose threads then share counters.
struct Schedule {
  int64_t block;
  int64_t blocks;
  int64_t parts;

  // `stack`: candidates that are worked on together, so that a block should hold a whole number of stacks.
  Schedule(int64_t candidates, int64_t chunks, int threads, int64_t stack = 1);
  int64_t items() const { return blocks * parts; }
  bool shares_candidates() const { return parts > 1; }
};

}  // namespace rledit::cpu
