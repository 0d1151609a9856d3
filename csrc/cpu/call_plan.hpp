// How one call goes about it: which algebra, how many candidates at a time, on how many threads; and the memory
// that each thread needs for that.
#pragma once

#include <memory>
#include <vector>

#include "prepared_tail.hpp"

namespace rledit::cpu {

constexpr int64_t kReducedRows = 48;            // rows of X right^T that are made at once
constexpr int64_t kMostStacked = kReducedRows;  // candidates of a stack, at most one a row

struct Plan {
  Plan(const PreparedTail::State& tail, const Candidates& candidates);

  int threads = 1;
  bool corrects = false;    // the first layer by Algebra::shared_product
  bool forms_once = false;  // edited layers by Algebra::formed_once, else formed
  // Candidates that share a product with a tile: their reductions X right^T, or the edited rows of a layer of
  // few outputs. 1 where later layers are edited, too, which wants one candidate at a time.
  int64_t stack = 1;
};

// What one thread needs for itself.
struct Scratch {
  Scratch(const Plan& plan, const PreparedTail::State& tail, const Candidates& candidates);

  Buffer outputs[2];  // of two successive layers, for a chunk: [tiles][outputs][kTile]
  Buffer operands;    // of a chunk, as the next product takes them
  Buffer panel;       // weights that are formed on the fly
  std::vector<std::unique_ptr<Panels>> formed;  // per layer, of one candidate that is formed once
  // Of a stack of candidates:
  std::unique_ptr<Panels> rights;              // one below the other
  std::vector<std::unique_ptr<Panels>> lefts;  // of each of them
  Buffer stacked;           // one product with a tile: X right^T, or the first layer's outputs
  std::vector<float> bias;  // of the first layer, repeated
};

// The operands of the product with a left factor.
inline Operands left_operands(const PreparedTail::State& tail, const Candidates& candidates) {
  return tail.kernels.operands(tail.precision, candidates.edits.front().factors.rank);
}

}  // namespace rledit::cpu
