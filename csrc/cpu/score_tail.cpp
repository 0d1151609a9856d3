// score_tail on the CPU: the plan of one call, and the walk of candidates over chunks of samples.
#include <algorithm>

#include "algebra.hpp"
#include "parallel.hpp"
#include "prepared_tail.hpp"

namespace rledit {
namespace cpu {
namespace {

constexpr int64_t kLeastShared = int64_t{4} << 20;  // multiplications that are worth a second thread
constexpr int64_t kReducedRows = 48;                // rows of X right^T that are made at once

// What one thread needs for itself.
struct Scratch {
  Buffer outputs[2];  // of two successive layers, for a chunk: [tiles][outputs][kTile]
  Buffer operands;    // of a chunk, as the next product takes them
  Buffer panel;       // weights that are formed on the fly
  std::vector<std::unique_ptr<Panels>> formed;  // per layer, of one candidate that is formed once
  std::unique_ptr<Panels> rights;               // of a stack of candidates, one below the other
  std::vector<std::unique_ptr<Panels>> lefts;   // of each of them
  Buffer reduced;                               // X right^T of the stack, one tile
};

class Call {
 public:
  Call(const PreparedTail::State& tail, const Candidates& candidates, const Tally& tally)
      : tail_(tail),
        candidates_(candidates),
        tally_(tally),
        kernels_(tail.kernels),
        threads_(useful_threads()) {
    plan();
    scratch_.resize(threads_);
    for (Scratch& scratch : scratch_) allocate_scratch(scratch);
    for (size_t l = 0; l < layers(); ++l)
      if (!edit(l).touches() || (l == 0 && corrects_)) tail_.unedited(l);  // packed before threads want it
  }

  void run() {
    const int64_t span = tail_.span_chunks(corrects_);
    const Schedule schedule(candidates_.count, std::min(span, tail_.chunks()), threads_);
    LossPartials losses(tally_, candidates_.count, tail_.samples.groups(), span, schedule.shares_candidates());
    for (int64_t start = 0; start < tail_.chunks(); start += span) {
      const int64_t count = std::min(span, tail_.chunks() - start);
      first_tile_ = start * tail_.chunk_tiles;
      tiles_ = std::min(count * tail_.chunk_tiles, tail_.samples.tiles() - first_tile_);
      inputs_ = tail_.activations(first_tile_, tiles_, threads_);
      if (corrects_) products_ = tail_.outputs(first_tile_, tiles_, inputs_, threads_);
      parallel_for(schedule.items(), threads_, [&](int64_t item, int worker) {
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

  // One, where handing the work out would take longer than doing it.
  int useful_threads() const {
    int64_t products = 0;
    for (const Layer& layer : tail_.layers) products += layer.inputs * layer.outputs;
    return products * tail_.samples.count() * candidates_.count < kLeastShared ? 1 : num_threads();
  }

  // ------------------------------------------------------------------------------------------ plan

  void plan() {
    const Algebra asked = candidates_.algebra;
    const LayerEdit& first = edit(0);
    Algebra algebra = asked;
    if (asked == Algebra::automatic)
      algebra = choose_algebra(candidates_.world, layer(0).outputs, layer(0).inputs, first.factors.rank,
                               tail_.chunk_tiles);
    corrects_ = algebra == Algebra::shared_product && candidates_.world == World::shift &&
                first.factors.rank > 0 && first.weight == nullptr;
    // Later layers are formed like the first, whatever becomes of that.
    forms_once_ = algebra == Algebra::formed_once;
    if (asked == Algebra::automatic)
      for (size_t l = corrects_ ? 1 : 0; l < layers(); ++l)
        forms_once_ =
            forms_once_ || (edit(l).touches() &&
                            choose_algebra(World::mask, layer(l).outputs, layer(l).inputs, edit(l).factors.rank,
                                           tail_.chunk_tiles) == Algebra::formed_once);
    bool only_first = corrects_;
    for (size_t l = 1; l < layers(); ++l) only_first = only_first && !edit(l).touches();
    stack_ = only_first ? std::clamp<int64_t>(kReducedRows / first.factors.rank, 1, candidates_.count) : 1;
  }

  void allocate_scratch(Scratch& scratch) const {
    for (Buffer& output : scratch.outputs)
      output = allocate(tail_.chunk_tiles * tail_.widest_output * kTile * int64_t{sizeof(float)});
    int64_t operand = 0;  // bytes
    int64_t panel = 0;
    scratch.formed.resize(layers());
    for (size_t l = 0; l < layers(); ++l) {
      if (l > 0)
        operand = std::max(operand, tail_.chunk_tiles * tile_bytes(tail_.operands[l], layer(l).inputs));
      if (!edit(l).touches() || (l == 0 && corrects_)) continue;
      panel = std::max(panel, panel_bytes(kernels_, tail_.operands[l], kernels_.panel_rows, layer(l).inputs));
      if (forms_once_)
        scratch.formed[l] =
            std::make_unique<Panels>(kernels_, tail_.operands[l], layer(l).outputs, layer(l).inputs);
    }
    scratch.panel = allocate(panel);
    if (corrects_) {
      const int64_t rank = edit(0).factors.rank;
      operand = std::max(operand, tile_bytes(left_operands(), rank));
      scratch.reduced = allocate(stack_ * rank * kTile * int64_t{sizeof(float)});
      scratch.rights = std::make_unique<Panels>(kernels_, tail_.operands[0], stack_ * rank, layer(0).inputs);
      for (int64_t i = 0; i < stack_; ++i)
        scratch.lefts.push_back(std::make_unique<Panels>(kernels_, left_operands(), layer(0).outputs, rank));
    }
    scratch.operands = allocate(operand);
  }

  Operands left_operands() const { return kernels_.operands(tail_.precision, edit(0).factors.rank); }

  // ------------------------------------------------------------------------------------------ walk

  void walk(Range candidates, Range chunks, LossPartials& losses, bool shared, Scratch& scratch) const {
    if (corrects_) {
      for (int64_t n = candidates.first; n < candidates.last; n += stack_) {
        const int64_t count = std::min(stack_, candidates.last - n);
        pack_factors(n, count, scratch);
        if (forms_once_) form(n, scratch);
        for (int64_t chunk = chunks.first; chunk < chunks.last; ++chunk) {
          if (stack_ > 1)
            correct_stack(n, count, chunk, losses, shared, scratch);
          else
            correct_chunk(n, chunk, losses, shared, scratch);
        }
      }
    } else if (forms_once_) {
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

  // Some candidates that differ in the first layer's factors alone, tile by tile. Their reductions X right^T
  // are one product: the few rows of one candidate would leave most of the machine idle.
  void correct_stack(int64_t n, int64_t count, int64_t chunk, LossPartials& losses, bool shared,
                     Scratch& scratch) const {
    const Range tiles = tiles_of(chunk);
    double own[kReducedRows][kMaxGroups];
    TileTally counters[kReducedRows];
    for (int64_t i = 0; i < count; ++i)
      counters[i] = tile_tally(tally_, n + i, tail_.samples.groups(), tail_.classes(),
                               losses.at(n + i, chunk, own[i]), shared);
    for (int64_t t = tiles.first; t < tiles.last; ++t) {
      const float* reduced = reduce(t, count, scratch);
      for (int64_t i = 0; i < count; ++i) {
        float* out = floats(scratch.outputs[0]);
        correct(reduced, i, t, out, scratch);
        for (size_t l = 1; l < layers(); ++l) {
          Product product{};
          product.tile = as_operands(out, tail_.operands[l], layer(l).inputs, 1, scratch);
          product.bias = layer(l).bias;
          product.out = out = floats(scratch.outputs[l % 2]);
          product.nonlinearity = layer(l).nonlinearity;
          tail_.unedited(l).multiply(product);
        }
        kernels_.count(out, tail_.classes(), tail_.samples.tile(first_tile_ + t), counters[i]);
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
  const float* reduce(int64_t tile, int64_t count, Scratch& scratch) const {
    Product product{};
    product.tile = inputs_ + tile * tail_.tile_bytes();
    product.out = floats(scratch.reduced);
    scratch.rights->multiply(product, count * edit(0).factors.rank);
    return product.out;
  }

  // The edited output of the first layer, [outputs][kTile], of the i-th candidate of the stack.
  void correct(const float* reduced, int64_t i, int64_t tile, float* out, Scratch& scratch) const {
    const int64_t rank = edit(0).factors.rank;
    Product product{};
    product.tile = as_operands(reduced + i * rank * kTile, left_operands(), rank, 1, scratch);
    product.initial = products_ + tile * layer(0).outputs * kTile;
    product.out = out;
    product.nonlinearity = layer(0).nonlinearity;
    scratch.lefts[i]->multiply(product);
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
    product.depth = layer.inputs;
    product.operands = tail_.operands[l];
    product.panel = scratch.panel.get();
    for (int64_t row = 0; row < layer.outputs; row += kernels_.panel_rows) {
      PanelSource source = whole;
      source.rows = static_cast<int>(std::min<int64_t>(kernels_.panel_rows, layer.outputs - row));
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
  const int threads_;
  bool corrects_ = false;    // shared_product
  bool forms_once_ = false;  // formed_once
  int64_t stack_ = 1;        // candidates that are corrected together
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
