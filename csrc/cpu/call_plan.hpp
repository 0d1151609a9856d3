// How one call goes about it: by which route, how many candidates at a time, on how many threads.
#pragma once

#include "prepared_tail.hpp"

namespace rledit::cpu {

constexpr int64_t kReducedRows = 48;            // rows of X right^T that are made at once
constexpr int64_t kMostStacked = kReducedRows;  // candidates of a stack, at most one a row

// How edited layers are computed, the first of them above all. `Corrected` is Algebra::shared_product: X W^T is
// there already, and s (X right^T) left^T is added to it. `Formed` is the product with edited weights.
enum class Route {
  // Corrected, and taken up by the second layer in the same pass, Kernels::correct: a stack of candidates on
  // one tile after another. No later layer is edited.
  fused,
  // Corrected, a stack of candidates on one chunk after another. Later layers that are edited, which makes a
  // stack of one, are formed anew for every chunk.
  corrected,
  // The same, one candidate at a time; later layers that are edited are formed once for all chunks.
  corrected_once,
  // The edited rows of a stack of candidates, which have few each, formed as one panel, on one tile after
  // another; no later layer is edited.
  stacked,
  // All edited layers formed anew for every chunk, which all candidates pass before the next.
  formed,
  // All edited layers of one candidate formed once for all chunks.
  formed_once,
};

// Whether layer l is not edited and stays packed for the calls to come. Where nothing is edited, in the call
// that objectives compare with, a large one is formed on the way: a scorer that only stands by has no second
// copy of its weights.
bool keeps_packed(const PreparedTail::State& tail, const Candidates& candidates, size_t l);

struct Plan {
  // keeps_features: a chunk's inputs of the last layer are wanted, so no route may pass over them.
  Plan(const PreparedTail::State& tail, const Candidates& candidates, bool keeps_features);

  Route route;
  // Activations are mostly zeros, and only what is not zero is multiplied with the first layer's formed
  // weights, which are formed once for all chunks: Route::stacked or formed_once.
  bool skips_zeros;
  int threads;
  // Candidates that share a product with a tile: that of their right factors with X, or of their edited rows.
  int64_t stack;
  Operands left_operands;  // of the products with left factors, where the route is a corrected one

  bool corrects() const {
    return route == Route::fused || route == Route::corrected || route == Route::corrected_once;
  }
  bool forms_once() const { return route == Route::corrected_once || route == Route::formed_once; }
  // Candidates of a stack take turns at every tile: what they share of it stays in the nearest cache.
  bool by_tile() const { return route == Route::fused || route == Route::stacked; }
};

}  // namespace rledit::cpu
