#include "ranking.hpp"

#include <algorithm>

#include "parallel.hpp"

namespace rledit::cpu {
namespace {

constexpr int64_t kMostRowEntries = int64_t{1} << 20;  // of the histograms by kind: they should stay in cache
constexpr int64_t kCollectedBytes = int64_t{64} << 20;
constexpr int64_t kTilesAtOnce = 64;

}  // namespace

Ranking::Ranking(const Kernels& kernels, const PackedSamples& samples, const Tally& tally, int64_t candidates,
                 bool parts, int threads)
    : kernels_(kernels),
      samples_(samples),
      tally_(tally),
      candidates_(candidates),
      parts_(parts),
      by_kind_(!samples.kinds().empty() &&
               static_cast<int64_t>(samples.kinds().size()) * 2 * tally.bins <= kMostRowEntries) {
  if (!wanted()) return;
  scratch_.resize(threads);
  for (Scratch& scratch : scratch_) {
    scratch.places.resize(kTilesAtOnce * kTile);
    if (by_kind_) scratch.rows.resize(samples.kinds().size() * 2 * tally.bins);
    scratch.histogram.resize(size());
    if (tally.concordant != nullptr)
      scratch.concordance.resize(concordance_scratch(samples.groups(), tally.bins));
  }
  if (parts && tally.concordant != nullptr) collected_.assign(candidates * size(), 0);
}

int64_t Ranking::at_once(const PackedSamples& samples, const Tally& tally) {
  const int64_t bytes = samples.groups() * 2 * tally.bins * static_cast<int64_t>(sizeof(int32_t));
  return tally.concordant == nullptr || bytes == 0 ? INT64_MAX : std::max<int64_t>(1, kCollectedBytes / bytes);
}

void Ranking::add(int64_t candidate, const float* margins, int64_t first_tile, int64_t tiles, int worker) {
  Scratch& scratch = scratch_[worker];
  count(margins, first_tile, tiles, scratch);
  const int32_t* histogram = scratch.histogram.data();
  if (tally_.histogram != nullptr) {
    int64_t* out = tally_.histogram + candidate * size();
    for (int64_t i = 0; i < size(); ++i)
      if (histogram[i] != 0) __atomic_fetch_add(out + i, histogram[i], __ATOMIC_RELAXED);
  }
  if (tally_.concordant == nullptr) return;
  if (!parts_) return count_concordant(candidate, histogram, scratch);
  int32_t* all = collected_.data() + candidate * size();
  for (int64_t i = 0; i < size(); ++i)
    if (histogram[i] != 0) __atomic_fetch_add(all + i, histogram[i], __ATOMIC_RELAXED);
}

void Ranking::finish(int threads) {
  if (collected_.empty()) return;
  parallel_for(candidates_, threads, [&](int64_t n, int worker) {
    count_concordant(n, collected_.data() + n * size(), scratch_[worker]);
  });
}

void Ranking::count(const float* margins, int64_t first_tile, int64_t tiles, Scratch& scratch) const {
  const Binning binning{tally_.bins, tally_.margin_limit};
  const int64_t bins = tally_.bins;
  std::fill(scratch.rows.begin(), scratch.rows.end(), 0);
  std::fill(scratch.histogram.begin(), scratch.histogram.end(), 0);
  for (int64_t start = 0; start < tiles; start += kTilesAtOnce) {
    const int64_t some = std::min(kTilesAtOnce, tiles - start) * kTile;
    const int64_t sample = (first_tile + start) * kTile;
    const int32_t* rows = by_kind_ ? samples_.rows() + sample : nullptr;
    kernels_.place(margins + start * kTile, rows, some, binning, scratch.places.data());
    if (by_kind_) {
      for (int64_t i = 0; i < some; ++i)
        if (scratch.places[i] >= 0) ++scratch.rows[scratch.places[i]];
      continue;
    }
    for (int64_t i = 0; i < some; ++i) {
      if (scratch.places[i] < 0) continue;
      const TileSamples tile = samples_.tile((sample + i) / kTile);
      uint64_t groups = tile.membership[i % kTile];
      const int64_t at = tile.labels[i % kTile] * bins + scratch.places[i];
      for (; groups != 0; groups &= groups - 1) ++scratch.histogram[__builtin_ctzll(groups) * 2 * bins + at];
    }
  }
  if (!by_kind_) return;
  for (size_t kind = 0; kind < samples_.kinds().size(); ++kind)
    for (uint64_t groups = samples_.kinds()[kind]; groups != 0; groups &= groups - 1)
      kernels_.accumulate(scratch.rows.data() + kind * 2 * bins, 2 * bins,
                          scratch.histogram.data() + __builtin_ctzll(groups) * 2 * bins);
}

void Ranking::count_concordant(int64_t candidate, const int32_t* histogram, Scratch& scratch) const {
  const int64_t groups = samples_.groups();
  kernels_.concordance(histogram, groups, tally_.bins, scratch.concordance.data(),
                       tally_.concordant + candidate * groups * groups);
}

}  // namespace rledit::cpu
