// What stays the same from call to call, packed for one instruction set.
//
// The samples are cut into tiles of 64, the tiles into chunks that weights are fetched or formed once for, and
// the chunks into spans. Where activations are not kept, a span's are packed, used and dropped, so that memory
// does not grow with the number of samples; the same holds for the unedited first layer's outputs, where they
// would be large.
#pragma once

#include <mutex>
#include <optional>

#include "counting.hpp"
#include "memory.hpp"
#include "panels.hpp"
#include "ranking.hpp"
#include "rledit/ops.hpp"
#include "sparse_rows.hpp"

namespace rledit {

struct PreparedTail::State {
  // keep: own copies of everything; else `tail` must outlive this, and activations are packed by span.
  State(const Tail& tail, bool keep);

  const cpu::Kernels& kernels;
  Precision precision;
  std::vector<Layer> layers;            // with pointers into `owned` if kept
  std::vector<cpu::Operands> operands;  // per layer, of its product
  cpu::PackedSamples samples;
  cpu::SparseRows sparse;  // activations that are kept, as float32, and mostly zeros
  int64_t chunk_tiles = 0;

  const Layer& first() const { return layers.front(); }
  int64_t classes() const { return layers.back().outputs; }
  int64_t chunks() const { return (samples.tiles() + chunk_tiles - 1) / chunk_tiles; }
  int64_t tile_bytes() const {
    return cpu::tile_bytes(operands.front(), first().inputs);
  }  // of the activations
  int64_t output_bytes() const { return first().outputs * cpu::kTile * int64_t{sizeof(float)}; }
  int64_t bytes() const;

  // Chunks that are scored before the next are packed; `outputs`: the unedited first layer's are needed.
  int64_t span_chunks(bool outputs) const;

  // A layer's unedited weights, packed when first asked for.
  const cpu::Panels& unedited(size_t layer) const;

  // Of the samples, found when first asked for.
  const cpu::Pairs& pairs() const;

  // Activations of `count` tiles from `tile` on; and what the unedited first layer makes of them, without its
  // nonlinearity. Packed or computed now where they are not kept. Call from one thread at a time.
  const char* activations(int64_t tile, int64_t count, int threads) const;
  const float* outputs(int64_t tile, int64_t count, const char* activations, int threads) const;

 private:
  struct LazyPanels {
    std::once_flag once;
    std::optional<cpu::Panels> panels;
  };

  void multiply_unedited(const char* tiles, int64_t count, float* out, int threads) const;

  const float* source_;                    // activations that are not kept
  std::vector<std::vector<float>> owned_;  // weights and biases
  std::vector<std::unique_ptr<LazyPanels>> panels_;
  cpu::Buffer kept_;  // all tiles of activations
  mutable std::once_flag pairs_once_;
  mutable std::unique_ptr<cpu::Pairs> pairs_;
  mutable std::once_flag outputs_once_;
  mutable cpu::Buffer outputs_;  // of all tiles
};

}  // namespace rledit
