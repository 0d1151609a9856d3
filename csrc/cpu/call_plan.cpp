#include "call_plan.hpp"

#include <algorithm>

#include "algebra.hpp"

namespace rledit::cpu {
namespace {

constexpr int64_t kLeastShared = int64_t{4} << 20;  // multiplications that are worth a second thread

// Of panels that are formed at once: a share of the L2 cache.
constexpr int64_t kFormedBytes = int64_t{192} << 10;
// Beyond, reading X right^T for every output costs more than fusing saves.
constexpr int64_t kMostFusedRank = 16;

// One, where handing the work out would take longer than doing it.
int useful_threads(const PreparedTail::State& tail, const Candidates& candidates) {
  int64_t products = 0;
  for (const Layer& layer : tail.layers) products += layer.inputs * layer.outputs;
  return products * tail.samples.count() * candidates.count < kLeastShared ? 1 : num_threads();
}

bool formed_once_is_cheaper(const PreparedTail::State& tail, const Candidates& candidates, size_t l) {
  const Layer& layer = tail.layers[l];
  return candidates.edits[l].touches() &&
         choose_algebra(World::mask, layer.outputs, layer.inputs, candidates.edits[l].factors.rank,
                        tail.chunk_tiles, tail.samples.tiles()) == Algebra::formed_once;
}

}  // namespace

Plan::Plan(const PreparedTail::State& tail, const Candidates& candidates)
    : threads(useful_threads(tail, candidates)) {
  const Layer& first = tail.first();
  const LayerEdit& edit = candidates.edits.front();
  Algebra algebra = candidates.algebra;
  if (algebra == Algebra::automatic)
    algebra = choose_algebra(candidates.world, first.outputs, first.inputs, edit.factors.rank, tail.chunk_tiles,
                             tail.samples.tiles());
  corrects = algebra == Algebra::shared_product && candidates.world == World::shift && edit.factors.rank > 0 &&
             edit.weight == nullptr;
  forms_once = algebra == Algebra::formed_once;
  if (candidates.algebra == Algebra::automatic)
    for (size_t l = corrects ? 1 : 0; l < tail.layers.size(); ++l)
      forms_once = forms_once || formed_once_is_cheaper(tail, candidates, l);
  sparse = corrects && !tail.sparse.empty();
  if (corrects) left_operands = tail.kernels.operands(tail.precision, edit.factors.rank);
  bool only_first = edit.touches();
  for (size_t l = 1; l < tail.layers.size(); ++l) only_first = only_first && !candidates.edits[l].touches();
  if (!only_first || (forms_once && !corrects)) return;
  const int64_t fit = corrects ? kReducedRows / edit.factors.rank : tail.kernels.panel_rows / first.outputs;
  stack = std::clamp<int64_t>(fit, 1, candidates.count);
  fuses = corrects && can_fuse(tail, candidates);
  by_tile = fuses || (!corrects && stack > 1);
}

bool Plan::can_fuse(const PreparedTail::State& tail, const Candidates& candidates) const {
  if (tail.layers.size() < 2) return false;
  const Nonlinearity function = tail.first().nonlinearity;
  return tail.layers[1].outputs <= tail.kernels.panel_rows && tail.kernels.corrects(tail.operands[1]) &&
         candidates.edits.front().factors.rank <= kMostFusedRank && !is_paired(left_operands) &&
         (function == Nonlinearity::relu || function == Nonlinearity::identity);
}

int64_t panels_formed_together(const Kernels& kernels, Operands operands, const Layer& layer) {
  const int64_t bytes = panel_bytes(kernels, operands, kernels.panel_rows, layer.inputs);
  const int64_t panels = (layer.outputs + kernels.panel_rows - 1) / kernels.panel_rows;
  return std::clamp<int64_t>(kFormedBytes / bytes, 1, panels);
}

Scratch::Scratch(const Plan& plan, const PreparedTail::State& tail, const Candidates& candidates) {
  const Kernels& kernels = tail.kernels;
  const Layer& first = tail.first();
  const int64_t rank = candidates.edits.front().factors.rank;
  const int64_t floats = kTile * int64_t{sizeof(float)};
  int64_t operand_bytes = 0;
  int64_t most_panel_bytes = 0;
  int64_t most_outputs[2] = {0, 0};
  formed.resize(tail.layers.size());
  for (size_t l = 0; l < tail.layers.size(); ++l) {
    const Layer& layer = tail.layers[l];
    const Operands kind = tail.operands[l];
    most_outputs[l % 2] = std::max(most_outputs[l % 2], layer.outputs);
    if (l > 0) operand_bytes = std::max(operand_bytes, tail.chunk_tiles * tile_bytes(kind, layer.inputs));
    if (!candidates.edits[l].touches() || (l == 0 && plan.corrects)) continue;
    const int64_t bytes = panel_bytes(kernels, kind, kernels.panel_rows, layer.inputs);
    most_panel_bytes = std::max(most_panel_bytes, bytes * panels_formed_together(kernels, kind, layer));
    if (plan.forms_once) formed[l] = std::make_unique<Panels>(kernels, kind, layer.outputs, layer.inputs);
  }
  for (int l : {0, 1}) outputs[l] = allocate(tail.chunk_tiles * most_outputs[l] * floats);
  operands = allocate(operand_bytes);
  panel = allocate(most_panel_bytes);
  if (!plan.corrects) {
    stacked = allocate(plan.stack * first.outputs * floats);
    if (plan.stack > 1 && first.bias != nullptr)
      for (int64_t i = 0; i < plan.stack; ++i) bias.insert(bias.end(), first.bias, first.bias + first.outputs);
    return;
  }
  const int64_t slots = plan.by_tile ? 1 : tail.chunk_tiles;
  columns = plan.stack * rank;
  if (plan.sparse) columns = (columns + kSparseColumns - 1) / kSparseColumns * kSparseColumns;
  stacked = allocate(slots * columns * floats);
  if (is_paired(plan.left_operands))
    reduced = allocate(slots * plan.stack * tile_bytes(plan.left_operands, rank));
  if (plan.sparse)
    table = allocate(columns * first.inputs * int64_t{sizeof(float)});
  else
    rights = std::make_unique<Panels>(kernels, tail.operands.front(), columns, first.inputs);
  if (plan.fuses) {
    plain_left_size = (first.outputs * rank + kTile - 1) / kTile * kTile;
    plain_lefts = allocate(plan.stack * plain_left_size * int64_t{sizeof(float)});
    return;
  }
  for (int64_t i = 0; i < plan.stack; ++i)
    lefts.push_back(std::make_unique<Panels>(kernels, plan.left_operands, first.outputs, rank));
}

}  // namespace rledit::cpu
