// score_tail on the CPU: the plan of one call, and the walk of candidates over chunks of samples.
#include <algorithm>

#include "call_plan.hpp"
#include "parallel.hpp"
#include "ranking.hpp"
#include "slices.hpp"

namespace rledit {
namespace cpu {
namespace {

constexpr int64_t kMarginBytes = int64_t{64} << 20;  // of the candidates that are worked on together

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
    Ranking ranking(kernels_, tail_.samples, tally_.concordant != nullptr ? &tail_.pairs() : nullptr, tally_,
                    plan_.threads);
    const int64_t margins = tail_.samples.tiles() * kTile;  // of a candidate
    if (ranking.wanted()) {
      const int64_t bytes = candidates_.count * margins * int64_t{sizeof(float)};
      margins_ = reinterpret_cast<float*>(recycled<2>(bytes));
    }
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
    if (!ranking.wanted()) return;
    parallel_for(candidates_.count, plan_.threads,
                 [&](int64_t n, int worker) { ranking.count(n, margins_ + n * margins, worker); });
  }

 private:
  struct Range {
    int64_t first;
    int64_t last;
  };

  size_t layers() const { return tail_.layers.size(); }
  const Layer& layer(size_t l) const { return tail_.layers[l]; }
  const LayerEdit& edit(size_t l) const { return candidates_.edits[l]; }

  // Of a tile of the present span; nullptr where nobody wants margins.
  float* margins_of(int64_t candidate, int64_t tile) const {
    if (margins_ == nullptr) return nullptr;
    return margins_ + (candidate * tail_.samples.tiles() + first_tile_ + tile) * kTile;
  }

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
          if (plan_.by_tile)
            score_stack(n, count, chunk, losses, shared, scratch);
          else
            correct_chunk(n, count, chunk, losses, shared, scratch);
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
    TileTally counters =
        tile_tally(tally_, n, tail_.samples.groups(), tail_.classes(), losses.at(n, chunk, own), shared);
    for (int64_t t = tiles.first; t < tiles.last; ++t, out += tail_.classes() * kTile) {
      counters.margins = margins_of(n, t);
      kernels_.count(out, tail_.classes(), tail_.samples.tile(first_tile_ + t), counters);
    }
    losses.add_chunk(tally_, n, own);
  }

  // Some candidates on one chunk, whose later layers may be edited, too, if it is one alone. For shift X W^T +
  // b is there already, and s (X right^T) left^T is added. The reductions X right^T of all candidates are one
  // product: the few rows of one would leave most of the machine idle.
  void correct_chunk(int64_t n, int64_t count, int64_t chunk, LossPartials& losses, bool shared,
                     Scratch& scratch) const {
    const Range tiles = tiles_of(chunk);
    for (int64_t t = tiles.first; t < tiles.last; ++t) reduce(t, t - tiles.first, count, scratch);
    for (int64_t i = 0; i < count; ++i) {
      float* out = floats(scratch.outputs[0]);
      for (int64_t t = tiles.first; t < tiles.last; ++t)
        correct(t, t - tiles.first, i, out + (t - tiles.first) * layer(0).outputs * kTile, scratch);
      finish_chunk(n + i, chunk, tiles, out, losses, shared, scratch);
    }
  }

  // Some candidates that are edited in the first layer alone, tile by tile: what they share of a tile, their
  // reductions or the outputs of their edited rows, is one product and stays in the nearest cache.
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
      if (plan_.fuses)
        reduce(t, 0, count, scratch);
      else
        multiply_stack(t, count, scratch);
      for (int64_t i = 0; i < count; ++i) {
        const float* out = plan_.fuses
                               ? follow(2, correct_two(t, i, scratch), scratch)
                               : follow(1, floats(scratch.stacked) + i * layer(0).outputs * kTile, scratch);
        counters[i].margins = margins_of(n + i, t);
        kernels_.count(out, tail_.classes(), samples, counters[i]);
      }
    }
    for (int64_t i = 0; i < count; ++i) losses.add_chunk(tally_, n + i, own[i]);
  }

  // The unedited layers from l on, for one tile.
  float* follow(size_t l, float* values, Scratch& scratch) const {
    for (; l < layers(); ++l) {
      Product product{};
      product.tile = as_operands(values, tail_.operands[l], layer(l).inputs, 1, scratch);
      product.bias = layer(l).bias;
      product.out = values = floats(scratch.outputs[l % 2]);
      product.nonlinearity = layer(l).nonlinearity;
      tail_.unedited(l).multiply(product);
    }
    return values;
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

  // X right^T of `count` candidates, as products with left factors take them, in one of the slots.
  void reduce(int64_t tile, int64_t slot, int64_t count, Scratch& scratch) const {
    const int64_t rank = edit(0).factors.rank;
    float* out = floats(scratch.stacked) + slot * scratch.columns * kTile;
    if (plan_.sparse) {
      SparseProduct product = tail_.sparse.tile(first_tile_ + tile);
      product.table = floats(scratch.table);
      product.out = out;
      product.columns = scratch.columns;
      kernels_.multiply_sparse(product);
    } else {
      Product product{};
      product.tile = inputs_ + tile * tail_.tile_bytes();
      product.out = out;
      scratch.rights->multiply(product, count * rank);
    }
    if (plan_.left_operands == Operands::float32) return;
    for (int64_t i = 0; i < count; ++i)
      kernels_.to_tile(out + i * rank * kTile, rank, plan_.left_operands, reduced(slot, i, scratch));
  }

  char* reduced(int64_t slot, int64_t i, const Scratch& scratch) const {
    const int64_t bytes = tile_bytes(plan_.left_operands, edit(0).factors.rank);
    if (is_paired(plan_.left_operands)) return scratch.reduced.get() + (slot * plan_.stack + i) * bytes;
    return scratch.stacked.get() + slot * scratch.columns * kTile * int64_t{sizeof(float)} + i * bytes;
  }

  // The edited output of the first layer, [outputs][kTile], of the i-th candidate of the stack.
  void correct(int64_t tile, int64_t slot, int64_t i, float* out, const Scratch& scratch) const {
    Product product{};
    product.tile = reduced(slot, i, scratch);
    product.initial = products_ + tile * layer(0).outputs * kTile;
    product.out = out;
    product.nonlinearity = layer(0).nonlinearity;
    scratch.lefts[i]->multiply(product);
  }

  // And the second layer's on top of it.
  float* correct_two(int64_t tile, int64_t i, Scratch& scratch) const {
    Correction correction{};
    correction.reduced = reinterpret_cast<const float*>(reduced(0, i, scratch));
    correction.left = floats(scratch.plain_lefts) + i * scratch.plain_left_size;
    correction.initial = products_ + tile * layer(0).outputs * kTile;
    correction.panel = tail_.unedited(1).panel();
    correction.bias = layer(1).bias;
    correction.out = floats(scratch.outputs[1]);
    correction.rank = edit(0).factors.rank;
    correction.depth = layer(0).outputs;
    correction.rows = static_cast<int>(layer(1).outputs);
    correction.first = layer(0).nonlinearity;
    correction.nonlinearity = layer(1).nonlinearity;
    correction.operands = tail_.operands[1];
    kernels_.correct(correction);
    return correction.out;
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

  void multiply_stack(int64_t tile, int64_t count, Scratch& scratch) const {
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
  }

  void pack_factors(int64_t n, int64_t count, Scratch& scratch) const {
    const Factors& factors = edit(0).factors;
    PanelSource source{};
    source.weight = factors.right + n * factors.rank * layer(0).inputs;
    source.factor = 1.0F;
    if (plan_.sparse)
      tabulate(source.weight, count * factors.rank, scratch);
    else
      scratch.rights->pack(source, count * factors.rank);
    source.factor = candidates_.scale;
    for (int64_t i = 0; i < count; ++i) {
      source.weight = factors.left + (n + i) * layer(0).outputs * factors.rank;
      if (plan_.fuses)
        pack_plain(source.weight, floats(scratch.plain_lefts) + i * scratch.plain_left_size,
                   scratch.plain_left_size);
      else
        scratch.lefts[i]->pack(source);
    }
  }

  // Right factors [rows, inputs] side by side.
  void tabulate(const float* rights, int64_t rows, Scratch& scratch) const {
    const int64_t inputs = layer(0).inputs;
    float* table = floats(scratch.table);
    for (int64_t i = 0; i < inputs; ++i, table += scratch.columns) {
      for (int64_t row = 0; row < rows; ++row) table[row] = rights[row * inputs + i];
      std::fill(table + rows, table + scratch.columns, 0.0F);
    }
  }

  // s left, row by row.
  void pack_plain(const float* left, float* out, int64_t size) const {
    const int64_t count = layer(0).outputs * edit(0).factors.rank;
    for (int64_t k = 0; k < count; ++k) out[k] = left[k] * candidates_.scale;
    std::fill(out + count, out + size, 0.0F);
    if (plan_.left_operands == Operands::rounded) kernels_.to_tile(out, size / kTile, Operands::rounded, out);
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
      product.tile = in;
      product.out = out;
      packed->multiply_tiles(product, tiles);
      return;
    }
    const Operands operands = tail_.operands[l];
    const int64_t panel_bytes = cpu::panel_bytes(kernels_, operands, kernels_.panel_rows, layer.inputs);
    const int64_t together = panels_formed_together(kernels_, operands, layer) * kernels_.panel_rows;
    const PanelSource whole = edited(n, l);
    product.depth = product.split_depth = layer.inputs;
    product.operands = operands;
    for (int64_t first = 0; first < layer.outputs; first += together) {
      const int64_t last = std::min(first + together, layer.outputs);
      char* panel = scratch.panel.get();
      for (int64_t row = first; row < last; row += kernels_.panel_rows, panel += panel_bytes) {
        PanelSource source = whole;
        source.rows = rows_of_panel(row, last);
        source.stored_rows = stored_rows(kernels_, operands, source.rows);
        source.weight += row * layer.inputs;
        if (source.rank > 0) source.left += row * source.rank;
        kernels_.pack_panel(source, panel);
      }
      for (int64_t t = 0; t < tiles; ++t) {
        product.tile = in + t * in_bytes;
        product.panel = scratch.panel.get();
        for (int64_t row = first; row < last; row += kernels_.panel_rows) {
          product.rows = rows_of_panel(row, last);
          product.bias = layer.bias != nullptr ? layer.bias + row : nullptr;
          product.out = out + (t * layer.outputs + row) * kTile;
          kernels_.multiply(product);
          product.panel = static_cast<const char*>(product.panel) + panel_bytes;
        }
      }
    }
  }

  int rows_of_panel(int64_t row, int64_t last) const {
    return static_cast<int>(std::min<int64_t>(kernels_.panel_rows, last - row));
  }

  const PreparedTail::State& tail_;
  const Candidates& candidates_;
  const Tally tally_;
  const Kernels& kernels_;
  const Plan plan_;
  // The present span.
  int64_t first_tile_ = 0;
  int64_t tiles_ = 0;
  const char* inputs_ = nullptr;     // [tiles], packed
  float* margins_ = nullptr;         // [candidates, tiles, kTile], if wanted
  const float* products_ = nullptr;  // [tiles][outputs][kTile], of the unedited first layer
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

void score_tail(const Tail& tail, const Candidates& candidates, const Tally& tally) {
  PreparedTail(tail, false).score(candidates, tally);
}

}  // namespace rledit
