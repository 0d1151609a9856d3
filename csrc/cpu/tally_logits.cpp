// tally_logits on the CPU: each tile of logits is turned on its side, then counted like any other.
#include <algorithm>
#include <memory>
#include <vector>

#include "counting.hpp"
#include "kernels.hpp"
#include "parallel.hpp"
#include "ranking.hpp"
#include "rledit/ops.hpp"

namespace rledit {

namespace {

using namespace cpu;

class LogitsCall {
 public:
  LogitsCall(const float* logits, int64_t candidates, int64_t classes, const PackedSamples& samples,
             const Tally& tally)
      : logits_(logits),
        classes_(classes),
        samples_(samples),
        tally_(tally),
        chunks_((samples.tiles() + kMaxTilesPerChunk - 1) / kMaxTilesPerChunk),
        threads_(num_threads()),
        schedule_(candidates, chunks_, threads_),
        losses_(tally, candidates, samples.groups(), chunks_, schedule_.shares_candidates()),
        by_label_(tally.concordant != nullptr ? std::make_unique<Pairs>(samples, Pairs::Of::labels) : nullptr),
        all_(tally.lower_loss != nullptr ? std::make_unique<Pairs>(samples, Pairs::Of::all) : nullptr),
        ranking_(kernels_, samples, by_label_.get(), all_.get(), tally, threads_),
        tiles_(threads_, std::vector<float>(classes * kTile)),
        margins_(ranking_.margins_wanted() ? candidates * samples.slots() : 0),
        odds_(ranking_.odds_wanted() ? candidates * samples.slots() : 0) {}

  void run(int64_t candidates) {
    parallel_for(schedule_.items(), threads_, [&](int64_t item, int worker) {
      const int64_t part = item / schedule_.blocks;
      const int64_t first = item % schedule_.blocks * schedule_.block;
      const int64_t last = std::min(first + schedule_.block, candidates);
      for (int64_t n = first; n < last; ++n)
        count(n, part * chunks_ / schedule_.parts, (part + 1) * chunks_ / schedule_.parts, worker);
    });
    losses_.add_all(tally_, chunks_);
    if (!ranking_.margins_wanted() && !ranking_.odds_wanted()) return;
    parallel_for(candidates, threads_, [&](int64_t n, int worker) {
      ranking_.count(n, at(margins_, n, 0), at(odds_, n, 0), worker);
    });
  }

 private:
  // Or nullptr where they are not wanted.
  float* at(std::vector<float>& values, int64_t candidate, int64_t tile) {
    return values.empty() ? nullptr : values.data() + (candidate * samples_.tiles() + tile) * kTile;
  }

  // One candidate on some chunks.
  void count(int64_t n, int64_t first_chunk, int64_t last_chunk, int worker) {
    float* tile = tiles_[worker].data();
    for (int64_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
      double own[kMaxGroups];
      TileTally counters = tile_tally(tally_, n, samples_.groups(), classes_, losses_.at(n, chunk, own),
                                      schedule_.shares_candidates());
      const int64_t end = std::min((chunk + 1) * kMaxTilesPerChunk, samples_.tiles());
      for (int64_t t = chunk * kMaxTilesPerChunk; t < end; ++t) {
        const float* rows = logits_ + (n * samples_.count() + t * kTile) * classes_;
        kernels_.pack_tile(rows, samples_.valid(t), classes_, Operands::float32, tile);
        counters.margins = at(margins_, n, t);
        counters.odds = at(odds_, n, t);
        kernels_.count(tile, classes_, samples_.tile(t), counters);
      }
      losses_.add_chunk(tally_, n, own);
    }
  }

  const Kernels& kernels_ = kernels();
  const float* logits_;
  int64_t classes_;
  const PackedSamples& samples_;
  const Tally& tally_;
  int64_t chunks_;
  int threads_;
  Schedule schedule_;
  LossPartials losses_;
  std::unique_ptr<Pairs> by_label_;
  std::unique_ptr<Pairs> all_;
  Ranking ranking_;
  std::vector<std::vector<float>> tiles_;  // per thread [classes][kTile]
  std::vector<float> margins_;             // [candidates, tiles, kTile], if wanted
  std::vector<float> odds_;                // the same
};

}  // namespace

void tally_logits(const float* logits, int64_t candidates, int64_t classes, const Samples& samples,
                  const Tally& tally) {
  if (samples.count == 0 || candidates == 0) return;
  const cpu::PackedSamples packed(samples, classes);
  LogitsCall(logits, candidates, classes, packed, tally).run(candidates);
}

}  // namespace rledit
