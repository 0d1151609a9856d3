#include "scratch.hpp"

#include <algorithm>

namespace rledit::cpu {
namespace {

// Of panels that are formed at once: a share of the L2 cache.
constexpr int64_t kFormedBytes = int64_t{192} << 10;
constexpr int64_t kFloatsOfTile = kTile * int64_t{sizeof(float)};

}  // namespace

int64_t panels_formed_together(const Kernels& kernels, Operands operands, const Layer& layer) {
  const int64_t bytes = panel_bytes(kernels, operands, kernels.panel_rows, layer.inputs);
  const int64_t panels = (layer.outputs + kernels.panel_rows - 1) / kernels.panel_rows;
  return std::clamp<int64_t>(kFormedBytes / bytes, 1, panels);
}

Scratch::Scratch(const Plan& plan, const PreparedTail::State& tail, const Candidates& candidates) {
  const Kernels& kernels = tail.kernels;
  const Layer& first = tail.first();
  int64_t operand_bytes = 0;
  int64_t most_panel_bytes = 0;
  int64_t most_outputs[2] = {0, 0};
  formed.resize(tail.layers.size());
  for (size_t l = 0; l < tail.layers.size(); ++l) {
    const Layer& layer = tail.layers[l];
    const Operands kind = tail.operands[l];
    most_outputs[l % 2] = std::max(most_outputs[l % 2], layer.outputs);
    if (l > 0) operand_bytes = std::max(operand_bytes, tail.chunk_tiles * tile_bytes(kind, layer.inputs));
    if (l == 0 && plan.skips_zeros)
      formed_table = std::make_unique<SparseTable>(kernels, plan.stack * layer.outputs, layer.inputs);
    if (l == 0 && (plan.corrects() || plan.skips_zeros)) continue;
    if (keeps_packed(tail, candidates, l)) continue;
    const int64_t bytes = panel_bytes(kernels, kind, kernels.panel_rows, layer.inputs);
    most_panel_bytes = std::max(most_panel_bytes, bytes * panels_formed_together(kernels, kind, layer));
    if (plan.forms_once() && candidates.edits[l].touches())
      formed[l] = std::make_unique<Panels>(kernels, kind, layer.outputs, layer.inputs);
  }
  for (int l : {0, 1}) outputs[l] = allocate(tail.chunk_tiles * most_outputs[l] * kFloatsOfTile);
  operands = allocate(operand_bytes);
  panel = allocate(most_panel_bytes);
  if (plan.corrects()) allocate_corrected(plan, tail, candidates.edits.front().factors.rank);
  if (plan.route != Route::stacked) return;
  stacked = allocate(plan.stack * first.outputs * kFloatsOfTile);
  if (first.bias != nullptr)
    for (int64_t i = 0; i < plan.stack; ++i) bias.insert(bias.end(), first.bias, first.bias + first.outputs);
}

void Scratch::allocate_corrected(const Plan& plan, const PreparedTail::State& tail, int64_t rank) {
  const Layer& first = tail.first();
  const int64_t slots = plan.by_tile() ? 1 : tail.chunk_tiles;
  const int64_t rows = plan.stack * rank;
  stacked = allocate(slots * rows * kFloatsOfTile);
  if (is_paired(plan.left_operands))
    reduced = allocate(slots * plan.stack * tile_bytes(plan.left_operands, rank));
  if (!tail.sparse.empty())
    rights_table = std::make_unique<SparseTable>(tail.kernels, rows, first.inputs);
  else
    rights = std::make_unique<Panels>(tail.kernels, tail.operands.front(), rows, first.inputs);
  if (plan.route == Route::fused) {
    plain_left_size = (first.outputs * rank + kTile - 1) / kTile * kTile;
    plain_lefts = allocate(plan.stack * plain_left_size * int64_t{sizeof(float)});
    return;
  }
  for (int64_t i = 0; i < plan.stack; ++i)
    lefts.push_back(std::make_unique<Panels>(tail.kernels, plan.left_operands, first.outputs, rank));
}

}  // namespace rledit::cpu
