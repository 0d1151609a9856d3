// tally_logits on the CPU: each tile of logits is turned on its side, then counted like any other.
#include <algorithm>

#include "counting.hpp"
#include "kernels.hpp"
#include "parallel.hpp"
#include "rledit/ops.hpp"

namespace rledit {

void tally_logits(const float* logits, int64_t candidates, int64_t classes, const Samples& samples,
                  const Tally& tally) {
  if (samples.count == 0 || candidates == 0) return;
  const cpu::Kernels& kernels = cpu::kernels();
  const cpu::PackedSamples packed(samples, classes);
  const int64_t per_chunk = cpu::kMaxTilesPerChunk;
  const int64_t chunks = (packed.tiles() + per_chunk - 1) / per_chunk;
  const int threads = num_threads();
  const cpu::Schedule schedule(candidates, chunks, threads);
  cpu::LossPartials losses(tally, candidates, samples.group_count, chunks, schedule.shares_candidates());
  std::vector<std::vector<float>> tiles(threads);
  for (std::vector<float>& tile : tiles) tile.resize(classes * cpu::kTile);

  cpu::parallel_for(schedule.items(), threads, [&](int64_t item, int worker) {
    const int64_t part = item / schedule.blocks;
    const int64_t first = item % schedule.blocks * schedule.block;
    const int64_t last = std::min(first + schedule.block, candidates);
    float* tile = tiles[worker].data();
    for (int64_t n = first; n < last; ++n)
      for (int64_t chunk = part * chunks / schedule.parts; chunk < (part + 1) * chunks / schedule.parts;
           ++chunk) {
        double own[kMaxGroups];
        const cpu::TileTally counters = cpu::tile_tally(tally, n, samples.group_count, classes,
                                                        losses.at(n, chunk, own), schedule.shares_candidates());
        const int64_t end = std::min((chunk + 1) * per_chunk, packed.tiles());
        for (int64_t t = chunk * per_chunk; t < end; ++t) {
          const float* rows = logits + (n * samples.count + t * cpu::kTile) * classes;
          kernels.pack_tile(rows, packed.valid(t), classes, cpu::Operands::float32, tile);
          kernels.count(tile, classes, packed.tile(t), counters);
        }
        losses.add_chunk(tally, n, own);
      }
  });
  losses.add_all(tally, chunks);
}

}  // namespace rledit
