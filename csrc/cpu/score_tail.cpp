// score_tail on the CPU: the walk of one call over candidates and chunks of samples, and the counting. How the
// logits of a chunk or tile come about is told in layers.cpp.
#include <algorithm>
#include <stdexcept>

#include "feature_probe.hpp"
#include "layers.hpp"
#include "parallel.hpp"
#include "product_scope.hpp"
#include "ranking.hpp"
#include "slices.hpp"

namespace rledit {
namespace cpu {
namespace {

constexpr int64_t kWaitingBytes = int64_t{64} << 20;  // of the candidates that are worked on together

// Whether anything is learned in this call: of a single layer everything is known before.
bool learns(const PreparedTail::State& tail, const Tally& tally) {
  return (tally.recalled != nullptr || tally.nearest != nullptr) && tail.layers.size() > 1;
}

// What waits until a candidate has passed over all samples.
int64_t waiting_bytes(const PreparedTail::State& tail, const Tally& tally) {
  const int64_t ranked = tail.samples.slots() * int64_t{sizeof(float)};
  int64_t bytes = 0;
  if (tally.histogram != nullptr || tally.concordant != nullptr) bytes += ranked;
  if (tally.lower_loss != nullptr) bytes += ranked;
  if (learns(tail, tally)) bytes += FeatureProbe::bytes(*tail.probe, tail.features());
  return bytes;
}

class Call {
 public:
  Call(const PreparedTail::State& tail, const Candidates& candidates, const Tally& tally)
      : tail_(tail),
        candidates_(candidates),
        tally_(tally),
        kernels_(tail.kernels),
        learns_(learns(tail, tally)),
        plan_(tail, candidates, learns_),
        layers_(tail, candidates, plan_),
        span_(tail.span_chunks(plan_.corrects())),
        // No two threads learn from one candidate: sums of floats would depend on who is how fast.
        schedule_(candidates.count, learns_ ? 1 : std::min(span_, tail.chunks()), plan_.threads, plan_.stack),
        losses_(tally, candidates.count, tail.samples.groups(), span_, schedule_.shares_candidates()) {
    scratch_.reserve(plan_.threads);
    for (int thread = 0; thread < plan_.threads; ++thread) scratch_.emplace_back(plan_, tail, candidates);
    if (!learns_) return;
    const bool ridge = tally.recalled != nullptr, means = tally.nearest != nullptr;
    probes_.reserve(candidates.count);
    for (int64_t n = 0; n < candidates.count; ++n)
      probes_.emplace_back(kernels_, *tail.probe, tail.features(), ridge, means);
    probe_scratch_.reserve(plan_.threads);
    for (int thread = 0; thread < plan_.threads; ++thread)
      probe_scratch_.emplace_back(kernels_, *tail.probe, tail.features(), tail.chunk_tiles);
  }

  void run() {
    const bool pairs = tally_.concordant != nullptr;
    Ranking ranking(kernels_, tail_.samples, pairs ? &tail_.pairs(Pairs::Of::labels) : nullptr,
                    tally_.lower_loss != nullptr ? &tail_.pairs(Pairs::Of::all) : nullptr, tally_,
                    plan_.threads);
    const int64_t slots = tail_.samples.slots();
    const int64_t bytes = candidates_.count * slots * int64_t{sizeof(float)};
    if (ranking.margins_wanted()) margins_ = reinterpret_cast<float*>(recycled<1>(bytes));
    if (ranking.odds_wanted()) odds_ = reinterpret_cast<float*>(recycled<2>(bytes));
    const int64_t learned = learns_ ? tail_.fit_chunks() : 0;
    pass({0, learned});
    if (learns_) parallel_for(candidates_.count, plan_.threads, [&](int64_t n, int) { probes_[n].solve(); });
    pass({learned, tail_.chunks()});
    for (int64_t n = 0; n < candidates_.count; ++n) finish(n);
    if (!ranking.margins_wanted() && !ranking.odds_wanted()) return;
    parallel_for(candidates_.count, plan_.threads, [&](int64_t n, int worker) {
      ranking.count(n, of_candidate(margins_, n), of_candidate(odds_, n), worker);
    });
  }

 private:
  // All candidates on some chunks, a span at a time.
  void pass(Range chunks) {
    for (int64_t start = chunks.first; start < chunks.last; start += span_) {
      const int64_t count = std::min(span_, chunks.last - start);
      span_chunk_ = start;
      span_tiles_ = {tail_.first_tile(start), tail_.first_tile(start + count)};
      layers_.enter(span_tiles_);
      parallel_for(schedule_.items(), plan_.threads, [&](int64_t item, int worker) {
        const int64_t part = item / schedule_.blocks;
        const int64_t first = item % schedule_.blocks * schedule_.block;
        const ProductScope products(kernels_);
        walk({first, std::min(first + schedule_.block, candidates_.count)},
             {part * count / schedule_.parts, (part + 1) * count / schedule_.parts}, worker);
      });
      losses_.add_all(tally_, count);
    }
  }

  void walk(Range candidates, Range chunks, int worker) {
    Scratch& scratch = scratch_[worker];
    if (plan_.route == Route::formed) {  // nothing of a candidate outlives a chunk, so a chunk comes in once
      for (int64_t chunk = chunks.first; chunk < chunks.last; ++chunk)
        for (int64_t n = candidates.first; n < candidates.last; ++n) score_chunk({n, n + 1}, chunk, worker);
      return;
    }
    for (int64_t n = candidates.first; n < candidates.last; n += plan_.stack) {
      const Range stack{n, std::min(n + plan_.stack, candidates.last)};
      layers_.prepare(stack, scratch);
      for (int64_t chunk = chunks.first; chunk < chunks.last; ++chunk) {
        if (plan_.by_tile())
          score_tiles(stack, chunk, scratch);
        else
          score_chunk(stack, chunk, worker);
      }
    }
  }

  // Of the present span, and counted from its first.
  Range tiles_of(int64_t chunk) const {
    return {tail_.first_tile(span_chunk_ + chunk) - span_tiles_.first,
            tail_.first_tile(span_chunk_ + chunk + 1) - span_tiles_.first};
  }

  // A stack on one chunk, one candidate after the other.
  void score_chunk(Range stack, int64_t chunk, int worker) {
    Scratch& scratch = scratch_[worker];
    const Range tiles = tiles_of(chunk);
    layers_.share_chunk(stack, tiles, scratch);
    for (int64_t i = 0; i < stack.count(); ++i) {
      const float* logits = layers_.logits_of_chunk(stack, i, tiles, scratch);
      double own[kMaxGroups];
      TileTally counters = counters_of(stack.first + i, chunk, own);
      for (int64_t t = tiles.first; t < tiles.last; ++t, logits += tail_.classes() * kTile)
        count(stack.first + i, t, samples_of(t), logits, counters);
      losses_.add_chunk(tally_, stack.first + i, own);
      if (learns_) probe(stack.first + i, tiles, worker);
    }
  }

  // What a candidate made of a chunk is learned from, or judged.
  void probe(int64_t n, Range tiles, int worker) {
    const float* features = layers_.features_of_chunk(scratch_[worker]);
    const int64_t first = span_tiles_.first + tiles.first;
    if (first < tail_.samples.fit_tiles())
      probes_[n].learn(first, tiles.count(), features, probe_scratch_[worker]);
    else
      probes_[n].judge(first, tiles.count(), features, probe_scratch_[worker], recalled_of(n), nearest_of(n));
  }

  void finish(int64_t n) {
    if (learns_) return probes_[n].finish(recalled_of(n), nearest_of(n));
    for (int64_t g = 0; g < tail_.samples.groups(); ++g) {
      if (tally_.recalled != nullptr) recalled_of(n)[g] = tail_.recalled[g];
      if (tally_.nearest != nullptr) nearest_of(n)[g] = tail_.nearest[g];
    }
  }

  int64_t* recalled_of(int64_t n) const {
    return tally_.recalled != nullptr ? tally_.recalled + n * tail_.samples.groups() : nullptr;
  }
  int64_t* nearest_of(int64_t n) const {
    return tally_.nearest != nullptr ? tally_.nearest + n * tail_.samples.groups() : nullptr;
  }
  float* of_candidate(float* values, int64_t n) const {
    return values != nullptr ? values + n * tail_.samples.slots() : nullptr;
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
    const int64_t slot = (span_tiles_.first + tile) * kTile;
    if (margins_ != nullptr) counters.margins = of_candidate(margins_, n) + slot;
    if (odds_ != nullptr) counters.odds = of_candidate(odds_, n) + slot;
    kernels_.count(logits, tail_.classes(), samples, counters);
  }

  const PreparedTail::State& tail_;
  const Candidates& candidates_;
  const Tally tally_;
  const Kernels& kernels_;
  const bool learns_;
  const Plan plan_;
  Layers layers_;
  const int64_t span_;  // chunks
  const Schedule schedule_;
  LossPartials losses_;
  int64_t span_chunk_ = 0;    // the first of the present span
  Range span_tiles_{0, 0};    // of the present span
  float* margins_ = nullptr;  // [candidates, tiles, kTile], if wanted
  float* odds_ = nullptr;     // the same
  std::vector<FeatureProbe> probes_;
  std::vector<ProbeScratch> probe_scratch_;
  std::vector<Scratch> scratch_;
};

}  // namespace
}  // namespace cpu

void PreparedTail::score(const Candidates& candidates, const Tally& tally) const {
  if (state_->samples.count() == 0) return;
  if ((tally.recalled != nullptr || tally.nearest != nullptr) && !state_->probe)
    throw std::invalid_argument(
        "wanted: recalled and nearest need a probe, which the tail was prepared without");
  const int64_t waiting = cpu::waiting_bytes(*state_, tally);
  const int64_t at_once = waiting > 0 ? std::max<int64_t>(1, cpu::kWaitingBytes / waiting) : candidates.count;
  for (int64_t n = 0; n < candidates.count; n += at_once) {
    const int64_t count = std::min(at_once, candidates.count - n);
    const Candidates some = cpu::slice(candidates, n, count, state_->layers);
    cpu::Call(*state_, some, cpu::slice(tally, n, state_->samples.groups(), state_->classes())).run();
  }
}

}  // namespace rledit
