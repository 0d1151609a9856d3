// The corrected routes: X W^T + s (X right^T) left^T. The reductions X right^T of all candidates of a stack are
// one product, because the few rows of one would leave most of the machine idle.
#include <algorithm>

#include "layers.hpp"

namespace rledit::cpu {

void Layers::pack_factors(Range stack, Scratch& scratch) const {
  const Factors& factors = edit(0).factors;
  PanelSource source{};
  source.weight = factors.right + stack.first * factors.rank * layer(0).inputs;
  source.factor = 1.0F;
  if (scratch.rights == nullptr) {
    scratch.rights_table->pack(source, 0, stack.count() * factors.rank);
    scratch.rights_table->find_infinite();
  } else {
    scratch.rights->pack(source, stack.count() * factors.rank);
  }
  source.factor = candidates_.rule.scale;
  for (int64_t i = 0; i < stack.count(); ++i) {
    source.weight = factors.left + (stack.first + i) * layer(0).outputs * factors.rank;
    if (plan_.route == Route::fused)
      pack_plain_left(source.weight, floats(scratch.plain_lefts) + i * scratch.plain_left_size,
                      scratch.plain_left_size);
    else
      scratch.lefts[i]->pack(source);
  }
}

// s left, row by row.
void Layers::pack_plain_left(const float* left, float* out, int64_t size) const {
  const int64_t count = layer(0).outputs * edit(0).factors.rank;
  for (int64_t k = 0; k < count; ++k) out[k] = left[k] * candidates_.rule.scale;
  std::fill(out + count, out + size, 0.0F);
  if (plan_.left_operands == Operands::rounded) kernels_.to_tile(out, size / kTile, Operands::rounded, out);
}

// X right^T of `count` candidates, as products with left factors take them, in one of the slots.
void Layers::reduce(int64_t tile, int64_t slot, int64_t count, Scratch& scratch) const {
  const int64_t rank = edit(0).factors.rank;
  float* out = floats(scratch.stacked) + slot * plan_.stack * rank * kTile;
  if (scratch.rights == nullptr) {
    scratch.rights_table->multiply(nonzero(tile, 1), nullptr, Nonlinearity::identity, count * rank, out, 0);
  } else {
    Product product{};
    product.tile = input(tile);
    product.out = out;
    scratch.rights->multiply(product, count * rank);
  }
  if (plan_.left_operands == Operands::float32) return;
  for (int64_t i = 0; i < count; ++i)
    kernels_.to_tile(out + i * rank * kTile, rank, plan_.left_operands, reduced(slot, i, scratch));
}

char* Layers::reduced(int64_t slot, int64_t i, const Scratch& scratch) const {
  const int64_t bytes = tile_bytes(plan_.left_operands, edit(0).factors.rank);
  if (is_paired(plan_.left_operands)) return scratch.reduced.get() + (slot * plan_.stack + i) * bytes;
  return scratch.stacked.get() + (slot * plan_.stack + i) * bytes;
}

// The edited output of the first layer, [outputs][kTile], of the i-th candidate of the stack.
void Layers::correct(int64_t tile, int64_t slot, int64_t i, float* out, const Scratch& scratch) const {
  Product product{};
  product.tile = reduced(slot, i, scratch);
  product.initial = unedited_output(tile);
  product.out = out;
  product.nonlinearity = layer(0).nonlinearity;
  scratch.lefts[i]->multiply(product);
}

// And the second layer's on top of it.
float* Layers::correct_two(int64_t tile, int64_t i, Scratch& scratch) const {
  Correction correction{};
  correction.reduced = reinterpret_cast<const float*>(reduced(0, i, scratch));
  correction.left = floats(scratch.plain_lefts) + i * scratch.plain_left_size;
  correction.initial = unedited_output(tile);
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

}  // namespace rledit::cpu
