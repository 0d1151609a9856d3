#include "prepared_tail.hpp"

#include <algorithm>

#include "parallel.hpp"
#include "probe_features.hpp"
#include "product_scope.hpp"

namespace rledit {
using cpu::PanelSource;

namespace {

constexpr int64_t kSpanBytes = int64_t{32} << 20;    // outputs that are computed at a time, and then dropped
constexpr int64_t kBlockBytes = int64_t{2} << 20;    // of panels that are packed for one product
constexpr int64_t kKeptOutputs = int64_t{32} << 20;  // outputs that are worth keeping between calls

}  // namespace

PreparedTail::State::State(const Tail& tail)
    : kernels(cpu::kernels(tail.precision)),
      precision(tail.precision),
      layers(tail.layers),
      samples(tail.samples, tail.classes(), tail.probe.fit) {
  for (Layer& layer : layers) {
    operands.push_back(kernels.operands(precision, layer.inputs));
    panels_.push_back(std::make_unique<LazyPanels>());
    if (!tail.weights_stay) {
      owned_.emplace_back(layer.weight, layer.weight + layer.outputs * layer.inputs);
      layer.weight = owned_.back().data();
    }
    if (layer.bias != nullptr) {
      owned_.emplace_back(layer.bias, layer.bias + layer.outputs);
      layer.bias = owned_.back().data();
    }
  }
  chunk_tiles = std::clamp<int64_t>(samples.tiles(), 1, cpu::kMaxTilesPerChunk);
  activations_ = cpu::allocate(samples.tiles() * tile_bytes());
  pack_activations(tail.activations);
  // Only where a dense product would give the same bits: a split or rounded one does not.
  if (operands.front() == cpu::Operands::float32)
    sparse = cpu::SparseRows(tail.activations, samples, first().inputs);
  if (tail.probe.fit == nullptr) return;
  probe.emplace(samples, classes(), tail.probe.ridge);
  if (layers.size() > 1) return;
  recalled.resize(samples.groups());
  nearest.resize(samples.groups());
  cpu::probe_features(*probe, tail.activations, 1, features(), recalled.data(), nearest.data());
}

void PreparedTail::State::pack_activations(const float* activations) {
  const int64_t inputs = first().inputs;
  const int workers = num_threads();
  std::vector<std::vector<float>> rows(workers);  // where the order of samples is another
  cpu::parallel_for(samples.tiles(), workers, [&](int64_t t, int worker) {
    kernels.pack_tile(samples.rows(activations, inputs, t, rows[worker]), samples.valid(t), inputs,
                      operands.front(), activations_.get() + t * tile_bytes());
  });
}

int64_t PreparedTail::State::bytes() const {
  int64_t total = samples.bytes() + sparse.bytes() + samples.tiles() * tile_bytes();
  for (const std::vector<float>& values : owned_) total += static_cast<int64_t>(values.size() * sizeof(float));
  return total;
}

int64_t PreparedTail::State::span_chunks(bool outputs) const {
  if (!outputs || samples.tiles() * output_bytes() <= kKeptOutputs) return chunks();
  return std::clamp<int64_t>(kSpanBytes / (output_bytes() * chunk_tiles), 1, chunks());
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

const cpu::Pairs& PreparedTail::State::pairs(cpu::Pairs::Of of) const {
  const int which = of == cpu::Pairs::Of::labels ? 0 : 1;
  std::call_once(pairs_once_[which], [&] { pairs_[which] = std::make_unique<cpu::Pairs>(samples, of); });
  return *pairs_[which];
}

const float* PreparedTail::State::outputs(int64_t tile, int64_t count, int threads) const {
  const int64_t all = samples.tiles() * output_bytes();
  if (all > kKeptOutputs) {
    float* computed = reinterpret_cast<float*>(cpu::recycled<0>(count * output_bytes()));
    multiply_unedited(activations(tile), count, computed, threads);
    return computed;
  }
  std::call_once(outputs_once_, [&] {
    cpu::Buffer computed = cpu::allocate(all);
    multiply_once(reinterpret_cast<float*>(computed.get()), threads);
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

// All tiles, with panels that are packed a few at a time and dropped: nobody needs them again.
void PreparedTail::State::multiply_once(float* out, int threads) const {
  const int64_t panel = cpu::panel_bytes(kernels, operands.front(), kernels.panel_rows, first().inputs);
  const int64_t step = std::max<int64_t>(1, kBlockBytes / panel) * kernels.panel_rows;
  for (int64_t row = 0; row < first().outputs; row += step) {
    const int64_t rows = std::min(step, first().outputs - row);
    cpu::Panels panels(kernels, operands.front(), rows, first().inputs);
    PanelSource source{};
    source.weight = first().weight + row * first().inputs;
    source.factor = 1.0F;
    panels.pack(source);
    cpu::parallel_for(samples.tiles(), threads, [&](int64_t t, int) {
      const cpu::ProductScope products(kernels);
      cpu::Product product{};
      product.tile = activations(t);
      product.bias = first().bias != nullptr ? first().bias + row : nullptr;
      product.out = out + (t * first().outputs + row) * cpu::kTile;
      panels.multiply(product);
    });
  }
}

PreparedTail::PreparedTail(const Tail& tail) : state_(std::make_unique<const State>(tail)) {}
PreparedTail::~PreparedTail() = default;
PreparedTail::PreparedTail(PreparedTail&&) noexcept = default;
PreparedTail& PreparedTail::operator=(PreparedTail&&) noexcept = default;

const std::vector<Layer>& PreparedTail::layers() const { return state_->layers; }
int64_t PreparedTail::sample_count() const { return state_->samples.count(); }
int64_t PreparedTail::group_count() const { return state_->samples.groups(); }
bool PreparedTail::has_probe() const { return state_->probe.has_value(); }
int64_t PreparedTail::bytes() const { return state_->bytes(); }

}  // namespace rledit
