// score_tail on the CPU: the walk of one call over candidates and chunks of samples, and the counting. How the
// logits of a chunk or tile come about is told in layers.cpp.
#include <algorithm>

#include "layers.hpp"
#include "parallel.hpp"
#include "product_scope.hpp"
#include "ranking.hpp"
#include "slices.hpp"

namespace rledit {
namespace cpu {
namespace {

constexpr int64_t kMarginBytes = int64_t{64} << 20;  // of the candidates that are worked on together

class Call {
 public:
  Call(const PreparedTail::State& tail, const Candidates& candidates, const Tally& tally)
      : tail_(tail),
        candidates_(candidates),
        tally_(tally),
        kernels_(tail.kernels),
        plan_(tail, candidates),
        layers_(tail, candidates, plan_),
        span_(tail.span_chunks(plan_.corrects())),
        schedule_(candidates.count, std::min(span_, tail.chunks()), plan_.threads, plan_.stack),
        losses_(tally, candidates.count, tail.samples.groups(), span_, schedule_.shares_candidates()) {
    scratch_.reserve(plan_.threads);
    for (int thread = 0; thread < plan_.threads; ++thread) scratch_.emplace_back(plan_, tail, candidates);
  }

  void run() {
    Ranking ranking(kernels_, tail_.samples, tally_.concordant != nullptr ? &tail_.pairs() : nullptr, tally_,
                    plan_.threads);
    const int64_t margins = tail_.samples.tiles() * kTile;  // of a candidate
    if (ranking.wanted()) {
      const int64_t bytes = candidates_.count * margins * int64_t{sizeof(float)};
      margins_ = reinterpret_cast<float*>(recycled<1>(bytes));
    }
    for (int64_t start = 0; start < tail_.chunks(); start += span_) {
      const int64_t chunks = std::min(span_, tail_.chunks() - start);
      span_tiles_.first = start * tail_.chunk_tiles;
      span_tiles_.last = std::min(span_tiles_.first + chunks * tail_.chunk_tiles, tail_.samples.tiles());
      layers_.enter(span_tiles_);
      parallel_for(schedule_.items(), plan_.threads, [&](int64_t item, int worker) {
        const int64_t part = item / schedule_.blocks;
        const int64_t first = item % schedule_.blocks * schedule_.block;
        const ProductScope products(kernels_);
        walk({first, std::min(first + schedule_.block, candidates_.count)},
             {part * chunks / schedule_.parts, (part + 1) * chunks / schedule_.parts}, scratch_[worker]);
      });
      losses_.add_all(tally_, chunks);
    }
    if (!ranking.wanted()) return;
    parallel_for(candidates_.count, plan_.threads,
                 [&](int64_t n, int worker) { ranking.count(n, margins_ + n * margins, worker); });
  }

 private:
  void walk(Range candidates, Range chunks, Scratch& scratch) {
    if (plan_.route == Route::formed) {  // nothing of a candidate outlives a chunk, so a chunk comes in once
      for (int64_t chunk = chunks.first; chunk < chunks.last; ++chunk)
        for (int64_t n = candidates.first; n < candidates.last; ++n) score_chunk({n, n + 1}, chunk, scratch);
      return;
    }
    for (int64_t n = candidates.first; n < candidates.last; n += plan_.stack) {
      const Range stack{n, std::min(n + plan_.stack, candidates.last)};
      layers_.prepare(stack, scratch);
      for (int64_t chunk = chunks.first; chunk < chunks.last; ++chunk) {
        if (plan_.by_tile())
          score_tiles(stack, chunk, scratch);
        else
          score_chunk(stack, chunk, scratch);
      }
    }
  }

  // Of the present span, and counted from its first.
  Range tiles_of(int64_t chunk) const {
    const int64_t first = chunk * tail_.chunk_tiles;
    return {first, std::min(first + tail_.chunk_tiles, span_tiles_.count())};
  }

  // A stack on one chunk, one candidate after the other.
  void score_chunk(Range stack, int64_t chunk, Scratch& scratch) {
    const Range tiles = tiles_of(chunk);
    layers_.share_chunk(stack, tiles, scratch);
    for (int64_t i = 0; i < stack.count(); ++i) {
      const float* logits = layers_.logits_of_chunk(stack, i, tiles, scratch);
      double own[kMaxGroups];
      TileTally counters = counters_of(stack.first + i, chunk, own);
      for (int64_t t = tiles.first; t < tiles.last; ++t, logits += tail_.classes() * kTile)
        count(stack.first + i, t, samples_of(t), logits, counters);
      losses_.add_chunk(tally_, stack.first + i, own);
    }
  }

  // A stack on one chunk, tile by tile.
  void score_tiles(Range stack, int64_t chunk, Scratch& scratch) {
    const Range tiles = tiles_of(chunk);
    double own[kMostStacked][kMaxGroups];
    TileTally counters[kMostStacked];
    for (int64_t i = 0; i < stack.count(); ++i) counters[i] = counters_of(stack.first + i, chunk, own[i]);
    for (int64_t t = tiles.first; t < tiles.last; ++t) {
      const TileSamples samples = samples_of(t);
      layers_.share_tile(stack, t, scratch);
      for (int64_t i = 0; i < stack.count(); ++i)
        count(stack.first + i, t, samples, layers_.logits_of_tile(i, t, scratch), counters[i]);
    }
    for (int64_t i = 0; i < stack.count(); ++i) losses_.add_chunk(tally_, stack.first + i, own[i]);
  }

  TileTally counters_of(int64_t n, int64_t chunk, double* own) {
    return tile_tally(tally_, n, tail_.samples.groups(), tail_.classes(), losses_.at(n, chunk, own),
                      schedule_.shares_candidates());
  }

  TileSamples samples_of(int64_t tile) const { return tail_.samples.tile(span_tiles_.first + tile); }

  void count(int64_t n, int64_t tile, const TileSamples& samples, const float* logits,
             TileTally& counters) const {
    if (margins_ != nullptr)
      counters.margins = margins_ + (n * tail_.samples.tiles() + span_tiles_.first + tile) * kTile;
    kernels_.count(logits, tail_.classes(), samples, counters);
  }

  const PreparedTail::State& tail_;
  const Candidates& candidates_;
  const Tally tally_;
  const Kernels& kernels_;
  const Plan plan_;
  Layers layers_;
  const int64_t span_;  // chunks
  const Schedule schedule_;
  LossPartials losses_;
  Range span_tiles_{0, 0};    // of the present span
  float* margins_ = nullptr;  // [candidates, tiles, kTile], if wanted
  std::vector<Scratch> scratch_;
};

}  // namespace
}  // namespace cpu

void PreparedTail::score(const Candidates& candidates, const Tally& tally) const {
  if (state_->samples.count() == 0) return;
  const int64_t margins = state_->samples.tiles() * cpu::kTile * int64_t{sizeof(float)};
  const bool ranks = tally.histogram != nullptr || tally.concordant != nullptr;
  const int64_t at_once = ranks ? std::max<int64_t>(1, cpu::kMarginBytes / margins) : candidates.count;
  for (int64_t n = 0; n < candidates.count; n += at_once) {
    const int64_t count = std::min(at_once, candidates.count - n);
    const Candidates some = cpu::slice(candidates, n, count, state_->layers);
    cpu::Call(*state_, some, cpu::slice(tally, n, state_->samples.groups(), state_->classes())).run();
  }
}

}  // namespace rledit
