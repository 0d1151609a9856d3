// Routes as a whole, and layers with weights that are formed or unedited.
#include "layers.hpp"

#include <algorithm>

namespace rledit::cpu {

Layers::Layers(const PreparedTail::State& tail, const Candidates& candidates, const Plan& plan)
    : tail_(tail), candidates_(candidates), plan_(plan), kernels_(tail.kernels) {
  for (size_t l = plan.skips_zeros ? 1 : 0; l < layers(); ++l)
    if (keeps_packed(tail, candidates, l)) tail.unedited(l);  // before threads want it
}

void Layers::enter(Range tiles) {
  first_tile_ = tiles.first;
  inputs_ = tail_.activations(tiles.first);
  if (plan_.corrects()) products_ = tail_.outputs(tiles.first, tiles.count(), plan_.threads);
}

void Layers::prepare(Range stack, Scratch& scratch) const {
  switch (plan_.route) {
    case Route::fused:
    case Route::corrected: return pack_factors(stack, scratch);
    case Route::corrected_once: pack_factors(stack, scratch); return form_whole(stack.first, scratch);
    case Route::stacked: return form_stack(stack, scratch);
    case Route::formed: return;
    case Route::formed_once: return form_whole(stack.first, scratch);
  }
}

void Layers::share_chunk(Range stack, Range tiles, Scratch& scratch) const {
  if (!plan_.corrects()) return;
  for (int64_t t = tiles.first; t < tiles.last; ++t) reduce(t, t - tiles.first, stack.count(), scratch);
}

// Layer by layer, so that weights are formed once for all tiles of the chunk.
const float* Layers::logits_of_chunk(Range stack, int64_t i, Range tiles, Scratch& scratch) const {
  float* out = floats(scratch.outputs[0]);
  if (plan_.corrects())
    for (int64_t t = tiles.first; t < tiles.last; ++t)
      correct(t, t - tiles.first, i, out + (t - tiles.first) * layer(0).outputs * kTile, scratch);
  else if (plan_.skips_zeros)
    scratch.formed_table->multiply(nonzero(tiles.first, tiles.count()), layer(0).bias, layer(0).nonlinearity,
                                   layer(0).outputs, out, layer(0).outputs * kTile);
  else
    forward(stack.first + i, 0, input(tiles.first), tiles.count(), out, scratch);
  for (size_t l = 1; l < layers(); ++l) {
    const char* in = as_operands(out, l, tiles.count(), scratch);
    out = floats(scratch.outputs[l % 2]);
    forward(stack.first + i, l, in, tiles.count(), out, scratch);
  }
  return out;
}

void Layers::share_tile(Range stack, int64_t tile, Scratch& scratch) const {
  if (plan_.corrects())
    reduce(tile, 0, stack.count(), scratch);
  else
    multiply_stack(tile, stack.count(), scratch);
}

// `tiles` times the inputs of layer l, values [inputs][kTile], as its product takes them.
const char* Layers::as_operands(const float* values, size_t l, int64_t tiles, Scratch& scratch) const {
  const Operands operands = tail_.operands[l];
  if (operands == Operands::float32) return reinterpret_cast<const char*>(values);
  const int64_t depth = layer(l).inputs;
  const int64_t bytes = tile_bytes(operands, depth);
  for (int64_t t = 0; t < tiles; ++t)
    kernels_.to_tile(values + t * depth * kTile, depth, operands, scratch.operands.get() + t * bytes);
  return scratch.operands.get();
}

// The unedited layers from l on, for one tile.
float* Layers::follow(size_t l, float* values, Scratch& scratch) const {
  for (; l < layers(); ++l) {
    Product product{};
    product.tile = as_operands(values, l, 1, scratch);
    product.bias = layer(l).bias;
    product.out = values = floats(scratch.outputs[l % 2]);
    product.nonlinearity = layer(l).nonlinearity;
    tail_.unedited(l).multiply(product);
  }
  return values;
}

// The weights of candidate n in layer l, edited or not.
PanelSource Layers::edited(int64_t n, size_t l) const {
  const LayerEdit& own = edit(l);
  PanelSource source{};
  source.weight = own.weight != nullptr ? own.weight + n * layer(l).outputs * layer(l).inputs : layer(l).weight;
  source.depth = layer(l).inputs;
  source.rank = own.factors.rank;
  source.rule = candidates_.rule;
  source.factor = 1.0F;
  source.operands = tail_.operands[l];
  if (source.rank > 0) {
    source.left = own.factors.left + n * layer(l).outputs * source.rank;
    source.right = own.factors.right + n * source.rank * layer(l).inputs;
  }
  return source;
}

// Edited weights of a stack for activations of which only what is not zero is multiplied.
void Layers::form_table(Range stack, Scratch& scratch) const {
  const int64_t outputs = layer(0).outputs;
  for (int64_t i = 0; i < stack.count(); ++i)
    scratch.formed_table->pack(edited(stack.first + i, 0), i * outputs, outputs);
  scratch.formed_table->find_infinite();
}

void Layers::form_whole(int64_t n, Scratch& scratch) const {
  if (plan_.skips_zeros) form_table({n, n + 1}, scratch);
  for (size_t l = 0; l < layers(); ++l)
    if (scratch.formed[l] != nullptr) scratch.formed[l]->pack(edited(n, l));
}

// Edited weights of a stack as the rows of one panel, and their outputs on a tile, [count * outputs][kTile].
void Layers::form_stack(Range stack, Scratch& scratch) const {
  if (plan_.skips_zeros) return form_table(stack, scratch);
  const Operands operands = tail_.operands[0];
  const int64_t outputs = layer(0).outputs;
  for (int64_t i = 0; i < stack.count(); ++i) {
    PanelSource source = edited(stack.first + i, 0);
    source.rows = static_cast<int>(outputs);
    source.stored_rows = stored_rows(kernels_, operands, stack.count() * outputs);
    kernels_.pack_panel(source, scratch.panel.get() + row_offset(operands, i * outputs));
  }
}

void Layers::multiply_stack(int64_t tile, int64_t count, Scratch& scratch) const {
  const float* bias = scratch.bias.empty() ? nullptr : scratch.bias.data();
  if (plan_.skips_zeros)
    return scratch.formed_table->multiply(nonzero(tile, 1), bias, layer(0).nonlinearity,
                                          count * layer(0).outputs, floats(scratch.stacked), 0);
  Product product{};
  product.tile = input(tile);
  product.panel = scratch.panel.get();
  product.bias = bias;
  product.out = floats(scratch.stacked);
  product.rows = static_cast<int>(count * layer(0).outputs);
  product.nonlinearity = layer(0).nonlinearity;
  product.operands = tail_.operands[0];
  multiply_panel(kernels_, product, layer(0).inputs);
}

// Layer l of candidate n on some tiles, with weights that are packed already or formed on the way.
void Layers::forward(int64_t n, size_t l, const char* in, int64_t tiles, float* out, Scratch& scratch) const {
  const Panels* packed = scratch.formed[l].get();
  if (packed == nullptr && keeps_packed(tail_, candidates_, l)) packed = &tail_.unedited(l);
  if (packed == nullptr) return form_and_multiply(n, l, in, tiles, out, scratch);
  Product product{};
  product.tile = in;
  product.bias = layer(l).bias;
  product.out = out;
  product.nonlinearity = layer(l).nonlinearity;
  packed->multiply_tiles(product, tiles);
}

void Layers::form_and_multiply(int64_t n, size_t l, const char* in, int64_t tiles, float* out,
                               Scratch& scratch) const {
  const Layer& layer = this->layer(l);
  const Operands operands = tail_.operands[l];
  const int64_t in_bytes = tile_bytes(operands, layer.inputs);
  const int64_t panel_bytes = cpu::panel_bytes(kernels_, operands, kernels_.panel_rows, layer.inputs);
  const int64_t together = panels_formed_together(kernels_, operands, layer) * kernels_.panel_rows;
  const PanelSource whole = edited(n, l);
  Product product{};
  product.nonlinearity = layer.nonlinearity;
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
        multiply_panel(kernels_, product, layer.inputs);
        product.panel = static_cast<const char*>(product.panel) + panel_bytes;
      }
    }
  }
}

int Layers::rows_of_panel(int64_t row, int64_t last) const {
  return static_cast<int>(std::min<int64_t>(kernels_.panel_rows, last - row));
}

}  // namespace rledit::cpu
