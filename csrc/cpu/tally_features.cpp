// tally_features on the CPU: each tile of features is turned on its side, then learned from or judged like any
// other.
#include <algorithm>

#include "parallel.hpp"
#include "probe_features.hpp"
#include "product_scope.hpp"
#include "rledit/ops.hpp"

namespace rledit {
namespace cpu {

void probe_features(const ProbeSamples& shared, const float* features, int64_t candidates, int64_t width,
                    int64_t* recalled, int64_t* nearest) {
  const Kernels& kernels = cpu::kernels(Precision::float32);
  const PackedSamples& samples = shared.samples();
  const int threads = num_threads();
  struct Memory {
    std::vector<float> rows;
    Buffer tiles;
    ProbeScratch scratch;
  };
  std::vector<Memory> memory;
  memory.reserve(threads);
  for (int i = 0; i < threads; ++i)
    memory.push_back({{},
                      allocate(kMaxTilesPerChunk * width * kTile * int64_t{sizeof(float)}),
                      ProbeScratch(kernels, shared, width, kMaxTilesPerChunk)});
  parallel_for(candidates, threads, [&](int64_t n, int worker) {
    const ProductScope products(kernels);
    Memory& own = memory[worker];
    float* tiles = reinterpret_cast<float*>(own.tiles.get());
    int64_t* counts[2] = {recalled != nullptr ? recalled + n * samples.groups() : nullptr,
                          nearest != nullptr ? nearest + n * samples.groups() : nullptr};
    FeatureProbe probe(kernels, shared, width, recalled != nullptr, nearest != nullptr);
    const auto visit = [&](int64_t first, int64_t last, auto&& use) {
      for (int64_t t = first; t < last; t += kMaxTilesPerChunk) {
        const int64_t count = std::min(kMaxTilesPerChunk, last - t);
        for (int64_t i = 0; i < count; ++i)
          kernels.pack_tile(samples.rows(features + n * samples.count() * width, width, t + i, own.rows),
                            samples.valid(t + i), width, Operands::float32, tiles + i * width * kTile);
        use(t, count);
      }
    };
    visit(0, samples.fit_tiles(), [&](int64_t t, int64_t count) { probe.learn(t, count, tiles, own.scratch); });
    probe.solve();
    visit(samples.fit_tiles(), samples.tiles(),
          [&](int64_t t, int64_t count) { probe.judge(t, count, tiles, own.scratch, counts[0], counts[1]); });
    probe.finish(counts[0], counts[1]);
  });
}

}  // namespace cpu

void tally_features(const float* features, int64_t candidates, int64_t width, int64_t classes,
                    const Samples& samples, const Probe& probe, const Tally& tally) {
  if (samples.count == 0 || candidates == 0) return;
  const cpu::PackedSamples packed(samples, classes, probe.fit);
  const cpu::ProbeSamples shared(packed, classes, probe.ridge);
  cpu::probe_features(shared, features, candidates, width, tally.recalled, tally.nearest);
}

}  // namespace rledit
