// score_tail on the CPU: the plan of one call, and the walk of candidates over chunks of samples.
#include <algorithm>

#include "call_plan.hpp"
#include "parallel.hpp"

namespace rledit {
namespace cpu {
namespace {

class Call {
 public:
  Call(const PreparedTail::State& tail, const Candidates& candidates, const Tally& tally)
      : tail_(tail), candidates_(candidates), tally_(tally), kernels_(tail.kernels), plan_(tail, candidates) {
    scratch_.reserve(plan_.threads);
    for (int thread = 0; thread < plan_.threads; ++thread) scratch_.emplace_back(plan_, tail, candidates);
    for (size_t l = 0; l < layers(); ++l)
      if (!edit(l).touches() || (l == 0 && plan_.corrects)) tail.unedited(l);  // packed before threads want it
  }

  void run() {
    const int64_t span = tail_.span_chunks(plan_.corrects);
    const Schedule schedule(candidates_.count, std::min(span, tail_.chunks()), plan_.threads, plan_.stack);
    LossPartials losses(tally_, candidates_.count, tail_.samples.groups(), span, schedule.shares_candidates());
    for (int64_t start = 0; start < tail_.chunks(); start += span) {
      const int64_t count = std::min(span, tail_.chunks() - start);
      first_tile_ = start * tail_.chunk_tiles;
      tiles_ = std::min(count * tail_.chunk_tiles, tail_.samples.tiles() - first_tile_);
      inputs_ = tail_.activations(first_tile_, tiles_, plan_.threads);
      if (plan_.corrects) products_ = tail_.outputs(first_tile_, tiles_, inputs_, plan_.threads);
      parallel_for(schedule.items(), plan_.threads, [&](int64_t item, int worker) {
        const int64_t part = item / schedule.blocks;
        const int64_t first = item % schedule.blocks * schedule.block;
        const Range candidates{first, std::min(first + schedule.block, candidates_.count)};
        const Range chunks{part * count / schedule.parts, (part + 1) * count / schedule.parts};
        kernels_.begin();
        walk(candidates, chunks, losses, schedule.shares_candidates(), scratch_[worker]);
        kernels_.end();
      });
      losses.add_all(tally_, count);
    }
  }

 private:
  struct Range {
    int64_t first;
    int64_t last;
  };

  size_t layers() const { return tail_.layers.size(); }
  const Layer& layer(size_t l) const { return tail_.layers[l]; }
  const LayerEdit& edit(size_t l) const { return candidates_.edits[l]; }

  // ------------------------------------------------------------------------------------------ walk

  void walk(Range candidates, Range chunks, LossPartials& losses, bool shared, Scratch& scratch) const {
    if (plan_.stack > 1 || plan_.corrects) {
      for (int64_t n = candidates.first; n < candidates.last; n += plan_.stack) {
        const int64_t count = std::min(plan_.stack, candidates.last - n);
        if (plan_.corrects)
          pack_factors(n, count, scratch);
        else
          form_stack(n, count, scratch);
        if (plan_.forms_once) form(n, scratch);  // later layers
        for (int64_t chunk = chunks.first; chunk < chunks.last; ++chunk) {
          if (plan_.stack > 1)
            score_stack(n, count, chunk, losses, shared, scratch);
          else
            correct_chunk(n, chunk, losses, shared, scratch);
        }
      }
    } else if (plan_.forms_once) {
      for (int64_t n = candidates.first; n < candidates.last; ++n) {
        form(n, scratch);
        for (int64_t chunk = chunks.first; chunk < chunks.last; ++chunk)
          score_chunk(n, chunk, losses, shared, scratch);
      }
    } else {
      for (int64_t chunk = chunks.first; chunk < chunks.last; ++chunk)
        for (int64_t n = candidates.first; n < candidates.last; ++n)
          score_chunk(n, chunk, losses, shared, scratch);
    }
  }

  Range tiles_of(int64_t chunk) const {
    return {chunk * tail_.chunk_tiles, std::min((chunk + 1) * tail_.chunk_tiles, tiles_)};
  }

  // One candidate on one chunk: layer by layer, so that weights are formed once for all its tiles.
  void score_chunk(int64_t n, int64_t chunk, LossPartials& losses, bool shared, Scratch& scratch) const {
    const Range tiles = tiles_of(chunk);
    float* out = floats(scratch.outputs[0]);
    forward(n, 0, inputs_ + tiles.first * tail_.tile_bytes(), tiles.last - tiles.first, out, scratch);
    finish_chunk(n, chunk, tiles, out, losses, shared, scratch);
  }

  // All layers after the first, whose output is `out`, and the counting.
  void finish_chunk(int64_t n, int64_t chunk, Range tiles, float* out, LossPartials& losses, bool shared,
                    Scratch& scratch) const {
    const int64_t number = tiles.last - tiles.first;
    for (size_t l = 1; l < layers(); ++l) {
      const char* in = as_operands(out, tail_.operands[l], layer(l).inputs, number, scratch);
      out = floats(scratch.outputs[l % 2]);
      forward(n, l, in, number, out, scratch);
    }
    double own[kMaxGroups];
    const TileTally counters =
        tile_tally(tally_, n, tail_.samples.groups(), tail_.classes(), losses.at(n, chunk, own), shared);
    for (int64_t t = tiles.first; t < tiles.last; ++t, out += tail_.classes() * kTile)
      kernels_.count(out, tail_.classes(), tail_.samples.tile(first_tile_ + t), counters);
    losses.add_chunk(tally_, n, own);
  }

  // One candidate whose later layers may be edited, too, on one chunk. For shift X W^T + b is there already,
  // and s (X right^T) left^T is added.
  void correct_chunk(int64_t n, int64_t chunk, LossPartials& losses, bool shared, Scratch& scratch) const {
    const Range tiles = tiles_of(chunk);
    float* out = floats(scratch.outputs[0]);
    for (int64_t t = tiles.first; t < tiles.last; ++t)
      correct(reduce(t, 1, scratch), 0, t, out + (t - tiles.first) * layer(0).outputs * kTile, scratch);
    finish_chunk(n, chunk, tiles, out, losses, shared, scratch);
  }

  // Some candidates that are edited in the first layer alone, tile by tile. Their reductions X right^T, or
  // their edited rows, are one product: the few rows of one candidate would leave most of the machine idle.
  void score_stack(int64_t n, int64_t count, int64_t chunk, LossPartials& losses, bool shared,
                   Scratch& scratch) const {
    const Range tiles = tiles_of(chunk);
    double own[kMostStacked][kMaxGroups];
    TileTally counters[kMostStacked];
    for (int64_t i = 0; i < count; ++i)
      counters[i] = tile_tally(tally_, n + i, tail_.samples.groups(), tail_.classes(),
                               losses.at(n + i, chunk, own[i]), shared);
    for (int64_t t = tiles.first; t < tiles.last; ++t) {
      const TileSamples samples = tail_.samples.tile(first_tile_ + t);
      float* stacked = plan_.corrects ? reduce(t, count, scratch) : multiply_stack(t, count, scratch);
      for (int64_t i = 0; i < count; ++i) {
        float* out = stacked + i * layer(0).outputs * kTile;
        if (plan_.corrects) {
          out = floats(scratch.outputs[0]);
          correct(stacked, i, t, out, scratch);
        }
        for (size_t l = 1; l < layers(); ++l) {
          Product product{};
          product.tile = as_operands(out, tail_.operands[l], layer(l).inputs, 1, scratch);
          product.bias = layer(l).bias;
          product.out = out = floats(scratch.outputs[l % 2]);
          product.nonlinearity = layer(l).nonlinearity;
          tail_.unedited(l).multiply(product);
        }
        kernels_.count(out, tail_.classes(), samples, counters[i]);
      }
    }
    for (int64_t i = 0; i < count; ++i) losses.add_chunk(tally_, n + i, own[i]);
  }

  // ------------------------------------------------------------------------------------------ layers

  static float* floats(const Buffer& buffer) { return reinterpret_cast<float*>(buffer.get()); }

  // `tiles` times values [depth][kTile], as a product takes them.
  const char* as_operands(const float* values, Operands operands, int64_t depth, int64_t tiles,
                          Scratch& scratch) const {
    if (operands == Operands::float32) return reinterpret_cast<const char*>(values);
    const int64_t bytes = tile_bytes(operands, depth);
    for (int64_t t = 0; t < tiles; ++t)
      kernels_.to_tile(values + t * depth * kTile, depth, operands, scratch.operands.get() + t * bytes);
    return scratch.operands.get();
  }

  // X right^T of `count` candidates, [count * rank][kTile].
  float* reduce(int64_t tile, int64_t count, Scratch& scratch) const {
    Product product{};
    product.tile = inputs_ + tile * tail_.tile_bytes();
    product.out = floats(scratch.stacked);
    scratch.rights->multiply(product, count * edit(0).factors.rank);
    return product.out;
  }

  // The edited output of the first layer, [outputs][kTile], of the i-th candidate of the stack.
  void correct(const float* reduced, int64_t i, int64_t tile, float* out, Scratch& scratch) const {
    const int64_t rank = edit(0).factors.rank;
    Product product{};
    product.tile = as_operands(reduced + i * rank * kTile, left_operands(tail_, candidates_), rank, 1, scratch);
    product.initial = products_ + tile * layer(0).outputs * kTile;
    product.out = out;
    product.nonlinearity = layer(0).nonlinearity;
    scratch.lefts[i]->multiply(product);
  }

  // Edited weights of `count` candidates as the rows of one panel, and their outputs, [count * outputs][kTile].
  void form_stack(int64_t n, int64_t count, Scratch& scratch) const {
    const Operands operands = tail_.operands[0];
    for (int64_t i = 0; i < count; ++i) {
      PanelSource source = edited(n + i, 0);
      source.rows = static_cast<int>(layer(0).outputs);
      source.stored_rows = stored_rows(kernels_, operands, count * layer(0).outputs);
      kernels_.pack_panel(source, scratch.panel.get() + row_offset(operands, i * layer(0).outputs));
    }
  }

  float* multiply_stack(int64_t tile, int64_t count, Scratch& scratch) const {
    Product product{};
    product.tile = inputs_ + tile * tail_.tile_bytes();
    product.panel = scratch.panel.get();
    product.bias = scratch.bias.empty() ? nullptr : scratch.bias.data();
    product.out = floats(scratch.stacked);
    product.depth = product.split_depth = layer(0).inputs;
    product.rows = static_cast<int>(count * layer(0).outputs);
    product.nonlinearity = layer(0).nonlinearity;
    product.operands = tail_.operands[0];
    kernels_.multiply(product);
    return product.out;
  }

  void pack_factors(int64_t n, int64_t count, Scratch& scratch) const {
    const Factors& factors = edit(0).factors;
    PanelSource source{};
    source.factor = 1.0F;
    source.weight = factors.right + n * factors.rank * layer(0).inputs;
    scratch.rights->pack(source, count * factors.rank);
    source.factor = candidates_.scale;
    for (int64_t i = 0; i < count; ++i) {
      source.weight = factors.left + (n + i) * layer(0).outputs * factors.rank;
      scratch.lefts[i]->pack(source);
    }
  }

  // The weights of candidate n in layer l.
  PanelSource edited(int64_t n, size_t l) const {
    const LayerEdit& own = edit(l);
    PanelSource source{};
    source.weight =
        own.weight != nullptr ? own.weight + n * layer(l).outputs * layer(l).inputs : layer(l).weight;
    source.depth = layer(l).inputs;
    source.rank = own.factors.rank;
    source.world = candidates_.world;
    source.scale = candidates_.scale;
    source.factor = 1.0F;
    source.operands = tail_.operands[l];
    if (source.rank > 0) {
      source.left = own.factors.left + n * layer(l).outputs * source.rank;
      source.right = own.factors.right + n * source.rank * layer(l).inputs;
    }
    return source;
  }

  void form(int64_t n, Scratch& scratch) const {
    for (size_t l = 0; l < layers(); ++l)
      if (scratch.formed[l] != nullptr) scratch.formed[l]->pack(edited(n, l));
  }

  // Layer l on some tiles, with weights that are packed already, or formed here one panel at a time.
  void forward(int64_t n, size_t l, const char* in, int64_t tiles, float* out, Scratch& scratch) const {
    const Layer& layer = this->layer(l);
    const int64_t in_bytes = tile_bytes(tail_.operands[l], layer.inputs);
    const Panels* packed = scratch.formed[l].get();
    if (packed == nullptr && !edit(l).touches()) packed = &tail_.unedited(l);
    Product product{};
    product.nonlinearity = layer.nonlinearity;
    if (packed != nullptr) {
      product.bias = layer.bias;
      for (int64_t t = 0; t < tiles; ++t) {
        product.tile = in + t * in_bytes;
        product.out = out + t * layer.outputs * kTile;
        packed->multiply(product);
      }
      return;
    }
    const PanelSource whole = edited(n, l);
    product.depth = product.split_depth = layer.inputs;
    product.operands = tail_.operands[l];
    product.panel = scratch.panel.get();
    for (int64_t row = 0; row < layer.outputs; row += kernels_.panel_rows) {
      PanelSource source = whole;
      source.rows = static_cast<int>(std::min<int64_t>(kernels_.panel_rows, layer.outputs - row));
      source.stored_rows = stored_rows(kernels_, tail_.operands[l], source.rows);
      source.weight += row * layer.inputs;
      if (source.rank > 0) source.left += row * source.rank;
      kernels_.pack_panel(source, scratch.panel.get());
      product.rows = source.rows;
      product.bias = layer.bias != nullptr ? layer.bias + row : nullptr;
      for (int64_t t = 0; t < tiles; ++t) {
        product.tile = in + t * in_bytes;
        product.out = out + (t * layer.outputs + row) * kTile;
        kernels_.multiply(product);
      }
    }
  }

  const PreparedTail::State& tail_;
  const Candidates& candidates_;
  const Tally& tally_;
  const Kernels& kernels_;
  const Plan plan_;
  // The present span.
  int64_t first_tile_ = 0;
  int64_t tiles_ = 0;
  const char* inputs_ = nullptr;     // [tiles], packed
  const float* products_ = nullptr;  // [tiles][outputs][kTile], of the unedited first layer
  std::vector<Scratch> scratch_;
};

}  // namespace
}  // namespace cpu

void PreparedTail::score(const Candidates& candidates, const Tally& tally) const {
  if (state_->samples.count() == 0 || candidates.count == 0) return;
  cpu::Call(*state_, candidates, tally).run();
}

void score_tail(const Tail& tail, const Candidates& candidates, const Tally& tally) {
  const PreparedTail::State state(tail, false);
  if (state.samples.count() == 0 || candidates.count == 0) return;
  cpu::Call(state, candidates, tally).run();
}

}  // namespace rledit
