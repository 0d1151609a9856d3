#include "call_plan.hpp"

#include <algorithm>

#include "algebra.hpp"
#include "sparse_table.hpp"

namespace rledit::cpu {
namespace {

constexpr int64_t kLeastShared = int64_t{4} << 20;  // multiplications that are worth a second thread

constexpr int64_t kPackedForOneCall = int64_t{2} << 20;  // bytes that a call without edits may leave packed

// Beyond, reading X right^T for every output costs more than fusing saves.
constexpr int64_t kMostFusedRank = 16;

// One, where handing the work out would take longer than doing it.
int useful_threads(const PreparedTail::State& tail, const Candidates& candidates) {
  int64_t products = 0;
  for (const Layer& layer : tail.layers) products += layer.inputs * layer.outputs;
  return products * tail.samples.count() * candidates.count < kLeastShared ? 1 : num_threads();
}

// A table that each thread has may be so large; beyond, edited weights are formed a few rows at a time.
constexpr int64_t kMostTableBytes = int64_t{64} << 20;

bool can_skip_zeros(const PreparedTail::State& tail) {
  return !tail.sparse.empty() &&
         SparseTable::bytes(tail.first().outputs, tail.first().inputs) <= kMostTableBytes;
}

// Whether what is formed of the first layer is formed as a table. Where Algebra::formed is asked for by name it
// is not: the table is formed once.
bool formed_as_table(const PreparedTail::State& tail, const Candidates& candidates) {
  return can_skip_zeros(tail) && candidates.algebra != Algebra::formed;
}

bool only_first_is_edited(const Candidates& candidates) {
  for (size_t l = 1; l < candidates.edits.size(); ++l)
    if (candidates.edits[l].touches()) return false;
  return candidates.edits.front().touches();
}

bool formed_once_is_cheaper(const PreparedTail::State& tail, const Candidates& candidates, size_t l) {
  const Layer& layer = tail.layers[l];
  return candidates.edits[l].touches() &&
         choose_algebra(EditKind::mask, layer.outputs, layer.inputs, candidates.edits[l].factors.rank,
                        tail.chunk_tiles, tail.samples.tiles()) == Algebra::formed_once;
}

Operands operands_of_left(const PreparedTail::State& tail, const Candidates& candidates) {
  return tail.kernels.operands(tail.precision, candidates.edits.front().factors.rank);
}

bool can_fuse(const PreparedTail::State& tail, const Candidates& candidates) {
  if (tail.layers.size() < 2 || !only_first_is_edited(candidates)) return false;
  const Nonlinearity function = tail.first().nonlinearity;
  return tail.layers[1].outputs <= tail.kernels.panel_rows && tail.kernels.corrects(tail.operands[1]) &&
         candidates.edits.front().factors.rank <= kMostFusedRank &&
         !is_paired(operands_of_left(tail, candidates)) &&
         (function == Nonlinearity::relu || function == Nonlinearity::identity);
}

// Candidates whose edited first layers fit into one panel, or one table.
int64_t rows_fit(const PreparedTail::State& tail, bool skips_zeros) {
  return (skips_zeros ? kMostSparseColumns : tail.kernels.panel_rows) / tail.first().outputs;
}

Algebra automatic_algebra(const PreparedTail::State& tail, const Candidates& candidates) {
  const Layer& first = tail.first();
  const EditKind kind = candidates.rule.kind;
  const int64_t rank = candidates.edits.front().factors.rank;
  const int64_t tiles = tail.samples.tiles();
  if (!can_skip_zeros(tail))
    return choose_algebra(kind, first.outputs, first.inputs, rank, tail.chunk_tiles, tiles);
  const double nonzero = static_cast<double>(tail.sparse.count()) / static_cast<double>(tail.samples.count());
  return choose_sparse_algebra(kind, first.outputs, first.inputs, rank, nonzero, tiles);
}

Route choose_route(const PreparedTail::State& tail, const Candidates& candidates, bool keeps_features) {
  const LayerEdit& edit = candidates.edits.front();
  const bool automatic = candidates.algebra == Algebra::automatic;
  const Algebra algebra = automatic ? automatic_algebra(tail, candidates) : candidates.algebra;
  // A corrected layer needs a product with weights that all candidates share.
  const bool corrects = algebra == Algebra::shared_product && candidates.rule.kind == EditKind::shift &&
                        edit.factors.rank > 0 && edit.weight == nullptr;
  bool once = algebra == Algebra::formed_once;
  if (automatic)
    for (size_t l = corrects ? 1 : 0; l < tail.layers.size(); ++l)
      once = once || formed_once_is_cheaper(tail, candidates, l);
  if (corrects && !keeps_features && can_fuse(tail, candidates)) return Route::fused;
  if (corrects) return once ? Route::corrected_once : Route::corrected;
  const bool sparse = formed_as_table(tail, candidates);
  if (once && !sparse) return Route::formed_once;
  const bool stacks = only_first_is_edited(candidates) && rows_fit(tail, sparse) > 1 && candidates.count > 1;
  if (stacks && !keeps_features) return Route::stacked;
  return sparse ? Route::formed_once : Route::formed;
}

int64_t stack_of(Route route, bool skips_zeros, const PreparedTail::State& tail, const Candidates& candidates) {
  if (!only_first_is_edited(candidates)) return 1;
  switch (route) {
    case Route::fused:
    case Route::corrected:
      return std::clamp<int64_t>(kReducedRows / candidates.edits.front().factors.rank, 1, candidates.count);
    case Route::stacked: return std::min(rows_fit(tail, skips_zeros), candidates.count);
    case Route::corrected_once:
    case Route::formed:
    case Route::formed_once: return 1;
  }
  return 1;
}

bool nothing_is_edited(const Candidates& candidates) {
  for (const LayerEdit& edit : candidates.edits)
    if (edit.touches()) return false;
  return true;
}

}  // namespace

bool keeps_packed(const PreparedTail::State& tail, const Candidates& candidates, size_t l) {
  const Layer& layer = tail.layers[l];
  const bool large = layer.outputs * layer.inputs * int64_t{sizeof(float)} > kPackedForOneCall;
  return !candidates.edits[l].touches() && !(large && nothing_is_edited(candidates));
}

Plan::Plan(const PreparedTail::State& tail, const Candidates& candidates, bool keeps_features)
    : route(choose_route(tail, candidates, keeps_features)),
      skips_zeros(!corrects() && formed_as_table(tail, candidates)),
      threads(useful_threads(tail, candidates)),
      stack(stack_of(route, skips_zeros, tail, candidates)),
      left_operands(corrects() ? operands_of_left(tail, candidates) : Operands::float32) {}

}  // namespace rledit::cpu
