#include "prepared_tail.hpp"

#include <algorithm>

#include "parallel.hpp"
#include "product_scope.hpp"

namespace rledit {
using cpu::PanelSource;

namespace {

constexpr int64_t kSpanBytes = int64_t{32} << 20;    // what is packed or computed at a time, and then dropped
constexpr int64_t kKeptOutputs = int64_t{32} << 20;  // outputs that are worth keeping between calls

}  // namespace

PreparedTail::State::State(const Tail& tail, bool keep)
    : kernels(cpu::kernels(tail.precision)),
      precision(tail.precision),
      layers(tail.layers),
      samples(tail.samples, tail.classes()),
      source_(tail.activations) {
  for (Layer& layer : layers) {
    operands.push_back(kernels.operands(precision, layer.inputs));
    panels_.push_back(std::make_unique<LazyPanels>());
    if (!keep) continue;
    if (layer.weight != nullptr) {
      owned_.emplace_back(layer.weight, layer.weight + layer.outputs * layer.inputs);
      layer.weight = owned_.back().data();
    }
    if (layer.bias != nullptr) {
      owned_.emplace_back(layer.bias, layer.bias + layer.outputs);
      layer.bias = owned_.back().data();
    }
  }
  chunk_tiles = std::clamp<int64_t>(samples.tiles(), 1, cpu::kMaxTilesPerChunk);
  if (!keep) return;
  kept_ = cpu::allocate(samples.tiles() * tile_bytes());
  cpu::parallel_for(samples.tiles(), num_threads(), [&](int64_t t, int) {
    kernels.pack_tile(source_ + t * cpu::kTile * first().inputs, samples.valid(t), first().inputs,
                      operands.front(), kept_.get() + t * tile_bytes());
  });
  // Only where a dense product would give the same bits: a split or rounded one does not.
  if (operands.front() == cpu::Operands::float32)
    sparse = cpu::SparseRows(source_, samples.count(), first().inputs);
  source_ = nullptr;
}

int64_t PreparedTail::State::bytes() const {
  int64_t total = samples.bytes() + sparse.bytes();
  if (kept_ != nullptr) total += samples.tiles() * tile_bytes();
  for (const std::vector<float>& values : owned_) total += static_cast<int64_t>(values.size() * sizeof(float));
  return total;
}

int64_t PreparedTail::State::span_chunks(bool outputs) const {
  int64_t of_tile = kept_ == nullptr ? tile_bytes() : 0;
  if (outputs && (kept_ == nullptr || samples.tiles() * output_bytes() > kKeptOutputs))
    of_tile += output_bytes();
  if (of_tile == 0) return chunks();
  return std::clamp<int64_t>(kSpanBytes / (of_tile * chunk_tiles), 1, chunks());
}

const cpu::Panels& PreparedTail::State::unedited(size_t layer) const {
  LazyPanels& lazy = *panels_[layer];
  std::call_once(lazy.once, [&] {
    lazy.panels.emplace(kernels, operands[layer], layers[layer].outputs, layers[layer].inputs);
    PanelSource source{};
    source.weight = layers[layer].weight;
    source.factor = 1.0F;
    lazy.panels->pack(source);
  });
  return *lazy.panels;
}

const cpu::Pairs& PreparedTail::State::pairs() const {
  std::call_once(pairs_once_, [&] { pairs_ = std::make_unique<cpu::Pairs>(samples); });
  return *pairs_;
}

const char* PreparedTail::State::activations(int64_t tile, int64_t count, int threads) const {
  if (kept_ != nullptr) return kept_.get() + tile * tile_bytes();
  char* packed = cpu::recycled<0>(count * tile_bytes());
  cpu::parallel_for(count, threads, [&](int64_t t, int) {
    kernels.pack_tile(source_ + (tile + t) * cpu::kTile * first().inputs, samples.valid(tile + t),
                      first().inputs, operands.front(), packed + t * tile_bytes());
  });
  return packed;
}

const float* PreparedTail::State::outputs(int64_t tile, int64_t count, const char* activations,
                                          int threads) const {
  const int64_t all = samples.tiles() * output_bytes();
  if (kept_ == nullptr || all > kKeptOutputs) {
    float* computed = reinterpret_cast<float*>(cpu::recycled<1>(count * output_bytes()));
    multiply_unedited(activations, count, computed, threads);
    return computed;
  }
  std::call_once(outputs_once_, [&] {
    cpu::Buffer computed = cpu::allocate(all);
    multiply_unedited(kept_.get(), samples.tiles(), reinterpret_cast<float*>(computed.get()), threads);
    outputs_ = std::move(computed);
  });
  return reinterpret_cast<const float*>(outputs_.get() + tile * output_bytes());
}

void PreparedTail::State::multiply_unedited(const char* tiles, int64_t count, float* out, int threads) const {
  const cpu::Panels& panels = unedited(0);
  cpu::parallel_for(count, threads, [&](int64_t t, int) {
    const cpu::ProductScope products(kernels);
    cpu::Product product{};
    product.tile = tiles + t * tile_bytes();
    product.bias = first().bias;
    product.out = out + t * first().outputs * cpu::kTile;
    panels.multiply(product);
  });
}

PreparedTail::PreparedTail(const Tail& tail, bool keep) : state_(std::make_unique<const State>(tail, keep)) {}
PreparedTail::~PreparedTail() = default;
PreparedTail::PreparedTail(PreparedTail&&) noexcept = default;
PreparedTail& PreparedTail::operator=(PreparedTail&&) noexcept = default;

const std::vector<Layer>& PreparedTail::layers() const { return state_->layers; }
int64_t PreparedTail::sample_count() const { return state_->samples.count(); }
int64_t PreparedTail::group_count() const { return state_->samples.groups(); }
int64_t PreparedTail::bytes() const { return state_->bytes(); }

}  // namespace rledit
