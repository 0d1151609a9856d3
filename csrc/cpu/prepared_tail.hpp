// What stays the same from call to call, packed for one instruction set.
//
// The samples are cut into tiles of 64, the tiles into chunks that weights are fetched or formed once for, and
// the chunks into spans: where the unedited first layer's outputs would be large, a span's are computed, used
// and dropped. No chunk holds both samples that a probe learns from and others.
#pragma once

#include <mutex>
#include <optional>
#include <vector>

#include "counting.hpp"
#include "feature_probe.hpp"
#include "memory.hpp"
#include "panels.hpp"
#include "ranking.hpp"
#include "rledit/ops.hpp"
#include "sparse_rows.hpp"

namespace rledit {

struct PreparedTail::State {
  explicit State(const Tail& tail);

  const cpu::Kernels& kernels;
  Precision precision;
  std::vector<Layer> layers;            // with pointers into `owned_`, but for weights that stay
  std::vector<cpu::Operands> operands;  // per layer, of its product
  cpu::PackedSamples samples;
  cpu::SparseRows sparse;  // the activations, if they are float32 and mostly zeros
  int64_t chunk_tiles = 0;
  std::optional<cpu::ProbeSamples> probe;
  // Of a single layer, whose features are the activations: what probes know of each group, for every candidate.
  std::vector<int64_t> recalled, nearest;

  const Layer& first() const { return layers.front(); }
  int64_t classes() const { return layers.back().outputs; }
  // Chunks of samples that a probe learns from, and all.
  int64_t fit_chunks() const { return chunks_of(samples.fit_tiles()); }
  int64_t chunks() const { return fit_chunks() + chunks_of(samples.tiles() - samples.fit_tiles()); }
  // Of a chunk; of the number of all chunks the number of all tiles.
  int64_t first_tile(int64_t chunk) const {
    const int64_t judged = chunk - fit_chunks();
    const int64_t tile = judged < 0 ? chunk * chunk_tiles : samples.fit_tiles() + judged * chunk_tiles;
    return tile < samples.tiles() ? tile : samples.tiles();
  }
  int64_t features() const { return layers.back().inputs; }
  int64_t tile_bytes() const {
    return cpu::tile_bytes(operands.front(), first().inputs);
  }  // of the activations
  int64_t output_bytes() const { return first().outputs * cpu::kTile * int64_t{sizeof(float)}; }
  int64_t bytes() const;

  // Chunks that are scored before the next; `outputs`: the unedited first layer's are needed.
  int64_t span_chunks(bool outputs) const;

  // A layer's unedited weights, packed when first asked for.
  const cpu::Panels& unedited(size_t layer) const;

  // Of the samples, found when first asked for.
  const cpu::Pairs& pairs(cpu::Pairs::Of of) const;

  // Activations from `tile` on.
  const char* activations(int64_t tile) const { return activations_.get() + tile * tile_bytes(); }
  // What the unedited first layer makes of `count` tiles from `tile` on, without its nonlinearity: computed now
  // where it is not kept. Call from one thread at a time.
  const float* outputs(int64_t tile, int64_t count, int threads) const;

 private:
  struct LazyPanels {
    std::once_flag once;
    std::optional<cpu::Panels> panels;
  };

  int64_t chunks_of(int64_t tiles) const { return (tiles + chunk_tiles - 1) / chunk_tiles; }
  void pack_activations(const float* activations);
  void multiply_once(float* out, int threads) const;
  void multiply_unedited(const char* tiles, int64_t count, float* out, int threads) const;

  std::vector<std::vector<float>> owned_;  // weights and biases
  std::vector<std::unique_ptr<LazyPanels>> panels_;
  cpu::Buffer activations_;  // all tiles
  mutable std::once_flag pairs_once_[2];
  mutable std::unique_ptr<cpu::Pairs> pairs_[2];
  mutable std::once_flag outputs_once_;
  mutable cpu::Buffer outputs_;  // of all tiles
};

}  // namespace rledit
