#include "ranking.hpp"

#include <algorithm>
#include <map>
#include <utility>

namespace rledit::cpu {

Pairs::Pairs(const PackedSamples& samples, Of of) {
  constexpr size_t kMostKinds = 256;
  std::map<uint64_t, int32_t> kinds;
  for (int64_t i = 0; i < samples.slots() && kinds.size() <= kMostKinds; ++i) {
    const uint64_t groups = samples.tile(i / kTile).membership[i % kTile];
    if (groups != 0 && kinds.try_emplace(groups, static_cast<int32_t>(kinds.size())).second)
      groups_.push_back(groups);
  }
  const bool by_kind = kinds.size() <= kMostKinds;
  if (!by_kind) {
    groups_.clear();
    for (int64_t g = 0; g < samples.groups(); ++g) groups_.push_back(uint64_t{1} << g);
  }
  positives_.resize(groups_.size());
  // Of each kind the column that takes its negatives, and how many it has.
  std::vector<std::pair<int32_t, int64_t>> open;
  for (size_t column = 0; column < groups_.size(); ++column) open.emplace_back(column, 0);
  const auto add = [&](int64_t sample, int32_t label, int32_t kind) {
    if (of == Of::all || label == 1) positives_[kind].push_back(static_cast<int32_t>(sample));
    if (of == Of::labels && label == 1) return;
    auto& [column, counted] = open[kind];
    if (counted == kMostCounted) {
      column = static_cast<int32_t>(groups_.size());
      counted = 0;
      groups_.push_back(groups_[kind]);
      positives_.emplace_back();
    }
    ++counted;
    negatives_.push_back({static_cast<int32_t>(sample), column});
  };
  for (int64_t i = 0; i < samples.slots(); ++i) {
    const TileSamples tile = samples.tile(i / kTile);
    uint64_t groups = tile.membership[i % kTile];
    const int32_t label = tile.labels[i % kTile];
    if (by_kind && groups != 0) {
      add(i, label, kinds.at(groups));
      continue;
    }
    for (; groups != 0; groups &= groups - 1) add(i, label, __builtin_ctzll(groups));
  }
}

PairCounter::PairCounter(const Kernels& kernels, const Pairs& pairs, int64_t bins, int64_t groups)
    : kernels_(kernels),
      pairs_(pairs),
      bins_(bins),
      groups_(groups),
      table_(bins * pairs.padded_columns()),
      sums_(pairs.padded_columns()),
      counts_(pairs.columns() * pairs.columns()) {}

void PairCounter::count(const int32_t* places, int64_t* out) {
  const int64_t columns = pairs_.columns();
  const int64_t padded = pairs_.padded_columns();
  std::fill(table_.begin(), table_.end(), 0);
  for (const Pairs::Negative& negative : pairs_.negatives()) {
    const int32_t bin = places[negative.sample];
    if (bin >= 0) ++table_[bin * padded + negative.column];
  }
  kernels_.pass(table_.data(), bins_, padded);
  constexpr int64_t most = INT32_MAX / (2 * kMostCounted);  // positives at a time: no sum leaves an int32
  for (int64_t a = 0; a < columns; ++a) {
    int64_t* row = counts_.data() + a * columns;
    std::fill(row, row + columns, 0);
    const std::vector<int32_t>& positives = pairs_.positives(a);
    const int64_t count = static_cast<int64_t>(positives.size());
    for (int64_t first = 0; first < count; first += most) {
      kernels_.sum_rows(table_.data(), padded, places, positives.data() + first, std::min(most, count - first),
                        sums_.data());
      for (int64_t b = 0; b < columns; ++b) row[b] += sums_[b];
    }
  }
  for (int64_t a = 0; a < columns; ++a)
    for (int64_t b = 0; b < columns; ++b)
      for (uint64_t first = pairs_.groups(a); first != 0; first &= first - 1)
        for (uint64_t second = pairs_.groups(b); second != 0; second &= second - 1)
          out[__builtin_ctzll(first) * groups_ + __builtin_ctzll(second)] += counts_[a * columns + b];
}

Ranking::Ranking(const Kernels& kernels, const PackedSamples& samples, const Pairs* by_label, const Pairs* all,
                 const Tally& tally, int threads)
    : kernels_(kernels), samples_(samples), tally_(tally) {
  if (!margins_wanted() && !odds_wanted()) return;
  scratch_.resize(threads);
  for (Scratch& scratch : scratch_) {
    scratch.places.resize(samples.slots());
    if (tally.concordant != nullptr)
      scratch.by_label.emplace_back(kernels, *by_label, tally.bins, samples.groups());
    if (tally.lower_loss != nullptr) scratch.all.emplace_back(kernels, *all, kLossBins, samples.groups());
  }
}

void Ranking::count(int64_t candidate, const float* margins, const float* odds, int worker) {
  Scratch& scratch = scratch_[worker];
  const int64_t pairs = candidate * samples_.groups() * samples_.groups();
  if (margins_wanted()) {
    const Binning binning{tally_.bins, tally_.margin_limit};
    kernels_.place(margins, samples_.slots(), binning, scratch.places.data());
    if (tally_.histogram != nullptr) count_histogram(candidate, scratch);
    if (tally_.concordant != nullptr)
      scratch.by_label.front().count(scratch.places.data(), tally_.concordant + pairs);
  }
  if (odds_wanted()) {
    kernels_.place_odds(odds, samples_.slots(), scratch.places.data());
    scratch.all.front().count(scratch.places.data(), tally_.lower_loss + pairs);
  }
}

void Ranking::count_histogram(int64_t candidate, const Scratch& scratch) const {
  const int64_t bins = tally_.bins;
  int64_t* histogram = tally_.histogram + candidate * samples_.groups() * 2 * bins;
  for (int64_t i = 0; i < samples_.slots(); ++i) {
    if (scratch.places[i] < 0) continue;
    const TileSamples tile = samples_.tile(i / kTile);
    const int64_t at = tile.labels[i % kTile] * bins + scratch.places[i];
    for (uint64_t groups = tile.membership[i % kTile]; groups != 0; groups &= groups - 1)
      ++histogram[__builtin_ctzll(groups) * 2 * bins + at];
  }
}

}  // namespace rledit::cpu
